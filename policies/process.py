"""What every generative process is: how a denoiser is trained, sampled, and turned into a density."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robot_rl.policies.chain import Chain, gaussian_log_density
from robot_rl.policies.denoiser import Denoiser, Shapes
from robot_rl.policies.inpainting import Inpainting


class Process(nn.Module, ABC):
    """Base of flow matching, DDPM, DDIM and the Gaussian head. Chunks are normalised; the context is [B, To, C].

    Keyword-only constructor arguments are the configuration. `steps` is the default number of denoising steps.
    """

    deterministic: ClassVar[bool]
    """Whether `sample` depends on nothing but its noise."""

    @classmethod
    def context_features(cls, config: Mapping[str, Any]) -> int:
        """Features that a process of this configuration adds to the context which its network sees."""
        return 0

    def told(self, context: Tensor, steps: int) -> Tensor:
        """The context [B, To, C] with these features, for sampling in so many steps."""
        return context

    def __init__(self, shapes: Shapes, steps: int) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"process.steps: expected at least 1, got {steps}")
        self.shapes = shapes
        self.steps = steps

    @abstractmethod
    def loss(
        self,
        denoiser: Denoiser,
        actions: Tensor,
        context: Tensor,
        known: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Loss of each element [B, H, A]; where `known` [B, H] is 1, the step is shown clean and its loss ignored."""

    @abstractmethod
    def sample(
        self,
        denoiser: Denoiser,
        context: Tensor,
        noise: Tensor,
        steps: int,
        inpainting: Inpainting | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Chunk [B, H, A] from standard normal `noise` of that shape."""

    @abstractmethod
    def chain(
        self, denoiser: Denoiser, context: Tensor, noise: Tensor, steps: int, generator: torch.Generator | None
    ) -> Chain:
        """Sample with Gaussian transitions, and keep every state."""

    @abstractmethod
    def gaussians(self, denoiser: Denoiser, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation [B, K + 1, H, A] of each state of a chain, given the one before."""

    def log_density(self, denoiser: Denoiser, states: Tensor, context: Tensor) -> Tensor:
        """Log-density [B, K + 1, H, A] of the states of a chain under the current parameters."""
        return gaussian_log_density(states, *self.gaussians(denoiser, states, context))
