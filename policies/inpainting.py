"""Holding parts of a chunk at given values while the rest is denoised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Inpainting:
    """A prefix in normalised units, as a process applies it before every denoising step.

    Attributes:
        target: [B, H, A], zero where the weight is.
        weight: [B, H, 1] in [0, 1]; 1 where committed.
        committed: [B, H, 1] bool.
        clean: whether committed steps are shown to the network without noise, which it must have been trained for.
    """

    target: Tensor
    weight: Tensor
    committed: Tensor
    clean: bool

    @property
    def known(self) -> Tensor | None:
        """[B, H] float mask of the steps that the network sees clean, or None when it was not trained with any."""
        return self.committed.squeeze(-1).to(self.target.dtype) if self.clean else None

    def hold(self, x: Tensor, noised_target: Tensor) -> Tensor:
        """Pull `x` [B, H, A] to the target at its noise level; committed steps entirely."""
        path = torch.where(self.committed, self.target, noised_target) if self.clean else noised_target
        return torch.lerp(x, path, self.weight)

    def finish(self, x: Tensor) -> Tensor:
        """Put the committed steps in place of the sampled ones."""
        return torch.where(self.committed, self.target, x)
