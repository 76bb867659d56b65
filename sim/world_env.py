"""Worlds as Gymnasium environments that carry a contract, one or many at once; the interface of arms.

A world is a task whose N copies are stepped together by compiled code, without a process or a Python loop for each:
drones, and the lean tasks of `robot_rl.sim.lean`.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector import VectorEnv as GymnasiumVectorEnv
from gymnasium.vector.utils import batch_space

from robot_rl.datasets.contract import Contract
from robot_rl.sim.spaces import ActionError, action_space, observation_space

Info = dict[str, Any]


class World(Protocol):
    """N copies of a task. Rows of arrays are copies.

    Attributes:
        num: N. task: content of its file.
        contract: of one copy.
        period: of a control step [s]. horizon: steps until an episode is truncated.
        steps: taken in each episode, int64 [N].
        last_action: float32 [N, A].
        diverged: of the last step, bool [N]; what such a copy shows is no state of the task.
        active: which copies have an episode, bool [N]; an expert may leave the others alone.
    """

    num: int
    task: dict[str, Any]
    contract: Contract
    period: float
    horizon: int
    diverged: np.ndarray
    active: np.ndarray

    @property
    def steps(self) -> np.ndarray: ...

    @property
    def last_action(self) -> np.ndarray: ...

    def begin(
        self, rows: Sequence[int], seeds: Sequence[int], records: Sequence[Mapping[str, Any] | None] | None = None
    ) -> list[Info]:
        """Begin episodes; their infos. Records of a randomisation that are given are used instead of drawing."""

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Move on by one step under actions [N, A]: reward, terminated, truncated and success [N]."""

    def observe(self, rows: np.ndarray, look: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Observations of the contract, {name: [n, ...]}, of the copies that a mask [N] tells.

        Pictures are of those that a second mask tells; by default of the same.
        """

    def image(self, row: int, camera: str, height: int, width: int) -> np.ndarray:
        """Picture of a copy, uint8 [height, width, 3] RGB."""

    def metrics(self, row: int) -> Info:
        """What is measured of an episode so far besides success."""

    def rest_action(self, row: int) -> np.ndarray:
        """The action [A] that keeps everything where it is."""

    def get_states(self) -> np.ndarray:
        """All that decides the future, float64 [N, S]."""

    def set_states(self, states: np.ndarray, rows: np.ndarray) -> None:
        """Continue from `get_states`, [n, S]."""


_ONE = np.ones(1, bool)


def pictures(world: World, camera: str, size: tuple[int, int], rows: np.ndarray) -> np.ndarray:
    """Of the copies that a mask [N] tells, uint8 [n, height, width, 3]; `size` is height and width."""
    found = np.empty((np.count_nonzero(rows), *size, 3), np.uint8)
    for picture, row in zip(found, np.flatnonzero(rows).tolist(), strict=True):
        picture[...] = world.image(row, camera, *size)
    return found


class WorldEnv(gymnasium.Env):
    """One copy of a task, observed and commanded under a contract.

    Every episode is decided by the seed given to `reset` alone. `terminated`: done or lost, as the task says.
    `truncated`: the horizon, or a simulation that diverged (`info["diverged"]`). The last info of any other
    episode has `metrics`, see `World.metrics`.

    Args:
        spec: resolved, plain JSON types.
        world: of it, with one row.

    Attributes:
        specification, world: as given.
        contract: of observation and action.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, spec: Mapping[str, Any], world: World) -> None:
        self.specification: dict[str, Any] = dict(spec)
        self.world = world
        self.contract, self.task = self.world.contract, self.world.task
        self.observation_space = observation_space(self.contract)
        self.action_space = action_space(self.contract)
        self._shape = (self.contract.action_dim,)
        self.reset(seed=0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], Info]:
        """Begin the episode of a seed (default: one that follows from the last seed given). `info["seed"]` names it.

        With randomisation, `info["randomization"]` holds the numbers drawn; given again as `options["randomization"]`,
        they are used instead of drawing.
        """
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        record = (options or {}).get("randomization")
        (info,) = self.world.begin([0], [seed], [record])
        return self.observe(), info

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, Info]:
        """Execute an action [A] for one control period.

        Raises:
            ActionError: the action has the wrong shape or is not finite.
        """
        action = np.asarray(action, np.float32)
        if action.shape != self._shape or not all(map(math.isfinite, action.tolist())):
            names = ", ".join(f"{name} {list(feature.shape)}" for name, feature in self.contract.action.items())
            raise ActionError(f"expected {self._shape[0]} finite numbers ({names}), got {action.tolist()}")
        rewards, terminations, truncations, successes = self.world.step(action[None])
        terminated, truncated = bool(terminations[0]), bool(truncations[0])
        info: Info = {"success": bool(successes[0])}
        if self.world.diverged[0]:
            info["diverged"] = True
        elif terminated or truncated:
            info["metrics"] = self.world.metrics(0)
        return self.observe(), float(rewards[0]), terminated, truncated, info

    @property
    def time(self) -> float:
        """Simulated time since the reset [s]."""
        return float(self.world.steps[0] * self.world.period)

    def observe(self) -> dict[str, np.ndarray]:
        """The observation of the present state."""
        return {name: values[0] for name, values in self.world.observe(_ONE).items()}

    def image(self, camera: str, height: int, width: int) -> np.ndarray:
        """Picture of the present state, uint8 [height, width, 3] RGB.

        Raises:
            SpecError: there is no such camera.
        """
        return self.world.image(0, camera, height, width)

    def render(self) -> np.ndarray:
        """The view of `agentview`, uint8 [480, 640, 3]."""
        return self.image("agentview", 480, 640)

    def rest_action(self) -> np.ndarray:
        """The action [A] that keeps everything where it is now."""
        return self.world.rest_action(0)

    def get_state(self) -> np.ndarray:
        """Everything that decides the future, float64 [S]; `set_state` continues from it bit by bit."""
        return np.asarray(self.world.get_states()[0])

    def set_state(self, state: np.ndarray) -> None:
        """Return to a state of `get_state` of an environment with the same specification.

        Seed and randomisation are not part of it: reset with those of its episode first.

        Raises:
            ValueError: the state belongs to another specification.
        """
        self.world.set_states(np.asarray(state, float)[None], np.array([0]))

    set_scene = set_state  # a state holds nothing but the scene

    def positions(self, state: np.ndarray) -> np.ndarray:
        """What is compared of a state [S] with that of another episode: all of it."""
        return np.asarray(state, float)


