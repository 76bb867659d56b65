"""Proximal policy optimisation (Schulman et al. 2017) of any `Method`: the one on-policy core.

An iteration collects a rollout, estimates advantages, and makes some epochs of clipped updates of actor and critic.
"""

from __future__ import annotations

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
            f"{key}: expected a number above 0, got {given[key]}"
            for key in positive
            if key in given and not given[key] > 0
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
        logged: dict[str, list[float]] = {name: [] for name in ("actor_loss", "critic_loss", "entropy", "clipped")}
        kl, first_ratio, epochs, updates = 0.0, float("nan"), 0, 0
        for _ in range(settings.epochs):
            epochs += 1
            divergence, minibatches = 0.0, 0
            order = torch.randperm(size, generator=generator).to(device)
            # Shuffled once an epoch: a minibatch is then a slice of each column.
            columns = [column[order] for column in (context, value, returns, states, counted, old, advantage)]
            for rows, *parts in zip(
                *(column.split(settings.minibatch) for column in (order, *columns)), strict=True
            ):  # fmt: skip
                seen, worth, target, drawn_states, used, before, better = parts
                if not self._frozen_encoder:
                    seen = self._encode(rollout, rows)
                loss = self._critic_loss(self.model.critic(seen), worth, target)
                logged["critic_loss"].append(float(loss.detach()))
                if self.train_actor:
                    density, std = self.method.density(drawn_states, seen)
                    difference = self.method.condense(density, used) - before
                    ratio = difference.exp()
                    if updates == 0:
                        first_ratio = float((ratio.detach() - 1).abs().max())
                    actor, clipped = self._actor_loss(ratio, better)
                    spread = entropy(std)
                    loss = loss + actor - settings.entropy * spread
                    # Schulman's estimator of KL(old, new), which is never negative.
                    divergence += float((ratio.detach() - 1 - difference.detach()).mean())
                    for name, item in (("actor_loss", actor), ("entropy", spread), ("clipped", clipped)):
                        logged[name].append(float(item.detach()))
                self.optimizer.step(loss, (0, 1) if self.train_actor else (1,), settings.gradient_clip)
                updates += 1
                minibatches += 1
            kl = divergence / minibatches
            if settings.target_kl is not None and kl > settings.target_kl:
                break
        if first_ratio > 1e-2:
            raise FinetuneError(
                f"the first ratios differ from 1 by up to {first_ratio:.2g}: the density of a chunk when it was drawn "
                "is not that of the update"
            )
        means = {name: float(np.mean(values)) for name, values in logged.items() if values}
        if not all(np.isfinite(value) for value in means.values()):
            raise FinetuneError(
                f"a loss is not finite ({means}). The last checkpoint is kept; lower training.learning_rate or "
                "training.clip."
            )
        extra = {"kl": kl, "first_ratio_error": first_ratio} if self.train_actor else {}
        variance = float(returns.var())
        explained = 1 - float((returns - value).var()) / variance if variance > 0 else 0.0
        return {**means, **extra, "epochs": epochs, "updates": updates, "explained_variance": explained}

    def _actor_loss(self, ratio: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
        """The clipped surrogate [], and the share of ratios beyond the clip; the advantage is normalised first."""
        if len(advantage) > 1:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        shared, clip = self.method.share(advantage), self.method.clip(self.settings.clip)
        within = torch.minimum(torch.maximum(ratio, 1 - clip), 1 + clip)
        return -torch.minimum(ratio * shared, within * shared).mean(), ((ratio - 1).abs() > clip).float().mean()

    def _critic_loss(self, new: Tensor, old: Tensor, returns: Tensor) -> Tensor:
        error = (new - returns).square()
        if self.settings.value_clip is not None:
            near = old + (new - old).clamp(-self.settings.value_clip, self.settings.value_clip)
            error = torch.maximum(error, (near - returns).square())
        return 0.5 * error.mean()

    def _executed(self, rollout: Rollout) -> Tensor:
        """Bool [B, H]: the actions of each chunk that were executed."""
        policy = self.method.policy
        place = torch.arange(policy.action_horizon) + policy.action_offset
        return (place >= 0) & (place < torch.from_numpy(rollout.executed)[:, None])

    def _encode(self, rollout: Rollout, rows: Tensor) -> Tensor:
        chosen = rows.cpu().numpy()
        return self.method.policy.encode({name: value[chosen] for name, value in rollout.observation.items()})
