"""DDIM: diffusion sampled in fewer, deterministic steps (Song et al. 2021)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robot_rl.policies import transition
from robot_rl.policies.denoiser import Shapes
from robot_rl.policies.diffusion import Diffusion, Prediction, Schedule


class DDIM(Diffusion):
    """See `Diffusion` for the other arguments.

    Args:
        eta: share of the noise of DDPM in `sample`; 0 makes it deterministic.
        chain_eta: the same in `chain`.
    """

    deterministic: ClassVar[bool] = True

    def __init__(
        self,
        shapes: Shapes,
        *,
        steps: int = 10,
        train_steps: int = 100,
        schedule: Schedule = "squaredcos_cap_v2",
        prediction: Prediction = "epsilon",
        clip_sample: bool = True,
        eta: float = 0.0,
        chain_eta: float = 1.0,
        chain_std_min: float = 0.1,
    ) -> None:
        super().__init__(shapes, steps, train_steps, schedule, prediction, clip_sample, chain_std_min)
        if not (0 <= eta <= 1 and 0 <= chain_eta <= 1):
            raise ValueError(f"eta and chain_eta: expected 0 to 1, got {eta} and {chain_eta}")
        self.eta = eta
        self.chain_eta = chain_eta

    def transition(
        self, clean: Tensor, epsilon: Tensor, x: Tensor, alpha: float, alpha_next: float
    ) -> tuple[Tensor, float]:
        return transition.ddim(clean, epsilon, alpha, alpha_next, self.eta)

    def chain_transition(
        self, clean: Tensor, epsilon: Tensor, x: Tensor, alpha: float, alpha_next: float
    ) -> tuple[Tensor, float]:
        return transition.ddim(clean, epsilon, alpha, alpha_next, self.chain_eta)
