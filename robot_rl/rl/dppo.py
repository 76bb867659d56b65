"""`dppo`: fine-tuning of the last denoising steps of a diffusion policy (DPPO, Ren et al. 2024).

The first steps are left to a frozen copy of the network, the last ones are a chain of Gaussian steps whose density is
known. Each has its own ratio: later steps are held to wider clips and get more of the advantage.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robot_rl.policies import Policy, PolicyError
from robot_rl.policies.chain import gaussian_log_density
from robot_rl.policies.diffusion import Diffusion
from robot_rl.policies.staged import Staged
from robot_rl.policies.transition import leading_timesteps
from robot_rl.rl.method import Drawn, Method, mean_executed, refuse_choosing, trains


class DPPO(Method):
    """Args:
    policy: of kind ddpm or ddim.
    steps: denoising steps, in training and afterwards; null: as many as the policy makes.
    tuned_steps: how many of them, the last ones, are trained.
    std_min: smallest deviation of a step, normalised.
    discount: of the advantage, for each denoising step before the last.
    first_clip: the clip of the first tuned step, from which it rises to `training.clip` for the last,
    clip_rate: exponentially with this rate.
    """

    def __init__(
        self, policy: Policy, *, steps: int | None = None, tuned_steps: int = 10, std_min: float = 0.1,
        discount: float = 0.99, first_clip: float = 0.001, clip_rate: float = 3.0,
    ) -> None:  # fmt: skip
        process = policy.config["process"]
        if not isinstance(policy.process, Diffusion):
            raise PolicyError(
                f"dppo trains diffusion policies, this one is {process['name']}; use algorithm={trains(policy)}"
            )
        refuse_choosing("dppo", policy)
        steps = process["steps"] if steps is None else steps
        if not 1 <= tuned_steps <= steps:
            raise PolicyError(f"algorithm.tuned_steps: expected 1 to {steps}, the denoising steps; got {tuned_steps}")
        if not (0 < discount <= 1 and first_clip > 0 and clip_rate > 0):
            raise PolicyError(
                "algorithm: expected 0 < discount <= 1, first_clip and clip_rate above 0; "
                f"got {discount}, {first_clip}, {clip_rate}"
            )
        self.timesteps = leading_timesteps(process["train_steps"], steps)[-tuned_steps:]
        self.policy = _staged(policy, steps, self.timesteps[0][0] + 1, std_min)
        assert isinstance(self.policy.process, Diffusion)
        self.process, self.ratios = self.policy.process, tuned_steps
        self.first_clip, self.clip_rate = first_clip, clip_rate
        step = torch.arange(tuned_steps, dtype=torch.float32, device=policy.device)
        self._discount = discount ** (tuned_steps - 1 - step)

    def draw(self, context: Tensor, generator: torch.Generator) -> Drawn:
        chain = self.policy.chain(context, generator)
        states, density = chain.states[:, -self.ratios - 1 :], chain.log_density[:, -self.ratios :]
        return Drawn(states[:, -1], states.clone(), density.clone())  # the frozen steps need not be kept

    def density(self, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self.process.transitions(self.policy.denoiser, states, context, self.timesteps)
        return gaussian_log_density(states[:, 1:], mean, std), std

    def condense(self, log_density: Tensor, counted: Tensor) -> Tensor:
        return mean_executed(log_density, counted)

    def share(self, advantage: Tensor) -> Tensor:
        return advantage[:, None] * self._discount

    def clip(self, clip: float) -> Tensor:
        if self.ratios == 1:
            return torch.full_like(self._discount, clip)
        risen = torch.linspace(0, 1, self.ratios, device=self._discount.device).mul(self.clip_rate).expm1()
        return self.first_clip + (clip - self.first_clip) * risen / math.expm1(self.clip_rate)


def _staged(policy: Policy, steps: int, boundary: int, std_min: float) -> Policy:
    """The policy with its network twice: frozen for diffusion steps from `boundary` on, trained below."""
    there = policy.config["denoiser"]
    if isinstance(policy.denoiser, Staged) and there["boundary"] != boundary:
        raise PolicyError(
            f"dppo has tuned this policy below diffusion step {there['boundary']}; go on with the same "
            f"algorithm.steps and algorithm.tuned_steps, which now ask for {boundary}"
        )
    again = isinstance(policy.denoiser, Staged)
    denoiser = there if again else {"name": "staged", "denoiser": there, "boundary": boundary}
    process = {**policy.config["process"], "steps": steps, "chain_std_min": std_min}
    config = {**policy.config, "denoiser": denoiser, "process": process}
    staged = Policy(config, policy.contract).to(policy.device).eval()
    tensors = policy.state_dict()
    if not again:
        own = {name: value for name, value in tensors.items() if name.startswith("denoiser.")}
        tensors = {name: value for name, value in tensors.items() if name not in own}
        for part in ("first", "last"):
            tensors |= {f"denoiser.{part}.{name.removeprefix('denoiser.')}": value for name, value in own.items()}
    staged.load_state_dict(tensors)
    assert isinstance(staged.denoiser, Staged)
    # What the frozen steps see must not change either.
    frozen: tuple[nn.Module, ...] = (staged.denoiser.first, staged.encoder)
    for module in frozen:
        module.requires_grad_(False)
    return staged
