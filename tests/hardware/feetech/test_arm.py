"""An arm in radians on simulated servos."""

import time

import numpy as np
import pytest

from robot_rl.hardware.feetech import registers
from robot_rl.hardware.feetech.arm import Arm
from robot_rl.hardware.feetech.bus import Bus, BusError
from robot_rl.hardware.feetech.registers import RADIANS


@pytest.fixture
def arm(simulator, robot, joints):
    bus = Bus.open(simulator.port, patience=0.2)
    yield Arm(bus, robot.driver, joints)
    bus.close()


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.01)


def test_reads_what_the_servos_measure(simulator, arm):
    arm.check()
    simulator[1].encoder += 100
    simulator[2].temperature, simulator[3].voltage, simulator[5].errors = 41, 7.4, 32
    before = time.time()
    state = arm.read()
    assert before <= state.stamp <= time.time()
    assert state.position[:5] == pytest.approx([100 * RADIANS, 0, 0, 0, -0.5 * RADIANS])
    assert state.position[5] == pytest.approx(-0.1745 + 625 * RADIANS)  # half open
    assert (state.temperature[1], state.errors[4]) == (41, 32)
    assert state.voltage[2] == pytest.approx(7.4)
    assert not state.torque.any()
    assert arm.parts(state)["gripper"] == pytest.approx(0.5)


def test_moves_within_the_calibrated_ranges(simulator, arm):
    arm.hold(arm.read().position)
    arm.move(np.array([0.5, -0.5, 9.0, 0.2, -0.3, 1.0]))
    until(lambda: abs(arm.read().position[2] - arm.upper[2]) < 0.01)
    until(lambda: np.abs(arm.read().velocity).max() == 0.0)
    expected = np.array([0.5, -0.5, arm.upper[2], 0.2, -0.3, 1.0])
    np.testing.assert_allclose(arm.read().position, expected, atol=0.004)


def test_an_arm_that_is_given_torque_does_not_go_to_an_old_goal(simulator, arm):
    for servo in simulator.servos:
        servo.set(registers.GOAL_POSITION, 1500)
        servo.set(registers.TORQUE_LIMIT, 0)
    start = arm.read().position
    arm.hold(start)
    time.sleep(0.1)
    state = arm.read()
    assert state.torque.all()
    np.testing.assert_allclose(state.position, start, atol=RADIANS)
    assert simulator[1].get(registers.TORQUE_LIMIT) == 1000
    arm.release()
    assert not arm.read().torque.any()


def test_settings_are_written_once_and_kept(simulator, arm):
    arm.configure()
    simulator[6].power_up()
    assert simulator[6].get(registers.SETTINGS["max_torque"]) == 500
    assert simulator[1].get(registers.SETTINGS["p_gain"]) == 16
    before = len(simulator.heard)
    arm.configure()
    eeprom = [heard for heard in simulator.heard[before:] if heard[4] == 3 and heard[5] < 40]
    assert not eeprom


def test_velocities_in_the_units_of_either_phase(simulator, arm):
    simulator[1].set(registers.PHASE, 8)
    arm.check()
    for servo in (1, 2):
        simulator[servo].advance = lambda seconds: None
        simulator[servo].velocity = -20
    np.testing.assert_allclose(arm.read().velocity[:2], [-1000 * RADIANS, -20 * RADIANS])


def test_missing_servos_are_named(simulator, arm):
    simulator.missing = {2, 6}
    with pytest.raises(BusError, match=r"4 of 6 servos answer; missing: shoulder_lift \(2\), gripper \(6\)"):
        arm.check()
