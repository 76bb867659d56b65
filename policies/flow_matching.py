"""Flow matching with a straight path: x_t = (1 - t) noise + t action, velocity action - noise (Lipman et al. 2023).

Time runs from noise at t = 0 to data at t = 1. Sampling is Euler's method on a uniform grid. The stochastic chain adds
Gaussian noise to each Euler step and uses the same grid for sampling and for evaluation (ReinFlow, Zhang et al. 2025).
"""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from robot_rl.policies import draw
from robot_rl.policies.chain import Chain, gaussian_log_density
from robot_rl.policies.denoiser import Denoiser, Shapes, SinusoidalEmbedding
from robot_rl.policies.inpainting import Inpainting
from robot_rl.policies.process import Process

TIME_UNIT = 100.0
"""The networks see 100 t, which spreads the unit interval over the periods of the sinusoidal embedding."""


class FlowMatching(Process):
    """Args:
    steps: Euler steps.
    time_sampling: of the training times: `uniform`, or `beta`: 1 - t = 0.001 + 0.999 Beta(alpha, 1), which trains more
        on noisy chunks (π0, Black et al. 2024: alpha 1.5).
    alpha: see above.
    chain_std: standard deviation of the chain's noise in each Euler step, or with `learned_noise` its largest value.
    chain_std_min: with `learned_noise`, the smallest value.
    learned_noise: whether a small network of time and context gives the chain's noise. It has no part in `loss`.
    """

    deterministic: ClassVar[bool] = True

    def __init__(
        self,
        shapes: Shapes,
        *,
        steps: int = 10,
        time_sampling: Literal["uniform", "beta"] = "uniform",
        alpha: float = 1.5,
        chain_std: float = 0.1,
        chain_std_min: float = 0.05,
        learned_noise: bool = False,
    ) -> None:
        super().__init__(shapes, steps)
        if time_sampling not in ("uniform", "beta"):
            raise ValueError(f"process.time_sampling: expected uniform or beta, got {time_sampling!r}")
        if not chain_std > 0 or (learned_noise and not 0 < chain_std_min <= chain_std):
            raise ValueError(f"process: expected 0 < chain_std_min <= chain_std, got {chain_std_min}, {chain_std}")
        if not alpha > 0:
            raise ValueError(f"process.alpha: expected a number above 0, got {alpha}")
        self.time_sampling = time_sampling
        self.alpha = alpha
        self.chain_std = chain_std
        self.noise = _ChainNoise(shapes, chain_std_min, chain_std) if learned_noise else None

    def loss(
        self,
        denoiser: Denoiser,
        actions: Tensor,
        context: Tensor,
        known: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        noise = draw.normal(actions.shape, actions.device, generator)
        t = draw.uniform((len(actions),), actions.device, generator)
        if self.time_sampling == "beta":
            t = 0.999 * (1 - t ** (1 / self.alpha))
        x = torch.lerp(noise, actions, t[:, None, None])
        if known is not None:
            x = torch.where(known.unsqueeze(-1) > 0, actions, x)
        velocity = denoiser(x, TIME_UNIT * t, context, known)
        return (velocity.float() - (actions - noise)).square()

    def sample(
        self,
        denoiser: Denoiser,
        context: Tensor,
        noise: Tensor,
        steps: int,
        inpainting: Inpainting | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        x = noise
        for k in range(steps):
            t = k / steps
            if inpainting is None:
                velocity = self._velocity(denoiser, x, t, context)
            else:
                network = partial(self._predict, denoiser, t, context, inpainting.known)
                x, velocity, correction = inpainting.predict(network, x, t, 1 - t)
                velocity = velocity + correction / (1 - t)
            x = x + velocity / steps
        return x if inpainting is None else inpainting.finish(x)

    def chain(
        self, denoiser: Denoiser, context: Tensor, noise: Tensor, steps: int, generator: torch.Generator | None
    ) -> Chain:
        x = noise
        states, densities = [x], [gaussian_log_density(x, torch.zeros_like(x), torch.ones_like(x))]
        for k in range(steps):
            mean, std = self._transition(denoiser, x, k, steps, context)
            x = mean + std * draw.normal(mean.shape, mean.device, generator)
            states.append(x)
            densities.append(gaussian_log_density(x, mean, std))
        return Chain(torch.stack(states, dim=1), torch.stack(densities, dim=1))

    def gaussians(self, denoiser: Denoiser, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        first, steps = states[:, 0], states.shape[1] - 1
        pairs = [(torch.zeros_like(first), torch.ones_like(first))]
        pairs += [self._transition(denoiser, states[:, k], k, steps, context) for k in range(steps)]
        means, stds = zip(*pairs, strict=True)
        return torch.stack(means, dim=1), torch.stack(stds, dim=1)

    def _velocity(
        self, denoiser: Denoiser, x: Tensor, t: float, context: Tensor, known: Tensor | None = None
    ) -> Tensor:
        return denoiser(x, torch.full_like(x[:, 0, 0], TIME_UNIT * t), context, known).float()

    def _predict(
        self, denoiser: Denoiser, t: float, context: Tensor, known: Tensor | None, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The velocity at `x`, and the chunk to which it leads."""
        velocity = self._velocity(denoiser, x, t, context, known)
        return velocity, x + (1 - t) * velocity

    def _transition(self, denoiser: Denoiser, x: Tensor, k: int, steps: int, context: Tensor) -> tuple[Tensor, Tensor]:
        mean = x + self._velocity(denoiser, x, k / steps, context) / steps
        if self.noise is None:
            return mean, torch.full_like(mean, self.chain_std)
        return mean, self.noise(torch.full_like(x[:, 0, 0], TIME_UNIT * k / steps), context)


class _ChainNoise(nn.Module):
    """Standard deviation [B, H, A] in [low, high], log-variance squashed by tanh as in ReinFlow."""

    def __init__(self, shapes: Shapes, low: float, high: float, width: int = 64, time_features: int = 16) -> None:
        super().__init__()
        self.shapes = shapes
        self.log_low, self.log_high = math.log(low), math.log(high)
        self.time = SinusoidalEmbedding(time_features)
        self.layers = nn.Sequential(
            nn.Linear(time_features + shapes.obs_horizon * shapes.context_dim, width),
            nn.Tanh(),
            nn.Linear(width, shapes.horizon * shapes.action_dim),
        )

    def forward(self, time: Tensor, context: Tensor) -> Tensor:
        squashed = torch.tanh(self.layers(torch.cat([self.time(time), context.flatten(1)], dim=-1)).float())
        std = torch.exp(self.log_low + 0.5 * (squashed + 1) * (self.log_high - self.log_low))
        deviation: Tensor = std.unflatten(-1, (self.shapes.horizon, self.shapes.action_dim))
        return deviation
