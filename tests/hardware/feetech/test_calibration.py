"""Calibration: the procedure on simulated servos, the file, and what is refused."""

import json
import math

import pytest

from robot_rl.hardware.feetech import calibration, registers
from robot_rl.hardware.feetech.bus import Bus
from robot_rl.hardware.feetech.calibration import CalibrationError, Procedure
from robot_rl.hardware.robot_file import Motor

from .simulator import SimulatedServo, Simulator

MIDDLES = [700, 2047, 3900, 10, 4095, 1500]
"""Encoders of uncalibrated servos where their joints are in the middle."""


@pytest.fixture
def raw(tmp_path):
    with Simulator(tmp_path, [SimulatedServo(i + 1, middle) for i, middle in enumerate(MIDDLES)]) as simulated:
        yield simulated


@pytest.fixture
def bus(raw):
    opened = Bus.open(raw.port, patience=0.2)
    yield opened
    opened.close()


def turn(simulator, name_ticks, procedure):
    for servo, ticks in name_ticks.items():
        middle = MIDDLES[servo - 1]
        for way in (-ticks // 2, 0, ticks // 2):
            simulator[servo].encoder = middle + way
            procedure.observe()
        simulator[servo].encoder = middle


def test_the_procedure_puts_zero_into_the_middle(raw, bus, robot, tmp_path):
    motors = robot.driver.motors
    procedure = Procedure(bus, motors, {"elbow_flex": 3.38})
    raw[3].write(registers.GOAL_POSITION.address, registers.GOAL_POSITION.encode(3900))
    assert raw[3].torque
    procedure.begin()
    assert not raw[3].torque
    procedure.set_middle()
    turn(raw, {1: 2500, 2: 2200, 3: 2200, 4: 2000, 6: 1200}, procedure)
    found = procedure.finish()
    for servo, joint in zip(raw.servos, found.values(), strict=True):
        assert servo.position == pytest.approx(2047, abs=1)
        servo.power_up()  # all of it is kept without power
        assert servo.get(registers.HOMING_OFFSET) == joint.homing_offset
        assert (servo.get(registers.MIN_POSITION), servo.get(registers.MAX_POSITION)) == (
            joint.range_min, joint.range_max,
        )  # fmt: skip
    assert found["elbow_flex"].range_max - found["elbow_flex"].range_min == pytest.approx(2200, abs=2)
    assert (found["wrist_roll"].range_min, found["wrist_roll"].range_max) == (0, 4095)
    path = tmp_path / "made" / "so101.json"
    calibration.save(found, path)
    assert calibration.load(path, motors) == found
    calibration.check(bus, found)


def test_a_joint_that_was_not_moved_to_its_ends_is_named(raw, bus, robot):
    procedure = Procedure(bus, robot.driver.motors, {"elbow_flex": 3.38})
    procedure.begin()
    procedure.set_middle()
    turn(raw, {1: 2500, 2: 2200, 3: 1000, 4: 2000, 6: 1200}, procedure)
    with pytest.raises(CalibrationError, match=r"elbow_flex was moved 88° of about 194°"):
        procedure.finish()


def test_a_middle_that_is_none_is_noticed(raw, bus, robot):
    procedure = Procedure(bus, robot.driver.motors)
    procedure.begin()
    procedure.set_middle()
    raw[2].encoder += 1900
    procedure.observe()
    raw[2].encoder += 300
    with pytest.raises(CalibrationError, match="shoulder_lift was not in the middle"):
        procedure.observe()


def test_the_calibration_of_another_arm_is_refused(simulator, joints):
    bus = Bus.open(simulator.port, patience=0.2)
    calibration.check(bus, joints)
    simulator[4].set(registers.HOMING_OFFSET, 5)
    with pytest.raises(CalibrationError, match=r"wrist_flex \(servo 4\) holds 5"):
        calibration.check(bus, joints)
    bus.close()


def test_angles_are_those_of_lerobot_zero_in_the_middle():
    joint = calibration.JointCalibration(1, 0, 0, 1000, 3000)
    middle = Motor(1)
    assert joint.radians(2000, middle) == 0.0
    assert joint.radians(3024, middle) == pytest.approx(math.pi / 2)
    assert joint.ticks(-math.pi / 2, middle) == pytest.approx(976)
    jaw = Motor(6, lower=-0.1745)
    assert joint.radians(1000, jaw) == pytest.approx(-0.1745)
    assert joint.ticks(-0.1745, jaw) == pytest.approx(1000)
    other_way = calibration.JointCalibration(1, 1, 0, 1000, 3000)
    assert other_way.radians(3024, middle) == pytest.approx(-math.pi / 2)
    assert other_way.radians(3000, jaw) == pytest.approx(-0.1745)
    assert other_way.part(3000) == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 3}, "by the robot's file 1"), ({"range_max": 900}, "range_min < range_max"),
        ({"range_max": 4096}, "range_min < range_max"), ({"range_max": 1100}, "has moved 100 ticks only"),
        ({"drive_mode": 2}, "drive_mode is 0 or 1"), ({"homing_offset": 3000}, "within"),
        ({"homing_offset": 1.5}, "expected whole numbers"), ({"extra": 1}, "expected whole numbers"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_is_refused(tmp_path, change, message):
    joint = {"id": 1, "drive_mode": 0, "homing_offset": 0, "range_min": 1000, "range_max": 3000}
    path = tmp_path / "arm.json"
    path.write_text(json.dumps({"pan": {**joint, **change}}))
    with pytest.raises(CalibrationError, match=message):
        calibration.load(path, {"pan": Motor(1)})


def test_files_that_are_missing_broken_or_of_other_joints(tmp_path, robot, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = calibration.place("left")
    assert path == tmp_path / "robot_rl" / "calibration" / "left.json"
    with pytest.raises(CalibrationError, match=r"not calibrated.*robots calibrate"):
        calibration.load(path, robot.driver.motors)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(CalibrationError, match="cannot be read"):
        calibration.load(path, robot.driver.motors)
    path.write_text("{}")
    with pytest.raises(CalibrationError, match="expected the joints"):
        calibration.load(path, robot.driver.motors)
