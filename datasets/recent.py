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
        # Who takes a frame out of either has it alone; taking and putting are atomic.
        self._frames: OrderedDict[int, np.ndarray] = OrderedDict()
        self._spare: list[np.ndarray] = []

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
        found = [self._frames.pop(row, None) for row in wanted]
        missing = [place for place, frame in enumerate(found) if frame is None]
        decoded = reader.decode_each(rows[missing], offsets[missing], sizes[missing], [out[place] for place in missing])
        # Neighbours follow each other: what one is copied into has just been read, and is still in the cache.
        for row, frame, target, keep in zip(wanted, found, out, again.tolist(), strict=True):
            if frame is not None:
                target[...] = frame
            else:
                next(decoded)
                frame = self._copy(target) if keep else None
            if frame is not None and keep:
                self._remember(row, frame)
            elif frame is not None:
                self._spare.append(frame)

    def __len__(self) -> int:
        return len(self._frames)

    def __reduce__(self) -> tuple[type[RecentFrames], tuple[int]]:
        return RecentFrames, (self._capacity,)

    def _copy(self, frame: np.ndarray) -> np.ndarray:
        try:
            copy = self._spare.pop()
        except IndexError:
            return frame.copy()
        copy[...] = frame
        return copy

    def _remember(self, row: int, frame: np.ndarray) -> None:
        self._frames[row] = frame
        if len(self._frames) > self._capacity:
            self._spare.append(self._frames.popitem(last=False)[1])
