"""How well a camera delivers: rate, regularity of the stamps, losses, and the age of pictures when they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robot_rl.hardware.cameras.camera import Counts, Frame

ENOUGH = 3
"""Frames from which on there is something to tell."""


@dataclass(frozen=True)
class Delivery:
    """What came of a camera in some time.

    Attributes:
        size: height and width of the pictures.
        frames, dropped, reconnects: see `camera.Counts`.
        rate: pictures per second, by the stamps.
        jitter: of the intervals of the stamps: median and 99th percentile of how far they are from their median [s].
        age: of the pictures when they came: median and 99th percentile [s].
        steps_back: stamps that did not rise.
    """

    size: tuple[int, int]
    frames: int
    dropped: int
    reconnects: int
    rate: float
    jitter: tuple[float, float]
    age: tuple[float, float]
    steps_back: int


def delivery(frames: Sequence[Frame], counts: Counts) -> Delivery | None:
    """The measure of frames that came one after the other; None when they are too few."""
    if len(frames) < ENOUGH:
        return None
    stamps = np.array([frame.stamp for frame in frames])
    intervals = np.diff(stamps)
    ages = np.array([frame.received for frame in frames]) - stamps
    height, width = frames[-1].picture.shape[:2]
    usual = float(np.median(intervals))
    # A lost picture is counted as such; the jitter is that of those that came.
    regular = intervals[intervals < 1.5 * usual] if usual > 0 else intervals
    span = float(stamps[-1] - stamps[0])
    return Delivery(
        (height, width), len(frames), counts.dropped, counts.reconnects,
        (len(frames) - 1) / span if span > 0 else 0.0, _spread(np.abs(regular - usual)), _spread(ages),
        int((intervals <= 0).sum()),
    )  # fmt: skip


def _spread(values: np.ndarray) -> tuple[float, float]:
    return float(np.median(values)), float(np.percentile(values, 99))
