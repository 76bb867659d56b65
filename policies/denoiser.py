"""What every denoiser network is: a map from a noisy chunk, a time and the context of the observations to a chunk."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Shapes:
    """Sizes that a denoiser and a process are built for.

    Attributes:
        horizon: H, actions of a chunk.
        action_dim: A.
        obs_horizon: To, observations of the context.
        context_dim: C, features of each observation.
        action_offset: step of the first action against the last observation.
        prefix: whether the network is told which actions are known (training with a prefix).
    """

    horizon: int
    action_dim: int
    obs_horizon: int
    context_dim: int
    action_offset: int = 0
    prefix: bool = False

    @property
    def input_dim(self) -> int:
        """Channels of a noisy chunk as the network sees it: the actions and, with a prefix, the mask of known steps."""
        return self.action_dim + int(self.prefix)


class Denoiser(nn.Module, ABC):
    """Base of MLP, U-Net and transformer. Keyword-only constructor arguments are its configuration."""

    __call__: Callable[..., Tensor]

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.shapes = shapes

    @abstractmethod
    def forward(self, x: Tensor, time: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
        """Predict what the process asks for (velocity, noise, sample or mean).

        Args:
            x: noisy chunk [B, H, A], normalised.
            time: [B], in the unit of the process: diffusion step, or 100 × flow time.
            context: [B, To, C] from the encoder.
            known: [B, H], 1 where `x` is not noisy; only when built with `prefix`.
        """

    def parts(self, time: Tensor, context: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """What the network needs of time [K] and context [B, To, C] alone: tensors [K, ...] and tensors [B, ...].

        `parts` and `step` are `forward` in two stages. An exported policy computes the parts once a chunk, for all its
        denoising steps; networks override both methods to move work there.
        """
        return (time,), (context,)

    def step(
        self, x: Tensor, time_parts: Sequence[Tensor], context_parts: Sequence[Tensor], known: Tensor | None = None
    ) -> Tensor:
        """`forward` in evaluation, at one time for the whole batch.

        Args:
            x: noisy chunk [B, H, A], normalised.
            time_parts: of this time, without their first dimension.
            context_parts: each [B, ...].
            known: as in `forward`.
        """
        return self(x, time_parts[0].expand(x.shape[0]), context_parts[0], known)

    def channels(self, x: Tensor, known: Tensor | None) -> Tensor:
        """The network's input [B, H, input_dim]: `x`, with the mask of known steps where it was built for one."""
        if not self.shapes.prefix:
            return x
        mask = torch.zeros_like(x[..., :1]) if known is None else known.unsqueeze(-1).to(x.dtype)
        return torch.cat([x, mask], dim=-1)


class SinusoidalEmbedding(nn.Module):
    """Sine and cosine of a time at geometrically spaced frequencies from 1 to 1e-4 (Vaswani et al. 2017)."""

    frequencies: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        if features < 2 or features % 2:
            raise ValueError(f"time_features: expected an even number of at least 2, got {features}")
        half = features // 2
        exponent = torch.arange(half, dtype=torch.float32) / max(half - 1, 1)
        self.register_buffer("frequencies", torch.exp(-math.log(10_000.0) * exponent), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        """[B] to [B, features]."""
        angle = time.unsqueeze(-1) * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1)