class WorldVectorEnv(GymnasiumVectorEnv[dict[str, np.ndarray], np.ndarray, np.ndarray]):
    """N copies of a task, all stepped at once in one process. The interface is that of `robot_rl.sim.vector.VectorEnv`.

    An episode is decided by its seed alone. Whenever one ends, the copy begins the one of the next seed within the
    same step; when the seeds given to `reset` are used up, it becomes inactive.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, spec: Mapping[str, Any], world: World) -> None:
        self.specification: dict[str, Any] = dict(spec)
        self.num_envs, self.processes = world.num, 0
        self.world = world
        self.contract = self.world.contract
        self.single_observation_space = observation_space(self.contract)
        self.single_action_space = action_space(self.contract)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._cameras = set(self.contract.cameras)
        self._rest = np.stack([self.world.rest_action(0)] * self.num_envs)
        self._seeds: Iterator[int] = iter(())
        self._options: Mapping[str, Any] = {}
        self._episode_seed = np.full(self.num_envs, -1, np.int64)
        self.world.active[:] = False
        self._last: dict[str, np.ndarray] = {}
        self._steps, self._seconds = 0, 0.0

    def reset(
        self, *, seed: int | Iterable[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], Info]:
        """Abandon all episodes and begin new ones, see `VectorEnv.reset`."""
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        self._seeds = itertools.count(int(seed)) if isinstance(seed, int | np.integer) else iter([int(s) for s in seed])
        self._options = options or {}
        self.world.active[:], self._episode_seed[:] = False, -1
        self._steps, self._seconds = 0, 0.0
        started = self._begin(range(self.num_envs))
        if not started:
            raise ValueError("seed: expected at least one episode seed, got none")
        self._last = self.world.observe(np.ones(self.num_envs, bool))
        return self._copy(), self._info(np.zeros(self.num_envs, bool), self._episode_seed.copy(), started)

    def step(
        self, actions: np.ndarray, look: np.ndarray | None = None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, Info]:
        """Execute one action [N, A] in every active copy, see `VectorEnv.step`."""
        actions, active = np.array(actions, np.float32, order="C"), self.world.active.copy()
        if actions.shape != self._rest.shape:
            raise ValueError(f"expected actions of shape {list(self._rest.shape)}, got {list(actions.shape)}")
        if not np.isfinite(actions).all() and (bad := np.flatnonzero(active & ~np.isfinite(actions).all(1)).tolist()):
            raise ValueError(f"expected finite actions; those of environments {bad} are not")
        actions[~active] = self._rest[~active]
        started_at = time.perf_counter()
        reward, terminated, truncated, success = self.world.step(actions)
        reward = np.where(active, reward, 0.0)
        terminated, truncated, success = terminated & active, truncated & active, success & active
        self._see(active, look if self._cameras else None)
        ended = terminated | truncated
        seeds = np.where(active, self._episode_seed, -1)
        finals = {}
        rows, diverged = np.flatnonzero(ended), self.world.diverged
        seen = [list(values[rows]) for values in self._last.values()]
        for index, *last in zip(rows.tolist(), *seen, strict=True):
            info: Info = {"success": bool(success[index])}
            info |= {"diverged": True} if diverged[index] else {"metrics": self.world.metrics(index)}
            finals[index] = info, dict(zip(self._last, last, strict=True))
        self.world.active &= ~ended
        started = self._begin(list(finals)) if finals else {}
        if started:
            self._see(self._mask(list(started)))
        info = self._info(success, seeds, started)
        for index, (final, observation) in finals.items():
            info["final_info"][index], info["final_obs"][index] = final, observation
        info["_final_info"], info["_final_obs"] = ended.copy(), ended.copy()
        self._steps += int(active.sum())
        self._seconds += time.perf_counter() - started_at
        return self._copy(), reward, terminated, truncated, info

    def restart(self, indices: Sequence[int]) -> tuple[dict[str, np.ndarray], dict[int, Info]]:
        """Abandon the episodes of the copies named, see `VectorEnv.restart`."""
        self.world.active[list(indices)] = False
        started = self._begin(list(indices))
        if started:
            self._see(self._mask(list(started)))
        return self._copy(), started

    @property
    def throughput(self) -> float:
        """Environment steps per second spent in `step` since the last reset, all copies together."""
        return self._steps / self._seconds if self._seconds else 0.0

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """What each copy's method returns: `rest_action`, `get_state` or `set_state`, as those of `WorldEnv`."""
        return self.call_each(name, dict.fromkeys(range(self.num_envs), arguments))

    def call_each(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> list[Any]:
        """Call a method of the copies named, each with its own arguments; results in that order."""
        methods: dict[str, Callable[..., Any]] = {
            "rest_action": self.world.rest_action,
            "get_state": lambda row: self.world.get_states()[row],
            "set_state": lambda row, state: self.world.set_states(np.asarray(state)[None], np.array([row])),
        }
        if name not in methods:
            raise ValueError(f"no method {name!r} of a world; there are: {', '.join(methods)}")
        return [methods[name](row, *values) for row, values in arguments.items()]

    def get_states(self) -> np.ndarray:
        """The state of each copy, float64 [N, S]."""
        return self.world.get_states()

    def set_states(self, states: np.ndarray, indices: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Restore states [n, S] in the copies named (default: all); all observations as they are then."""
        rows = np.arange(self.num_envs) if indices is None else np.asarray(indices)
        self.world.set_states(states, rows)
        self._see(self._mask(rows))
        return self._copy()

    def __enter__(self) -> WorldVectorEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.contract.name!r}, num_envs={self.num_envs})"

    def _mask(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        chosen = np.zeros(self.num_envs, bool)
        chosen[rows] = True
        return chosen

    def _see(self, rows: np.ndarray, look: np.ndarray | None = None) -> None:
        """Take new observations of some copies, and new pictures of those of them that look; the others keep theirs."""
        looking = rows if look is None else rows & look
        found = self.world.observe(rows, looking)
        if looking.all():
            self._last = found
            return
        for name, values in found.items():
            self._last[name][looking if name in self._cameras else rows] = values

    def _begin(self, free: Iterable[int]) -> dict[int, Info]:
        chosen = dict(zip(free, self._seeds, strict=False))
        for index in free:
            self._episode_seed[index] = chosen.get(index, -1)
        if not chosen:
            return {}
        rows, record = list(chosen), self._options.get("randomization")
        infos = self.world.begin(rows, list(chosen.values()), [record] * len(rows))
        self.world.active[rows] = True
        return dict(zip(rows, infos, strict=True))

    def _copy(self) -> dict[str, np.ndarray]:
        return {name: values.copy() for name, values in self._last.items()}

    def _info(self, success: np.ndarray, seeds: np.ndarray, started: Mapping[int, Info]) -> Info:
        info: Info = {"success": success.copy(), "seed": seeds, "active": self.world.active.copy()}
        for name in ("final_obs", "final_info", "reset_info"):
            info[name] = np.full(self.num_envs, None, object)
        for index, values in started.items():
            info["reset_info"][index] = values
        return info
