"""Many environments at once, spread over processes, that reset themselves in the same step."""

from __future__ import annotations

import itertools
import os
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector import VectorEnv as GymnasiumVectorEnv
from gymnasium.vector.utils import batch_space

from robot_rl.datasets.contract import Contract, equal
from robot_rl.sim.env_group import EnvGroup, Rows, make_rows, rows_size
from robot_rl.sim.spaces import action_space, observation_space
from robot_rl.sim.worker import SharedMemory, Worker, WorkerError

__all__ = ["VectorEnv", "WorkerError"]

Info = dict[str, Any]


class _Part(Protocol):
    """Environments `start` to `stop`, here or in a process."""

    start: int
    stop: int

    def send(self, request: Mapping[str, Any] | None) -> None: ...

    def receive(self) -> Any: ...


class VectorEnv(GymnasiumVectorEnv[dict[str, np.ndarray], np.ndarray, np.ndarray]):
    """N copies of an environment, all stepped at once. Use as a context manager, or call `close`.

    An episode is decided by its seed alone: results do not depend on the number of environments or processes.

    Whenever an episode ends, the environment begins the one of the next seed within the same step. When the seeds given
    to `reset` are used up, it becomes inactive: it ignores actions, repeats its last observation, and its reward is 0.

    Args:
        spec: see `robot_rl.sim.make`.
        num_envs: N.
        processes: how many share the work; 0 steps all environments here. Default: one for each available core, and
            none for a single environment.
        factory: `module:function` that makes an environment of a specification, see `EnvGroup`.

    Attributes:
        contract: of a single environment.
        spec: resolved, of a single environment.

    Raises:
        WorkerError: an environment raised or its process died. All processes have been ended then.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        spec: str | Mapping[str, Any],
        num_envs: int,
        processes: int | None = None,
        factory: str = "robot_rl.sim:make",
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs: expected at least 1, got {num_envs}")
        if processes is None:
            processes = min(num_envs, _available_cores())
            processes = 0 if processes == 1 else processes
        if not 0 <= processes <= num_envs:
            raise ValueError(f"processes: expected 0 to {num_envs} (the number of environments), got {processes}")
        self.num_envs, self.processes = num_envs, processes
        self.closed = False
        self._seeds: Iterator[int] = iter(())
        self._options: dict[str, Any] | None = None
        self._episode_seed = np.full(num_envs, -1, np.int64)
        self._steps, self._seconds = 0, 0.0
        self._parts: Sequence[_Part]
        self._finalizer: weakref.finalize[..., Any]
        if processes:
            self._rows = self._start_workers(factory, spec)
        else:
            group = EnvGroup(factory, spec, num_envs)
            group.rows = self._rows = make_rows(group.contract, num_envs)
            self.contract, self.specification = group.contract, group.specification
            self._parts = [_Here(group, num_envs)]
            self._finalizer = weakref.finalize(self, group.close)
        self.single_observation_space = observation_space(self.contract)
        self.single_action_space = action_space(self.contract)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | Iterable[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], Info]:
        """Abandon all episodes and begin new ones.

        Args:
            seed: of the episodes to run, at least one. The first N start now, the others queue. A number stands for it
                and all that follow it, without end; None for a number drawn from the system's entropy.
            options: for the environments' own `reset`, also of the episodes that queue.

        Returns:
            Observations {name: [N, ...]}, and the info of `step`.
        """
        self._seeds = _seed_queue(seed)
        self._options = options
        self._rows.active[:] = False
        self._rows.success[:] = False
        self._episode_seed[:] = -1
        self._steps, self._seconds = 0, 0.0
        started = self._begin_episodes(np.arange(self.num_envs))
        if not started:
            raise ValueError("seed: expected at least one episode seed, got none")
        return self._observation(), self._info(self._episode_seed.copy(), started)

    def step(
        self, actions: np.ndarray, look: np.ndarray | None = None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, Info]:
        """Execute one action [N, A] in every active environment.

        Args:
            look: bool [N], which of them take new pictures; the others' are those of an earlier step. Default: all.

        Returns:
            Observations {name: [N, ...]} (where an episode has just ended: the first of the next one), reward float64
            [N], terminated and truncated, bool [N], and an info of arrays [N]:

            - success: bool, of this step.
            - seed: int64, of the episode that this step belongs to, -1 where inactive.
            - active: bool, whether there is an episode to act in now.
            - final_obs: where an episode has just ended, its last observation {name: [...]}, else None.
            - final_info: there, the info of its last step, else None.
            - reset_info: where an episode begins now, the info of its reset, else None.
        """
        rows = self._rows
        actions = np.asarray(actions, np.float32)
        if actions.shape != rows.action.shape:
            raise ValueError(f"expected actions of shape {list(rows.action.shape)}, got {list(actions.shape)}")
        active = rows.active.copy()
        if not np.isfinite(actions[active]).all():
            bad = np.flatnonzero(active & ~np.isfinite(actions).all(1)).tolist()
            raise ValueError(f"expected finite actions; those of environments {bad} are not")
        started_at = time.perf_counter()
        rows.action[:] = actions
        rows.look[:] = True if look is None else look
        ended = self._ask(dict.fromkeys(self._parts))
        reward, success = rows.reward.copy(), rows.success.copy()
        terminated, truncated = rows.terminated.copy(), rows.truncated.copy()
        seeds = np.where(active, self._episode_seed, -1)
        started: dict[int, Info] = {}
        if ended:
            started = self._begin_episodes(np.array(sorted(ended)))
        info = self._info(seeds, started)
        info["success"] = success
        for index, final in ended.items():
            info["final_info"][index] = final
            info["final_obs"][index] = {name: array[index].copy() for name, array in rows.final_observation.items()}
        info["_final_info"], info["_final_obs"] = (terminated | truncated for _ in range(2))
        observation = self._observation()
        self._steps += int(active.sum())
        self._seconds += time.perf_counter() - started_at
        return observation, reward, terminated, truncated, info

    def restart(self, indices: Sequence[int]) -> tuple[dict[str, np.ndarray], dict[int, Info]]:
        """Abandon the episodes of the environments named; each begins that of the next seed.

        Returns:
            All observations as they are then, and the infos of the resets, by environment.
        """
        self._rows.active[list(indices)] = False
        started = self._begin_episodes(np.array(indices, np.int64))
        return self._observation(), started

    @property
    def throughput(self) -> float:
        """Environment steps per second spent in `step` since the last reset, all environments together."""
        return self._steps / self._seconds if self._seconds else 0.0

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """What each environment's method returns, or the value of its attribute; JSON types and arrays only."""
        return self.call_each(name, dict.fromkeys(range(self.num_envs), arguments))

    def call_each(self, name: str, arguments: Mapping[int, Sequence[Any]]) -> list[Any]:
        """Call a method of the environments named, each with its own arguments; results in that order."""
        requests: dict[_Part, Mapping[str, Any] | None] = {}
        for part in self._parts:
            own = [[index - part.start, arguments[index]] for index in arguments if part.start <= index < part.stop]
            if own:
                requests[part] = {"call": name, "arguments": own}
        results = self._ask(requests)
        return [results[index] for index in arguments]

    def get_states(self) -> np.ndarray:
        """The state of each environment, float64 [N, S]."""
        return np.stack(self.call("get_state"))

    def set_states(self, states: np.ndarray, indices: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Restore states [n, S] in the environments named (default: all); all observations as they are then."""
        chosen = range(self.num_envs) if indices is None else [int(index) for index in indices]
        if len(states) != len(chosen):
            raise ValueError(f"expected {len(chosen)} states, one for each environment named, got {len(states)}")
        self.call_each("set_state", {index: [state] for index, state in zip(chosen, states, strict=True)})
        observations = self.call_each("observe", {index: [] for index in chosen})
        for index, observation in zip(chosen, observations, strict=True):
            for name, array in self._rows.observation.items():
                array[index] = observation[name]
        return self._observation()

    def object_poses(self) -> dict[str, np.ndarray]:
        """Pose of each object in the base frame, float64 [N, 7]: position [m] and quaternion wxyz."""
        poses = self.call("object_poses")
        return {name: np.stack([each[name] for each in poses]) for name in poses[0]}

    def close_extras(self, **_: Any) -> None:
        """End the processes. Called by `close`, which may be called any number of times."""
        self._finalizer()

    def __enter__(self) -> VectorEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"VectorEnv({self.contract.name!r}, num_envs={self.num_envs}, processes={self.processes})"

    def _start_workers(self, factory: str, spec: Any) -> Rows:
        workers: list[Worker] = []
        self._parts = workers
        self._finalizer = weakref.finalize(self, _end_workers, workers, os.getpid())
        try:
            bounds = np.linspace(0, self.num_envs, self.processes + 1).astype(int).tolist()
            for start, stop in itertools.pairwise(bounds):
                workers.append(Worker(factory, spec, start, stop))
            answers = [worker.receive() for worker in workers]
            contracts = [Contract.from_dict(answer["contract"]) for answer in answers]
            self.contract, self.specification = contracts[0], answers[0]["spec"]
            for other in contracts[1:]:
                equal(self.contract, other)
            memory = SharedMemory(rows_size(self.contract, self.num_envs))
            try:
                for worker in workers:
                    worker.attach(memory, self.contract, self.num_envs)
            finally:
                memory.close()
        except BaseException:
            self.close()
            raise
        return make_rows(self.contract, self.num_envs, memory.view)

    def _ask(self, requests: Mapping[_Part, Mapping[str, Any] | None]) -> dict[int, Any]:
        """Send all requests, then gather the answers, by environment."""
        if self.closed:
            raise WorkerError("the environments are closed; make new ones")
        results = {}
        try:
            for part, request in requests.items():
                part.send(request)
            for part in requests:
                for row, result in part.receive() or ():
                    results[part.start + row] = result
        except BaseException:
            # Answers may be left in a connection, so that it cannot be used any more; also after Ctrl-C.
            self.close()
            raise
        return results

    def _begin_episodes(self, free: np.ndarray) -> dict[int, Info]:
        """Give the next seeds to free environments, in their order; the info of those that got one."""
        chosen = dict(zip(free.tolist(), self._seeds, strict=False))
        for index in free:
            self._episode_seed[index] = chosen.get(index, -1)
        requests: dict[_Part, Mapping[str, Any] | None] = {}
        for part in self._parts:
            own = [[index - part.start, seed] for index, seed in chosen.items() if part.start <= index < part.stop]
            if own:
                requests[part] = {"reset": own, "options": self._options}
        return self._ask(requests)

    def _observation(self) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self._rows.observation.items()}

    def _info(self, seeds: np.ndarray, started: Mapping[int, Info]) -> Info:
        info: Info = {"success": self._rows.success.copy(), "seed": seeds, "active": self._rows.active.copy()}
        for name in ("final_obs", "final_info", "reset_info"):
            info[name] = np.full(self.num_envs, None, object)
        for index, values in started.items():
            info["reset_info"][index] = values
        return info


class _Here:
    """The part of environments that live in this process."""

    def __init__(self, group: EnvGroup, count: int) -> None:
        self._group, self.start, self.stop = group, 0, count
        self._answer: Any = None

    def send(self, request: Mapping[str, Any] | None) -> None:
        if request is None:
            self._answer = self._group.step().items()
        elif "reset" in request:
            self._answer = self._group.reset(dict(request["reset"]), request["options"]).items()
        else:
            self._answer = self._group.call(request["call"], dict(request["arguments"])).items()

    def receive(self) -> Any:
        return self._answer


def _seed_queue(seed: int | Iterable[int] | None) -> Iterator[int]:
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(seed, int | np.integer):
        return itertools.count(int(seed))
    return iter([int(each) for each in seed])


def _end_workers(workers: list[Worker], owner: int) -> None:
    # A fork of the owner holds a copy of this object, but not the right to end its processes.
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.hang_up()
    for worker in workers:
        worker.join()


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
