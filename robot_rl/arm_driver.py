"""The driver that a session starts beside the other nodes: `port` of `robot-rl deploy` and `robot-rl teleop`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ArmDriverError(ValueError):
    """There is nothing to drive as asked; the message says what to do."""


def driver_parameters(plain: Mapping[str, Any]) -> dict[str, Any] | None:
    """ROS parameters of the `feetech` node; None without `port`: the robot's drivers run elsewhere.

    Args:
        plain: configuration, with the keys `port`, `calibration`, `robot` and `twin`.

    Raises:
        ArmDriverError: on a twin, or the robot's file has no driver.
        CalibrationError: the arm is not calibrated.
        RobotFileError: there is no such robot.
    """
    from robot_rl.hardware.feetech.calibration import load, place
    from robot_rl.hardware.robot_file import RobotFile

    if not plain.get("port"):
        if plain.get("calibration"):
            raise ArmDriverError("calibration: it is that of the arm on a port; give port=/dev/ttyACM0, too")
        return None
    if plain["twin"]:
        raise ArmDriverError("port: twin=true simulates the robot; leave one of them out")
    robot = RobotFile.load(str(plain["robot"]))
    if robot.driver is None:
        raise ArmDriverError(f"port: {robot.name} is driven by ROS drivers of its own; start them, and leave port out")
    calibration = str(plain["calibration"] or robot.name)
    load(place(calibration), robot.driver.motors)
    return {"robot": str(plain["robot"]), "port": str(plain["port"]), "calibration": calibration}
