"""Denoising diffusion (Ho et al. 2020) with the noise schedules of diffusers.

`ddpm.py` and `ddim.py` add the reverse transition. The updates are written out here, on plain numbers, because a
scheduler's call costs as much as a small network; they equal diffusers' (timestep spacing `leading`).
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from robot_rl.policies import draw
from robot_rl.policies.chain import Chain, gaussian_log_density
from robot_rl.policies.denoiser import Denoiser, Shapes
from robot_rl.policies.inpainting import Inpainting
from robot_rl.policies.process import Process
from robot_rl.policies.transition import leading_timesteps, split_prediction

Schedule = Literal["squaredcos_cap_v2", "linear", "scaled_linear"]
Prediction = Literal["epsilon", "sample"]


class Diffusion(Process):
    """Args:
    steps: denoising steps of sampling.
    train_steps: K, diffusion steps of training.
    schedule: of the noise, by its name in diffusers.
    prediction: what the network gives, the noise (`epsilon`) or the clean chunk (`sample`).
    clip_sample: whether the predicted clean chunk is clipped to [-1, 1] in every step; needs actions in that range.
    chain_std_min: smallest deviation of the chain's transitions, which near the data would otherwise vanish (DPPO, Ren
        et al. 2024: 0.1).
    """

    alphas: Tensor

    def __init__(
        self,
        shapes: Shapes,
        steps: int,
        train_steps: int,
        schedule: Schedule,
        prediction: Prediction,
        clip_sample: bool,
        chain_std_min: float,
    ) -> None:
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        super().__init__(shapes, steps)
        if prediction not in ("epsilon", "sample"):
            raise ValueError(f"prediction: expected epsilon or sample, got {prediction!r}")
        if schedule not in ("squaredcos_cap_v2", "linear", "scaled_linear"):
            raise ValueError(f"schedule: expected squaredcos_cap_v2, linear or scaled_linear, got {schedule!r}")
        if not 1 <= steps <= train_steps:
            raise ValueError(f"steps: expected 1 to train_steps = {train_steps}, got {steps}")
        if not chain_std_min > 0:
            raise ValueError(f"chain_std_min: expected a positive number, got {chain_std_min}")
        self.train_steps = train_steps
        self.prediction = prediction
        self.clip_sample = clip_sample
        self.chain_std_min = chain_std_min
        alphas = DDPMScheduler(num_train_timesteps=train_steps, beta_schedule=schedule).alphas_cumprod
        self.register_buffer("alphas", alphas, persistent=False)
        # The same as numbers, so that a sampling step reads nothing back from the device.
        self._alphas: list[float] = [*alphas.tolist(), 1.0]

    @abstractmethod
    def transition(
        self, clean: Tensor, epsilon: Tensor, x: Tensor, alpha: float, alpha_next: float
    ) -> tuple[Tensor, float]:
        """Mean and deviation of the next, less noisy state.

        Args:
            clean: the predicted clean chunk, clipped if so configured.
            epsilon: the predicted noise.
            x: the current state.
            alpha, alpha_next: cumulative share of signal (ᾱ) of both states.
        """

    @abstractmethod
    def chain_transition(
        self, clean: Tensor, epsilon: Tensor, x: Tensor, alpha: float, alpha_next: float
    ) -> tuple[Tensor, float]:
        """The same for the stochastic chain, before the floor of the deviation."""

    def loss(
        self,
        denoiser: Denoiser,
        actions: Tensor,
        context: Tensor,
        known: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        noise = draw.normal(actions.shape, actions.device, generator)
        step = draw.integers(self.train_steps, (len(actions),), actions.device, generator)
        alpha = self.alphas[step][:, None, None]
        x = alpha.sqrt() * actions + (1 - alpha).sqrt() * noise
        if known is not None:
            x = torch.where(known.unsqueeze(-1) > 0, actions, x)
        target = noise if self.prediction == "epsilon" else actions
        return (denoiser(x, step.float(), context, known).float() - target).square()

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
        for step, following in leading_timesteps(self.train_steps, steps):
            alpha, alpha_next = self._alphas[step], self._alphas[following]
            if inpainting is None:
                output = self._output(denoiser, x, step, context)
            else:
                network = partial(self._predict, denoiser, step, context, inpainting.known)
                x, output, correction = inpainting.predict(network, x, alpha**0.5, (1 - alpha) ** 0.5)
            clean, epsilon = split_prediction(output, x, alpha, self.prediction)
            clean = self._clip(clean)
            if inpainting is not None:
                corrected = self._clip(clean + correction)
                epsilon = epsilon - (alpha / (1 - alpha)) ** 0.5 * (corrected - clean)
                clean = corrected
            x, std = self.transition(clean, epsilon, x, alpha, alpha_next)
            if std > 0:
                x = x + std * draw.normal(x.shape, x.device, generator)
        return x if inpainting is None else inpainting.finish(x)

    def chain(
        self, denoiser: Denoiser, context: Tensor, noise: Tensor, steps: int, generator: torch.Generator | None
    ) -> Chain:
        x = noise
        states, densities = [x], [gaussian_log_density(x, torch.zeros_like(x), torch.ones_like(x))]
        for step, following in leading_timesteps(self.train_steps, steps):
            mean, std = self._chain_transition(denoiser, x, step, following, context)
            x = mean + std * draw.normal(mean.shape, mean.device, generator)
            states.append(x)
            densities.append(gaussian_log_density(x, mean, std))
        return Chain(torch.stack(states, dim=1), torch.stack(densities, dim=1))

    def gaussians(self, denoiser: Denoiser, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        steps = leading_timesteps(self.train_steps, states.shape[1] - 1)
        mean, std = self.transitions(denoiser, states, context, steps)
        first = torch.zeros_like(states[:, :1])
        return torch.cat([first, mean], dim=1), torch.cat([torch.ones_like(first), std], dim=1)

    def transitions(
        self, denoiser: Denoiser, states: Tensor, context: Tensor, steps: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Mean and deviation [B, S, H, A] of each state of a part of a chain, given the one before.

        Args:
            states: [B, S + 1, H, A].
            steps: of `leading_timesteps`, those S that lead from each state to the next.
        """
        pairs = [
            self._chain_transition(denoiser, states[:, k], step, following, context)
            for k, (step, following) in enumerate(steps)
        ]
        means, stds = zip(*pairs, strict=True)
        return torch.stack(means, dim=1), torch.stack(stds, dim=1)

    def _output(self, denoiser: Denoiser, x: Tensor, step: int, context: Tensor, known: Tensor | None = None) -> Tensor:
        return denoiser(x, torch.full_like(x[:, 0, 0], float(step)), context, known).float()

    def _predict(
        self, denoiser: Denoiser, step: int, context: Tensor, known: Tensor | None, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The network's output at `x`, and the clean chunk."""
        output = self._output(denoiser, x, step, context, known)
        return output, self._clip(split_prediction(output, x, self._alphas[step], self.prediction)[0])

    def _clip(self, clean: Tensor) -> Tensor:
        return clean.clamp(-1, 1) if self.clip_sample else clean

    def _chain_transition(
        self, denoiser: Denoiser, x: Tensor, step: int, following: int, context: Tensor
    ) -> tuple[Tensor, Tensor]:
        output, alpha = self._output(denoiser, x, step, context), self._alphas[step]
        clean, epsilon = split_prediction(output, x, alpha, self.prediction)
        mean, std = self.chain_transition(self._clip(clean), epsilon, x, alpha, self._alphas[following])
        return mean, torch.full_like(mean, max(std, self.chain_std_min))
