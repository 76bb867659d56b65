"""A robot behind the Supervisor as the environment of a training: what it observes, and what it is allowed to do.

Its steps are those of a deployment. At each multiple of the control period the newest samples are aligned to a row, as
the policy node does; the policy's action goes to the Supervisor as a proposal under a lease, which ends with the
episode; what the Supervisor followed is the action of the step, as the import of a recording has it. An episode in
which that is not to be had is abandoned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.datasets import Contract
from robot_rl.deployment import Stopped
from robot_rl.hardware.alignment import Alignment, StaleError
from robot_rl.hardware.recording.recorded_actions import RecordedActions
from robot_rl.hardware.rhythm import Rhythm
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph, Received
from robot_rl.hardware.ros2.qos import LATCHED
from robot_rl.hardware.safety.source import Source
from robot_rl.hardware.safety.supervisor_messages import (
    BOOL,
    DIAGNOSTICS,
    HISTORY,
    JOINT_STATE,
    PROPOSAL,
    STATUS,
    pairs,
)
from robot_rl.rl.environments import AbandonedError, Observation

PATIENCE = 0.005
"""How long a sample is awaited that should come [wall s]."""

LOCKSTEP_PATIENCE = 0.4
"""The same where simulated time waits for the action, below what the Supervisor waits for it [wall s]."""

VERDICT = 0.4
"""How long the Supervisor's word on a proposal is awaited [wall s]."""

GRANT = 10.0
"""How long a lease is awaited [wall s]."""

TICK = 10.0
"""How long the next control tick is awaited [wall s]; of simulated time, which may stand still."""

_OF_OTHERS = ("no_lease", "wrong_state", "source_without_token", "malformed_source")


