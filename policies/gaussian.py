"""A diagonal Gaussian over the chunk: behaviour cloning, the baseline of the generative processes.

The network maps a learned query chunk to the mean; the deviation is learned for each element and does not depend on the
observation. Trained by maximum likelihood.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from robot_rl.policies.chain import Chain, gaussian_log_density
from robot_rl.policies.configuration import PolicyError
from robot_rl.policies.denoiser import Denoiser, Shapes
from robot_rl.policies.inpainting import Inpainting
from robot_rl.policies.process import Process


class Gaussian(Process):
    """Args:
    std_min: smallest deviation, normalised.
    temperature: factor on the deviation in `sample`; 0 gives the mean. `chain` always samples with 1.
    """

    deterministic: ClassVar[bool] = True

    def __init__(self, shapes: Shapes, *, std_min: float = 0.01, temperature: float = 0.0) -> None:
        super().__init__(shapes, steps=1)
        if not 0 < std_min < 1 or temperature < 0:
            raise ValueError(f"expected 0 < std_min < 1 and temperature >= 0, got {std_min} and {temperature}")
        self.temperature = temperature
        self.log_std_min = math.log(std_min)
        self.log_std = nn.Parameter(torch.zeros(shapes.horizon, shapes.action_dim))
        self.query = nn.Parameter(0.1 * torch.randn(shapes.horizon, shapes.action_dim))

    @property
    def std(self) -> Tensor:
        """[H, A]."""
        return self.log_std.clamp_min(self.log_std_min).exp()

    def loss(
        self,
        denoiser: Denoiser,
        actions: Tensor,
        context: Tensor,
        known: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        x = self.query.expand_as(actions)
        if known is not None:
            x = torch.where(known.unsqueeze(-1) > 0, actions, x)
        return -gaussian_log_density(actions, self._mean(denoiser, x, context, known), self.std)

    def sample(
        self,
        denoiser: Denoiser,
        context: Tensor,
        noise: Tensor,
        steps: int,
        inpainting: Inpainting | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        x = self.query.expand_as(noise)
        if inpainting is None:
            return self._mean(denoiser, x, context) + self.temperature * self.std * noise
        if inpainting.guidance is not None:
            raise PolicyError("guidance: a Gaussian policy has no denoising steps to guide; train it with a prefix")
        mean = self._mean(denoiser, inpainting.shown(x), context, inpainting.known)
        chunk = mean + self.temperature * self.std * noise
        return inpainting.finish(torch.lerp(chunk, inpainting.target, inpainting.weight))

    def chain(
        self, denoiser: Denoiser, context: Tensor, noise: Tensor, steps: int, generator: torch.Generator | None
    ) -> Chain:
        mean = self._mean(denoiser, self.query.expand_as(noise), context)
        x = mean + self.std * noise
        return Chain(x.unsqueeze(1), gaussian_log_density(x, mean, self.std).unsqueeze(1))

    def gaussians(self, denoiser: Denoiser, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        mean = self._mean(denoiser, self.query.expand_as(states[:, 0]), context)
        return mean.unsqueeze(1), self.std.expand_as(mean).unsqueeze(1)

    def _mean(self, denoiser: Denoiser, x: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
        return denoiser(x, torch.zeros_like(x[:, 0, 0]), context, known).float()
