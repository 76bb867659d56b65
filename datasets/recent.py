"""The frames of a camera that were decoded last: windows that follow each other share all but one of theirs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from robot_rl.datasets.frames import FrameReader


class RecentFrames:
    """Decodes a camera's frames, and remembers some. Safe from several threads, which may decode the same one twice.

    Args:
        capacity: frames to remember, at most.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # Its methods are atomic, and an array in it is never written again.
        self._frames: OrderedDict[int, np.ndarray] = OrderedDict()

    def decode(
        self,
        reader: FrameReader,
        rows: np.ndarray,
        offsets: np.ndarray,
        sizes: np.ndarray,
        out: Sequence[np.ndarray],
        again: np.ndarray,
    ) -> None:
        """As `FrameReader.decode_at`; remembers the frames that `again` [n] bool marks, until a use without."""
        wanted = rows.tolist()
        found = [self._frames.get(row) for row in wanted]
        missing = [place for place, frame in enumerate(found) if frame is None]
        reader.decode_at(rows[missing], offsets[missing], sizes[missing], [out[place] for place in missing])
        for row, frame, target, keep in zip(wanted, found, out, again.tolist(), strict=True):
            if frame is not None:
                target[...] = frame
            if keep:
                self._remember(row, target.copy() if frame is None else frame)
            elif frame is not None:
                self._frames.pop(row, None)  # its memory, still in the cache, is the next one's

    def __len__(self) -> int:
        return len(self._frames)

    def __reduce__(self) -> tuple[type[RecentFrames], tuple[int]]:
        return RecentFrames, (self._capacity,)

    def _remember(self, row: int, frame: np.ndarray) -> None:
        self._frames[row] = frame
        try:
            self._frames.move_to_end(row)
            while len(self._frames) > self._capacity:
                self._frames.popitem(last=False)
        except KeyError:  # another thread has dropped it
            pass
