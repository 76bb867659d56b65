"""The continuous 6-D representation of rotations (Zhou et al. 2019) of quaternions."""

from __future__ import annotations

import torch
from torch import Tensor


def quaternion_to_6d(quaternion: Tensor) -> Tensor:
    """Quaternion wxyz [..., 4] to the first two columns of its rotation matrix, one after the other, [..., 6].

    The quaternion need not have unit length; q and -q give the same.
    """
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True).clamp_min(1e-12)).unbind(-1)
    first = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    second = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    return torch.stack([*first, *second], dim=-1)
