"""The actions of a recording: what was executed in each control period, who decided it, what the policy wished instead.

An action is a proposal that the Supervisor followed: its status names the last one as `followed`, `<lease>/<sequence>`.
Where nobody proposed anything, and in recordings of robots without a Supervisor, it is what the robot was commanded to
reach by the end of the period.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, NamedTuple

import numpy as np

from robot_rl.hardware import bindings
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.recording.bag import Bag, Recorded
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages

_EPSILON = 1e-6  # clocks are floats
_KEEP = 60.0
"""Proposals and commands are forgotten after that [s]."""


class Action(NamedTuple):
    """What was executed in a control period.

    Attributes:
        value: float32 [A].
        stamp: when it was decided [s].
        kind: of who decided: `policy`, `device`, `script`, `replay`; `command` where only the robot's commands tell.
        wish: what a policy proposed in a period that somebody else decided [A], or None.
    """

    value: np.ndarray
    stamp: float
    kind: str
    wish: np.ndarray | None = None


class _Proposal(NamedTuple):
    stamp: float
    lease: str
    token: str
    value: np.ndarray


class _Command(NamedTuple):
    received: float
    topic: str
    bag: Bag
    recorded: Recorded


class RecordedActions:
    """Collects proposals, statuses and commands as they were received.

    Attributes:
        supervised: whether a Supervisor was heard.
        proposers: kinds of those who held a lease.
    """

    def __init__(self, robot: RobotFile | VehicleFile) -> None:
        self._robot, self._contract = robot, robot.contract
        self._period = 1.0 / robot.contract.rate_hz
        self._proposals: list[_Proposal] = []
        self._followed: dict[str, None] = {}
        self._kinds: dict[str, str] = {}
        self._commands: dict[str, list[_Command]] = {name: [] for name in robot.commands}
        self._kinematics = robot.kinematics() if "ee_pose" in robot.contract.action else None
        self.supervised = False

    def take_status(self, message: Any) -> None:
        """A `supervisor/status`."""
        self.supervised = True
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if lease := values.get("lease"):
                self._kinds[lease] = values.get("kind", "")
            if followed := values.get("followed"):
                self._followed[followed] = None
                if len(self._followed) > 10_000:
                    del self._followed[next(iter(self._followed))]

    def take_proposal(self, message: Any) -> None:
        """A `supervisor/proposal`; one with wrong names is none, as for the Supervisor."""
        self.supervised = True
        names = self._contract.action_names
        position = dict(zip(message.name, np.asarray(message.position, np.float32), strict=False))
        if position.keys() != set(names):
            return
        value = np.array([position[name] for name in names], np.float32)
        if not np.isfinite(value).all():
            return
        stamp, token = messages.seconds(message.header.stamp), message.header.frame_id
        self._proposals.append(_Proposal(stamp, token.partition("/")[0], token, value))
        if stamp - self._proposals[0].stamp > 2 * _KEEP:
            self._proposals = [proposal for proposal in self._proposals if stamp - proposal.stamp < _KEEP]

    def take_command(self, topic: str, bag: Bag, recorded: Recorded) -> None:
        """A message on one of the robot's command topics, named as in its file; decoded when it is asked for."""
        name = next(name for name, command in self._robot.commands.items() if command.topic == topic)
        kept, received = self._commands[name], recorded.received * 1e-9
        kept.append(_Command(received, topic, bag, recorded._replace(cdr=bytes(recorded.cdr))))
        if received - kept[0].received > 2 * _KEEP:
            del kept[: bisect_left(kept, received - _KEEP, key=_received)]

    def at(self, tick: float) -> Action | None:
        """What was followed last of the proposals of the control period that begins at `tick` [s]."""
        inside = self._inside(tick)
        followed = next((proposal for proposal in reversed(inside) if proposal.token in self._followed), None)
        if followed is None:
            return None
        kind = self._kinds.get(followed.lease, "")
        return Action(followed.value, followed.stamp, kind, None if kind == "policy" else self.wish(tick))

    def wish(self, tick: float) -> np.ndarray | None:
        """What a policy wished last [A] in the control period that begins at `tick` [s]."""
        wishes = (p.value for p in reversed(self._inside(tick)) if self._kinds.get(p.lease) == "policy")
        return next(wishes, None)

    def commanded(self, tick: float) -> Action | None:
        """What the robot was commanded to reach at the end of the period that begins at `tick` [s]."""
        end, parts, stamp = tick + self._period, {}, 0.0
        for name, kept in self._commands.items():
            index = bisect_left(kept, end - _EPSILON, key=_received) - 1
            setpoints = self._setpoints(kept[index]) if index >= 0 else None
            if setpoints is None:
                return None
            received = kept[index].received
            begin = received if setpoints.start is None else setpoints.start
            columns = setpoints.position.T
            parts[name] = np.array([np.interp(end - begin, setpoints.times, column) for column in columns])
            stamp = max(stamp, received)
        if self._kinematics is not None:
            from robot_rl.sim.rotation import quaternion_to_6d

            pose = self._kinematics.forward(parts["joint_position"])
            parts["ee_pose"] = np.concatenate([pose[:3], quaternion_to_6d(pose[3:])])
        if parts.keys() < set(self._contract.action):
            return None
        return Action(self._contract.join_action(parts), stamp, "command")

    def _inside(self, tick: float) -> list[_Proposal]:
        return [p for p in self._proposals if tick - _EPSILON <= p.stamp < tick + self._period - _EPSILON]

    def _setpoints(self, command: _Command) -> bindings.Setpoints | None:
        assert isinstance(self._robot, RobotFile)  # a vehicle has no topics of commands
        try:
            return bindings.decode_command(self._robot, command.topic, command.bag.decode(command.recorded))
        except bindings.BindingError:
            return None  # the robot did not follow it either


def _received(command: _Command) -> float:
    return command.received
