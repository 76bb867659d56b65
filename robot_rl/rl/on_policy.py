"""Proximal policy optimisation (Schulman et al. 2017) of any `Method`: the one on-policy core.

An iteration collects a rollout, estimates advantages, and makes some epochs of clipped updates of actor and critic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.rl.advantage import generalised_advantage
from robot_rl.rl.collector import Rollout, encode_all
from robot_rl.rl.critic import Critic
from robot_rl.rl.flat_adam import FlatAdam
from robot_rl.rl.method import Method, entropy

FIRST_RATIO = 1e-3
"""How far a first ratio may be from 1: less than two time grids of a chain make of it (ReinFlow's code at four steps:
1.8e-3), and more than sums in another order do."""


class FinetuneError(ValueError):
    """A setting is not possible, or the training has failed; the message says what to do."""


@dataclass(frozen=True)
class Settings:
    """The keys of `training:`, explained in `configs/finetune.yaml`."""

    steps: int
    num_envs: int
    rollout_steps: int
    execute: int | None
    discount: float
    gae_decay: float
    reward_scale: bool
    epochs: int
    minibatch: int
    learning_rate: float
    critic_learning_rate: float
    final_learning_rate: float
    critic_warmup: int
    clip: float
    value_clip: float | None
    entropy: float
    target_kl: float | None
    gradient_clip: float
    critic_width: int
    critic_depth: int
    save_every: int
    evaluate_every: int
    evaluate_episodes: int

    @staticmethod
    def read(plain: Mapping[str, Any]) -> Settings:
        """From configuration; unknown, missing and impossible values are errors, all named at once."""
        known, may_be_null = [item.name for item in fields(Settings)], ("execute", "value_clip", "target_kl")
        problems = [f"{key}: no such key; known are {', '.join(known)}" for key in plain if key not in known]
        problems += [f"{key}: missing" for key in known if plain.get(key) is None and key not in may_be_null]
        given = {key: value for key, value in plain.items() if value is not None}
        least = dict.fromkeys(("steps", "num_envs", "rollout_steps", "execute", "epochs", "minibatch", "save_every"), 1)
        least |= dict.fromkeys(("critic_width", "critic_depth", "evaluate_every", "evaluate_episodes"), 1)
        least |= dict.fromkeys(("critic_warmup", "entropy", "final_learning_rate", "learning_rate"), 0)
        problems += [
            f"{key}: expected at least {value}, got {given[key]}"
            for key, value in least.items()
            if key in given and not given[key] >= value
        ]
        positive = ("critic_learning_rate", "clip", "value_clip", "target_kl", "gradient_clip", "discount")
        problems += [
            f"{key}: expected a finite number above 0, got {given[key]}"
            for key in positive
            if key in given and not 0 < given[key] < math.inf
        ]
        problems += [
            f"{key}: expected at most 1, got {given[key]}"
            for key in ("discount", "gae_decay")
            if key in given and not 0 <= given[key] <= 1
        ]
        if problems:
            raise FinetuneError("training: cannot be read:\n" + "\n".join(f"  - {line}" for line in problems))
        return Settings(**{**dict.fromkeys(may_be_null), **plain})

    @property
    def iteration_steps(self) -> int:
        """Control steps of an iteration, all environments together."""
        return self.num_envs * self.rollout_steps


class ActorCritic(nn.Module):
    """The policy and the critic, so that one optimizer and one checkpoint hold both."""

    def __init__(self, method: Method, settings: Settings) -> None:
        super().__init__()
        policy = method.policy
        self.policy = policy
        self.critic = Critic(
            policy.encoder.horizon * policy.encoder.features, settings.critic_width, settings.critic_depth
        ).to(policy.device)  # fmt: skip


def build_optimizer(model: ActorCritic, method: Method, settings: Settings) -> FlatAdam:
    """A group for the actor and one for the critic."""
    groups = [
        (method.trained(), settings.learning_rate),
        (list(model.critic.parameters()), settings.critic_learning_rate),
    ]
    return FlatAdam(groups, eps=1e-5)


@torch.no_grad()
def estimate(
    method: Method, critic: Critic, rollout: Rollout, settings: Settings, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Context, value and advantage of each decision of a rollout.

    Args:
        scale: of the reward.

    Returns:
        [B, To, C], [B] and [B], in units of the scaled reward.
    """
    context = encode_all(method, rollout.observation)
    values = critic(context)
    value = np.zeros_like(rollout.reward)
    every = np.arange(rollout.reward.shape[1])
    value[rollout.row, rollout.env] = values.double().cpu().numpy()
    following = np.zeros_like(value)
    following[:-1] = value[1:]
    count = np.bincount(rollout.env, minlength=len(every))
    following[count - 1, every] = critic(encode_all(method, rollout.last)).double().cpu().numpy()
    if rollout.final:
        places = tuple(np.array(list(rollout.final)).T)
        names = rollout.observation.keys()
        final = {name: np.stack([seen[name] for seen in rollout.final.values()]) for name in names}
        following[places] = critic(encode_all(method, final)).double().cpu().numpy()
    advantage = generalised_advantage(
        scale * rollout.reward, value, following, rollout.discount, rollout.ended, settings.gae_decay
    )
    chosen = torch.from_numpy(advantage[rollout.row, rollout.env]).float().to(values.device)
    return context, values, chosen


