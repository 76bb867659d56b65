"""PX4's clock against ours, from the time stamps of its samples alone.

A sample is received later than it was taken, by a delay that is never negative. So the least difference between the
time of reception and the stamp is the offset of the clocks, up to the least delay. The least of the last 5 to 10 s is
taken, which follows clocks that run at different rates, and one that is set.
"""

from __future__ import annotations

import math

WINDOW = 5.0
"""Least differences are kept of the present and of the last window of this length [s]."""

RESTART = 0.5
"""A stamp that is older than the one before by more than this belongs to a vehicle that has begun anew [s]."""


class TimeSync:
    """Follows the offset from PX4's microseconds to the node's seconds.

    Args:
        shared: both clocks are one, that of a simulation.

    Attributes:
        offset: to add to PX4's time [s] for ours; None until something was received.
        restarts: how often the vehicle's time went back.
    """

    def __init__(self, shared: bool = False) -> None:
        self._shared = shared
        self.offset: float | None = None
        self.restarts = 0
        self._stamp, self._began = -math.inf, 0.0
        self._last, self._present = math.inf, math.inf

    def hear(self, microseconds: int, received: float) -> float:
        """A sample of PX4's time [us] was received at ours [s]: when it was taken, by our clock."""
        stamp = microseconds / 1e6
        difference = received - stamp
        if stamp < self._stamp - RESTART:
            self.restarts += 1
            self.offset, self._stamp = None, stamp
        if self.offset is None:
            self._last, self._present, self._began = math.inf, difference, received
        elif not 0 <= received - self._began < WINDOW:
            self._last, self._present, self._began = self._present, difference, received
        self._present = min(self._present, difference)
        self._stamp = max(self._stamp, stamp)
        self.offset = 0.0 if self._shared else min(self._last, self._present)
        return stamp + self.offset

    def ours(self, microseconds: int) -> float | None:
        """A time of PX4's [us] by our clock [s]; None while nothing is known."""
        return None if self.offset is None else microseconds / 1e6 + self.offset

    def vehicle_time(self, now: float) -> int:
        """Our clock [s] in PX4's microseconds; 0 while nothing is known."""
        return 0 if self.offset is None else max(0, round((now - self.offset) * 1e6))
