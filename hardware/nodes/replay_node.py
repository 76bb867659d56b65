"""The `replay` node: the actions of a recorded episode, through the Supervisor, to the robot.

It asks for the lease as soon as the Supervisor is heard, moves the robot smoothly from where it stands to the first
action, waits until it has come there, then proposes one action at each multiple of the control period. It ends with the
episode (exit status 0), when it loses the lease, when it is not granted one although the robot is home, or when there
is an emergency stop meanwhile (1): nothing moves because a stop is cleared, a cable plugged in, or another source done.

A vehicle has to hold its position where the recording begins. The first action is proposed until PX4 follows it, then
the others; what they are does not look at where the vehicle is, so that body rates soon lead elsewhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.datasets import Contract, ContractError, EpisodeStore, StoreError
from robot_rl.hardware.alignment import Alignment, StaleError
from robot_rl.hardware.nodes.command_line import node_main
from robot_rl.hardware.px4.vehicle_file import OBSERVED, VehicleFile, load_robot
from robot_rl.hardware.robot_file import RobotFile, RobotFileError
from robot_rl.hardware.ros2.graph import Graph, Received, open_graph
from robot_rl.hardware.ros2.messages import MessageError
from robot_rl.hardware.safety.source import GRANT, Source
from robot_rl.sim.rotation import quaternion_to_6d

OPENING_SPEED = 0.05
"""Of the gripper on the way to the start [m/s]."""

POSE_SPEED = 0.1, 0.5
"""Of the end-effector on the way to the start [m/s], and of the elements of its rotation [1/s]."""

NEAR = 0.3
"""How far a vehicle may be from where the recording begins [m]."""

SETTLE = 0.5
"""For how long the first action is held before the others follow [s]."""


def resting_action(contract: Contract, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The absolute action [A] that keeps a robot where it is observed to be."""
    parts = {name: observation[name] for name in contract.action}
    for name, feature in contract.action.items():
        if feature.representation == "position_rotation_6d":
            parts[name] = np.concatenate([parts[name][:3], quaternion_to_6d(parts[name][3:])])
    return contract.join_action(parts)


def approach(
    contract: Contract, start: NDArray[np.float32], goal: NDArray[np.float32], joint_speed: float
) -> NDArray[np.float32]:
    """Actions [n, A] that lead smoothly from one action to another, the last of which is `goal`.

    They follow the minimum-jerk profile s(t) = 10 t³ - 15 t⁴ + 6 t⁵, whose highest speed is 15/8 of the mean, and take
    as long as no element exceeds its speed.

    Args:
        joint_speed: of each joint [rad/s]; for the others see `OPENING_SPEED` and `POSE_SPEED`.
    """
    speed = np.full(contract.action_dim, joint_speed)
    slices = contract.action_slices
    if "gripper_opening" in slices:
        speed[slices["gripper_opening"]] = OPENING_SPEED
    if "ee_pose" in slices:
        speed[slices["ee_pose"]] = [POSE_SPEED[0]] * 3 + [POSE_SPEED[1]] * 6
    duration = float((15 / 8 * np.abs(goal - start) / speed).max())
    t = np.linspace(0.0, 1.0, max(1, int(np.ceil(duration * contract.rate_hz))) + 1)[1:, None]
    return np.asarray(start + (10 * t**3 - 15 * t**4 + 6 * t**5) * (goal - start), np.float32)


