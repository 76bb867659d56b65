"""Acting to learn: environments stepped with the chunks of a method, recorded as episodes of a store.

Chunks are executed by the same `ChunkRunner` that evaluates and deploys a policy. Environments reset themselves; each
finished episode is committed to the store, complete, before the next step is made. One whose simulation diverged is
not: what led there is no experience of the task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_rl.datasets import satisfies
from robot_rl.datasets.writer import StoreWriter
from robot_rl.policies import Policy
from robot_rl.policies.chunk_runner import ChunkRunner
from robot_rl.rl.collector import Episode
from robot_rl.rl.environments import AbandonedError, Environments, Observation, diverged
from robot_rl.rl.intervention import Intervener

Act = Callable[[Tensor], Tensor]
"""Normalised chunks [B, H, A] of contexts [B, To, C]."""


@dataclass
class _Open:
    """An episode under way: an observation more than actions."""

    seed: int
    observation: list[Observation]
    action: list[NDArray[np.float32]] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    success: bool = False
    proposed: list[NDArray[np.float32]] = field(default_factory=list)
    intervened: list[bool] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)


class Explorer:
    """Steps N environments and records what happens.

    Args:
        execute: actions of each chunk that are executed.
        first_seed: of the first episode; each later one has the next.
        writer: of the store that takes the episodes; its contract is that of the environments.
        task: name in the facts of the episodes.
        intervener: who may take over. What was executed is recorded as the action, beside what the policy proposed.
        lazy: begin episodes when their first step is to be made, as a robot wants it, which acts for nobody until then;
            for one environment. Else environments begin them, each right after the last one.

    Attributes:
        interventions: control steps of all environments in which somebody took over.
        diverged: episodes that were left out, as their simulation diverged.
        weights: version of the parameters that act, to be kept in the facts of the episodes; None: it is not.
    """

    def __init__(
        self, policy: Policy, environments: Environments, execute: int | None, first_seed: int, writer: StoreWriter,
        task: str, intervener: Intervener | None = None, lazy: bool = False,
    ) -> None:  # fmt: skip
        satisfies(policy.contract, environments.contract)
        self.policy, self.environments, self.writer, self.task = policy, environments, writer, task
        self.runner = ChunkRunner(policy, environments.num_envs, execute=execute)
        self.execute = self.runner.execute
        self.intervener, self.interventions, self.diverged = intervener, 0, 0
        self.weights: int | None = None
        self._names = list(environments.contract.observation)
        self._lazy, self._next_seed = lazy, first_seed
        self._open: list[_Open] = []
        if not lazy:
            self.begin(first_seed)

    @property
    def steps(self) -> int:
        """Control steps of the episodes under way."""
        return sum(len(episode.action) for episode in self._open)

    def begin(self, first_seed: int) -> None:
        """Abandon the episodes under way, and begin those from this seed on."""
        observation, info = self.environments.reset(seed=first_seed)
        seeds = np.asarray(info["seed"], np.int64).tolist()
        self._next_seed = max(seeds) + 1
        self._open = [_Open(seed, [self._row(observation, env)]) for env, seed in enumerate(seeds)]
        self.runner.flush()
        self._observe(observation)

    def step(self, act: Act) -> list[tuple[int, Episode]]:
        """One control step in every environment; the episodes that ended with it, each with its number in the store.

        Raises:
            AbandonedError: the episode cannot go on. The next step begins another one.
        """
        if not self._open:
            self.begin(self._next_seed)
        request = self.runner.request()
        if request is not None:
            with torch.no_grad():
                chunk = self.policy.decode(act(self.policy.encode(request.observation)))
            self.runner.deliver(request.id, chunk.cpu().numpy())
        proposed = self.runner.next_action()
        intervened, action = self._intervene(proposed)
        try:
            observation, reward, terminated, truncated, info = self.environments.step(action)
        except AbandonedError:
            self._open = []
            raise
        if "executed" in info:
            intervened, action = info["intervened"], info["executed"]
            self.interventions += int(intervened.sum())
        self.runner.renew(intervened)  # what the policy planned no longer holds
        over, apart = terminated | truncated, diverged(info, self.environments.num_envs)
        self.diverged += int(apart.sum())
        finished: list[tuple[int, Episode]] = []
        for env, episode in enumerate(self._open):
            episode.action.append(action[env])
            episode.proposed.append(proposed[env])
            episode.intervened.append(bool(intervened[env]))
            episode.reward.append(float(reward[env]))
            episode.success |= bool(info["success"][env])
            if self.weights is not None:
                episode.weights.append(self.weights)
            if over[env]:
                if not apart[env]:
                    final = {name: info["final_obs"][env][name] for name in self._names}
                    facts = info["facts"][env] if "facts" in info else {}
                    finished.append(self._finish(episode, final, bool(terminated[env]), facts))
                seed = int(info["reset_info"][env]["seed"])
                self._next_seed = max(self._next_seed, seed + 1)
                self._open[env] = _Open(seed, [self._row(observation, env)])
            else:
                episode.observation.append(self._row(observation, env))
        if over.any() and self._lazy:
            self._open = []
            return finished
        if over.any():
            self.runner.flush(np.flatnonzero(over))
        self._observe(observation)
        return finished

    def renew(self) -> None:
        """Drop what is left of chunks: every environment begins the next step with a new one."""
        self.runner.renew()

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Where the environments stand after `renew`, as plain JSON types and arrays; for `load`."""
        arrays: dict[str, NDArray[Any]] = {"environments": self.environments.get_states()}
        A = self.policy.contract.action_dim
        for env, episode in enumerate(self._open):
            for name in self._names:
                arrays[f"{env}/observation/{name}"] = np.stack([row[name] for row in episode.observation])
            arrays[f"{env}/action"] = np.array(episode.action, np.float32).reshape(-1, A)
            arrays[f"{env}/reward"] = np.array(episode.reward, np.float64)
            if self.intervener is not None:
                arrays[f"{env}/proposed"] = np.array(episode.proposed, np.float32).reshape(-1, A)
                arrays[f"{env}/intervened"] = np.array(episode.intervened, np.bool_)
        plain = {
            "next_seed": self._next_seed, "seeds": [episode.seed for episode in self._open],
            "success": [episode.success for episode in self._open],
        }  # fmt: skip
        return plain, arrays

    def load(self, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], steps_left: int) -> None:
        """Go on where `state` was taken.

        Args:
            steps_left: the most control steps of all environments together that will still be made.
        """
        N, self._next_seed = self.environments.num_envs, int(plain["next_seed"])
        self._open = []
        for env, (seed, success) in enumerate(zip(plain["seeds"], plain["success"], strict=True)):
            columns = {name: arrays[f"{env}/observation/{name}"] for name in self._names}
            action = list(arrays[f"{env}/action"])
            rows = [{name: column[row] for name, column in columns.items()} for row in range(len(action) + 1)]
            proposed = list(arrays.get(f"{env}/proposed", action))
            intervened = arrays.get(f"{env}/intervened", np.zeros(len(action), np.bool_)).tolist()
            self._open.append(
                _Open(int(seed), rows, action, arrays[f"{env}/reward"].tolist(), bool(success), proposed, intervened)
            )
        # Episodes under way are begun again for what their seed decides, then moved to where they stood.
        coming = range(self._next_seed, self._next_seed + steps_left + N)
        self.environments.reset(seed=[*plain["seeds"], *coming])
        self.environments.set_states(arrays["environments"])
        self.runner.flush()
        for back in range(self.runner.obs_horizon, 0, -1):
            rows = [episode.observation[max(0, len(episode.observation) - back)] for episode in self._open]
            self._observe({name: np.stack([row[name] for row in rows]) for name in self._names})

    def _finish(
        self, episode: _Open, final: Observation, terminated: bool, facts: Mapping[str, Any]
    ) -> tuple[int, Episode]:
        last = len(episode.action) - 1
        with self.writer.episode(task=self.task, source="policy", seed=episode.seed) as recorded:
            for step, action in enumerate(episode.action):
                recorded.add(
                    episode.observation[step], action, reward=episode.reward[step],
                    terminated=terminated and step == last, truncated=not terminated and step == last,
                    policy_action=episode.proposed[step], intervened=episode.intervened[step],
                )  # fmt: skip
            acted = episode.weights
            versions = {"weights": [acted[0], float(np.mean(acted)), acted[-1]]} if acted else {}
            number = recorded.finish(final, success=episode.success, **{**facts, **versions})
        return number, Episode(float(sum(episode.reward)), episode.success, last + 1)

    def _intervene(self, proposed: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Where somebody takes over in this step, [N], and what is executed, [N, A]."""
        if self.intervener is None:
            return np.zeros(len(proposed), np.bool_), proposed
        intervened, action = self.intervener(proposed, self._open)
        self.interventions += int(intervened.sum())
        return intervened, np.where(intervened[:, None], action, proposed)

    def _observe(self, observation: Mapping[str, NDArray[Any]]) -> None:
        self.runner.observe({name: observation[name] for name in self.policy.contract.observation})

    def _row(self, observation: Mapping[str, NDArray[Any]], env: int) -> Observation:
        return {name: observation[name][env].copy() for name in self._names}
