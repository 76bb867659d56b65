"""Between PX4's frames and ours: world NED and ENU, body FRD and FLU. Quaternions wxyz, from body to world.

Each function is its own inverse, except for the offset of 2 pi in a heading.
"""

from __future__ import annotations

import math

import numpy as np

_HALF = math.sqrt(0.5)


def swap_world(vector: np.ndarray) -> np.ndarray:
    """A vector [..., 3] in ENU, from one in NED; or back."""
    return np.stack([vector[..., 1], vector[..., 0], -vector[..., 2]], axis=-1)


def swap_body(vector: np.ndarray) -> np.ndarray:
    """A vector [..., 3] in FLU, from one in FRD; or back."""
    return np.stack([vector[..., 0], -vector[..., 1], -vector[..., 2]], axis=-1)


def swap_attitude(quaternion: np.ndarray) -> np.ndarray:
    """FLU to ENU [..., 4], from FRD to NED; or back: (0, h, h, 0) q (0, 1, 0, 0), h = sqrt(1/2),
    up to the sign, which makes no difference."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, float), -1, 0)
    return _HALF * np.stack([w + z, x + y, x - y, w - z], axis=-1)


def swap_heading(yaw: float) -> float:
    """Counterclockwise from east [rad], from clockwise from north; or back. From -pi to pi."""
    return math.remainder(math.pi / 2 - yaw, 2 * math.pi)