class ReplayNode:
    """Replays actions on a robot.

    Args:
        graph: of the node.
        robot: with the contract that the actions follow.
        actions: [T, A].
        start: where a vehicle was recorded first [3] m; None: not known.

    Attributes:
        ended: why it has ended, or None.
        complete: whether all actions were proposed.
    """

    def __init__(
        self, graph: Graph, robot: RobotFile | VehicleFile, actions: NDArray[np.float32],
        start: NDArray[Any] | None = None,
    ) -> None:  # fmt: skip
        self._graph, self._robot, self._actions, self._start = graph, robot, actions, start
        self._alignment = Alignment(robot)
        self._source = Source(graph, "replay", "replay", robot.contract)
        self._timer = graph.timer(1.0 / robot.contract.rate_hz, self.tick)
        self._plan: NDArray[np.float32] | None = None
        self._next = 0
        self._said, self._home = "", time.monotonic()
        self.ended: str | None = None
        self.complete = False
        for topic, stream in self._alignment.topics.items():
            graph.subscribe(topic, stream.type, partial(self._take, topic), stream.qos)
        self._source.acquire()

    def tick(self) -> None:
        """A control step."""
        if self.ended is not None:
            return
        if self._source.lease is None:
            if self._plan is not None:
                self.end(f"lost the lease: the Supervisor is {self._source.state} ({self._source.reason})")
            else:
                self._await()
            return
        if self._plan is None and not self._begin():
            return
        assert self._plan is not None
        if self._next == len(self._plan):
            self.complete = True
            self.end("all actions are replayed")
            return
        if self._next == 1 and isinstance(self._robot, VehicleFile) and not self._source.followed:
            self._next = 0
        self._source.propose(self._plan[self._next], self._graph.now())
        self._next += 1

    def end(self, reason: str) -> None:
        """Give the lease back."""
        if self.ended is None:
            self.ended = reason
            self._source.release(reason)
            self._graph.log.info("%s", reason)

    def _await(self) -> None:
        """Wait for a person who brings the robot home, and for the lease then; not for whatever else is in the way."""
        state, now = self._source.state, time.monotonic()
        if state in ("", "idle", "homing"):
            self._home = now
        if state == "stopped" or now - self._home > GRANT:
            self.end(f"no lease: the Supervisor is {state} ({self._source.reason}); replay again later")
        else:
            self._say(f"waits for the lease: {self._source.reason}")

    def _begin(self) -> bool:
        contract = self._robot.contract
        try:
            row = self._alignment.row(self._timer.time)
        except StaleError as error:
            self._say(f"waits for observations: {error}")
            return False
        if isinstance(self._robot, VehicleFile):
            away = 0.0 if self._start is None else float(np.linalg.norm(row.observation["position"] - self._start))
            if away > NEAR:
                self.end(f"the vehicle is {away:.1f} m from where the recording begins; let it hold its position there")
                return False
            self._plan = self._actions
            return True
        start = resting_action(contract, row.observation)
        way = approach(contract, start, self._actions[0], self._robot.homing_speed)
        settle = np.repeat(self._actions[:1], round(SETTLE * contract.rate_hz), axis=0)
        self._plan = np.concatenate([way, settle, self._actions])
        seconds = len(way) / contract.rate_hz
        self._graph.log.info("approaches the start in %.1f s, then replays %d actions", seconds, len(self._actions))
        return True

    def _take(self, topic: str, sample: Received) -> None:
        try:
            self._alignment.take(topic, sample.message, sample.received)
        except MessageError as error:
            self._say(f"{topic}: {error}")

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._graph.log.info("%s", text)


def for_actions(robot: RobotFile | VehicleFile, recorded: Contract) -> RobotFile | VehicleFile:
    """The robot under the controller of recorded actions, with what has to be observed to approach them.

    Raises:
        ContractError, RobotFileError: the robot does not execute such actions.
    """
    if isinstance(robot, VehicleFile):
        known = robot.with_controller(recorded.controller).contract
        known = known.select([name for name in known.observation if name in OBSERVED])
        return robot.for_policy(replace(recorded, observation=known.observation))
    observed = {name: feature for name, feature in robot.contract.observation.items() if name in recorded.action}
    return robot.for_policy(replace(recorded, observation=observed))


@node_main
def main(argv: Sequence[str]) -> int:
    """Replay an episode. Returns the exit status."""
    with open_graph("replay", argv) as graph:
        dataset = graph.parameter("dataset", "", "episode store", read_only=True).value
        number = graph.parameter("episode", 0, "of the store, from 0; negative from its end", read_only=True).value
        name = graph.parameter("robot", "panda", "name of a robot, or path of its file", read_only=True).value
        try:
            store = EpisodeStore.open(dataset)
            if not -len(store) <= number < len(store):
                raise StoreError(f"{dataset}: no episode {number}; it holds {len(store)}")
            robot, episode = for_actions(load_robot(name), store.contract), store[number]
            start = episode.observation["position"][0] if "position" in store.contract.observation else None
            node = ReplayNode(graph, robot, np.asarray(episode.action, np.float32), start)
        except (StoreError, ContractError, RobotFileError, OSError) as error:
            for line in str(error).splitlines():
                graph.log.error("%s", line)
            return 1
        graph.spin(until=lambda: node.ended is not None)
        node.end("shut down")
        graph.spin(timeout=0.2)  # so that the release is heard
        return 0 if node.complete or graph.stopped else 1


if __name__ == "__main__":
    sys.exit(main())
