"""The devices by name; each is made by a function `make(graph, robot) -> Device`."""

from __future__ import annotations

import difflib
from importlib import import_module

from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.graph import Graph
from robot_rl.hardware.teleop.device import Device, DeviceError

DEVICES = {
    "keyboard": ("robot_rl.hardware.teleop.keyboard", "keys in this terminal"),
    "web": ("robot_rl.hardware.cockpit.device", "a page in the browser: keyboard, touch, gamepad, phone"),
    "spacemouse": ("robot_rl.hardware.teleop.spacemouse", "3Dconnexion SpaceMouse, over hidraw"),
    "gamepad": ("robot_rl.hardware.teleop.gamepad", "game controller, over evdev, with a mapping file"),
    "leader": ("robot_rl.hardware.teleop.leader", "leader arm that publishes its joints as JointState"),
    "so101_leader": ("robot_rl.hardware.teleop.so101_leader", "SO-101 leader arm, over its Feetech bus"),
    "joy": ("robot_rl.hardware.teleop.ros_topics:make_joy", "sensor_msgs/msg/Joy, with a mapping file"),
    "twist": ("robot_rl.hardware.teleop.ros_topics:make_twist", "geometry_msgs/msg/TwistStamped"),
    "pose": ("robot_rl.hardware.teleop.ros_topics:make_pose", "geometry_msgs/msg/PoseStamped"),
    "scripted": ("robot_rl.hardware.teleop.scripted", "the scripted expert of a task, or a scripted pilot, for tests"),
}
"""Module, with the function unless that is `make`, and description of each."""

OF_ARMS = ("leader", "so101_leader", "pose")
"""Devices that say joints or poses, which a vehicle does not follow."""


def make_device(name: str, graph: Graph, robot: RobotFile | VehicleFile) -> Device:
    """The device of a name; it still has to be opened.

    Args:
        graph: where it declares its settings as parameters `<device>.<key>`, and subscribes.
        robot: that it moves.

    Raises:
        DeviceError: there is no such device, it does not move this robot, or what it needs is not installed.
    """
    if name not in DEVICES:
        close = difflib.get_close_matches(name, DEVICES, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise DeviceError(f"device: there is no {name!r}{hint} There are {', '.join(DEVICES)}")
    if isinstance(robot, VehicleFile) and name in OF_ARMS:
        others = ", ".join(device for device in DEVICES if device not in OF_ARMS)
        raise DeviceError(f"device: {name} does not move a vehicle; expected one of {others}")
    module, _, function = DEVICES[name][0].partition(":")
    made: Device = getattr(import_module(module), function or "make")(graph, robot)
    return made
