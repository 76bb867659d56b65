"""Methods of a Gaussian policy, whose log-probability is the sum over the executed actions.

Where the mean comes from a perceptron, its gradient is written out: such networks are so small that automatic
differentiation takes several times as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robot_rl.policies.gaussian import Gaussian
from robot_rl.policies.perceptron import Perceptron
from robot_rl.rl.method import LogProb, Method, sum_executed


class GaussianMethod(Method):
    """A policy with a Gaussian process."""

    def condense(self, log_density: Tensor, counted: Tensor) -> Tensor:
        return sum_executed(log_density, counted)

    @torch.no_grad()
    def log_prob(self, states: Tensor, context: Tensor, counted: Tensor) -> LogProb:
        process, denoiser = self.policy.process, self.policy.denoiser
        if not isinstance(denoiser, Perceptron) or context.requires_grad:
            return super().log_prob(states, context, counted)
        assert isinstance(process, Gaussian)
        seen, std = denoiser.layers.trace(context.flatten(1)), process.std.flatten()
        # [B, H · A], as all that follows
        executed = counted.unsqueeze(2).expand(-1, -1, states.shape[-1]).flatten(1)
        z = torch.where(executed, (states.flatten(1) - seen[-1]) / std, 0.0)
        normal = std.log() + 0.5 * math.log(2 * math.pi)
        value = -0.5 * z.square().sum(dim=1) - executed.float() @ normal

        def pull(slope: Tensor, entropy_slope: float, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor]:
            """d log p / d mean = z / std, d log p / d log std = z² - 1, d entropy / d log std = 1 / (H · A)."""
            of_mean = z * (slope / std)
            of_spread = (slope * (z.square() - executed.float())).sum(dim=0) + entropy_slope / len(std)
            of_spread = torch.where(process.log_std.flatten() >= process.log_std_min, of_spread, 0.0)
            found = denoiser.layers.pull(seen, of_mean) | {process.log_std: of_spread}
            return [found[value] if value in found else torch.zeros_like(value) for value in parameters]

        return LogProb(value[:, None], std, pull)
