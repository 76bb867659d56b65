"""A probability for each element, of things that hold or do not: the head of a classifier of observations.

The network reads the context alone and gives logits; the loss is the binary cross-entropy against labels 0 and 1. What
is sampled is the probability. There is no density over chunks, and nothing to explore by.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from robot_rl.policies.chain import Chain
from robot_rl.policies.configuration import PolicyError
from robot_rl.policies.denoiser import Denoiser, Shapes
from robot_rl.policies.inpainting import Inpainting
from robot_rl.policies.process import Process


class Bernoulli(Process):
    """It has no options. Labels are not normalised: `normalizer.action` has to be `none`."""

    deterministic: ClassVar[bool] = True

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes, steps=1)

    def loss(
        self,
        denoiser: Denoiser,
        actions: Tensor,
        context: Tensor,
        known: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        if not ((actions >= 0) & (actions <= 1)).all():
            raise PolicyError(
                "process: bernoulli learns labels from 0 to 1, got actions beyond; choose another process"
            )
        logits = self._logits(denoiser, torch.zeros_like(actions), context)
        return binary_cross_entropy_with_logits(logits, actions, reduction="none")

    def sample(
        self,
        denoiser: Denoiser,
        context: Tensor,
        noise: Tensor,
        steps: int,
        inpainting: Inpainting | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        return self._logits(denoiser, torch.zeros_like(noise), context).sigmoid()

    def chain(
        self, denoiser: Denoiser, context: Tensor, noise: Tensor, steps: int, generator: torch.Generator | None
    ) -> Chain:
        self._refuse()

    def gaussians(self, denoiser: Denoiser, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        self._refuse()

    def _logits(self, denoiser: Denoiser, x: Tensor, context: Tensor) -> Tensor:
        return denoiser(x, torch.zeros_like(x[:, 0, 0]), context).float()

    def _refuse(self) -> NoReturn:
        raise PolicyError("process: bernoulli says how probable things are; it does not act, and has no chain")
