"""Success as somebody else than the task sees it: a person with a key, or a learned classifier that has to hold on.

On a robot nobody computes whether the task is achieved. `DetectedSuccess` makes environments behave like that: they go
on until a detector is satisfied, which ends the episode and earns its only reward, 1. What the task itself knows is
kept apart, and tells how often the detector was wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_rl.datasets import Contract, Episode
from robot_rl.rl.environments import Environments, Observation, diverged

PAUSE, RELEASE = 3.0, 0.5
"""Keys pressed while nobody acted for so long, or so soon after one that counted, say nothing of this episode [s]."""
OWN = 2
"""Numbers that `DetectedSuccess` adds to the state of each environment."""


class Detector(Protocol):
    """Whoever says that the task is achieved."""

    def __call__(self, observation: Observation) -> NDArray[np.bool_]:
        """Whether it is, [N], after each control step, from what is observed {name: [N, *shape]}."""


class Restartable(Environments, Protocol):
    """Environments whose episodes can be ended from outside, as those of `robot_rl.sim`."""

    def restart(self, indices: Sequence[int]) -> tuple[Observation, dict[int, dict[str, Any]]]: ...


def persisted(
    count: NDArray[np.int64], shown: NDArray[np.bool_], persistence: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For how many steps in succession success has been shown, [N], and where these are enough.

    Args:
        count: before this step, [N].
        shown: in this step, [N]; where it is not, counting begins anew.
    """
    count = np.where(shown, count + 1, 0)
    return count, count >= persistence


