"""The value of an observation, from the context that the policy's encoder makes of it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class Critic(nn.Module):
    """A multilayer perceptron on the flattened context. No gradient reaches the encoder.

    Args:
        inputs: To · C, numbers of a context.
        width, depth: of the hidden layers.
    """

    def __init__(self, inputs: int, width: int = 256, depth: int = 2) -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth]
        hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.Tanh())]
        self.layers = nn.Sequential(*hidden, nn.Linear(sizes[-1], 1))
        with torch.no_grad():
            # Begin at 0, so that the first advantages are those of the rewards and not of random weights.
            for parameter in self.layers[-1].parameters():
                parameter.mul_(0.01)

    def forward(self, context: Tensor) -> Tensor:
        """[B, To, C] to values [B], in units of the scaled reward."""
        return self.layers(context.detach().flatten(1)).squeeze(-1)
