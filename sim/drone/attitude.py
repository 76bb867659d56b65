"""Many attitudes at once: quaternions wxyz [N, 4] from body to world."""

from __future__ import annotations

import numpy as np


def rotate(quaternion: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors [N, 3] (or [3]) of the bodies, in the world."""
    across = 2 * cross(quaternion[:, 1:], vectors)
    return np.asarray(vectors + quaternion[:, :1] * across + cross(quaternion[:, 1:], across))


def rotate_back(quaternion: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors [N, 3] of the world, in the bodies."""
    across = 2 * cross(vectors, quaternion[:, 1:])
    return np.asarray(vectors + quaternion[:, :1] * across + cross(across, quaternion[:, 1:]))


def between(start: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Turns from attitudes to others, [N, 4], in the frame of the first."""
    a, b = start[:, :1], -start[:, 1:]
    c, d = target[:, :1], target[:, 1:]
    return np.concatenate([a * c - (b * d).sum(1, keepdims=True), a * d + c * b + cross(b, d)], axis=1)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products [N, 3]; several times as fast as NumPy's for few rows."""
    x, y, z = a[..., 0], a[..., 1], a[..., 2]
    u, v, w = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], axis=-1)