class DetectedSuccess:
    """Environments whose success, reward and end are those of a detector.

    The reward is 1 in the step that ends an episode with success, which is `terminated`, else 0. An episode that ends
    in another way ends as it did. `info["success"]` is the detector's; where an episode has ended and the task knows,
    its own success in any of the steps is `info["facts"][env]["task_success"]`.

    Args:
        environments: that go on after the task's own success (`ends_at_success: false`).
        persistence: control steps in succession in which the detector has to see success.
        knows: whether the task itself knows success.
    """

    def __init__(self, environments: Restartable, detector: Detector, persistence: int, knows: bool = True) -> None:
        if persistence < 1:
            raise ValueError(f"success.persistence: expected at least 1 control step, got {persistence}")
        self.environments, self.detector, self.persistence, self.knows = environments, detector, persistence, knows
        self.num_envs, self.contract = environments.num_envs, environments.contract
        self._count = np.zeros(self.num_envs, np.int64)
        self._achieved = np.zeros(self.num_envs, np.bool_)
        self._ended: list[tuple[bool, bool]] = []

    contract: Contract

    def reset(self, *, seed: int | Iterable[int] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin episodes."""
        self._count[:], self._achieved[:] = 0, False
        return self.environments.reset(seed=seed)

    def step(self, actions: NDArray[np.float32]) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """One step; episodes that the detector ends make place for the next ones at once."""
        observation, _, terminated, truncated, info = self.environments.step(actions)
        over = terminated | truncated
        seen = {name: value.copy() for name, value in observation.items()}
        for env in np.flatnonzero(over).tolist():
            for name, value in info["final_obs"][env].items():
                seen[name][env] = value
        self._count, success = persisted(self._count, self.detector(seen), self.persistence)
        success = success & ~diverged(info, self.num_envs)  # what is seen there may be anything
        self._achieved |= info["success"]
        early = np.flatnonzero(success & ~over).tolist()
        if early:
            observation, begun = self.environments.restart(early)
            for env in early:
                info["final_obs"][env] = {name: value[env] for name, value in seen.items()}
                info["reset_info"][env] = begun[env]
        terminated = success | terminated
        truncated = truncated & ~terminated
        info = {**info, "success": success, "facts": np.full(self.num_envs, None, object)}
        for env in np.flatnonzero(terminated | truncated).tolist():
            self._ended.append((bool(success[env]), bool(self._achieved[env])))
            info["facts"][env] = {"task_success": bool(self._achieved[env])} if self.knows else {}
            self._count[env], self._achieved[env] = 0, False
        return observation, success.astype(np.float64), terminated, truncated, info

    def get_states(self) -> NDArray[np.float64]:
        """Those of the environments, and where detector and task stand."""
        own = np.column_stack([self._count, self._achieved]).astype(np.float64)
        return np.concatenate([self.environments.get_states(), own], axis=1)

    def set_states(self, states: NDArray[np.float64], indices: Sequence[int] | None = None) -> Observation:
        """Go on from such states."""
        rows = np.arange(self.num_envs) if indices is None else np.asarray(indices)
        self._count[rows], self._achieved[rows] = states[:, -2].astype(np.int64), states[:, -1] > 0
        return self.environments.set_states(np.ascontiguousarray(states[:, :-OWN]), indices)

    def take_log(self) -> dict[str, float]:
        """How the detector has fared against the task in the episodes that ended since the last call.

        `task_success_rate` is the task's own; of the episodes that the detector ended, `false_success_rate` had none;
        of those that had some, it did not end `missed_success_rate`.
        """
        ended, self._ended = self._ended, []
        return fared(ended) if self.knows else {}


def fared(ended: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    """How a detector has fared against the task, see `take_log`; of episodes: what it said, what the task knew."""
    claimed, achieved = np.array(ended, np.bool_).reshape(-1, 2).T
    shares = {
        "task_success_rate": achieved, "false_success_rate": ~achieved[claimed],
        "missed_success_rate": ~claimed[achieved],
    }  # fmt: skip
    return {name: float(hits.mean()) for name, hits in shares.items() if len(hits)}


class KeyPress:
    """A person who presses a key when the task is achieved, in one environment, which runs at its true pace.

    A key that is pressed while nothing is acted on, as during an evaluation, does not count, nor one that is still held
    when the next episode has begun.

    Args:
        pressed: the keys since the last call, as `robot_rl.hardware.terminal.Terminal.keys`.
        key: that counts.
        rate_hz: of the control steps.
    """

    def __init__(
        self, pressed: Callable[[], str], key: str, rate_hz: float, clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._pressed, self._key, self._period, self._clock, self._sleep = pressed, key, 1 / rate_hz, clock, sleep
        self._due = clock()
        self._released = self._due

    def __call__(self, observation: Observation) -> NDArray[np.bool_]:
        """Wait until the control period is over; whether the key was pressed since the last one, [1]."""
        now = self._clock()
        paused = now - self._due > max(PAUSE, 2 * self._period)
        if now < self._due:
            self._sleep(self._due - now)
        now = max(self._due, now)
        self._due = now + self._period
        pressed = self._key in self._pressed()
        counts = pressed and not paused and now >= self._released
        if pressed:
            self._released = now + RELEASE
        return np.array([counts])


class Rewarded(Episode):
    """A recorded episode as a detector rewards it: 1 for the last step of a success, which ends it."""

    def __init__(self, episode: Episode) -> None:
        super().__init__(episode.store, episode.index)

    @property
    def reward(self) -> NDArray[np.float32]:
        """[T]."""
        reward = np.zeros(self.length, np.float32)
        reward[-1] = bool(self.success)
        return reward

    @property
    def terminated(self) -> NDArray[np.bool_]:
        """[T]."""
        return self.reward > 0


def rewarded(environments: Environments, episode: Episode) -> Episode:
    """A recorded episode with the rewards that these environments give."""
    return Rewarded(episode) if isinstance(environments, DetectedSuccess) else episode


def goes_on(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The specification of the same environment whose episodes go on after success, as on a robot.

    Raises:
        ValueError: those of this task cannot.
    """
    from robot_rl.sim.spec import family_of

    family = family_of(spec)
    if family == "drone":
        raise ValueError(f"success: episodes of {spec['task']} end as the task says; leave success=task")
    return dict(spec) if family == "gym" else {**spec, "ends_at_success": False}
