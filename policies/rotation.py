"""The continuous 6-D representation of rotations (Zhou et al. 2019) of quaternions."""

from __future__ import annotations

import torch
from torch import Tensor


def quaternion_to_6d(quaternion: Tensor) -> Tensor:
    """Quaternion wxyz [..., 4] to the first two columns of its rotation matrix, one after the other, [..., 6].

    The quaternion need not have unit length; q and -q give the same.
    """
    unit = quaternion / quaternion.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    # Each element stays an array [..., 1] and is doubled once: an exported graph has half the nodes then.
    _, x, y, z = unit.split(1, dim=-1)
    w2, x2, y2, z2 = (2 * unit).split(1, dim=-1)
    first = (1 - (y2 * y + z2 * z), x2 * y + w2 * z, x2 * z - w2 * y)
    second = (x2 * y - w2 * z, 1 - (x2 * x + z2 * z), y2 * z + w2 * x)
    return torch.cat([*first, *second], dim=-1)
