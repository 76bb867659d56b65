"""The actions of a chunk that are decided before it is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prefix:
    """Actions that a new chunk must start with, or stay near, for each batch element.

    The arrays are NumPy arrays or tensors. Step i of element b is *committed* when `i < length[b]`: the chunk then
    holds `actions[b, i]` exactly. Beyond, `weights[b, i]` in [0, 1] pulls the sample towards `actions[b, i]` while it
    is being denoised (the soft mask of real-time chunking); 0 leaves it free, and the action there may be anything.

    Attributes:
        actions: [B, H, A] float32, raw units, aligned with the chunk to be sampled.
        weights: [B, H] float32 in [0, 1]; ignored where committed.
        length: [B] integer, the number of committed actions, 0 to H.
    """

    actions: Any
    weights: Any
    length: Any
