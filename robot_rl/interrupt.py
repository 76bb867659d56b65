"""A clean stop: the first Ctrl-C or SIGTERM asks, the second one insists."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Ctrl-C within comes at the end: libraries that are being loaded may not survive it."""
    before, came = signal.getsignal(signal.SIGINT), list[int]()
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


class Interrupt:
    """Inside the `with` block, the first SIGINT or SIGTERM sets `requested` and lets the work end where it is safe.

    The same signal again raises KeyboardInterrupt at once; the other one does not, because launchers of several
    processes pass on Ctrl-C as SIGTERM. Outside the main thread, where signals cannot be caught, it does nothing.
    """

    def __init__(self, message: str = "Stopping after this step; press Ctrl-C again to stop at once.") -> None:
        self.requested: signal.Signals | None = None
        self._message = message
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @property
    def exit_status(self) -> int:
        """What a shell expects of a program ended by that signal; 0 when none came."""
        return 128 + self.requested if self.requested else 0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested == number:
            raise KeyboardInterrupt
        if self.requested:
            return
        self.requested = signal.Signals(number)
        print(f"\n{self._message}", file=sys.stderr, flush=True)
