"""Devices that other nodes publish: a joystick, a twist, or a pose.

| device  | type                            | frame and signs                                                         |
|---------|---------------------------------|-------------------------------------------------------------------------|
| `joy`   | sensor_msgs/msg/Joy             | by its mapping file; in Joy forward and left are positive, as in FLU    |
| `twist` | geometry_msgs/msg/TwistStamped  | m/s and rad/s in FLU (REP 103): taken as it is, in the mapping's frame  |
| `pose`  | geometry_msgs/msg/PoseStamped   | metres and quaternion x y z w; only its motion counts, while the clutch |
|         |                                 | is held: a topic of std_msgs/msg/Bool, or always without one            |

Ages count from reception: the clocks of other computers are not trusted. A frame other than `<device>.frame_id`, where
that is given, is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_rl.hardware.opened import Opened
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.graph import Graph, Received
from robot_rl.hardware.ros2.qos import SENSOR
from robot_rl.hardware.teleop.control_map import ControlMap, directions, pressed
from robot_rl.hardware.teleop.device import Reading


class RosTopic(Opened):
    """A device whose newest reading is made of the newest message.

    Args:
        graph: of the node.
        name: of the device.
        topic, message_type: subscribed.
        frame_id: that its header must carry; empty: any.
    """

    def __init__(self, graph: Graph, name: str, topic: str, message_type: str, frame_id: str = "") -> None:
        self.name, self._frame_id = name, frame_id
        self._newest: Reading | None = None
        self._words: list[str] = []
        graph.subscribe(topic, message_type, self.take, SENSOR)

    def take(self, received: Received) -> None:
        """A message."""
        message = received.message
        if self._frame_id in ("", message.header.frame_id) and (reading := self.decode(message, received.received)):
            self._newest = reading

    def decode(self, message: Any, stamp: float) -> Reading | None:
        """The reading of a message; None for one with numbers that are none."""
        raise NotImplementedError

    def read(self, now: float) -> Reading | None:
        """The newest reading; None before the first message."""
        return self._newest

    def events(self) -> list[str]:
        """Words since the last call."""
        words, self._words = self._words, []
        return words


class Joy(RosTopic):
    """A joystick. `controls` tells which axis and button (`axis0`, `button0`) does what."""

    def __init__(self, graph: Graph, controls: ControlMap, topic: str = "/joy") -> None:
        super().__init__(graph, "joy", topic, "sensor_msgs/msg/Joy")
        self._map, self._before = controls, set[str]()

    def decode(self, message: Any, stamp: float) -> Reading | None:
        axes = {f"axis{index}": float(value) for index, value in enumerate(message.axes)}
        if not np.isfinite(list(axes.values())).all():
            return None
        held = {f"button{index}" for index, value in enumerate(message.buttons) if value} | directions(axes)
        self._words += pressed(self._map.said(held - self._before))
        self._before = held
        return self._map.reading(stamp, axes, held)


class Twist(RosTopic):
    """A velocity."""

    def __init__(self, graph: Graph, topic: str = "/twist", frame_id: str = "") -> None:
        super().__init__(graph, "twist", topic, "geometry_msgs/msg/TwistStamped", frame_id)

    def decode(self, message: Any, stamp: float) -> Reading | None:
        linear, angular = message.twist.linear, message.twist.angular
        twist = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        return Reading(stamp, twist=twist) if np.isfinite(twist).all() else None


class Pose(RosTopic):
    """A hand, tracker or phone. `clutch` is a topic of std_msgs/msg/Bool; empty: always held."""

    def __init__(self, graph: Graph, topic: str = "/hand_pose", clutch: str = "", frame_id: str = "") -> None:
        super().__init__(graph, "pose", topic, "geometry_msgs/msg/PoseStamped", frame_id)
        self._held = not clutch
        if clutch:
            graph.subscribe(clutch, "std_msgs/msg/Bool", self._on_clutch)

    def decode(self, message: Any, stamp: float) -> Reading | None:
        p, q = message.pose.position, message.pose.orientation
        pose = np.array([p.x, p.y, p.z, q.w, q.x, q.y, q.z])
        if not np.isfinite(pose).all() or not np.linalg.norm(pose[3:]) > 0.5:
            return None
        return Reading(stamp, pose=pose, buttons=frozenset({"clutch"}) if self._held else frozenset())

    def _on_clutch(self, received: Received) -> None:
        self._held = bool(received.message.data)
        if self._newest is not None:
            buttons = frozenset({"clutch"}) if self._held else frozenset[str]()
            self._newest = Reading(self._newest.stamp, pose=self._newest.pose, buttons=buttons)


def make_joy(graph: Graph, robot: RobotFile | VehicleFile) -> Joy:
    """With the parameters `joy.topic` and `joy.mapping`."""
    default = "joy_flight" if isinstance(robot, VehicleFile) else "joy"
    mapping = ControlMap.load(_setting(graph, "joy.mapping", default, "mapping file, by name or path"))
    return Joy(graph, mapping, _setting(graph, "joy.topic", "/joy", "of the joystick"))


def make_twist(graph: Graph, robot: RobotFile | VehicleFile) -> Twist:
    """With the parameters `twist.topic` and `twist.frame_id`."""
    topic = _setting(graph, "twist.topic", "/twist", "of the velocity")
    return Twist(graph, topic, _setting(graph, "twist.frame_id", "", "that is taken; empty: any"))


def make_pose(graph: Graph, robot: RobotFile | VehicleFile) -> Pose:
    """With the parameters `pose.topic`, `pose.clutch` and `pose.frame_id`."""
    return Pose(
        graph, _setting(graph, "pose.topic", "/hand_pose", "of the hand"),
        _setting(graph, "pose.clutch", "", "topic of the clutch; empty: always held"),
        _setting(graph, "pose.frame_id", "", "that is taken; empty: any"),
    )  # fmt: skip


def _setting(graph: Graph, name: str, default: Any, description: str) -> Any:
    return graph.parameter(name, default, description, read_only=True).value
