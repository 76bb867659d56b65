"""An actor: steps environments with the newest parameters, records what happens, and leaves the rest to its `Link`.

Environments are whatever has the interface `Environments`, as slow as they may be. An episode is committed to the
actor's own store before it is sent. Until it is acknowledged the actor waits, for a learner that is busy or away: what
it did meanwhile would be done with old parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robot_rl.datasets import Contract, EpisodeStore
from robot_rl.policies import Policy
from robot_rl.rl.apart.link import Link, News
from robot_rl.rl.apart.messages import Arrays, Welcome
from robot_rl.rl.environments import AbandonedError, Environments
from robot_rl.rl.explorer import Explorer
from robot_rl.rl.methods import build_off_policy
from robot_rl.rl.off_policy_method import OffPolicyMethod
from robot_rl.seed import mixed

WAIT = 0.2
"""Seconds between two looks at whether to stop."""
_SEEDS = 9_000_000
"""Among which an actor's first seed is drawn; two actors may meet on some, which makes equal starts and no more."""


def build(welcome: Welcome) -> OffPolicyMethod:
    """The method that the learner trains, with parameters yet to come."""
    policy = Policy(welcome.network, Contract.from_dict(welcome.contract)).eval()
    return build_off_policy(welcome.name, welcome.algorithm, policy, welcome.execute)


class Actor:
    """Acts within a `with` statement, which opens its store for recording.

    Args:
        method: of `build`.
        store: of `open_store`.
        link: that is told of each committed episode.
        lazy: see `Explorer`.
        say: is told why an episode was abandoned.
    """

    def __init__(
        self, welcome: Welcome, method: OffPolicyMethod, environments: Environments, store: Path, link: Link,
        lazy: bool = False, say: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        self._welcome, self._method, self._environments = welcome, method, environments
        self._path, self._link, self._lazy, self._say = store, link, lazy, say

    def __enter__(self) -> Actor:
        self._writer = EpisodeStore.append(self._path, self._environments.contract)
        try:
            store = self._writer.store
            drawn = hashlib.sha256(str(store.provenance["actor"]).encode()).digest()
            first = self._welcome.first_seed + int.from_bytes(drawn[:8], "little") % _SEEDS
            used = [store.facts(number).get("seed") for number in range(len(store))]
            seed = max([first, *(each + 1 for each in used if each)])
            self._generator = torch.Generator().manual_seed(mixed(seed, len(store)))
            self._explorer = Explorer(
                self._method.policy, self._environments, self._welcome.execute, seed, self._writer,
                str(self._welcome.environment.get("task", "")), self._method.intervener(self._environments), self._lazy,
            )  # fmt: skip
        except BaseException:
            self._writer.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def act(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Act until the training is finished, or `stopping` says so; returns whether it is finished.

        Raises:
            AccessError, MessageError, FinetuneError: there is no going on with this learner.
        """
        news: News | None = None
        while not stopping():
            news = self._link.news(WAIT if news is None or news.waiting else 0.0)
            if news is None:
                continue
            if news.finished:
                return True
            if news.arrays:
                self._load(news.arrays)
                self._explorer.weights = news.version
            if news.waiting:
                continue
            lost = self._explorer.diverged
            try:
                finished = self._explorer.step(self._chunks(news.begin))
            except AbandonedError as error:
                self._say(f"abandoned, nothing of it is sent: {error}")
                continue
            if self._explorer.diverged > lost:
                self._say("abandoned, nothing of it is sent: the simulation diverged")
            for number, _ in finished:
                self._link.recorded(number)
        return False

    def _chunks(self, begin: bool) -> Callable[[Tensor], Tensor]:
        act = self._method.begin if begin else self._method.act
        return lambda context: act(context, self._generator)

    def _load(self, arrays: Arrays) -> None:
        self._method.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
