"""The noise from which a policy denoises, chosen by a small network instead of drawn (DSRL, Wagenmaker et al. 2025).

What a deterministic sampler makes of a noise is fixed; choosing it steers the policy without a change of its weights.
The network gives a squashed Gaussian over noises between -bound and bound. Trying draws from it; a deployed policy
takes its mean, or draws too.
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
    temperature: factor on the deviation in a deployed policy; 0 gives the mean. `draw` always draws with 1.
    """

    def __init__(
        self, shapes: Shapes, *, bound: float = 1.5, width: int = 256, depth: int = 2, temperature: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 < bound < math.inf or not temperature >= 0:
            raise ValueError(
                f"steering: expected a finite bound above 0 and temperature at least 0, got {bound} and {temperature}"
            )
        self.bound, self.temperature = bound, temperature
        self.mean = Perceptron(shapes, width=width, depth=depth)
        self.process = TanhGaussian(shapes)

    @property
    def draws(self) -> bool:
        """Whether a deployed policy draws its noise."""
        return self.temperature > 0

    def forward(self, context: Tensor, normal: Tensor | None = None) -> Tensor:
        """The noise [B, H, A] of contexts [B, To, C] that a deployed policy takes.

        Args:
            normal: standard normal [B, H, A], where it draws.
        """
        x = context.new_zeros(1)  # the perceptron reads the context alone
        u = self.mean(x, x, context)
        if normal is not None:
            u = u + self.temperature * self.process.deviation(context) * normal
        return self.bound * torch.tanh(u)

    def draw(self, context: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Noises [B, H, A] to try and their log-densities by element, with gradients through the draw."""
        noise, density = self.process.draw(self.mean, context, generator)
        return self.bound * noise, density - math.log(self.bound)
