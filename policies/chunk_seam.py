"""Chunk seams: how much the commanded motion jumps where execution passes from one chunk to the next.

The velocity of a command is its change from one step to the next. A seam is the jump of this velocity, ‖a_t - 2 a_{t-1}
+ a_{t-2}‖ times the rate, at a step t whose action is the first of a newer chunk. A robot that holds for want of an
action has stopped between two chunks: that jump, to zero velocity, is a seam as well. All other steps, but those
straight after a seam, in which its correction still shows, tell how much the velocity changes within chunks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Seams(NamedTuple):
    """Jumps of the commanded velocity, in units of the action per second.

    Attributes:
        between: [n], at the seams.
        within: [m], at other steps.
    """

    between: NDArray[np.float64]
    within: NDArray[np.float64]


def chunk_seams(
    actions: NDArray[np.floating], switched: NDArray[np.bool_], held: NDArray[np.bool_], rate_hz: float
) -> Seams:
    """The jumps of an episode's commands.

    Args:
        actions: [T, A], those elements of absolute commands that are to move smoothly: joints, not a gripper.
        switched: [T], whether an action is the first of a newer chunk (`ChunkRunner.switched`).
        held: [T], whether the command before was repeated (`ChunkRunner.starved`).
    """
    begun = np.flatnonzero(~held)
    start = begun[0] if len(begun) else len(held)  # what is held before the first chunk is no seam
    jump = np.linalg.norm(np.diff(actions.astype(np.float64), 2, axis=0), axis=1) * rate_hz
    stopped = held & ~np.roll(held, 1)
    seam = (switched | stopped)[2:]
    after = (switched | stopped)[1:-1]
    moving = (np.arange(len(actions)) > start + 1)[2:]
    return Seams(jump[seam & moving], jump[~seam & ~after & ~held[2:] & moving])
