"""A stack of dense layers whose gradient is written out: for autograd it is a single operation.

The networks of reinforcement learning are small: keeping account of each layer takes longer than its products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "tanh": torch.tanh_}
_BACK: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda gradient, y: torch.ops.aten.threshold_backward.grad_input(gradient, y, 0, grad_input=gradient),
    "tanh": torch.ops.aten.tanh_backward.default,
}
"""From the gradient of what an activation gave, which may be written over, and that, to that of what it was given."""


class Dense(nn.Sequential):
    """Linear layers with an activation between them; parameters are named as in any `nn.Sequential` of these.

    Args:
        sizes: of the input, the hidden layers and the output.
        activation: `relu` or `tanh`.

    Attributes:
        linear: the layers with parameters.
    """

    def __init__(self, sizes: Sequence[int], activation: str = "relu") -> None:
        layers: list[nn.Module] = []
        for pair in pairwise(sizes):
            layers += [nn.Linear(*pair), ACTIVATIONS[activation]()]
        super().__init__(*layers[:-1])
        self.activation = activation
        self.linear = [layer for layer in self if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """[B, first size] to [B, last size]."""
        if torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
            plain: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return plain
        if not torch.is_grad_enabled():
            return self.trace(x)[-1]
        parameters = (value for each in self.linear for value in each.parameters())
        y: Tensor = _Stack.apply(x, self.activation, *parameters)  # type: ignore[no-untyped-call]
        return y

    @torch.no_grad()
    def trace(self, x: Tensor) -> list[Tensor]:
        """What each linear layer is given and, last, the output, for `pull`."""
        return _trace(x, self.activation, [(each.weight, each.bias) for each in self.linear])

    @torch.no_grad()
    def pull(
        self, seen: Sequence[Tensor], gradient: Tensor, into: Mapping[Tensor, Tensor] | None = None
    ) -> dict[Tensor, Tensor]:
        """The gradient of each parameter, in their order, from that of the output.

        Args:
            into: where it is written, by parameter; None: into new tensors.
        """
        weights = [each.weight for each in self.linear]
        own = [value for each, weight in zip(self.linear, weights, strict=True) for value in (weight, each.bias)]
        found: list[Any] = [None if into is None else into[value] for value in own]
        _pull(seen, self.activation, weights, gradient, found)
        return dict(zip(own, found, strict=True))


class _Stack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: str, *parameters: Tensor) -> Tensor:
        *seen, y = _trace(x, activation, list(zip(parameters[::2], parameters[1::2], strict=True)))
        ctx.activation = activation
        ctx.save_for_backward(*seen, *parameters[::2])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        depth = len(ctx.saved_tensors) // 2
        seen, weights = ctx.saved_tensors[:depth], ctx.saved_tensors[depth:]
        of_input, _, *of_parameters = ctx.needs_input_grad
        found: list[Any] = [None] * len(of_parameters)
        inner = _pull(seen, ctx.activation, weights, gradient, found if any(of_parameters) else None)
        return inner @ weights[0] if of_input else None, None, *found


def _trace(x: Tensor, activation: str, layers: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    act, seen = _IN_PLACE[activation], [x]
    for weight, bias in layers[:-1]:
        seen.append(act(torch.addmm(bias, seen[-1], weight.t())))
    weight, bias = layers[-1]
    return [*seen, torch.addmm(bias, seen[-1], weight.t())]


def _pull(
    seen: Sequence[Tensor], activation: str, weights: Sequence[Tensor], gradient: Tensor, found: list[Any] | None
) -> Tensor:
    """The gradient of the first layer's output.

    Args:
        found: takes the gradients of weights and biases, in its tensors, or new ones where it holds none; None: they
            are not wanted.
    """
    back = _BACK[activation]
    for layer in reversed(range(len(weights))):
        if found is not None:
            found[2 * layer] = torch.mm(gradient.t(), seen[layer], out=found[2 * layer])
            found[2 * layer + 1] = torch.sum(gradient, dim=0, out=found[2 * layer + 1])
        if layer > 0:
            gradient = back(gradient @ weights[layer], seen[layer])
    return gradient