class Update:
    """The epochs of clipped updates over one rollout.

    Args:
        train_actor: false while the critic warms up.
    """

    def __init__(
        self, method: Method, model: ActorCritic, optimizer: FlatAdam, settings: Settings, train_actor: bool = True
    ) -> None:
        self.method, self.model, self.optimizer, self.settings = method, model, optimizer, settings
        self.train_actor = train_actor
        self._frozen_encoder = not any(value.requires_grad for value in method.policy.encoder.parameters())

    def run(
        self, rollout: Rollout, context: Tensor, value: Tensor, advantage: Tensor, generator: torch.Generator
    ) -> dict[str, float]:
        """Update on a rollout; returns what is worth logging.

        Raises:
            FinetuneError: a loss is not finite, or the first ratios show that two densities of one chunk disagree.
        """
        device, settings = value.device, self.settings
        returns, size = value + advantage, len(value)
        counted = self._executed(rollout).to(device)
        states, drawn = rollout.states.to(device), rollout.log_density.to(device)
        old = self.method.condense(drawn, counted)
        logged: dict[str, list[float]] = {}
        kl, first_ratio, epochs, updates = 0.0, float("nan"), 0, 0
        for _ in range(settings.epochs):
            epochs += 1
            order = torch.randperm(size, generator=generator).to(device)
            # Shuffled once an epoch: a minibatch is then a slice of each column.
            columns = [column[order] for column in (context, value, returns, states, counted, old, advantage)]
            made: list[dict[str, Tensor]] = []
            for rows, *parts in zip(
                *(column.split(settings.minibatch) for column in (order, *columns)), strict=True
            ):  # fmt: skip
                seen, *others = parts
                made.append(self._step(seen if self._frozen_encoder else self._encode(rollout, rows), *others))
            updates += len(made)
            found = {name: torch.cat([each[name] for each in made]) for name in made[0]}
            if self.train_actor:
                ratio = found["log_ratio"].exp()
                if epochs == 1:
                    first_ratio = float((ratio[: len(made[0]["log_ratio"])] - 1).abs().max())
                # Schulman's estimator of KL(old, new), which is never negative.
                kl = float((ratio - 1 - found.pop("log_ratio")).mean())
                found["entropy"] = entropy(found.pop("std"))
                found["clipped"] = ((ratio - 1).abs() > self.method.clip(settings.clip)).float()
            for name, items in found.items():
                logged.setdefault(name, []).append(float(items.mean()))
            if settings.target_kl is not None and kl > settings.target_kl:
                break
        if first_ratio > FIRST_RATIO:
            raise FinetuneError(
                f"the first ratios differ from 1 by up to {first_ratio:.2g}: the density of a chunk when it was drawn "
                "is not that of the update"
            )
        means = {name: float(np.mean(values)) for name, values in logged.items()}
        if not all(np.isfinite(value) for value in means.values()):
            raise FinetuneError(
                f"a loss is not finite ({means}). The last checkpoint is kept; lower training.learning_rate or "
                "training.clip."
            )
        extra = {"kl": kl, "first_ratio_error": first_ratio} if self.train_actor else {}
        variance = float(returns.var(correction=0))
        explained = 1 - float((returns - value).var(correction=0)) / variance if variance > 0 else 0.0
        return {**means, **extra, "epochs": epochs, "updates": updates, "explained_variance": explained}

    def _step(
        self, seen: Tensor, value: Tensor, returns: Tensor, states: Tensor, counted: Tensor, old: Tensor,
        advantage: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Update on a minibatch; returns what is worth logging of each of its decisions, before the update."""
        settings, method = self.settings, self.method
        new, pull = self.model.critic.trace(seen)
        loss, slope = value_loss(new, value, returns, settings.value_clip)
        self.optimizer.move(1, pull(slope), settings.gradient_clip)
        if not self.train_actor:
            return {"critic_loss": loss}
        log_prob = method.log_prob(states, seen, counted)
        log_ratio = log_prob.value - old
        if len(advantage) > 1:
            spread, mean = torch.std_mean(advantage)
            advantage = (advantage - mean) / (spread + 1e-8)
        worth, slope = surrogate(log_ratio, method.share(advantage), method.clip(settings.clip))
        gradients = log_prob.pull(slope, -settings.entropy, self.optimizer.parameters[0])
        self.optimizer.move(0, gradients, settings.gradient_clip)
        return {"critic_loss": loss, "actor_loss": worth, "log_ratio": log_ratio, "std": log_prob.std}

    def _executed(self, rollout: Rollout) -> Tensor:
        """Bool [B, H]: the actions of each chunk that were executed."""
        policy = self.method.policy
        place = torch.arange(policy.action_horizon) + policy.action_offset
        return (place >= 0) & (place < torch.from_numpy(rollout.executed)[:, None])

    def _encode(self, rollout: Rollout, rows: Tensor) -> Tensor:
        chosen = rows.cpu().numpy()
        return self.method.policy.encode({name: value[chosen] for name, value in rollout.observation.items()})


def surrogate(log_ratio: Tensor, advantage: Tensor, clip: Tensor) -> tuple[Tensor, Tensor]:
    """The clipped surrogate (eq. 7 of Schulman et al. 2017), as a loss for each ratio, and the gradient of its mean.

    Args:
        log_ratio, advantage: [B, R].
        clip: [R], how far a ratio counts from 1.
    """
    ratio = log_ratio.exp()
    free, clipped = ratio * advantage, torch.clamp(ratio, 1 - clip, 1 + clip) * advantage
    # A ratio is its own derivative by its logarithm; where the clip decides, nothing depends on it.
    return -torch.minimum(free, clipped), torch.where(free <= clipped, free, 0.0) / -free.numel()


def value_loss(new: Tensor, old: Tensor, returns: Tensor, clip: float | None) -> tuple[Tensor, Tensor]:
    """Half the squared error of each value [B], and the gradient of its mean.

    Args:
        clip: how far a value counts from the old one; None: as far as it goes. The larger error is taken.
    """
    error = new - returns
    if clip is None:
        return 0.5 * error.square(), error / len(error)
    near = old + (new - old).clamp(-clip, clip) - returns
    held = near.square() > error.square()  # only beyond the clip, where nothing depends on the new value
    return 0.5 * torch.where(held, near, error).square(), torch.where(held, 0.0, error) / len(error)
