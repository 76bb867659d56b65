"""PX4's clock against ours, from the time stamps of its samples alone.

A sample is received later than it was taken, by a delay that is never negative. So the least difference between the
time of reception and the stamp is the offset of the clocks, up to the least delay. The least of the last `SAMPLES` is
taken, half a second of PX4's: a simulation's clock may run several per cent slower than ours, and each second of memory
makes samples look as much older. A delay that grows at once is known as such for as long.

Where PX4 stamps by the clock of its agent (UXRCE_DDS_SYNCT) and gives up to follow it, a few samples have the time
since it was started, and then again the agent's. They are left out.
"""

from __future__ import annotations

import math
from collections import deque

SAMPLES = 50
"""Of which the least difference is taken."""

RESTART, CONFIRMED = 0.5, 10
"""Its clock was set back when so many stamps after each other are older than one before; by more than this [s] it has
begun anew."""


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
        self._stamp, self._older = -math.inf, 0
        self._heard = 0
        self._least = deque[tuple[int, float]]()  # number and difference of samples of whom no later one is below

    def hear(self, microseconds: int, received: float) -> float | None:
        """A sample of PX4's time [us] was received at ours [s]: when it was taken, by our clock; None: nobody knows."""
        stamp = microseconds / 1e6
        anew = stamp < self._stamp - RESTART
        self._older = self._older + 1 if stamp < self._stamp else 0
        if self._older >= CONFIRMED:
            self.restarts += anew
            self._stamp, self._older = stamp, 0
            self._least.clear()
        elif anew:
            return None
        self._stamp = max(self._stamp, stamp)
        difference = received - stamp
        while self._least and self._least[-1][1] >= difference:
            self._least.pop()
        self._heard += 1
        self._least.append((self._heard, difference))
        if self._least[0][0] <= self._heard - SAMPLES:
            self._least.popleft()
        self.offset = 0.0 if self._shared else self._least[0][1]
        return stamp + self.offset

    def ours(self, microseconds: int) -> float | None:
        """A present time of PX4's [us] by our clock [s]; None while nothing is known, or where it is one of those."""
        stamp = microseconds / 1e6
        return None if self.offset is None or stamp < self._stamp - RESTART else stamp + self.offset

    def vehicle_time(self, now: float) -> int:
        """Our clock [s] in PX4's microseconds; 0 while nothing is known."""
        return 0 if self.offset is None else max(0, round((now - self.offset) * 1e6))