class RobotEnvironment:
    """One robot, as `Environments` of one. Everything happens on the thread that calls it, which spins the graph.

    An episode ends after `horizon` steps, by `restart`, or where the twin's task is achieved. The robot then belongs to
    nobody, and rests until `reset` brings it to the next one; `info["reset_info"]` is still of the last one.

    Args:
        graph: of this process.
        robot: restricted to what the contract needs.
        contract: that is recorded. The robot has to satisfy it; bounds of a simulated and of a real robot differ.
        horizon: control steps of an episode.
        prepare: brings scene and robot to the start of the episode of a seed; raises `AbandonedError`.
        lockstep: whether simulated time waits for every action.
        twin: whether it is a twin, which knows its task.
        judged: whether the twin's success ends an episode.
        shadow: go on while a person acts, whose actions are then those of the steps, as `info["intervened"]` says, and
            act again once the robot is given back; else a person who takes over ends the episode.
    """

    num_envs = 1

    def __init__(
        self, graph: Graph, robot: RobotFile, contract: Contract, horizon: int, prepare: Callable[[int], None], *,
        lockstep: bool = False, twin: bool = False, judged: bool = False, shadow: bool = False,
    ) -> None:  # fmt: skip
        self.contract, self.horizon = contract, horizon
        self._graph, self._prepare, self._judged = graph, prepare, judged
        self._shadow = shadow
        self._period, self._patience = 1.0 / contract.rate_hz, LOCKSTEP_PATIENCE if lockstep else PATIENCE
        self._alignment = Alignment(robot)
        self._rhythm, self._actions = Rhythm(self._alignment), RecordedActions(robot)
        self._source = Source(graph, "actor", "policy", robot.contract)
        self._rejected: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._last: NDArray[np.float32] | None = None
        self._success, self._seed, self._steps = False, 0, 0
        self._observation: Observation = {}
        for topic, stream in self._alignment.topics.items():
            graph.subscribe(topic, stream.type, partial(self._take, topic), stream.qos)
        graph.subscribe(STATUS, DIAGNOSTICS, self._on_status, LATCHED)
        graph.subscribe(PROPOSAL, JOINT_STATE, lambda heard: self._actions.take_proposal(heard.message), HISTORY)
        if twin:
            graph.subscribe("twin/success", BOOL, self._on_success, LATCHED)
        self._timer = graph.timer(self._period, lambda: None)
        self._tick = 0.0

    def reset(self, *, seed: int | Iterable[int] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Bring scene and robot to the start, take the lease, and observe.

        Raises:
            AbandonedError: the robot is not there, the Supervisor grants no lease, or an observation is stale.
        """
        if not isinstance(seed, int):
            raise ValueError(f"seed: expected an integer, of the one environment, got {seed!r}")
        self.end()
        self._seed, self._steps, self._last = seed, 0, None
        self._prepare(seed)
        self._success = False
        self._source.acquire()
        if not self._spin(lambda: self._source.lease is not None, GRANT):
            raise self._abandoned(
                f"the Supervisor grants no lease: {self._source.state or 'silent'} ({self._source.reason})"
            )
        self._before = dict(self._rejected)
        self._await_tick(self._graph.now())
        self._observation = self._look()
        return self._observation, {"seed": np.array([seed])}

    def step(self, actions: NDArray[np.float32]) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """Propose an action [1, A], and observe what comes of it at the next control tick.

        Raises:
            AbandonedError: the action was late or not followed, the lease is lost, or an observation is stale.
        """
        tick, now = self._tick, self._graph.now()
        if not now - tick < self._period:
            raise self._abandoned(
                f"an action came {now - tick:.3f} s after its tick, expected less than {self._period:g} s"
            )
        self._before = dict(self._rejected)
        proposed = self._source.propose(actions[0], now)
        if not proposed:
            self._watch(actions[0], now)
        self._await_tick(tick + 0.5 * self._period)
        if self._tick > tick + 1.5 * self._period:
            raise self._abandoned(f"{self._tick - tick:.3f} s between two control ticks, expected {self._period:g} s")
        followed, intervened = self._followed(tick, proposed)
        self._observation = self._look()
        self._steps += 1
        success, ended = np.array([self._success]), self._steps >= self.horizon
        terminated = success & self._judged
        truncated = ~terminated & ended
        info: dict[str, Any] = {
            "success": success, "executed": followed[None], "intervened": np.array([intervened]),
        }  # fmt: skip
        for name in ("final_obs", "reset_info"):
            info[name] = np.full(1, None, object)
        if (terminated | truncated)[0]:
            info["final_obs"][0] = {name: value[0] for name, value in self._observation.items()}
            info["reset_info"][0] = self.restart([0])[1][0]
        return self._observation, terminated.astype(np.float64), terminated, truncated, info

    def restart(self, indices: Sequence[int]) -> tuple[Observation, dict[int, dict[str, Any]]]:
        """End the episode; the observation is its last one still."""
        self.end()
        return self._observation, {env: {"seed": self._seed} for env in indices}

    def end(self) -> None:
        """Give the robot back; it comes to rest where it is."""
        self._source.release("the episode is over")

    def get_states(self) -> NDArray[np.float64]:
        """Nothing of a robot can be kept."""
        raise NotImplementedError("a robot has no state that could be returned to")

    def set_states(self, states: NDArray[np.float64], indices: Sequence[int] | None = None) -> Observation:
        """A robot is where it is."""
        raise NotImplementedError("a robot has no state that could be returned to")

    @property
    def _taken_over(self) -> bool:
        """Whether a person acts, or has just given the robot back."""
        return self._shadow and self._source.lease is None and self._source.state in ("ready", "intervening")

    @property
    def _gone(self) -> bool:
        """Whether the episode cannot go on."""
        if self._source.lease is not None:
            return bool(self._refusals())
        return self._last is None or not self._taken_over

    def _watch(self, action: NDArray[np.float32], now: float) -> None:
        """Say what would be proposed, and ask for the robot once it is given back."""
        if self._gone:
            raise self._abandoned(self._lost())
        self._source.wish(action, now)
        if self._source.state == "ready":
            self._source.acquire()
        else:
            self._source.release()  # so that it is not granted after a fault

    def _await_tick(self, after: float) -> None:
        """Until a control tick later than a time [s], while the episode can go on."""
        self._spin(lambda: self._timer.time > after or self._gone, TICK)
        if self._gone:
            raise self._abandoned(self._lost())
        if not self._timer.time > after:
            raise self._abandoned(f"no control tick came for {TICK:g} s: the clock stands still")
        self._tick = self._timer.time

    def _look(self) -> Observation:
        self._spin(lambda: not self._rhythm.awaited(self._tick), self._patience)
        try:
            row = self._alignment.row(self._tick)
        except StaleError as error:
            raise self._abandoned(f"no observation: {error}") from error
        return {name: row.observation[name][None] for name in self.contract.observation}

    def _followed(self, tick: float, proposed: bool) -> tuple[NDArray[np.float32], bool]:
        """What the Supervisor followed in the period that began at `tick` [s], and whether a person decided it."""
        if proposed:
            self._spin(lambda: self._actions.at(tick) is not None or self._source.lease is None, VERDICT)
        action = self._actions.at(tick)
        person = self._taken_over or not proposed
        if action is not None and (action.kind == "policy" or person):
            self._last = np.asarray(action.value, np.float32)
            return self._last, action.kind != "policy"
        if person and self._last is not None and not self._gone:
            return self._last, True  # nobody said anything else: it goes on with the last one
        if action is None and self._source.lease is not None:
            raise self._abandoned(f"the Supervisor said nothing of an action for {VERDICT:g} s")
        raise self._abandoned(self._lost())

    def _refusals(self) -> list[str]:
        """Why proposals were rejected since the last step began; those of others, without a lease, do not count."""
        risen = [name for name, count in self._rejected.items() if count > self._before.get(name, 0)]
        return [name for name in risen if name not in _OF_OTHERS]

    def _lost(self) -> str:
        if refusals := self._refusals():
            return f"the Supervisor did not follow an action: {', '.join(refusals)}"
        return f"lost the lease: the Supervisor is {self._source.state or 'silent'} ({self._source.reason})"

    def _abandoned(self, reason: str) -> AbandonedError:
        self._source.release("the episode is abandoned")
        return AbandonedError(reason)

    def _spin(self, until: Callable[[], bool], timeout: float) -> bool:
        held = self._graph.spin(until=until, timeout=timeout)
        if self._graph.stopped:
            raise Stopped
        return held

    def _take(self, topic: str, received: Received) -> None:
        with suppress(messages.MessageError):  # the observation will be missing, and that is reported
            self._alignment.take(topic, received.message, received.received)
            self._rhythm.listen()

    def _on_status(self, received: Received) -> None:
        self._actions.take_status(received.message)
        for status in received.message.status:
            counts = {key: value for key, value in pairs(status).items() if key.startswith("rejected.")}
            self._rejected = {key.removeprefix("rejected."): int(value) for key, value in counts.items()}

    def _on_success(self, received: Received) -> None:
        self._success = bool(received.message.data)
