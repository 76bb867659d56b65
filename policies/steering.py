"""The noise from which a policy denoises, chosen by a small network instead of drawn (DSRL, Wagenmaker et al. 2025).

What a deterministic sampler makes of a noise is fixed; choosing it steers the policy without a change of its weights.
The network gives a squashed Gaussian over noises between -bound and bound. Trying draws from it; a deployed policy
takes its mean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robot_rl.policies.denoiser import Shapes
from robot_rl.policies.perceptron import Perceptron
from robot_rl.policies.tanh_gaussian import TanhGaussian


class Steering(nn.Module):
    """Args:
    shapes: of the chunk and the encoder's context.
    bound: largest absolute value of a noise; a standard normal is steered.
    width, depth: of the hidden layers.
    """

    def __init__(self, shapes: Shapes, *, bound: float = 1.5, width: int = 256, depth: int = 2) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"steering.bound: expected a number above 0, got {bound}")
        self.bound = bound
        self.mean = Perceptron(shapes, width=width, depth=depth)
        self.process = TanhGaussian(shapes)

    def forward(self, context: Tensor) -> Tensor:
        """The noise [B, H, A] of contexts [B, To, C] that a deployed policy takes."""
        x = context.new_zeros(1)  # the perceptron reads the context alone
        return self.bound * torch.tanh(self.mean(x, x, context))

    def draw(self, context: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Noises [B, H, A] to try and their log-densities by element, with gradients through the draw."""
        noise, density = self.process.draw(self.mean, context, generator)
        return self.bound * noise, density - math.log(self.bound)
