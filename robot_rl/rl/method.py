"""What distinguishes the on-policy methods: how a chunk is drawn, what its density is, how credit is shared.

The core (`collector.py`, `on_policy.py`) is the same for all. A method draws chunks as chains of Gaussian steps, of
which it keeps what is trained (everything, unless it says otherwise), evaluates their density under the present
parameters, and condenses the density of each element to one or several log-ratios for each decision.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robot_rl.policies import Policy, PolicyError
from robot_rl.policies.chain import gaussian_log_density
from robot_rl.rl.environments import Environments
from robot_rl.rl.extended import chooser


@dataclass(frozen=True)
class Drawn:
    """Chunks with what their density is computed from.

    Attributes:
        chunk: [B, H, A], normalised and not clipped; `Policy.decode` makes actions of it.
        states: [B, S, H, A], of the chain.
        log_density: [B, D, H, A], of each element of each trained step, as it was when drawn.
    """

    chunk: Tensor
    states: Tensor
    log_density: Tensor


@dataclass(frozen=True)
class LogProb:
    """Log-probabilities of kept states under the present parameters.

    Attributes:
        value: [B, R].
        std: the deviations, of any shape.
        pull: from the gradients of the values [B, R] and of the mean entropy to those of these parameters.
    """

    value: Tensor
    std: Tensor
    pull: Callable[[Tensor, float, Sequence[nn.Parameter]], Sequence[Tensor]]


class Method(ABC):
    """A policy with a way to explore.

    Attributes:
        policy: what is trained, and deployed unless there is another `result`.
        ratios: R, log-ratios of each decision.
    """

    policy: Policy
    ratios: int = 1

    @property
    def result(self) -> Policy:
        """What is evaluated, saved and deployed."""
        return self.policy

    def surround(self, environments: Environments, execute: int | None) -> tuple[Environments, int | None]:
        """What training steps, and the actions of each chunk executed there: as given, unless the method changes it."""
        return environments, execute

    def begin(self, done: float) -> None:
        """Called at the start of each iteration with the share of the training that is done; for schedules."""
        return

    def draw(self, context: Tensor, generator: torch.Generator) -> Drawn:
        """A chunk for each context [B, To, C], without gradients."""
        chain = self.policy.chain(context, generator)
        return Drawn(chain.states[:, -1], chain.states, chain.log_density)

    def density(self, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density [B, D, H, A] of kept states under the present parameters, and the deviations, of that shape."""
        mean, std = self.policy.process.gaussians(self.policy.denoiser, states, context)
        return gaussian_log_density(states, mean, std), std

    def log_prob(self, states: Tensor, context: Tensor, counted: Tensor) -> LogProb:
        """What `condense` makes of `density`, with its gradient."""
        with torch.enable_grad():
            density, std = self.density(states, context)
            log_prob = self.condense(density, counted)
            spread = entropy(std)

        def pull(slope: Tensor, entropy_slope: float, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor]:
            outputs, slopes = [log_prob], [slope]
            if entropy_slope and std.requires_grad:
                outputs, slopes = [*outputs, spread], [*slopes, std.new_tensor(entropy_slope)]
            return torch.autograd.grad(outputs, parameters, slopes, allow_unused=True, materialize_grads=True)

        return LogProb(log_prob.detach(), std.detach(), pull)

    @abstractmethod
    def condense(self, log_density: Tensor, counted: Tensor) -> Tensor:
        """Log-probabilities [B, R] of the elements of steps that were executed, `counted` [B, H], of `log_density`."""

    def share(self, advantage: Tensor) -> Tensor:
        """The advantage [B, R] of each ratio, from that of the decision [B]."""
        return advantage[:, None].expand(-1, self.ratios)

    def clip(self, clip: float) -> Tensor:
        """The range [R] within which each ratio counts, from the configured one."""
        return torch.full((self.ratios,), clip, device=self.policy.device)

    def trained(self) -> list[nn.Parameter]:
        """What the actor's optimizer moves."""
        return [value for value in self.policy.parameters() if value.requires_grad]


def trains(policy: Policy) -> str:
    """The algorithm that trains policies of this kind, for who has asked for another one."""
    kinds = {"gaussian": "ppo", "flow_matching": "reinflow", "shortcut": "reinflow", "tanh_gaussian": "sac"}
    return kinds.get(policy.config["process"]["name"], "dppo")


def refuse_choosing(name: str, policy: Policy) -> None:
    """What chooses the noise or the chunk leaves no density to train by.

    Raises:
        PolicyError: the policy is steered or edited.
    """
    if kind := chooser(policy):
        raise PolicyError(
            f"{name}: this policy has {kind}, by which the density of its chunks is not known; give the policy that "
            "it was made for"
        )


def sum_executed(log_density: Tensor, counted: Tensor) -> Tensor:
    """[B, D, H, A] to [B, D]: the log-probability of the executed actions."""
    return torch.where(counted[:, None, :, None], log_density, 0.0).sum(dim=(-2, -1))


def mean_executed(log_density: Tensor, counted: Tensor) -> Tensor:
    """[B, D, H, A] to [B, D]: the same as a mean over their elements, whose scale does not grow with the chunk.

    A clip of a mean is a clip of the geometric mean of the elements' ratios: 0.01 there is what 0.01 · elements is for
    a sum (ReinFlow and DPPO clip means, PPO sums).
    """
    elements = counted.sum(dim=1) * log_density.shape[-1]
    return sum_executed(log_density, counted) / elements.clamp_min(1)[:, None]


def entropy(std: Tensor) -> Tensor:
    """Mean entropy [nat] of Gaussians with deviations of any shape."""
    return std.log().mean() + 0.5 * math.log(2 * math.pi * math.e)
