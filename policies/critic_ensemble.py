"""Several critics of state and action, computed as one: what sample-efficient methods learn their values with.

LayerNorm before each activation bounds what a critic says of actions that nobody has tried: the last hidden layer has a
fixed norm, so that |Q| never exceeds the norm of the output weights times that of the layer, plus the bias, however far
off an action is (Ball et al. 2023, section 4.2).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn


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
        h = torch.cat([context, chunk], dim=-1).expand(self.members, -1, -1)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if layer < last:
                if self.layer_norm:
                    h = torch.addcmul(self.shifts[layer], nn.functional.layer_norm(h, (self.width,)), self.gains[layer])
                h = h.relu_()
        return h.squeeze(-1)

    @torch.no_grad()
    def follow(self, other: CriticEnsemble, share: float) -> None:
        """Move all weights by this share of the way to those of another ensemble (Polyak averaging)."""
        torch._foreach_lerp_(list(self.parameters()), list(other.parameters()), share)


def least_of(values: Tensor, subset: int, generator: torch.Generator | None) -> Tensor:
    """[E, B] to [B]: the least among `subset` members drawn for the whole batch (Chen et al. 2021, REDQ)."""
    if subset < len(values):
        values = values[torch.randperm(len(values), generator=generator)[:subset].to(values.device)]
    return values.amin(dim=0)


def _uniform(shape: tuple[int, ...], inputs: int) -> nn.Parameter:
    """As torch's `Linear` begins."""
    bound = 1 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
