"""Soft actor-critic with an automatic temperature (Haarnoja et al. 2018, arXiv 1812.05905), also as RLPD uses it.

RLPD (Ball et al. 2023, arXiv 2302.02948), the learner of SERL and HIL-SERL, is this method with another preset:
LayerNorm in the critics, an ensemble, several updates a step, and half of each batch demonstrations.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robot_rl.policies import Policy, PolicyError
from robot_rl.policies.critic_ensemble import CriticEnsemble, least_of
from robot_rl.policies.perceptron import Perceptron
from robot_rl.policies.tanh_gaussian import TanhGaussian
from robot_rl.rl.off_policy_method import OffPolicyMethod, Values
from robot_rl.rl.replay import Batch
from robot_rl.rl.temperature import log_temperature, soft_loss


class SAC(OffPolicyMethod):
    """Args:
    temperature: alpha to begin with.
    target_entropy: of a decision, per element of the executed chunk [nat]; alpha moves so that the policy keeps it.
    backup_entropy: whether the entropy of what follows is part of the target. Sparse tasks are learned better without.
    pessimistic: whether the actor climbs the least of the critics (SAC), or their mean (REDQ, RLPD).
    """

    def __init__(
        self, policy: Policy, execute: int, *, temperature: float = 1.0, target_entropy: float = -1.0,
        backup_entropy: bool = True, pessimistic: bool = True,
    ) -> None:  # fmt: skip
        if not isinstance(policy.process, TanhGaussian):
            name = policy.config["process"]["name"]
            raise PolicyError(
                f"sac and rlpd train tanh_gaussian policies, this one is {name}; leave policy= out for a new one, or "
                "clone one with policy=tanh_gaussian"
            )
        super().__init__(policy, execute)
        self.process: TanhGaussian = policy.process
        self.log_temperature = log_temperature(temperature, policy.device)
        self.target_entropy = target_entropy * execute * policy.contract.action_dim
        self.backup_entropy, self.pessimistic = backup_entropy, pessimistic

    @property
    def temperature(self) -> Tensor:
        """alpha, []."""
        return self.log_temperature.exp()

    def act(self, context: Tensor, generator: torch.Generator) -> Tensor:
        return self.process.explore(self.policy.denoiser, context, generator)

    def value(self, following: Tensor, targets: Values, subset: int, generator: torch.Generator) -> Tensor:
        """min Q(s', a') - alpha log pi(a'|s'), a' ~ pi (eq. 3 there)."""
        chunk, log_prob = self._draw(following, generator)
        value = least_of(targets(following, chunk), subset, generator)
        return value - self.temperature * log_prob if self.backup_entropy else value

    def loss(self, context: Tensor, critics: Values, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """alpha log pi(a|s) - Q(s, a), and the temperature's loss."""
        chunk, log_prob = self._draw(context, generator)
        values = critics(context, chunk)
        value = values.amin(dim=0) if self.pessimistic else values.mean(dim=0)
        return soft_loss(self.log_temperature, log_prob, value, self.target_entropy)

    @torch.no_grad()
    def pull(
        self, batch: Batch, critics: CriticEnsemble, into: Mapping[Tensor, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Those of a perceptron are written out: automatic differentiation takes a quarter more time."""
        denoiser = self.policy.denoiser
        if not isinstance(denoiser, Perceptron):
            with torch.enable_grad():
                return super().pull(batch, critics, into, generator)
        drawn = self.process.trace(denoiser.layers, batch.context, generator)
        B, size = batch.chunk.shape
        values, trace = critics.trace(batch.context, drawn.chunk[:, :size])
        log_prob = drawn.log_density[:, :size].sum(dim=1)
        if self.pessimistic:
            value, least = values.min(dim=0, keepdim=True)
            slope = torch.zeros_like(values).scatter_(0, least, -1 / B)
        else:
            value = values.mean(dim=0)
            slope = torch.full_like(values, -1 / values.numel())
        _, logged = soft_loss(self.log_temperature, log_prob, value, self.target_entropy)
        behind = (0, drawn.chunk.shape[1] - size)  # what is not executed moves nothing
        of_chunk = nn.functional.pad(trace.slope(slope, size), behind)
        of_density = nn.functional.pad((logged["temperature"] / B).expand(1, size), behind)
        drawn.pull(of_chunk, of_density, into)
        into[self.log_temperature].copy_(logged["temperature"] * (logged["entropy"] - self.target_entropy))
        return logged

    def _draw(self, flat: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Executed chunks [B, k · A] and their log-probability [B]."""
        chunk, density = self.process.draw(self.policy.denoiser, self.history(flat), generator)
        return self.executed(chunk), self.executed(density).sum(dim=1)
