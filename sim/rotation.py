"""Rotations as unit quaternions wxyz, and as the first two columns of their matrix (6-D, Zhou et al. 2019).

Of q and -q, the canonical one has its largest component positive. Unlike a positive real part, this rule does not flip
near half turns, where grippers that point downwards live.
"""

from __future__ import annotations

import mujoco
import numpy as np


def matrix_from_6d(rotation: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of two columns given one after the other, [6], made orthonormal by Gram and Schmidt.

    Raises:
        ValueError: the columns are zero or parallel.
    """
    first, second = np.asarray(rotation[:3], float), np.asarray(rotation[3:], float)
    first = first / max(float(np.linalg.norm(first)), 1e-12)
    second = second - first * (first @ second)
    length = float(np.linalg.norm(second))
    if length < 1e-9 or not first.any():
        raise ValueError(f"expected two independent columns of a rotation matrix, got {np.asarray(rotation).tolist()}")
    second = second / length
    return np.stack([first, second, np.cross(first, second)], axis=1)


def quaternion_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Canonical quaternion [4] of a rotation matrix [3, 3]."""
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.asarray(matrix, float).ravel())
    return quaternion * np.sign(quaternion[np.argmax(np.abs(quaternion))])


def quaternion_to_6d(quaternion: np.ndarray) -> np.ndarray:
    """First two columns [6] of the rotation matrix of a unit quaternion [4]."""
    w, x, y, z = quaternion
    return np.array([
        1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y),
        2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x),
    ])  # fmt: skip
