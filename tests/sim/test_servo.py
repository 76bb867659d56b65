"""Servo: limits by finite differences of the stream, tracking against analytic motions, restore, malformed input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.sim.servo import Gripper, JointLimits, Servo, ServoError
from robot_rl.sim.spec import load

PERIOD = 0.002
PANDA = JointLimits.from_mapping(load("robot", "panda")["limits"])
HOME = np.array([0.0, 0.2, 0.0, -2.6, 0.0, 2.9, 0.8])


def assert_within_limits(position: np.ndarray, limits: JointLimits, period: float) -> None:
    """A motion whose derivatives are bounded has finite differences with the same bounds."""
    assert (position >= limits.lower - 1e-9).all()
    assert (position <= limits.upper + 1e-9).all()
    for order, bound in enumerate((limits.velocity, limits.acceleration, limits.jerk), start=1):
        rounding = 1e-14 * 2**order / period**order
        assert (np.abs(np.diff(position, order, axis=0)) / period**order <= bound * (1 + 1e-6) + rounding).all()


@settings(max_examples=40, deadline=None)
@given(
    jumps=st.lists(
        st.tuples(
            st.lists(st.floats(-8, 8), min_size=7, max_size=7) | st.sampled_from(["lower", "upper", "same"]),
            st.integers(0, 60),
        ),
        min_size=1,
        max_size=12,
    ),
    scale=st.sampled_from([0.01, 0.1, 1.0]),
)
def test_no_target_makes_the_stream_exceed_a_limit(jumps, scale):
    servo = Servo(PANDA, PERIOD)
    servo.reset(HOME)
    rows = [HOME[None], HOME[None], HOME[None]]
    for target, periods in jumps:
        if target == "same":
            servo.set_target(servo.target)
        else:
            servo.set_target(getattr(PANDA, target) if isinstance(target, str) else HOME + scale * np.array(target))
        if periods:
            rows.append(servo.trajectory(periods).position)
    rows.append(servo.trajectory(3000).position)
    assert_within_limits(np.concatenate(rows), PANDA, PERIOD)
    np.testing.assert_allclose(rows[-1][-1], servo.target, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    start=st.floats(-1, 1), towards=st.floats(-1, 1), wave=st.floats(0, 3),
    rate=st.sampled_from([100, 333, 500, 1000]), phase=st.floats(0, 6),
)  # fmt: skip
def test_streams_near_the_stops_keep_the_limits_at_any_rate(start, towards, wave, rate, phase):
    limits = JointLimits([-1.0], [1.0], [3.0], [10.0], [1000.0])
    servo = Servo(limits, 1 / rate)
    servo.reset(np.array([start]))
    rows = [np.full((3, 1), start)]
    for k in range(30):
        servo.set_target(np.array([towards + wave * np.sin(0.4 * k + phase)]))
        rows.append(servo.trajectory(round(rate / 20)).position)
    assert_within_limits(np.concatenate(rows), limits, 1 / rate)


def follow(motion, periods=60):
    servo = Servo(PANDA, PERIOD)
    servo.reset(motion(0.0))
    rows = []
    for k in range(1, periods):
        servo.set_target(motion(k * servo.target_period))
        rows.append(servo.trajectory(25))
    times = PERIOD * np.arange(1, 25 * (periods - 1) + 1)
    return times, *(np.concatenate(row) for row in zip(*rows, strict=True))


def test_a_moving_target_is_met_in_time_and_followed_smoothly():
    def motion(t):
        return HOME + 0.2 * (1 - np.cos(np.pi * t)) * np.array([1, -1, 1, 1, -1, 0.5, 1])

    times, position, velocity, acceleration = follow(motion)
    expected = np.array([motion(t) for t in times])
    assert np.abs(position - expected).max() < 4e-3
    assert np.abs(position - expected)[100:].max() < 1e-3
    np.testing.assert_allclose(position[124::25], expected[124::25], atol=1e-9)
    speed = np.abs(np.gradient(expected, PERIOD, axis=0))
    assert np.abs(velocity - np.gradient(expected, PERIOD, axis=0))[100:].max() < 0.1 * speed.max()
    assert np.abs(acceleration[100:]).max() < 1.3 * 0.2 * np.pi**2


def test_velocity_and_acceleration_are_the_derivatives_of_the_position():
    generator = np.random.default_rng(0)
    servo = Servo(PANDA, 1e-4)
    servo.reset(HOME)
    rows = []
    for _ in range(5):
        servo.set_target(HOME + generator.normal(0, 0.3, 7))
        rows.append(servo.trajectory(500))
    position, velocity, acceleration = (np.concatenate(row) for row in zip(*rows, strict=True))
    np.testing.assert_allclose(np.gradient(position, 1e-4, axis=0)[1:-1], velocity[1:-1], atol=1e-4)
    np.testing.assert_allclose(np.gradient(velocity, 1e-4, axis=0)[1:-1], acceleration[1:-1], atol=0.6)


def test_steps_are_the_rows_of_a_trajectory():
    one, many = Servo(PANDA, PERIOD), Servo(PANDA, PERIOD)
    for servo in (one, many):
        servo.reset(HOME, 0.1 * np.ones(7))
    for k in range(4):
        for servo in (one, many):
            servo.set_target(HOME + 0.02 * k)
        rows = [one.step().position for _ in range(31)]
        np.testing.assert_allclose(rows, many.trajectory(31).position, atol=1e-12)


def test_state_restores_exactly_in_the_middle_of_a_motion():
    servo, copy = Servo(PANDA, PERIOD), Servo(PANDA, PERIOD)
    servo.reset(HOME)
    generator = np.random.default_rng(1)
    for count in (25, 7, 40, 25, 11):
        servo.set_target(HOME + generator.normal(0, 0.1, 7))
        servo.trajectory(count)
        copy.set_state(servo.get_state())
        np.testing.assert_array_equal(copy.reference.position, servo.reference.position)
    for _ in range(5):
        target = HOME + generator.normal(0, 0.1, 7)
        servo.set_target(target)
        copy.set_target(target)
        np.testing.assert_array_equal(servo.trajectory(25).position, copy.trajectory(25).position)


def test_targets_that_stop_coming_bring_the_motion_to_rest_in_the_last_one():
    servo = Servo(PANDA, PERIOD)
    servo.reset(HOME)
    for k in range(1, 8):
        servo.set_target(HOME + 0.03 * k)
        servo.trajectory(25)
    position, velocity, _ = servo.trajectory(500)
    np.testing.assert_allclose(position[-1], HOME + 0.21, atol=1e-9)
    assert np.abs(velocity[-1]).max() < 1e-9


def test_a_late_target_hardly_disturbs_a_steady_motion():
    servo = Servo(PANDA, 0.001)
    servo.reset(HOME)
    rows = []
    for k in range(1, 20):
        servo.set_target(HOME + 0.02 * k)
        rows.append(servo.trajectory(55 if k == 12 else 45 if k == 13 else 50).velocity)
    np.testing.assert_allclose(np.concatenate(rows)[200:], 0.4, atol=0.1)


def test_a_start_beyond_a_stop_comes_back_inside():
    servo = Servo(PANDA, PERIOD)
    servo.reset(PANDA.upper + 0.01)
    servo.set_target(PANDA.upper - 0.1)
    position = servo.trajectory(1000).position
    assert (position <= PANDA.upper + 0.01 + 1e-9).all()
    np.testing.assert_allclose(position[-1], PANDA.upper - 0.1, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.floats(-3, 3), min_size=7, max_size=7), st.integers(0, 40), st.booleans()),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_stopping_at_any_moment_keeps_the_limits_and_ends_in_rest(moves):
    servo = Servo(PANDA, PERIOD)
    servo.reset(HOME)
    rows = [HOME[None], HOME[None], HOME[None]]
    for offset, periods, stops in moves:
        servo.set_target(HOME + np.array(offset))
        rows.append(servo.trajectory(periods + 1).position)
        if stops:
            servo.stop()
            rest = servo.preview(np.array([servo.time_to_rest])).position[0]
            np.testing.assert_allclose(servo.target, rest, atol=1e-9)
            copy = Servo(PANDA, PERIOD)
            copy.set_state(servo.get_state())
            rows.append(servo.trajectory(7).position)
            np.testing.assert_allclose(copy.trajectory(7).position, rows[-1], atol=1e-12)
    servo.stop()
    rows.append(servo.trajectory(round(servo.time_to_rest / PERIOD) + 2).position)
    assert servo.time_to_rest == 0
    assert_within_limits(np.concatenate(rows), PANDA, PERIOD)
    np.testing.assert_allclose(rows[-1][-1], servo.target, atol=1e-9)


@pytest.mark.parametrize("target", [np.full(7, np.nan), np.full(7, np.inf), np.zeros(6)])
def test_a_malformed_target_is_refused_and_the_motion_goes_on(target):
    servo = Servo(PANDA, PERIOD)
    servo.reset(HOME)
    servo.set_target(HOME + 0.1)
    with pytest.raises(ServoError, match="7 finite numbers"):
        servo.set_target(target)
    np.testing.assert_allclose(servo.trajectory(500).position[-1], HOME + 0.1, atol=1e-9)


def test_pose_targets_need_kinematics():
    with pytest.raises(ServoError, match="kinematics"):
        Servo(PANDA, PERIOD).set_pose_target(np.array([0.5, 0, 0.2, 0, 1, 0, 0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jerk": [0.0] * 7}, "jerk must be positive"),
        ({"velocity": [1.0] * 6}, "one number per joint"),
        ({"lower": [4.0] * 7}, "below upper"),
        ({"torque": [1.0] * 7}, "unknown: \\['torque'\\]"),
        ({"upper": [np.inf] * 7}, "finite"),
    ],
)
def test_malformed_limits_are_refused(change, message):
    with pytest.raises(ServoError, match=message):
        JointLimits.from_mapping({**load("robot", "panda")["limits"], **change})


def test_the_gripper_moves_at_the_speed_of_its_drive():
    gripper = Gripper(0.08, 0.1, PERIOD)
    gripper.reset(0.04)
    gripper.set_target(1.0)
    opening = gripper.trajectory(300)
    np.testing.assert_allclose(opening[:100], 0.04 + 0.1 * PERIOD * np.arange(1, 101))
    assert opening[-1] == 0.08
    gripper.set_target(-1.0)
    state = gripper.get_state()
    expected = gripper.trajectory(50)
    gripper.set_state(state)
    np.testing.assert_array_equal(gripper.trajectory(50), expected)
    with pytest.raises(ServoError, match="finite"):
        gripper.set_target(np.nan)
