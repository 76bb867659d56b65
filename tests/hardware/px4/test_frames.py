"""Frames at the border, against rotations of SciPy and what the words mean."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robot_rl.hardware.px4.frames import swap_attitude, swap_body, swap_heading, swap_world

VECTORS = st.lists(st.floats(-10, 10), min_size=3, max_size=3).map(np.array)
ROTATIONS = st.integers(0, 2**32 - 1).map(lambda seed: Rotation.random(rng=np.random.default_rng(seed)))
ENU_OF_NED = Rotation.from_matrix([[0, 1, 0], [1, 0, 0], [0, 0, -1]])
FLU_OF_FRD = Rotation.from_matrix(np.diag([1, -1, -1]))


def wxyz(rotation):
    return rotation.as_quat(scalar_first=True)


def test_what_the_words_mean():
    north, east, down = np.eye(3)
    np.testing.assert_array_equal(swap_world(north), [0, 1, 0])
    np.testing.assert_array_equal(swap_world(east), [1, 0, 0])
    np.testing.assert_array_equal(swap_world(down), [0, 0, -1])
    np.testing.assert_array_equal(swap_body(np.array([1.0, 2.0, 3.0])), [1, -2, -3])
    assert swap_heading(0.0) == pytest.approx(math.pi / 2)  # north is a quarter turn from east
    assert swap_heading(math.pi / 2) == pytest.approx(0.0)
    assert swap_heading(-math.pi) == pytest.approx(-math.pi / 2)  # south
    # Level and facing north: no rotation for PX4, a quarter turn to the left for us.
    np.testing.assert_allclose(swap_attitude(np.array([1.0, 0, 0, 0])), np.sqrt([0.5, 0, 0, 0.5]))


@given(VECTORS, ROTATIONS)
def test_attitudes_turn_vectors_as_they_did(vector, rotation):
    swapped = Rotation.from_quat(swap_attitude(wxyz(rotation)), scalar_first=True)
    np.testing.assert_allclose(swapped.as_matrix(), (ENU_OF_NED * rotation * FLU_OF_FRD.inv()).as_matrix(), atol=1e-9)
    np.testing.assert_allclose(swapped.apply(swap_body(vector)), swap_world(rotation.apply(vector)), atol=1e-8)


@given(VECTORS, ROTATIONS, st.floats(-3.1, 3.1))
def test_everything_comes_back(vector, rotation, yaw):
    np.testing.assert_allclose(swap_world(swap_world(vector)), vector)
    np.testing.assert_allclose(swap_body(swap_body(vector)), vector)
    np.testing.assert_allclose(swap_attitude(swap_attitude(wxyz(rotation))), wxyz(rotation), atol=1e-12)
    assert swap_heading(swap_heading(yaw)) == pytest.approx(yaw)


@given(st.floats(-3.1, 3.1), st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
def test_headings_agree_with_attitudes(yaw, pitch, roll):
    """Yaw of the z-y-x angles, right-handed about down for PX4 and about up for us."""
    ned = Rotation.from_euler("ZYX", [yaw, pitch, roll])
    enu = Rotation.from_quat(swap_attitude(wxyz(ned)), scalar_first=True).as_euler("ZYX")
    assert math.remainder(enu[0] - swap_heading(yaw), 2 * math.pi) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(enu[1:], [-pitch, roll], atol=1e-6)


def test_stacks_of_vectors():
    np.testing.assert_array_equal(swap_world(np.arange(6.0).reshape(2, 3)), [[1, 0, -2], [4, 3, -5]])
