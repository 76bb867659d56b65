"""Transitions in memory, read from episodes: the discounted return of some steps, and where it goes on.

Recorded and own episodes are the same here. Each observation is encoded once, when its episode is added: the encoder
does not change. `terminated` ends what can be earned; an episode that was cut off (`truncated`, or one that merely
ends) goes on in the value of its final observation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_rl.datasets import Episode
from robot_rl.policies import Policy


@dataclass(frozen=True)
class Batch:
    """B decisions and what became of them.

    Attributes:
        context: [B, F], flattened over the observations that the policy sees.
        chunk: [B, k · A], normalised actions that were executed from there; behind the end of an episode the last one.
        reward: [B], discounted sum over the steps that follow.
        discount: [B], of the value of `following`: gamma to the number of those steps, 0 where the last one terminated.
        following: [B, F], the context after them.
        valid: bool [B, k], which actions of the chunk were executed, and not behind the end; None: all.
    """

    context: Tensor
    chunk: Tensor
    reward: Tensor
    discount: Tensor
    following: Tensor
    valid: Tensor | None = None

    @staticmethod
    def join(parts: Iterable[Batch]) -> Batch:
        """One batch of several, in their order, all of which say what is valid, or none."""
        given = list(parts)
        columns = zip(*((p.context, p.chunk, p.reward, p.discount, p.following) for p in given), strict=True)
        context, chunk, reward, discount, following = (torch.cat(column) for column in columns)
        valid = [part.valid for part in given if part.valid is not None]
        return Batch(context, chunk, reward, discount, following, torch.cat(valid) if valid else None)


class Replay:
    """Grows by whole episodes and forgets none; it lies, and is drawn from, where the policy is.

    Args:
        policy: encodes observations and normalises actions.
        execute: k, actions of a chunk that are executed.
        steps: over which rewards are summed before the critic is asked; at least k.
        discount: gamma, per control step.
    """

    def __init__(self, policy: Policy, execute: int, steps: int, discount: float) -> None:
        self.policy, self.execute, self.steps, self.discount = policy, execute, steps, discount
        F, A = policy.encoder.features, policy.contract.action_dim
        self._rows, self._size, self._count = 0, 0, 0
        with policy.device:
            self._context = torch.zeros(0, F)
            self._action = torch.zeros(0, A)
            self._reward = torch.zeros(0)
            self._terminated = torch.zeros(0, dtype=torch.bool)
            self._first = torch.zeros(0, dtype=torch.int64)  # row of the episode's first observation
            self._last = torch.zeros(0, dtype=torch.int64)  # and of its final one
            self._decisions = torch.zeros(0, dtype=torch.int64)  # rows with an action
            self._ahead = torch.arange(steps)
            self._powers = (discount ** torch.arange(steps + 1, dtype=torch.float64)).float()
            self._past = torch.arange(1 - policy.denoiser.shapes.obs_horizon, 1)

    def __len__(self) -> int:
        """Transitions."""
        return self._count

    @torch.no_grad()
    def add(self, episode: Episode, drawn: NDArray[np.bool_] | None = None) -> None:
        """Append an episode of a store, T + 1 rows.

        Args:
            drawn: which of its steps are transitions to draw, [T]; default: all.
        """
        T, start = episode.length, self._rows
        self._reserve(T + 1)
        rows, device = slice(start, start + T + 1), self.policy.device
        # One observation at a time: the encoder treats each of those that the policy sees alike.
        observation = {
            name: torch.from_numpy(episode.observation[name][:, None]).to(device)
            for name in self.policy.contract.observation
        }
        self._context[rows] = self.policy.encoder(observation)[:, 0]
        normalised = self.policy.action_normalizer.normalize(torch.from_numpy(episode.action).to(device))
        self._action[start : start + T] = normalised.clamp(-1.0, 1.0)
        self._reward[start : start + T] = torch.from_numpy(episode.reward)
        self._terminated[start : start + T] = torch.from_numpy(episode.terminated)
        self._first[rows], self._last[rows] = start, start + T
        decisions = start + torch.from_numpy(np.arange(T) if drawn is None else np.flatnonzero(drawn))
        self._decisions[self._count : self._count + len(decisions)] = decisions
        self._rows, self._count = start + T + 1, self._count + len(decisions)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Uniformly drawn transitions, with repetition."""
        return self.at(torch.randint(self._count, (size,), generator=generator).to(self.policy.device))

    def at(self, numbers: Tensor) -> Batch:
        """The transitions of these numbers, counted as they were added."""
        row = self._decisions[numbers]
        last = self._last[row]
        ahead = row[:, None] + self._ahead
        within = ahead < last[:, None]
        reward = self._reward[torch.where(within, ahead, row[:, None])] * within
        made = within.sum(dim=1)
        final = row + made
        discount = self._powers[made] * ~self._terminated[final - 1]
        executed = torch.minimum(ahead[:, : self.execute], last[:, None] - 1)
        return Batch(
            self._seen(row), self._action[executed].flatten(1), (reward * self._powers[:-1]).sum(dim=1), discount,
            self._seen(final), within[:, : self.execute],
        )  # fmt: skip

    def _seen(self, row: Tensor) -> Tensor:
        """[B, To · C]: the contexts up to these rows; before an episode stands its first."""
        if len(self._past) == 1:
            return self._context[row]
        seen = self._context[torch.maximum(row[:, None] + self._past, self._first[row][:, None])]
        return self.policy.encoder.remembered(seen).flatten(1)

    def _reserve(self, rows: int) -> None:
        if self._rows + rows <= self._size:
            return
        self._size = max(2 * self._size, self._rows + rows, 4096)
        for name in ("_context", "_action", "_reward", "_terminated", "_first", "_last", "_decisions"):
            old: Tensor = getattr(self, name)
            grown = old.new_zeros(self._size, *old.shape[1:])
            grown[: len(old)] = old
            setattr(self, name, grown)


def symmetric(
    own: Replay, demonstrations: Replay | None, share: float, size: int, generator: torch.Generator
) -> Batch:  # fmt: skip
    """A batch of which exactly this share (rounded) is demonstrations, and the rest own experience (Ball et al. 2023).

    Args:
        share: without demonstrations 0.
    """
    if demonstrations is None:
        return own.sample(size, generator)
    recorded = round(share * size)
    return Batch.join([demonstrations.sample(recorded, generator), own.sample(size - recorded, generator)])
