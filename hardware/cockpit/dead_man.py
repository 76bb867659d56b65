"""Hold to move: the arm moves only while a page says so, again and again, and without delay.

A page sends what is held at that moment with every change, and some twenty times a second. The motion ends

- when everything is released, the page is hidden or loses the focus: the page says so;
- when the connection is lost: the server says so;
- when nothing is heard for `SILENCE`, or what is heard is older than `DELAY`, whatever the cause.

After the last two, and after connecting, the page has to report once that nothing is held before it may drive again: an
arm never begins to move because a network has come back. One page drives at a time; the others watch, and can stop.
Pure: times come in as arguments, all methods are called by one thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SILENCE = 0.25
"""Longest pause between two inputs of a page that drives [s]; they come every 0.04 s."""

DELAY = 0.25
"""How late an input may arrive, against the fastest one of its page [s]."""

DRIFT = 1e-3
"""How much two clocks may drift apart [s/s], far above what quartz does."""


class Input(NamedTuple):
    """What is held on a page at one moment.

    Attributes:
        sent: on the page's own clock [s].
        twist: [6] m/s and rad/s, FLU of the person.
        target: where the end-effector shall be [7], in the base frame; None while it is not dragged.
        buttons: those of `device.HELD` that are held.
    """

    sent: float
    twist: np.ndarray
    target: np.ndarray | None = None
    buttons: frozenset[str] = frozenset()

    @property
    def moves(self) -> bool:
        """Whether anything is held that could move the robot."""
        return bool(self.twist.any()) or self.target is not None or bool(self.buttons - {"slow"})


@dataclass
class _Page:
    connected: float
    heard: float
    fastest: float = math.inf  # arrival minus `sent` of the fastest message: the clocks' difference
    timed: float = 0.0
    released: bool = False
    stopped: str = ""
    held: Input | None = None

    def delay(self, sent: float, now: float) -> float:
        """By how much a message is later than the fastest one was [s]."""
        self.fastest = min(now - sent, self.fastest + DRIFT * (now - self.timed))
        self.timed = now
        return now - sent - self.fastest


class DeadMan:
    """Decides which page drives, and whether it still does."""

    def __init__(self) -> None:
        self._pages: dict[int, _Page] = {}
        self._driver: int | None = None
        self._lost: tuple[int, float] | None = None  # the driver that was cut off, and when it was heard last

    @property
    def cut_off(self) -> bool:
        """Whether the page that drove last was lost without having let go; until it says that nothing is held, or one
        that was opened since, or until another one drives."""
        return self._lost is not None

    @property
    def pages(self) -> int:
        """How many pages are connected."""
        return len(self._pages)

    def silence(self, now: float) -> float:
        """For how long no page has said in time what is held, or that nothing is [s]; infinite without a page."""
        return min((now - page.heard for page in self._pages.values()), default=math.inf)

    @property
    def driver(self) -> int | None:
        """The page that drives."""
        return self._driver

    def connect(self, page: int, now: float) -> None:
        """A page has connected at `now` [s]."""
        self._pages[page] = _Page(now, now)

    def disconnect(self, page: int) -> None:
        """A page's connection is lost; if it was driving, the arm stops."""
        state = self._pages.pop(page, None)
        if self._driver == page and state is not None:
            self._driver, self._lost = None, (page, state.heard)

    def late(self, page: int, sent: float, now: float) -> bool:
        """Whether a message that the page sent at `sent`, on its clock, arrives too late to be meant still."""
        return self._pages[page].delay(sent, now) > DELAY

    def take(self, page: int, given: Input, now: float) -> None:
        """An input has arrived at `now` [s]."""
        state = self._pages[page]
        self.check(now)
        delay = state.delay(given.sent, now)
        if not given.moves:
            state.released, state.stopped, state.held = True, "", given
            state.heard = now
            if self._lost is not None and (page == self._lost[0] or state.connected > self._lost[1]):
                self._lost = None
            if self._driver == page:
                self._driver = None
        elif delay > DELAY:
            self._stop(page, f"the connection is slow: an input came {delay:.2f} s late")
        elif not state.released:
            state.stopped = state.stopped or "release everything first, then press again"
        elif self._driver not in (None, page):
            state.stopped = "another page drives at the moment"
        else:
            self._driver, state.held, state.heard, self._lost = page, given, now, None

    def check(self, now: float) -> None:
        """Stop a driver that has fallen silent."""
        if self._driver is not None and now - self._pages[self._driver].heard > SILENCE:
            self._stop(self._driver, f"nothing was heard from the page for {SILENCE} s")

    def held(self, now: float) -> tuple[float, Input] | None:
        """What the driver holds, and when it was heard [s]; None when nobody drives."""
        self.check(now)
        if self._driver is None:
            return None
        state = self._pages[self._driver]
        assert state.held is not None
        return state.heard, state.held

    def stopped(self, page: int) -> str:
        """Why what is held on a page does not move the robot; empty when it does, or nothing is held."""
        return self._pages[page].stopped if page in self._pages else ""

    def _stop(self, page: int, reason: str) -> None:
        state = self._pages[page]
        state.released, state.stopped = False, f"stopped: {reason}; release and press again"
        if self._driver == page:
            self._driver, self._lost = None, (page, state.heard)
