"""The calibration of a simulated SO-101, and servos that hold it."""

from robot_rl.hardware.feetech import registers
from robot_rl.hardware.feetech.calibration import JointCalibration
from robot_rl.hardware.robot_file import RobotFile

from .simulator import SimulatedServo

SPAN = {"shoulder_pan": 2500, "shoulder_lift": 2270, "elbow_flex": 2200, "wrist_flex": 2160, "gripper": 1250}


def so101_calibration(shift=0):
    """With other homing offsets for another `shift`."""
    found = {}
    for index, (name, motor) in enumerate(RobotFile.load("so101").driver.motors.items()):
        half = SPAN.get(name, 0) // 2
        low, high = (2047 - half, 2047 + half) if half else (0, 4095)
        found[name] = JointCalibration(motor.id, 0, 100 * index - 250 + shift, low, high)
    return found


def so101_servos(calibration):
    return [
        SimulatedServo(
            joint.id,
            joint.homing_offset + 2047,
            {
                registers.HOMING_OFFSET: joint.homing_offset,
                registers.MIN_POSITION: joint.range_min,
                registers.MAX_POSITION: joint.range_max,
            },
        )
        for joint in calibration.values()
    ]
