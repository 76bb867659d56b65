"""Several critics of state and action, computed as one: what sample-efficient methods learn their values with.

LayerNorm before each activation bounds what a critic says of actions that nobody has tried: the last hidden layer has a
fixed norm, so that |Q| never exceeds the norm of the output weights times that of the layer, plus the bias, however far
off an action is (Ball et al. 2023, section 4.2).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class CriticEnsemble(nn.Module):
    """E multilayer perceptrons with ReLU, whose layers are batched products.

    Args:
        inputs: numbers of context and chunk together.
        members: E.
        width, depth: of the hidden layers.
        layer_norm: before each activation.
    """

    def __init__(self, inputs: int, members: int, width: int = 256, depth: int = 2, layer_norm: bool = True) -> None:
        super().__init__()
        self.members, self.width, self.layer_norm = members, width, layer_norm
        sizes = [inputs, *[width] * depth, 1]
        self.weights = nn.ParameterList(_uniform((members, *pair), pair[0]) for pair in pairwise(sizes))
        self.biases = nn.ParameterList(
            _uniform((members, 1, after), before) for before, after in pairwise(sizes)
        )  # fmt: skip
        normalised = sizes[1:-1] if layer_norm else []
        self.gains = nn.ParameterList(nn.Parameter(torch.ones(members, 1, size)) for size in normalised)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, size)) for size in normalised)

    def forward(self, context: Tensor, chunk: Tensor) -> Tensor:
        """Values [E, B] of contexts [B, F] and chunks [B, G]."""
        return self._values(context, chunk, *map(list, self._layers))

    def fixed(self, context: Tensor, chunk: Tensor) -> Tensor:
        """The same values, whose gradients reach the arguments alone: for an actor that climbs them."""
        return self._values(context, chunk, *([value.detach() for value in values] for values in self._layers))

    @property
    def _layers(self) -> tuple[nn.ParameterList, ...]:
        return self.weights, self.biases, self.gains, self.shifts

    def _values(
        self, context: Tensor, chunk: Tensor, weights: list[Tensor], biases: list[Tensor], gains: list[Tensor],
        shifts: list[Tensor],
    ) -> Tensor:  # fmt: skip
        h = torch.cat([context, chunk], dim=-1).expand(self.members, -1, -1)
        if torch.is_grad_enabled() and not self.layer_norm:
            values: Tensor = _Stack.apply(h, *weights, *biases)  # type: ignore[no-untyped-call]
            return values
        for layer, (weight, bias) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if self.layer_norm:
                h = torch.addcmul(shifts[layer], nn.functional.layer_norm(h, (self.width,)), gains[layer])
            h = h.relu_()
        return _output(h, weights[-1], biases[-1])

    @torch.no_grad()
    def follow(self, other: CriticEnsemble, share: float) -> None:
        """Move all weights by this share of the way to those of another ensemble (Polyak averaging)."""
        torch._foreach_lerp_(list(self.parameters()), list(other.parameters()), share)


def least_of(values: Tensor, subset: int, generator: torch.Generator | None) -> Tensor:
    """[E, B] to [B]: the least among `subset` members drawn for the whole batch (Chen et al. 2021, REDQ)."""
    if subset < len(values):
        values = values[torch.randperm(len(values), generator=generator)[:subset].to(values.device)]
    return values.amin(dim=0)


def _output(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[E, B, width] to [E, B]. As a batched product of one column it would take three times as long on a CPU."""
    return (h * weight.transpose(1, 2)).sum(dim=-1) + bias.squeeze(-1)


class _Stack(torch.autograd.Function):
    """The layers without LayerNorm, with their gradient written out: see `dense`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        depth = len(parameters) // 2
        seen = [x]
        for weight, bias in zip(parameters[: depth - 1], parameters[depth:-1], strict=True):
            seen.append(torch.baddbmm(bias, seen[-1], weight).relu_())
        ctx.save_for_backward(*seen, *parameters[:depth])
        return _output(seen[-1], parameters[depth - 1], parameters[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        depth = len(ctx.saved_tensors) // 2
        seen, weights = ctx.saved_tensors[:depth], ctx.saved_tensors[depth:]
        of_input, *of_parameters = ctx.needs_input_grad
        found: list[Tensor | None] = [None] * (2 * depth)
        gradient = gradient.unsqueeze(-1)
        for layer in reversed(range(depth)):
            last = layer == depth - 1
            if any(of_parameters):
                found[layer] = (gradient.mT @ seen[layer]).mT if last else seen[layer].mT @ gradient
                found[depth + layer] = gradient.sum(dim=1, keepdim=True)
            if layer > 0:
                weight = weights[layer].mT
                gradient = gradient * weight if last else gradient @ weight
                torch.ops.aten.threshold_backward.grad_input(gradient, seen[layer], 0, grad_input=gradient)
        return gradient @ weights[0].mT if of_input else None, *found


def _uniform(shape: tuple[int, ...], inputs: int) -> nn.Parameter:
    """As torch's `Linear` begins."""
    bound = 1 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
