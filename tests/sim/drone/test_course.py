import numpy as np
import pytest

from robot_rl.sim.drone import episode

CENTER, OPENING, FRAME, RADIUS = np.array([1.0, 2.0, 1.0]), 0.4, 0.16, 0.05


def cross(yaw: float, across: float, height: float, backwards: bool = False, reach: float = 0.1):
    """A step straight through the plane of the gate, off its centre by `across` and `height`."""
    ahead, side = np.array([np.cos(yaw), np.sin(yaw), 0]), np.array([-np.sin(yaw), np.cos(yaw), 0])
    point = CENTER + across * side + height * np.array([0, 0, 1])
    ends = [point - reach * ahead, point + 0.5 * reach * ahead]
    before, after = reversed(ends) if backwards else ends
    return episode.cross(np.append(CENTER, yaw), *before, *after, OPENING, FRAME, RADIUS)


@pytest.mark.parametrize("yaw", [0.0, 0.7, -2.5, np.pi])
def test_a_gate_is_passed_touched_or_missed(yaw):
    assert cross(yaw, 0.0, 0.0) == (True, False, pytest.approx(0.15))
    assert cross(yaw, 0.1, -0.05) == (True, False, pytest.approx(0.05))
    assert cross(yaw, 0.17, 0.0)[:2] == (False, True)
    assert cross(yaw, 0.0, 0.38)[:2] == (False, True)
    assert cross(yaw, 0.5, 0.0)[:2] == (False, False)
    assert cross(yaw, 0.0, 0.0, backwards=True)[:2] == (False, False)


def test_a_step_before_the_gate_does_nothing():
    passed, hit, margin = episode.cross(
        np.append(CENTER, 0.0), *(CENTER - [0.5, 0, 0]), *(CENTER - [0.1, 0, 0]), OPENING, FRAME, RADIUS
    )
    assert not passed
    assert not hit
    assert np.isnan(margin)


def test_poles_are_hit_within_both_radii():
    poles = np.array([[1.0, 0.0], [3.0, 0.0]])
    assert [episode.touch(poles, x, y, 0.1) for x, y in ((1.09, 0.0), (1.11, 0.0), (3.0, 0.05))] == [True, False, True]
