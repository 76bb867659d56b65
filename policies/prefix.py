"""The actions of a chunk that are decided before it is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robot_rl.policies.configuration import PolicyError


@dataclass(frozen=True)
class Prefix:
    """Actions that a new chunk must start with, or stay near, for each batch element.

    The arrays are NumPy arrays or tensors. Step i of element b is *committed* when `i < length[b]`: the chunk then
    holds `actions[b, i]` exactly. Beyond, `weights[b, i]` in [0, 1] is the share of `actions[b, i]` (the soft mask of
    real-time chunking); 0 leaves the step free, and the action there may be anything.

    Attributes:
        actions: [B, H, A] float32, raw units, aligned with the chunk to be sampled.
        weights: [B, H] float32 in [0, 1]; ignored where committed.
        length: [B] integer, the number of committed actions, 0 to H.
    """

    actions: Any
    weights: Any
    length: Any


def check_prefix_length(length: int, trained: int) -> None:
    """Refuse to let a policy continue more actions than it was trained to.

    Args:
        length: the longest prefix asked for.
        trained: the longest in its training, at least 1.

    Raises:
        PolicyError: it is longer.
    """
    if length > trained:
        raise PolicyError(
            f"prefix: expected at most {trained} committed actions, as in the policy's training, got {length}; train "
            f"with policy.prefix.max_length={length}, or use guidance"
        )
