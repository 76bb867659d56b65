"""Between PX4's frames and ours: world NED and ENU, body FRD and FLU. Quaternions wxyz, from body to world.

Each function is its own inverse, except for the offset of 2 pi in a heading.
"""

from __future__ import annotations

import math

import numpy as np

_HALF = math.sqrt(0.5)
_NED_ENU, _UP = np.array([1, 0, 2]), np.array([1.0, 1.0, -1.0])
_FRD_FLU = np.array([1.0, -1.0, -1.0])
_ATTITUDE = _HALF * np.array([[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, -1, 0], [1, 0, 0, -1]])


def swap_world(vector: np.ndarray) -> np.ndarray:
    """A vector [..., 3] in ENU, from one in NED; or back."""
    swapped: np.ndarray = vector[..., _NED_ENU] * _UP
    return swapped


def swap_body(vector: np.ndarray) -> np.ndarray:
    """A vector [..., 3] in FLU, from one in FRD; or back."""
    swapped: np.ndarray = vector * _FRD_FLU
    return swapped


def swap_attitude(quaternion: np.ndarray) -> np.ndarray:
    """FLU to ENU [..., 4], from FRD to NED; or back: (0, h, h, 0) q (0, 1, 0, 0), h = sqrt(1/2),
    up to the sign, which makes no difference."""
    return np.asarray(quaternion, float) @ _ATTITUDE  # which is symmetric


def swap_heading(yaw: float) -> float:
    """Counterclockwise from east [rad], from clockwise from north; or back. From -pi to pi."""
    return math.remainder(math.pi / 2 - yaw, 2 * math.pi)
