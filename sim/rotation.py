"""Rotations as unit quaternions wxyz, and as the first two columns of their matrix (6-D, Zhou et al. 2019)."""

from __future__ import annotations

import numpy as np

from robot_rl.sim.compiled import compiled


@compiled
def canonical(quaternion: np.ndarray) -> None:
    """Of q and -q, take the one whose largest component is positive; in place, [4].

    Unlike a positive real part, this rule does not flip near half turns, where grippers that point downwards live.
    """
    largest = 0
    for i in range(1, 4):
        if abs(quaternion[i]) > abs(quaternion[largest]):
            largest = i
    if quaternion[largest] < 0:
        for i in range(4):
            quaternion[i] = -quaternion[i]


@compiled
def quaternion_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Canonical quaternion [4] of a rotation matrix [3, 3]."""
    m = matrix
    q = np.empty(4)
    squares = (
        1.0 + m[0, 0] + m[1, 1] + m[2, 2],
        1.0 + m[0, 0] - m[1, 1] - m[2, 2],
        1.0 - m[0, 0] + m[1, 1] - m[2, 2],
        1.0 - m[0, 0] - m[1, 1] + m[2, 2],
    )
    best = 0
    for i in range(1, 4):
        if squares[i] > squares[best]:
            best = i
    if best == 0:
        q[:] = (squares[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1])
    elif best == 1:
        q[:] = (m[2, 1] - m[1, 2], squares[1], m[1, 0] + m[0, 1], m[0, 2] + m[2, 0])
    elif best == 2:
        q[:] = (m[0, 2] - m[2, 0], m[1, 0] + m[0, 1], squares[2], m[2, 1] + m[1, 2])
    else:
        q[:] = (m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[2, 1] + m[1, 2], squares[3])
    q /= np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2 + q[3] ** 2)
    canonical(q)
    return q


def matrix_from_6d(rotation: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] nearest in the Gram-Schmidt sense to two columns given one after the other, [6].

    Raises:
        ValueError: the columns are zero or parallel.
    """
    first, second = np.asarray(rotation[:3], float), np.asarray(rotation[3:], float)
    first = first / max(np.linalg.norm(first), 1e-12)
    second = second - first * (first @ second)
    length = np.linalg.norm(second)
    if length < 1e-9 or not first.any():
        raise ValueError(f"expected two independent columns of a rotation matrix, got {np.asarray(rotation).tolist()}")
    second = second / length
    return np.stack([first, second, np.cross(first, second)], axis=1)


def quaternion_to_6d(quaternion: np.ndarray) -> np.ndarray:
    """First two columns [6] of the rotation matrix of a unit quaternion [4]."""
    w, x, y, z = quaternion
    return np.array([
        1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y),
        2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x),
    ])  # fmt: skip
