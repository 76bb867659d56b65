"""The cameras of this computer that a session starts: `camera_devices` of `robot-rl deploy` and `robot-rl teleop`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SIZE = (480, 640)
"""Height and width of a camera whose size is not given, as `hardware.cameras` has it."""


class CameraDevicesError(ValueError):
    """`camera_devices` cannot be used as given; the message says what to do."""


def camera_parameters(plain: Mapping[str, Any]) -> dict[str, Any] | None:
    """ROS parameters of the `camera` node; None without `camera_devices`.

    Args:
        plain: configuration, with the keys `camera_devices` (name of the feature to settings), `robot` and `twin`.

    Raises:
        CameraDevicesError: on a twin, which renders its own cameras; or a camera is no mapping of settings.
        CameraError: there is no such kind or setting.
        RobotFileError, ContractError: the robot's file has no such camera.
    """
    from robot_rl.datasets.contract import Feature
    from robot_rl.hardware.cameras.kinds import make_source
    from robot_rl.hardware.nodes.camera_node import stream_of
    from robot_rl.hardware.robot_file import RobotFile

    devices = plain.get("camera_devices")
    if not devices:
        return None
    if plain["twin"]:
        raise CameraDevicesError("camera_devices: the twin renders its own cameras; leave them out with twin=true")
    robot = RobotFile.load(str(plain["robot"]))
    parameters: dict[str, Any] = {"robot": str(plain["robot"]), "cameras": list(devices)}
    for name, settings in devices.items():
        if not isinstance(settings, Mapping):
            wanted = "settings such as {kind: opencv, device: /dev/video0}"
            raise CameraDevicesError(f"camera_devices.{name}: expected {wanted}, got {settings!r}")
        make_source(settings)
        stream_of(robot, Feature(name, (1, 1, 3), "uint8", kind="image"))
        for key, value in settings.items():
            if value is not None:
                # OpenCV's number of a device is a name, too, and ROS parameters have one type.
                parameters[f"{name}.{key}"] = str(value) if key == "device" else value
    return parameters


def recorded_sizes(plain: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What `cameras` means where it is not given: those of `camera_devices`, in their size."""
    cameras: Mapping[str, Any] | None = plain["cameras"]
    if cameras is not None or not (devices := plain.get("camera_devices")):
        return cameras
    return {name: list(settings.get("size") or SIZE) for name, settings in devices.items()}
