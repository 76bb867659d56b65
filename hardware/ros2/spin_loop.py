"""What both adapters spin: one clock, timers on its multiples, calls from other threads, and a clean stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

from robot_rl.hardware.ros2.graph import Clock

EARLY = 1e-6
"""A timer may fire this early [s]: stamps are floats, whose resolution is 0.24 µs at today's epoch."""
SLICE = 0.1
"""Longest wait [s]: a signal interrupts no C call, so this is how long one may go unseen."""
TWICE = 1.0
"""The same signal within this time [s] is the same wish."""


class LoopTimer:
    """See `graph.Timer`."""

    def __init__(self, period: float, callback: Callable[[], None], clock: Clock) -> None:
        if not period > 0:
            raise ValueError(f"a timer's period must be > 0, not {period}")
        self.period, self.callback, self.clock = period, callback, clock
        self.time, self.cancelled = 0.0, False
        self._next: int | None = None

    def cancel(self) -> None:
        self.cancelled = True

    def due(self, now: float) -> bool:
        """Whether a multiple has come since the last call that said so; then `time` is the newest one."""
        newest = math.floor((now + EARLY) / self.period)
        if self._next is None or self._next > newest + 1:  # new, or the clock was set back
            self._next = math.ceil((now - EARLY) / self.period)
        if newest < self._next:
            return False
        self._next, self.time = newest + 1, newest * self.period
        return True

    def left(self, now: float) -> float:
        """Seconds until it is due."""
        return 0.0 if self._next is None else self._next * self.period - now


class SpinLoop:
    """The thread that spins calls everything; others only `call_soon` and `stop`. `wake` ends the adapter's wait."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.stopped = False
        self._simulated = False
        self._stopping = False
        self._wake = wake
        self._clock = 0.0
        self._timers: list[LoopTimer] = []
        self._due_at = self._fired_at = 0.0
        self._calls: deque[Callable[[], None]] = deque()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._handlers: dict[signal.Signals, Any] = {}
        self._signals: dict[int, float] = {}

    @property
    def simulated(self) -> bool:
        """Whether the node's clock is what `set_clock` says; else it is this computer's."""
        return self._simulated

    @simulated.setter
    def simulated(self, simulated: bool) -> None:
        self._simulated, self._due_at = simulated, 0.0

    def now(self) -> float:
        return self._clock if self._simulated else time.time()

    def set_clock(self, now: float) -> None:
        """A new value of /clock: fire the timers whose multiples it brings."""
        self._clock = now
        if self.simulated:
            self._fire("node", now)

    def timer(self, period: float, callback: Callable[[], None], clock: Clock) -> LoopTimer:
        timer = LoopTimer(period, callback, clock)
        self._timers.append(timer)
        self._due_at = 0.0
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._calls.append(callback)
        self._wake()

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Once, after `delay` wall seconds; only from the spinning thread."""
        self._later.append((time.monotonic() + delay, callback))

    def stop(self) -> None:
        """End the spin that runs, or else the next one; spinning once more winds down."""
        self.stopped = self._stopping = True
        self._wake()

    def spin(
        self, wait: Callable[[float], None], until: Callable[[], bool] | None = None, timeout: float | None = None
    ) -> bool:
        """`wait(seconds)` must return early for data or `wake`, and hand out what came."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            self._run_due()
            if until is not None and until():
                return True
            left = end - time.monotonic()
            if self._stopping or left <= 0:
                self._stopping = False
                return False
            wait(0.0 if self._calls else max(0.0, min(left, self._idle(), SLICE)))

    def catch_signals(self) -> None:
        """From now on SIGINT, SIGTERM and SIGHUP stop the loop; one that comes again raises KeyboardInterrupt.

        Launchers send SIGINT to a process that the terminal has sent it already: right after the first it counts once.
        Ctrl-Z does nothing, as nobody who holds a robot may be stopped in place; nor does SIGHUP under nohup.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._on_signal)
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)

    def release_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        first = self._signals.setdefault(number, time.monotonic())
        if time.monotonic() - first > TWICE:
            raise KeyboardInterrupt
        self.stopped = self._stopping = True

    def _run_due(self) -> None:
        for _ in range(len(self._calls)):  # those queued meanwhile wait for the next round
            self._calls.popleft()()
        if self._later:
            self._run_later(time.monotonic())
        now = time.time()
        if now < self._due_at - EARLY and now >= self._fired_at:
            return
        self._fired_at = now  # a computer's clock may be set back
        self._fire("wall", now)
        if not self.simulated:
            self._fire("node", now)
        self._schedule()

    def _run_later(self, now: float) -> None:
        due = [callback for at, callback in self._later if at <= now]
        if due:
            self._later = [entry for entry in self._later if entry[0] > now]
            for callback in due:
                callback()

    def _fire(self, clock: Clock, now: float) -> None:
        due = [timer for timer in self._timers if timer.clock == clock and timer.due(now)]
        for timer in sorted(due, key=lambda timer: timer.time):
            if not (timer.cancelled or self._stopping):
                timer.callback()

    def _schedule(self) -> None:
        self._timers = [timer for timer in self._timers if not timer.cancelled]
        now = time.time()
        waiting = (timer for timer in self._timers if timer.clock == "wall" or not self.simulated)
        self._due_at = min((now + timer.left(now) for timer in waiting), default=math.inf)

    def _idle(self) -> float:
        """Seconds until a timer or a delayed call is due."""
        idle = self._due_at - time.time()
        return min([idle, *(at - time.monotonic() for at, _ in self._later)])
