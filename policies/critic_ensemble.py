"""Several critics of state and action, computed as one: what sample-efficient methods learn their values with.

LayerNorm before each activation bounds what a critic says of actions that nobody has tried: the last hidden layer has a
fixed norm, so that |Q| never exceeds the norm of the output weights times that of the layer, plus the bias, however far
off an action is (Ball et al. 2023, section 4.2).

Gradients are written out, as in `dense`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Layers(NamedTuple):
    """Parameters; without LayerNorm there are no gains and shifts."""

    weights: Sequence[Tensor]
    biases: Sequence[Tensor]
    gains: Sequence[Tensor]
    shifts: Sequence[Tensor]

    @staticmethod
    def of(parameters: Sequence[Tensor], depth: int) -> Layers:
        """Of an ensemble of that many layers, in the order of its parameters."""
        weights, biases, rest = parameters[:depth], parameters[depth : 2 * depth], parameters[2 * depth :]
        half = len(rest) // 2
        return Layers(weights, biases, rest[:half], rest[half:])


class Trace(NamedTuple):
    """What a gradient needs of the way to the values.

    Attributes:
        seen: what each layer is given, [E, B, its inputs].
        normalised: of each LayerNorm what it was given and what it made of that, mean and reciprocal deviation.
    """

    layers: Layers
    seen: list[Tensor]
    normalised: list[tuple[Tensor, ...]]

    @torch.no_grad()
    def pull(self, gradient: Tensor, into: Sequence[Tensor]) -> None:
        """Write the gradient of each parameter, in their order, from that of the values [E, B]."""
        _pull(self, gradient, Layers.of(into, len(self.seen)))

    @torch.no_grad()
    def slope(self, gradient: Tensor, chunk: int) -> Tensor:
        """The gradient of the chunks [B, G], G = `chunk`, from that of the values [E, B]."""
        return (_pull(self, gradient) @ self.layers.weights[0][:, -chunk:].mT).sum(dim=0)


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
        self.members = members
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
        return self._values(context, chunk, list(self.parameters()))

    def fixed(self, context: Tensor, chunk: Tensor) -> Tensor:
        """The same values, whose gradients reach the arguments alone: for an actor that climbs them."""
        return self._values(context, chunk, [value.detach() for value in self.parameters()])

    @torch.no_grad()
    def trace(self, context: Tensor, chunk: Tensor) -> tuple[Tensor, Trace]:
        """The same values, and what makes of their gradient those of parameters and chunks."""
        return _trace(self._input(context, chunk), Layers.of(list(self.parameters()), len(self.weights)))

    def _input(self, context: Tensor, chunk: Tensor) -> Tensor:
        return torch.cat([context, chunk], dim=-1).expand(self.members, -1, -1)

    def _values(self, context: Tensor, chunk: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        x, depth = self._input(context, chunk), len(self.weights)
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return _trace(x, Layers.of(parameters, depth))[0]
        values: Tensor = _Stack.apply(x, depth, *parameters)  # type: ignore[no-untyped-call]
        return values


def least_of(values: Tensor, subset: int, generator: torch.Generator | None) -> Tensor:
    """[E, B] to [B]: the least among `subset` members drawn for the whole batch (Chen et al. 2021, REDQ)."""
    if subset < len(values):
        values = values[torch.randperm(len(values), generator=generator)[:subset].to(values.device)]
    return values.amin(dim=0)


def _output(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[E, B, width] to [E, B]. As a batched product of one column it would take three times as long on a CPU."""
    return (h * weight.transpose(1, 2)).sum(dim=-1) + bias.squeeze(-1)


def _trace(x: Tensor, layers: Layers) -> tuple[Tensor, Trace]:
    trace = Trace(layers, [x], [])
    for layer, (weight, bias) in enumerate(zip(layers.weights[:-1], layers.biases[:-1], strict=True)):
        h = torch.baddbmm(bias, trace.seen[-1], weight)
        if layers.gains:
            size = int(h.shape[-1])  # a plain number where it is traced for an export, too
            given, (h, *moments) = h, torch.native_layer_norm(h, [size], None, None, 1e-5)
            trace.normalised.append((given, h, *moments))
            h = torch.addcmul(layers.shifts[layer], h, layers.gains[layer])
        trace.seen.append(h.relu_())
    return _output(trace.seen[-1], layers.weights[-1], layers.biases[-1]), trace


def _pull(trace: Trace, gradient: Tensor, into: Layers | None = None) -> Tensor:
    """Write the gradients of all parameters, where they are wanted; returns that of the first layer's output."""
    layers = trace.layers
    gradient = gradient.unsqueeze(-1)
    for layer in reversed(range(len(layers.weights))):
        seen, last = trace.seen[layer], layer == len(layers.weights) - 1
        if not last:
            torch.ops.aten.threshold_backward.grad_input(gradient, trace.seen[layer + 1], 0, grad_input=gradient)
            if layers.gains:
                given, normal, *moments = trace.normalised[layer]
                if into is not None:
                    torch.sum(gradient * normal, dim=1, keepdim=True, out=into.gains[layer])
                    torch.sum(gradient, dim=1, keepdim=True, out=into.shifts[layer])
                gradient = torch.ops.aten.native_layer_norm_backward(
                    gradient * layers.gains[layer], given, given.shape[-1:], *moments, None, None, [True, False, False]
                )[0]
        if into is not None:
            weight = into.weights[layer]
            if last:  # a batched product of one column would take three times as long on a CPU
                torch.bmm(gradient.mT, seen, out=weight.mT)
            else:
                torch.bmm(seen.mT, gradient, out=weight)
            torch.sum(gradient, dim=1, keepdim=True, out=into.biases[layer])
        if layer > 0:
            weight = layers.weights[layer].mT
            gradient = gradient * weight if last else gradient @ weight
    return gradient


class _Stack(torch.autograd.Function):
    """For autograd a single operation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, depth: int, *parameters: Tensor) -> Tensor:
        values, ctx.trace = _trace(x, Layers.of(parameters, depth))
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_input, _, *of_parameters = ctx.needs_input_grad
        parameters = (value for part in ctx.trace.layers for value in part)
        into = [torch.empty_like(value) for value in parameters] if any(of_parameters) else None
        inner = _pull(ctx.trace, gradient, None if into is None else Layers.of(into, len(ctx.trace.seen)))
        own: Sequence[Tensor | None] = into or [None] * len(of_parameters)
        return inner @ ctx.trace.layers.weights[0].mT if of_input else None, None, *own


def _uniform(shape: tuple[int, ...], inputs: int) -> nn.Parameter:
    """As torch's `Linear` begins."""
    bound = 1 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
