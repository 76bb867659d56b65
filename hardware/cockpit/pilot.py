"""What the persons at the pages want, between the thread of the web server and that of the node."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from robot_rl.hardware.cockpit.dead_man import DeadMan, Input

PRESSED = frozenset({"gripper"})
"""Buttons of which each press counts, however short."""

_WAITING = 32


class Pilot:
    """The dead man and the words of all pages; every method may be called by any thread.

    Args:
        stop: called at once for the word `stop`, on the thread that brings it.
        clock: monotonic [s].
    """

    def __init__(self, stop: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._stop, self._clock = stop, clock
        self._lock = threading.Lock()
        self._dead_man = DeadMan()
        self._words: deque[str] = deque(maxlen=_WAITING)
        self._pressed: set[str] = set()
        self._stopping: set[int] = set()  # pages that have stopped the robot, until one of them clears that

    def connect(self, page: int) -> None:
        """A page has connected."""
        with self._lock:
            self._dead_man.connect(page, self._clock())

    def disconnect(self, page: int) -> None:
        """A page's connection is lost."""
        with self._lock:
            self._dead_man.disconnect(page)
            self._stopping.discard(page)

    def take(self, page: int, given: Input) -> None:
        """A page says what is held."""
        with self._lock:
            self._dead_man.take(page, given, self._clock())
            if self._dead_man.driver == page:
                self._pressed |= given.buttons & PRESSED

    def word(self, page: int, word: str, sent: float) -> str:
        """A page says a word; why it is not passed on, or nothing.

        An emergency stop is never too late; it is cleared by a page that has pressed it, while there is one.
        """
        if word == "stop":
            self._stop()
        with self._lock:
            if self._dead_man.late(page, sent, self._clock()) and word != "stop":
                return f"{word}: it came too late over a slow connection; press again"
            if word == "clear" and self._stopping and page not in self._stopping:
                return "clear: another page has pressed the stop, and has to clear it"
            if word == "stop":
                self._stopping.add(page)
            elif word == "clear":
                self._stopping.clear()
            self._words.append(word)
        return ""

    def words(self) -> list[str]:
        """The words since the last call, in order."""
        with self._lock:
            words = list(self._words)
            self._words.clear()
        return words

    def pressed(self) -> frozenset[str]:
        """Those of `PRESSED` that were held at some moment since the last call: none is too short to count."""
        with self._lock:
            pressed = frozenset(self._pressed)
            self._pressed.clear()
        return pressed

    def held(self) -> tuple[float, Input] | None:
        """How old what the driver holds is [s], and what; None when nobody drives."""
        with self._lock:
            now = self._clock()
            held = self._dead_man.held(now)
        return None if held is None else (now - held[0], held[1])

    def silence(self) -> float:
        """For how long no page has been heard [s]; infinite without a page."""
        with self._lock:
            return self._dead_man.silence(self._clock())

    def cut_off(self) -> bool:
        """Whether the page that drove last was lost without having let go."""
        with self._lock:
            self._dead_man.check(self._clock())
            return self._dead_man.cut_off

    def state(self, page: int) -> dict[str, object]:
        """What a page is told about itself."""
        with self._lock:
            self._dead_man.check(self._clock())
            driver = self._dead_man.driver
            return {
                "driving": "" if driver is None else "you" if driver == page else "other",
                "stopped": self._dead_man.stopped(page), "pages": self._dead_man.pages,
            }  # fmt: skip
