"""Rotations as unit quaternions wxyz, and as the first two columns of their matrix (6-D, Zhou et al. 2019).

Of q and -q, the canonical one has its largest component positive. Unlike a positive real part, this rule does not flip
near half turns, where grippers that point downwards live.
"""

from __future__ import annotations

from math import sqrt

import mujoco
import numpy as np


def matrix_from_6d(rotation: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of two columns given one after the other, [6], made orthonormal by Gram and Schmidt.

    Raises:
        ValueError: the columns are zero or parallel.
    """
    # Plain numbers: on vectors of three, NumPy's calls take ten times as long, at each control step.
    a, b, c, d, e, f = (float(number) for number in rotation)
    length = max(sqrt(a * a + b * b + c * c), 1e-12)
    a, b, c = a / length, b / length, c / length
    along = a * d + b * e + c * f
    d, e, f = d - along * a, e - along * b, f - along * c
    length = sqrt(d * d + e * e + f * f)
    if length < 1e-9 or not (a or b or c):
        raise ValueError(f"expected two independent columns of a rotation matrix, got {np.asarray(rotation).tolist()}")
    d, e, f = d / length, e / length, f / length
    return np.array([[a, d, b * f - c * e], [b, e, c * d - a * f], [c, f, a * e - b * d]])


def quaternion_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Canonical quaternion [4] of a rotation matrix [3, 3]."""
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.asarray(matrix, float).ravel())
    canonical: np.ndarray = quaternion * np.sign(quaternion[np.argmax(np.abs(quaternion))])
    return canonical


def quaternion_to_6d(quaternion: np.ndarray) -> np.ndarray:
    """First two columns [6] of the rotation matrix of a unit quaternion [4]."""
    w, x, y, z = quaternion
    return np.array([
        1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y),
        2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x),
    ])  # fmt: skip


def matrix_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of a quaternion [4] of any length but zero."""
    first = quaternion_to_6d(quaternion / np.linalg.norm(quaternion)).reshape(2, 3)
    return np.stack([*first, np.cross(*first)], axis=1)


def matrix_from_vector(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] about a vector [3] by its length [rad]."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    quaternion = np.empty(4)
    mujoco.mju_axisAngle2Quat(quaternion, vector / angle, angle)
    return matrix_from_quaternion(quaternion)


def vector_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Rotation vector [3] of a rotation matrix [3, 3], its length [rad] up to half a turn."""
    vector = np.empty(3)
    mujoco.mju_quat2Vel(vector, quaternion_from_matrix(matrix), 1.0)
    return vector
