"""A follower and a leader of the SO-101, simulated at the level of packets, and their calibration."""

import pytest

from robot_rl.hardware.feetech import registers
from robot_rl.hardware.feetech.calibration import JointCalibration, save
from robot_rl.hardware.robot_file import RobotFile

from .simulator import SimulatedServo, Simulator

SPAN = {"shoulder_pan": 2500, "shoulder_lift": 2270, "elbow_flex": 2200, "wrist_flex": 2160, "gripper": 1250}


def so101_calibration():
    found = {}
    for index, (name, motor) in enumerate(RobotFile.load("so101").driver.motors.items()):
        half = SPAN.get(name, 0) // 2
        low, high = (2047 - half, 2047 + half) if half else (0, 4095)
        found[name] = JointCalibration(motor.id, 0, 100 * index - 250, low, high)
    return found


def so101_servos(calibration):
    return [
        SimulatedServo(joint.id, joint.homing_offset + 2047, {
            registers.HOMING_OFFSET: joint.homing_offset, registers.MIN_POSITION: joint.range_min,
            registers.MAX_POSITION: joint.range_max,
        })
        for joint in calibration.values()
    ]  # fmt: skip


@pytest.fixture
def robot():
    return RobotFile.load("so101")


@pytest.fixture
def joints():
    return so101_calibration()


@pytest.fixture
def calibration_file(tmp_path, joints):
    path = tmp_path / "so101.json"
    save(joints, path)
    return path


@pytest.fixture
def simulator(tmp_path, joints):
    with Simulator(tmp_path, so101_servos(joints)) as simulated:
        yield simulated
