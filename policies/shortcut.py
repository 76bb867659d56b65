"""Shortcut models: a flow whose network is told the size of the step, and jumps (Frans et al. 2024).

For the finest steps it learns the velocity of flow matching. For all larger ones it learns to agree with itself: a step
of 2d is the mean of the two steps of d that lead as far (eq. 5 there). So it samples in one step, or in few, what a
flow needs many for; the target comes from the network in training itself, without gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from robot_rl.policies import draw
from robot_rl.policies.chain import Chain
from robot_rl.policies.configuration import PolicyError
from robot_rl.policies.denoiser import Denoiser, Shapes
from robot_rl.policies.flow_matching import TIME_UNIT, FlowMatching
from robot_rl.policies.inpainting import Inpainting


class Shortcut(FlowMatching):
    """Args:
    steps: of a sample, a power of 2 up to `finest`.
    finest: steps of the finest grid.
    share: of each batch that learns to agree with itself.
    chain_std, chain_std_min, learned_noise: see `FlowMatching`.
    """

    def __init__(
        self,
        shapes: Shapes,
        *,
        steps: int = 1,
        finest: int = 128,
        share: float = 0.25,
        chain_std: float = 0.1,
        chain_std_min: float = 0.05,
        learned_noise: bool = False,
    ) -> None:
        super().__init__(
            shapes, steps=steps, chain_std=chain_std, chain_std_min=chain_std_min, learned_noise=learned_noise
        )
        if finest < 2 or finest & (finest - 1):
            raise ValueError(f"process.finest: expected a power of 2 from 2 on, got {finest}")
        if not 0 <= share <= 1:
            raise ValueError(f"process.share: expected 0 to 1, got {share}")
        self.finest, self.share, self.levels = finest, share, finest.bit_length()
        self._level(steps)

    @classmethod
    def context_features(cls, config: Mapping[str, Any]) -> int:
        """One for each size of steps."""
        return int(config["finest"]).bit_length()

    def told(self, context: Tensor, steps: int) -> Tensor:
        """The context with the size of the steps, 1 / steps."""
        return self._told(context, torch.full((len(context),), self._level(steps), device=context.device))

    def loss(
        self, denoiser: Denoiser, actions: Tensor, context: Tensor, known: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:  # fmt: skip
        batch, device = (len(actions),), actions.device
        noise = draw.normal(actions.shape, device, generator)
        t = draw.uniform(batch, device, generator)
        agrees = draw.uniform(batch, device, generator) < self.share
        # Level k has steps of 1 / 2^k. Those that agree begin on the grid of their own steps, those that flow anywhere.
        level = torch.where(agrees, draw.integers(self.levels - 1, batch, device, generator), self.levels - 1)
        t = torch.where(agrees, (t * 2**level).floor() / 2**level, t)
        x = torch.lerp(noise, actions, t[:, None, None])
        if known is not None:
            x = torch.where(known.unsqueeze(-1) > 0, actions, x)
        target = actions - noise
        if agrees.any():
            shown = None if known is None else known[agrees]
            jump = self.two_steps(denoiser, x[agrees], t[agrees], level[agrees] + 1, context[agrees], shown)
            target = target.index_put((agrees,), jump)
        velocity = denoiser(x, TIME_UNIT * t, self._told(context, level), known)
        return (velocity.float() - target).square()

    @torch.no_grad()
    def two_steps(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, level: Tensor, context: Tensor, known: Tensor | None = None
    ) -> Tensor:
        """Mean velocity [B, H, A] of two steps of level [B], the first from `x` at times [B]."""
        told = self._told(context, level)
        d = 0.5**level
        first = denoiser(x, TIME_UNIT * t, told, known).float()
        moved = x + d[:, None, None] * first
        if known is not None:
            moved = torch.where(known.unsqueeze(-1) > 0, x, moved)
        return (first + denoiser(moved, TIME_UNIT * (t + d), told, known).float()) / 2

    def sample(
        self, denoiser: Denoiser, context: Tensor, noise: Tensor, steps: int, inpainting: Inpainting | None,
        generator: torch.Generator | None,
    ) -> Tensor:  # fmt: skip
        return super().sample(denoiser, self.told(context, steps), noise, steps, inpainting, generator)

    def chain(
        self, denoiser: Denoiser, context: Tensor, noise: Tensor, steps: int, generator: torch.Generator | None
    ) -> Chain:
        return super().chain(denoiser, self.told(context, steps), noise, steps, generator)

    def gaussians(self, denoiser: Denoiser, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return super().gaussians(denoiser, states, self.told(context, states.shape[1] - 1))

    def _told(self, context: Tensor, level: Tensor) -> Tensor:
        """[B, To, C] and levels [B] to [B, To, C + levels]."""
        size = one_hot(level, self.levels).to(context.dtype)[:, None].expand(-1, context.shape[1], -1)
        return torch.cat([context, size], dim=-1)

    def _level(self, steps: int) -> int:
        if not 1 <= steps <= self.finest or steps & (steps - 1):
            raise PolicyError(f"process.steps: expected a power of 2 from 1 to {self.finest}, got {steps}")
        return steps.bit_length() - 1
