import numpy as np
import torch
from scipy.spatial.transform import Rotation

from robot_rl.policies.rotation import quaternion_to_6d


def test_against_scipy_and_independent_of_sign_and_length() -> None:
    rotations = Rotation.random(50, rng=0)
    xyzw = rotations.as_quat()
    wxyz = torch.from_numpy(xyzw[:, [3, 0, 1, 2]])
    expected = np.concatenate([rotations.as_matrix()[:, :, 0], rotations.as_matrix()[:, :, 1]], axis=1)
    for quaternion in (wxyz, -wxyz, 3.7 * wxyz):
        assert np.allclose(quaternion_to_6d(quaternion).numpy(), expected, atol=1e-12)


def test_a_zero_quaternion_gives_finite_numbers() -> None:
    assert quaternion_to_6d(torch.zeros(1, 4)).isfinite().all()
