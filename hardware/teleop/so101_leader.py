"""The SO-101 leader, read over its own Feetech bus: the robot follows joint by joint, the handle moves the gripper.

The leader has the ids, names and signs of the follower, and is calibrated by the same method, so that both are at zero
in the middle of their ranges. Its torque is taken away; nothing else is ever written to it.
"""

from __future__ import annotations

import numpy as np

from robot_rl.hardware.feetech.arm import Arm
from robot_rl.hardware.feetech.bus import Bus, BusError
from robot_rl.hardware.feetech.calibration import CalibrationError, load, place
from robot_rl.hardware.opened import Opened
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.graph import Graph
from robot_rl.hardware.teleop.device import DeviceError, Reading

LOOK = 1.0
"""Between two looks for a leader that was lost [s]."""


class So101Leader(Opened):
    """See above.

    Args:
        robot: that follows; its driver names the motors.
        port: serial port of the leader.
        calibration: its name, or the path of its file.

    Raises:
        DeviceError: the robot has no such motors.
    """

    name = "so101_leader"

    def __init__(self, robot: RobotFile, port: str, calibration: str = "so101_leader") -> None:
        if robot.driver is None:
            raise DeviceError(f"so101_leader: {robot.name} is no arm of Feetech servos; use robot=so101")
        elements = robot.streams["joint_position"].elements
        jaw = robot.streams["gripper_opening"].elements if robot.gripper is not None else ()
        self._driver, self._port, self._calibration = robot.driver, port, calibration
        self._joints = [list(robot.driver.motors).index(name) for name in elements]
        self._handle = jaw[0] if jaw else None
        self._arm: Arm | None = None
        self._looked = -np.inf

    def open(self) -> None:
        """Take the torque away, and begin to read. Raises `DeviceError` with what mends it."""
        try:
            joints = load(place(self._calibration), self._driver.motors)
            bus = Bus.open(self._port)
        except (BusError, CalibrationError) as error:
            raise DeviceError(f"so101_leader: {error}") from error
        arm = Arm(bus, self._driver, joints)
        try:
            arm.check()
            arm.release()
        except (BusError, CalibrationError) as error:
            bus.close()
            raise DeviceError(f"so101_leader: {error}") from error
        self._arm = arm

    def close(self) -> None:
        """Let go of the port."""
        if self._arm is not None:
            self._arm.bus.close()
            self._arm = None

    def read(self, now: float) -> Reading | None:
        """Where the leader is; None while it does not answer."""
        if self._arm is None and not self._reconnect(now):
            return None
        assert self._arm is not None
        try:
            state = self._arm.read()
        except BusError:
            self.close()
            return None
        gripper = None if self._handle is None else self._arm.parts(state)[self._handle]
        return Reading(now, joint_position=state.position[self._joints], gripper=gripper)

    def events(self) -> list[str]:
        """A leader has no buttons; the keys of the terminal say the words."""
        return []

    def _reconnect(self, now: float) -> bool:
        if now - self._looked < LOOK:
            return False
        self._looked = now
        try:
            self.open()
        except DeviceError:
            return False
        return True


def make(graph: Graph, robot: RobotFile) -> So101Leader:
    """With the parameters `so101_leader.port` and `so101_leader.calibration`."""
    port = graph.parameter("so101_leader.port", "", "serial port of the leader, such as /dev/ttyACM1", read_only=True)
    text = "of the leader: its name, or the path of its file"
    calibration = graph.parameter("so101_leader.calibration", "so101_leader", text, read_only=True)
    return So101Leader(robot, port.value, calibration.value)
