"""The value of an observation, from the context that the policy's encoder makes of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robot_rl.policies.dense import Dense


class Critic(nn.Module):
    """A multilayer perceptron on the flattened context. No gradient reaches the encoder.

    Args:
        inputs: To · C, numbers of a context.
        width, depth: of the hidden layers.
    """

    def __init__(self, inputs: int, width: int = 256, depth: int = 2) -> None:
        super().__init__()
        self.layers = Dense([inputs, *[width] * depth, 1], "tanh")
        with torch.no_grad():
            # Begin at 0, so that the first advantages are those of the rewards and not of random weights.
            for parameter in self.layers[-1].parameters():
                parameter.mul_(0.01)

    def forward(self, context: Tensor) -> Tensor:
        """[B, To, C] to values [B], in units of the scaled reward."""
        values: Tensor = self.layers(context.detach().flatten(1))
        return values.squeeze(-1)

    def trace(self, context: Tensor) -> tuple[Tensor, Callable[[Tensor], list[Tensor]]]:
        """The same values without a gradient, and what makes of their gradient [B] those of the parameters."""
        seen = self.layers.trace(context.detach().flatten(1))
        return seen[-1].squeeze(-1), lambda gradient: list(self.layers.pull(seen, gradient[:, None]).values())
