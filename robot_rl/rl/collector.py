"""The sampler: many environments at once, stepped with the chunks of the policy that is trained.

A chunk is executed by the same `ChunkRunner` that evaluates and deploys it. Environments reset themselves; the rest of
a chunk past the end of an episode is dropped, and the next episode begins with a chunk of its own. At the end of a
rollout open chunks are cut short: the actions that were executed count, and the next rollout begins with new ones.
A simulation that diverged ends its episode with nothing more to earn: what it shows then is no state of the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_rl.datasets import satisfies
from robot_rl.policies.chunk_runner import ChunkRunner, Request
from robot_rl.rl.advantage import Table
from robot_rl.rl.environments import Environments, Observation, diverged
from robot_rl.rl.method import Method

if TYPE_CHECKING:
    from robot_rl.rl.moments import RewardScale


@dataclass(frozen=True)
class Episode:
    """A finished episode: undiscounted return, whether any step was a success, steps."""

    total_reward: float
    success: bool
    steps: int


@dataclass
class Rollout:
    """Decisions of N environments, B in all. Tables are [T, N], T the most decisions of one environment.

    Attributes:
        row, env: int64 [B], where in the tables each decision stands; other places of the tables hold zeros.
        observation: {name: [B, To, ...]}.
        states, log_density: of `Drawn`.
        executed: int64 [B], actions of the chunk that were executed.
        reward, discount, ended: see `generalised_advantage`.
        final: by (row, env) the observation {name: [To, ...]} after the last decisions of episodes that were cut off.
        last: the observation {name: [N, To, ...]} at the end, which follows the last decision of each environment.
        episodes: those that ended, but for those that diverged.
        diverged: how many did.
    """

    row: NDArray[np.int64]
    env: NDArray[np.int64]
    observation: Observation
    states: Tensor
    log_density: Tensor
    executed: NDArray[np.int64]
    reward: Table
    discount: Table
    ended: NDArray[np.bool_]
    final: dict[tuple[int, int], Observation]
    last: Observation
    episodes: list[Episode] = field(default_factory=list)
    diverged: int = 0


class Collector:
    """Steps environments, and keeps where they stand between two rollouts.

    Args:
        environments: N of them, whose contract satisfies the policy's.
        execute: actions of each chunk that are executed.
        discount: gamma, per control step.
        first_seed: of the first episode; each later one has the next.
        scale: is told every reward.
    """

    def __init__(
        self, method: Method, environments: Environments, execute: int | None, discount: float, first_seed: int,
        scale: RewardScale | None = None,
    ) -> None:  # fmt: skip
        policy = method.policy
        satisfies(policy.contract, environments.contract)
        self.method, self.environments, self.discount, self.scale = method, environments, discount, scale
        self.runner = ChunkRunner(policy, environments.num_envs, execute=execute)
        self.execute = self.runner.execute
        self._names = list(policy.contract.observation)
        self._returns = np.zeros(environments.num_envs)
        self._succeeded = np.zeros(environments.num_envs, np.bool_)
        self._steps = np.zeros(environments.num_envs, np.int64)
        observation, info = environments.reset(seed=first_seed)
        self._seeds = np.asarray(info["seed"], np.int64).copy()
        self._next_seed = int(self._seeds.max()) + 1
        self.runner.observe(self._seen(observation))
        self._request = self.runner.request()

    @property
    def observation(self) -> Observation:
        """{name: [N, To, ...]}, at which the next rollout begins."""
        return self._asked().observation

    def collect(self, steps: int, generator: torch.Generator) -> Rollout:
        """Make `steps` control steps in every environment."""
        N, policy, runner = self.environments.num_envs, self.method.policy, self.runner
        reward, discount = np.zeros((steps, N)), np.zeros((steps, N))
        ended, executed = np.zeros((steps, N), np.bool_), np.zeros((steps, N), np.int64)
        row, age, every = np.full(N, -1), np.zeros(N, np.int64), np.arange(N)
        parts: list[tuple[NDArray[np.int64], NDArray[np.int64], Observation, Tensor, Tensor]] = []
        final: dict[tuple[int, int], Observation] = {}
        episodes: list[Episode] = []
        lost = 0
        for step in range(steps):
            if self._request is not None:
                request, envs = self._request, self._request.envs
                drawn = self.method.draw(policy.encode(request.observation), generator)
                runner.deliver(request.id, policy.decode(drawn.chunk).cpu().numpy())
                row[envs] += 1
                age[envs] = 0
                parts.append((row[envs].copy(), envs, request.observation, drawn.states, drawn.log_density))
            observation, earned, terminated, truncated, info = self.environments.step(runner.next_action())
            over, apart = terminated | truncated, diverged(info, N)
            earned = np.where(apart & ~np.isfinite(earned), 0.0, earned)
            reward[row, every] += self.discount**age * earned
            age += 1
            executed[row, every] = age
            discount[row, every] = np.where(terminated | apart, 0.0, self.discount**age)
            ended[row, every] = over
            if self.scale is not None:
                self.scale.update(earned, over)
            self._returns += earned
            self._succeeded |= info["success"]
            self._steps += 1
            if over.any():
                for env in np.flatnonzero(truncated & ~terminated & ~apart).tolist():
                    final[int(row[env]), env] = self._last_seen(env, info["final_obs"][env])
                ended_here = np.flatnonzero(over)
                finished = zip(ended_here, self._finish(ended_here, info), strict=True)
                episodes += [episode for env, episode in finished if not apart[env]]
                lost += int(apart.sum())
            runner.observe(self._seen(observation))
            if step == steps - 1:
                runner.renew()
            self._request = runner.request()
        rows, envs = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
        T = int(row.max()) + 1
        return Rollout(
            rows, envs, {name: np.concatenate([part[2][name] for part in parts]) for name in self._names},
            torch.cat([part[3] for part in parts]), torch.cat([part[4] for part in parts]), executed[rows, envs],
            reward[:T], discount[:T], ended[:T], final, self.observation, episodes, lost,
        )  # fmt: skip

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Where the environments stand between two rollouts, as plain JSON types and arrays; for `load`."""
        arrays = {f"observation/{name}": value for name, value in self.observation.items()}
        arrays |= {
            "environments": self.environments.get_states(), "seeds": self._seeds, "returns": self._returns,
            "succeeded": self._succeeded, "steps": self._steps,
        }  # fmt: skip
        return {"next_seed": self._next_seed}, {name: np.ascontiguousarray(value) for name, value in arrays.items()}

    def load(self, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], steps_left: int) -> None:
        """Go on where `state` was taken.

        Args:
            steps_left: the most control steps of all environments together that will still be made.
        """
        N, self._next_seed = self.environments.num_envs, int(plain["next_seed"])
        self._seeds, self._returns = arrays["seeds"].copy(), arrays["returns"].copy()
        self._succeeded, self._steps = arrays["succeeded"].copy(), arrays["steps"].copy()
        # Episodes under way are begun again for what their seed decides, then moved to where they stood.
        coming = range(self._next_seed, self._next_seed + steps_left + N)
        self.environments.reset(seed=[*self._seeds.tolist(), *coming])
        self.environments.set_states(arrays["environments"])
        self.runner.flush()
        history = {name: arrays[f"observation/{name}"] for name in self._names}
        for step in range(self.runner.obs_horizon):
            self.runner.observe({name: value[:, step] for name, value in history.items()})
        self._request = self.runner.request()

    def _asked(self) -> Request:
        assert self._request is not None
        assert len(self._request.envs) == self.environments.num_envs
        return self._request

    def _seen(self, observation: Mapping[str, NDArray[Any]]) -> Observation:
        return {name: observation[name] for name in self._names}

    def _last_seen(self, env: int, observation: Mapping[str, NDArray[Any]]) -> Observation:
        """{name: [To, ...]} with the last observation of an episode that was cut off."""
        before = self.runner.history([env])
        return {name: np.concatenate([before[name][0, 1:], observation[name][None]]) for name in self._names}

    def _finish(self, envs: NDArray[np.int64], info: Mapping[str, Any]) -> list[Episode]:
        done = [Episode(float(self._returns[env]), bool(self._succeeded[env]), int(self._steps[env])) for env in envs]
        self._returns[envs], self._succeeded[envs], self._steps[envs] = 0.0, False, 0
        self.runner.flush(envs)
        for env in envs:
            self._seeds[env] = info["reset_info"][env]["seed"]
        self._next_seed = max(self._next_seed, int(self._seeds.max()) + 1)
        return done


def encode_all(method: Method, observation: Observation, rows: int = 1024) -> Tensor:
    """Context [B, To, C] of many observations, some rows at a time, without gradients."""
    size = len(next(iter(observation.values())))
    with torch.no_grad():
        return torch.cat([
            method.policy.encode({name: value[start : start + rows] for name, value in observation.items()})
            for start in range(0, size, rows)
        ])  # fmt: skip
