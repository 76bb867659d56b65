"""JointReference: against polynomials that are known, and scipy's interpolation; what it refuses."""

import numpy as np
import pytest
from numpy.polynomial import Polynomial
from scipy.interpolate import BPoly, CubicHermiteSpline

from robot_rl.hardware.joint_reference import CommandError, JointReference

TIMES = np.array([0.3, 0.5, 1.0])
GRID = np.linspace(0.002, 1.0, 400)


def random_points(count=3, dof=2, seed=0):
    return np.random.default_rng(seed).normal(size=(3, count, dof))


def test_positions_alone_are_joined_by_lines():
    position = random_points()[0]
    reference = JointReference(np.zeros(2))
    reference.follow(0.0, TIMES, position)
    found = reference.sample(GRID)
    for joint in range(2):
        knots = np.append(0.0, position[:, joint])
        np.testing.assert_allclose(found.position[:, joint], np.interp(GRID, np.append(0.0, TIMES), knots), atol=1e-12)
    assert not found.acceleration.any()


def test_velocities_make_cubics():
    position, velocity, _ = random_points()
    reference = JointReference(np.zeros(2))
    reference.follow(0.0, TIMES, position, velocity)
    found = reference.sample(GRID)
    start = np.zeros((1, 2))
    spline = CubicHermiteSpline(np.append(0.0, TIMES), np.vstack([start, position]), np.vstack([start, velocity]))
    np.testing.assert_allclose(found.position, spline(GRID), atol=1e-10)
    np.testing.assert_allclose(found.velocity[:-1], spline(GRID[:-1], 1), atol=1e-9)


def test_accelerations_make_quintics():
    points = random_points()
    reference = JointReference(np.zeros(2))
    reference.follow(0.0, TIMES, *points)
    found = reference.sample(GRID)
    knots = np.concatenate([np.zeros((3, 1, 2)), points], 1)
    spline = BPoly.from_derivatives(np.append(0.0, TIMES), knots.transpose(1, 0, 2))
    np.testing.assert_allclose(found.position, spline(GRID), atol=1e-9)
    np.testing.assert_allclose(found.acceleration[:-1], spline.derivative(2)(GRID[:-1]), atol=1e-7)


def test_a_quintic_sampled_at_any_rate_comes_out_as_it_went_in():
    curve = Polynomial([0.2, 0.0, 0.0, 1.0, -2.0, 0.5])
    reference = JointReference(np.array([0.2]))
    for k in range(20):
        now, then = 0.05 * k, np.array([0.05 * (k + 1)])
        reference.follow(now, then, *(curve.deriv(m)(then)[:, None] if m else curve(then)[:, None] for m in range(3)))
        times = now + 0.01 * np.arange(1, 6)
        found = reference.sample(times)
        np.testing.assert_allclose(found.position[:, 0], curve(times), atol=1e-12)
        np.testing.assert_allclose(found.velocity[:, 0], curve.deriv()(times), atol=1e-10)


def test_holds_after_the_last_point_and_after_hold():
    reference = JointReference(np.zeros(1))
    reference.follow(0.0, np.array([0.1]), np.array([[0.3]]), np.array([[2.0]]), np.array([[1.0]]))
    found = reference.sample(np.array([0.1, 0.2, 9.0]))
    np.testing.assert_allclose(found.position[:, 0], 0.3)
    assert found.velocity[0, 0] == pytest.approx(2.0)
    assert not found.velocity[1:].any()
    reference.hold(np.array([0.7]))
    assert reference.sample(np.array([9.1])).position == 0.7


def test_a_new_trajectory_replaces_the_old_one_from_the_present_reference():
    reference = JointReference(np.zeros(1))
    reference.follow(0.0, np.array([1.0]), np.array([[1.0]]))
    assert reference.sample(np.array([0.5])).position[0, 0] == pytest.approx(0.5)
    reference.follow(0.5, np.array([0.25, 1.5]), np.array([[9.0], [0.0]]))  # the first point is past
    np.testing.assert_allclose(reference.sample(np.array([1.0, 1.5])).position[:, 0], [0.25, 0.0], atol=1e-12)


def test_setpoints_are_joined_by_lines_with_the_acceleration_between_them():
    curve = Polynomial([0.0, 0.1, 0.5, -0.2])
    reference, period, ceiling = JointReference(np.zeros(1)), 0.01, np.array([15.0])
    for k in range(50):
        now, then = period * k, period * (k + 1)
        reference.approach(now, curve(np.array([then])), period, then, ceiling)
        found = reference.sample(np.array([now + period / 2, then]))
        assert found.position[1, 0] == pytest.approx(curve(then))
        assert found.position[0, 0] == pytest.approx(0.5 * (curve(now) + curve(then)))
        if k > 1:
            np.testing.assert_allclose(found.velocity[:, 0], curve.deriv()(now + period / 2), atol=1e-4)
            np.testing.assert_allclose(found.acceleration[:, 0], curve.deriv(2)(now), atol=1e-4)
    reference.approach(0.5, np.array([1.0]), period, 0.51, ceiling)
    assert reference.sample(np.array([0.505])).acceleration == 15.0
    assert not reference.sample(np.array([0.52])).acceleration.any()


@pytest.mark.parametrize(
    ("times", "position", "velocity", "word"),
    [
        ([0.1], [[1.0, 2.0]], None, "1 joints"),
        ([], np.zeros((0, 1)), None, "0 times"),
        ([0.1], [[np.nan]], None, "finite"),
        ([np.inf], [[0.0]], None, "finite"),
        ([0.1], [[0.0]], [[np.inf]], "finite"),
        ([0.2, 0.1], [[0.0], [0.0]], None, "ascending"),
        ([-0.1], [[0.0]], None, "ended 0.100 s ago"),
    ],
)
def test_refuses_what_makes_no_sense_and_goes_on(times, position, velocity, word):
    reference = JointReference(np.zeros(1))
    reference.follow(0.0, np.array([1.0]), np.array([[1.0]]))
    with pytest.raises(CommandError, match=word):
        reference.follow(
            0.0, np.array(times, float), np.array(position, float), None if velocity is None else np.array(velocity)
        )
    assert reference.sample(np.array([0.5])).position[0, 0] == pytest.approx(0.5)
