"""What distinguishes the off-policy methods: how an actor is extracted from the critics, and what a state is worth.

The core (`off_policy.py`) is the same for all: the replay, the critics and their targets. A method acts, says what the
target critics make of the states that follow, and gives the loss of whatever it trains besides the critics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from robot_rl.policies import Policy, PolicyError
from robot_rl.policies.critic_ensemble import CriticEnsemble
from robot_rl.rl.environments import Environments
from robot_rl.rl.intervention import Intervener
from robot_rl.rl.replay import Batch

Values = Callable[[Tensor, Tensor], Tensor]
"""Values [E, B] of contexts [B, F] and executed chunks [B, k · A]."""


class OffPolicyMethod(nn.Module, ABC):
    """A policy and what trains it. The encoder stays as it is.

    Args:
        policy: what is trained, deployed and saved.
        execute: k, actions of a chunk that are executed, and the critics see.

    Raises:
        PolicyError: the policy has what no off-policy method trains, or executes fewer actions.
    """

    def __init__(self, policy: Policy, execute: int) -> None:
        super().__init__()
        for key in ("estimator", "residual"):
            if policy.config[key] is not None:
                raise PolicyError(f"{key}: off-policy methods train policies without one")
        if policy.action_offset != 0:
            raise PolicyError(f"action_offset: expected 0 for an off-policy method, got {policy.action_offset}")
        if not 1 <= execute <= policy.action_horizon:
            raise PolicyError(f"execute: a chunk of {policy.action_horizon} actions, got {execute}")
        kind = policy.config["normalizer"]["action"]
        within = bool((policy.low >= -1).all() and (policy.high <= 1).all())
        if kind != "min_max" and not (kind == "none" and within):
            raise PolicyError(
                f"normalizer.action={kind} puts actions outside [-1, 1], where the replay and the critics of an "
                "off-policy method do not look; clone with policy.normalizer.action=min_max"
            )
        self.policy, self.execute = policy, execute
        policy.encoder.requires_grad_(False)

    def begin(self, context: Tensor, generator: torch.Generator) -> Tensor:
        """As `act`, in the first `start_steps`: uniform draws."""
        shape = self.policy.action_horizon, self.policy.contract.action_dim
        return 2 * torch.rand(len(context), *shape, generator=generator).to(context.device) - 1

    @abstractmethod
    def act(self, context: Tensor, generator: torch.Generator) -> Tensor:
        """Chunks [B, H, A] to explore with, normalised, of contexts [B, To, C]; called without gradients."""

    @abstractmethod
    def value(self, following: Tensor, targets: Values, subset: int, generator: torch.Generator) -> Tensor:
        """What the states [B, F] are worth, [B]; called without gradients.

        Args:
            targets: the target critics.
            subset: how many of them are asked.
        """

    @abstractmethod
    def loss(self, context: Tensor, critics: Values, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss [] of the actor on contexts [B, F], whose gradients leave the critics alone, and what to log."""

    def imitation(
        self, context: Tensor, chunk: Tensor, generator: torch.Generator, valid: Tensor | None = None
    ) -> Tensor | None:
        """Loss [] of imitating executed chunks [B, k · A] in contexts [B, F]; None: nothing is imitated.

        Args:
            valid: bool [B, k], the actions that count; None: all.
        """
        return None

    def pull(
        self, batch: Batch, critics: CriticEnsemble, into: Mapping[Tensor, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Write the gradients of both losses, by parameter, into these tensors; returns what to log."""
        loss, logged = self.loss(batch.context, critics.fixed, generator)
        imitation = self.imitation(batch.context, batch.chunk, generator, batch.valid)
        if imitation is not None:
            loss, logged = loss + imitation, {**logged, "imitation_loss": imitation.detach()}
        found = torch.autograd.grad(loss, list(into), allow_unused=True, materialize_grads=True)
        torch._foreach_copy_(list(into.values()), found)
        return logged

    def follow(self, critics: CriticEnsemble) -> None:
        """Take over the critics after an update, where the method acts by them."""

    def intervener(self, environments: Environments) -> Intervener | None:
        """Who may take over while it explores: nobody, unless the method says otherwise."""
        return None

    def trained(self) -> list[nn.Parameter]:
        """What the loss moves."""
        return [value for value in self.parameters() if value.requires_grad]

    def history(self, flat: Tensor) -> Tensor:
        """[B, F] to the context [B, To, C]."""
        context: Tensor = flat.unflatten(1, (self.policy.denoiser.shapes.obs_horizon, -1))
        return context

    def executed(self, chunk: Tensor) -> Tensor:
        """[B, H, A] to what the critics see of it, [B, k · A]."""
        return chunk[:, : self.execute].flatten(1)
