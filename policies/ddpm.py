"""DDPM: diffusion sampled step by step from the posterior of its forward process (Ho et al. 2020)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robot_rl.policies import transition
from robot_rl.policies.denoiser import Shapes
from robot_rl.policies.diffusion import Diffusion, Prediction, Schedule


class DDPM(Diffusion):
    """See `Diffusion` for the arguments."""

    deterministic: ClassVar[bool] = False

    def __init__(
        self,
        shapes: Shapes,
        *,
        steps: int = 100,
        train_steps: int = 100,
        schedule: Schedule = "squaredcos_cap_v2",
        prediction: Prediction = "epsilon",
        clip_sample: bool = True,
        chain_std_min: float = 0.1,
    ) -> None:
        super().__init__(shapes, steps, train_steps, schedule, prediction, clip_sample, chain_std_min)

    def transition(
        self, clean: Tensor, epsilon: Tensor, x: Tensor, alpha: float, alpha_next: float
    ) -> tuple[Tensor, float]:
        return transition.ddpm(clean, x, alpha, alpha_next)

    chain_transition = transition
