import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robot_rl.sim.rotation import matrix_from_6d, quaternion_from_matrix, quaternion_to_6d

SEEDS = st.integers(0, 2**31)


@given(SEEDS)
def test_quaternion_and_6d_agree_with_scipy(seed):
    rotation = Rotation.random(random_state=seed)
    quaternion = quaternion_from_matrix(rotation.as_matrix())
    assert quaternion[np.argmax(np.abs(quaternion))] > 0
    assert (Rotation.from_quat(quaternion, scalar_first=True) * rotation.inv()).magnitude() < 1e-7
    columns = quaternion_to_6d(quaternion)
    np.testing.assert_allclose(columns, rotation.as_matrix()[:, :2].T.ravel(), atol=1e-12)
    np.testing.assert_allclose(matrix_from_6d(columns), rotation.as_matrix(), atol=1e-12)


@given(SEEDS)
def test_columns_are_made_orthonormal(seed):
    matrix = matrix_from_6d(np.random.default_rng(seed).normal(size=6))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-9)
    assert np.linalg.det(matrix) > 0


@pytest.mark.parametrize("columns", [np.zeros(6), [1, 0, 0, 2, 0, 0]])
def test_columns_that_span_no_plane_are_refused(columns):
    with pytest.raises(ValueError, match="two independent columns"):
        matrix_from_6d(np.array(columns, float))
