"""The leader device on simulated servos."""

import pytest

from robot_rl.hardware.feetech import bus as buses
from robot_rl.hardware.feetech import registers
from robot_rl.hardware.feetech.registers import RADIANS
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.teleop import so101_leader
from robot_rl.hardware.teleop.device import DeviceError
from robot_rl.hardware.teleop.so101_leader import So101Leader


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(buses, "PATIENCE", 0.2)
    monkeypatch.setattr(buses, "GLANCE", 0.2)


@pytest.fixture
def leader(simulator, robot, calibration_file):
    with So101Leader(robot, simulator.port, str(calibration_file)) as opened:
        yield opened


def test_it_gives_joints_and_gripper_and_no_torque(simulator, robot, calibration_file):
    simulator[1].set(registers.TORQUE_ENABLE, 1)
    simulator[1].set(registers.GOAL_POSITION, 2047)
    with So101Leader(robot, simulator.port, str(calibration_file)) as leader:
        assert not simulator[1].torque
        simulator[2].encoder += 500
        simulator[6].encoder = simulator[6].get(registers.HOMING_OFFSET) + simulator[6].get(registers.MAX_POSITION)
        reading = leader.read(7.0)
    assert reading.stamp == 7.0
    assert reading.joint_position == pytest.approx([0, 500 * RADIANS, 0, 0, -0.5 * RADIANS])
    assert reading.gripper == pytest.approx(1.0)
    assert not any(servo.goals for servo in simulator.servos)
    assert leader.events() == []


def test_a_pulled_cable_gives_no_reading_until_it_is_back(simulator, leader, monkeypatch):
    assert leader.read(1.0) is not None
    simulator.unplug()
    assert leader.read(2.0) is None
    assert leader.read(2.5) is None
    simulator.plug_in()
    assert leader.read(2.0 + so101_leader.LOOK + 3.0) is not None


def test_what_is_missing_is_told(simulator, robot, calibration_file, tmp_path):
    with pytest.raises(DeviceError, match="not calibrated"):
        So101Leader(robot, simulator.port, str(tmp_path / "none.json")).open()
    with pytest.raises(DeviceError, match="no such port"):
        So101Leader(robot, str(tmp_path / "ttyACM9"), str(calibration_file)).open()
    with pytest.raises(DeviceError, match="panda is no arm of Feetech servos"):
        So101Leader(RobotFile.load("panda"), simulator.port)
