"""A leader arm that publishes its joints as `sensor_msgs/msg/JointState`: the robot follows joint by joint.

The names, signs and zeros of the leader are brought to the robot's here, as `sign · position + offset`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_rl.hardware.opened import Opened
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.graph import Graph, Received
from robot_rl.hardware.ros2.qos import SENSOR
from robot_rl.hardware.teleop.device import DeviceError, Reading

JOINT_STATE = "sensor_msgs/msg/JointState"


class Leader(Opened):
    """See above.

    Args:
        graph: of the node.
        topic: of the leader.
        joints: its names, in the order of the robot's joints.
        signs: of each joint, 1 or -1.
        offsets: added to each [rad].
        gripper: name of its gripper's joint; empty: none.
        closed, opened: positions of that joint.

    Raises:
        DeviceError: signs or offsets do not fit the joints.
    """

    name = "leader"

    def __init__(
        self, graph: Graph, topic: str, joints: Sequence[str], signs: Sequence[float] = (),
        offsets: Sequence[float] = (), gripper: str = "", closed: float = 0.0, opened: float = 1.0,
    ) -> None:  # fmt: skip
        self._joints, self._gripper, self._range = tuple(joints), gripper, (closed, opened)
        self._signs, self._offsets = np.array(signs or [1.0] * len(joints)), np.array(offsets or [0.0] * len(joints))
        if not len(self._signs) == len(self._offsets) == len(joints) or set(np.abs(self._signs)) != {1.0}:
            raise DeviceError(f"leader: expected {len(joints)} signs (1 or -1) and offsets, got {signs} and {offsets}")
        if closed == opened:
            raise DeviceError(f"leader: gripper closed and open at the same position {closed}")
        self._newest: Reading | None = None
        self._topic = topic
        graph.subscribe(topic, JOINT_STATE, self.take, SENSOR)

    def take(self, received: Received) -> None:
        """A message; one without all of the joints is left out."""
        message = received.message
        place = {name: index for index, name in enumerate(message.name)}
        wanted = [*self._joints, *([self._gripper] if self._gripper else [])]
        if set(wanted) - set(place) or len(message.position) != len(message.name):
            return
        values = np.asarray(message.position, float)[[place[name] for name in wanted]]
        if not np.isfinite(values).all():
            return
        count = len(self._joints)
        gripper = None
        if self._gripper:
            closed, opened = self._range
            gripper = float(np.clip((values[-1] - closed) / (opened - closed), 0.0, 1.0))
        joints = self._signs * values[:count] + self._offsets
        self._newest = Reading(received.received, joint_position=joints, gripper=gripper)

    def read(self, now: float) -> Reading | None:
        """Where the leader is; None before its first message."""
        return self._newest

    def events(self) -> list[str]:
        """A leader has no buttons."""
        return []


def make(graph: Graph, robot: RobotFile) -> Leader:
    """With the parameters `leader.topic`, `.joints`, `.signs`, `.offsets`, `.gripper`, `.closed` and `.opened`."""

    def setting(name: str, default: Any, text: str) -> Any:
        return graph.parameter(f"leader.{name}", default, text, read_only=True).value

    names = list(robot.streams["joint_position"].elements or robot.joints)
    count = len(names)
    return Leader(
        graph, setting("topic", "/leader/joint_states", "of the leader arm"),
        setting("joints", names, "its names, in the order of the robot's joints"),
        setting("signs", [1.0] * count, "of each joint"), setting("offsets", [0.0] * count, "added to each [rad]"),
        setting("gripper", "", "name of its gripper's joint; empty: none"),
        setting("closed", 0.0, "position of that joint when closed"), setting("opened", 1.0, "and when open"),
    )  # fmt: skip
