"""A camera: pictures with the time they were taken, from a thread of their own.

    with Camera(make_source({"kind": "opencv", "device": "/dev/video0"})) as camera:
        frame = camera.newest()            # at once; None before the first
        frame = camera.wait(frame, 1.0)    # the next one; None when none came in time
        frame.picture, frame.stamp         # uint8 [height, width, 3] RGB, [s]
        camera.counts                      # frames, dropped, reconnects

A `Source` is the device, a few lines for each kind, and used by one thread alone. `Camera` runs it: it keeps the newest
picture, counts what is missing, and connects again for as long as it takes when the device is lost. A picture that is
kept while the device is away stays the newest; its stamp tells how old it is.

Stamps are wall-clock seconds since the epoch, as those of the ROS graph, and tell when the picture was taken as well as
the device knows; see each kind.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_rl.hardware.opened import Opened

RETRY = 1.0
"""Between two attempts to connect again [s]."""

CLOSING = 3.0
"""How long `close` waits for a driver that does not answer [s]; longer than a source waits for a picture."""

_INTERVALS = 30
_ENOUGH = 5


class CameraError(RuntimeError):
    """The camera is missing, may not be used, cannot do what was asked, or is lost; the message says what mends it."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture.

    Attributes:
        picture: uint8 [height, width, 3], RGB.
        stamp: when it was taken [s], less what only a measurement can tell (`robot-rl cameras check --latency`).
        received: when this process had it [s].
        number: as the device counts its pictures; None where it does not.
        depth: uint16 [height, width] mm, seen from the same place, 0 where unknown; None for cameras without.
    """

    picture: NDArray[np.uint8]
    stamp: float
    received: float
    number: int | None = None
    depth: NDArray[np.uint16] | None = None


@dataclass(frozen=True)
class Counts:
    """Since `open`.

    Attributes:
        frames: pictures that came.
        dropped: that were lost on the way: by the device's numbers, or by gaps in the stamps where it has none.
        reconnects: how often the device was lost and came back.
    """

    frames: int = 0
    dropped: int = 0
    reconnects: int = 0


class Source(Protocol):
    """A device, between `open` and `close`; it may be opened again after that.

    Attributes:
        name: kind and device, for people.
        calibration: intrinsics `fx fy cx cy` [pixel] and `distortion` where the device knows them, else empty.
    """

    name: str
    calibration: Mapping[str, Any]

    def open(self) -> None:
        """Connect. Raises `CameraError`."""
        ...

    def read(self) -> Frame:
        """The next picture, waiting for it some seconds at most. Raises `CameraError` when none comes."""
        ...

    def close(self) -> None:
        """Let go of the device; also when `open` has failed, and twice."""
        ...


class Camera(Opened):
    """Runs a source; see above. Its methods may be called from any thread.

    Args:
        deliver: called with each frame, by the thread of the camera.

    Attributes:
        problem: why there are no pictures at present; empty while they come.
    """

    def __init__(self, source: Source, deliver: Callable[[Frame], None] | None = None) -> None:
        self.source, self.problem = source, ""
        self._deliver = deliver
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._counts = Counts()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Connect and begin to take pictures. Raises `CameraError` when the device cannot be had."""
        if self._thread is not None:
            return
        self._closing.clear()
        self._counts, self._newest, self.problem = Counts(), None, ""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name=self.source.name, daemon=True)
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self.close()
            raise

    def newest(self) -> Frame | None:
        """The newest frame, without waiting; None before the first."""
        return self._newest

    def wait(self, after: Frame | None = None, timeout: float | None = None) -> Frame | None:
        """The newest frame that is not `after`; None when none has come within `timeout` [s]."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not after or self._closing.is_set(), timeout)
            return self._newest if self._newest is not after else None

    @property
    def counts(self) -> Counts:
        """Pictures that came, and that did not."""
        return self._counts

    def close(self) -> None:
        """End the thread and let go of the device; twice is fine."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        thread.join(CLOSING)

    def _run(self, ready: Future[None]) -> None:
        try:
            self.source.open()
        except BaseException as error:
            self.source.close()
            ready.set_exception(error)
            return
        ready.set_result(None)
        try:
            while not self._closing.is_set():
                self._follow()
                while not self._closing.wait(RETRY):
                    if self._connects():
                        break
        finally:
            self.source.close()

    def _follow(self) -> None:
        """Take pictures until the device is lost, or the camera is closed."""
        gaps, previous = Gaps(), None
        while not self._closing.is_set():
            try:
                frame = self.source.read()
            except CameraError as error:
                self.problem = str(error)
                self.source.close()
                return
            self.problem = ""
            dropped = gaps.between(previous, frame)
            previous = frame
            counts = self._counts
            with self._changed:
                self._counts = replace(counts, frames=counts.frames + 1, dropped=counts.dropped + dropped)
                self._newest = frame
                self._changed.notify_all()
            if self._deliver is not None:
                self._deliver(frame)

    def _connects(self) -> bool:
        try:
            self.source.open()
        except CameraError as error:
            self.problem = str(error)
            self.source.close()
            return False
        self._counts = replace(self._counts, reconnects=self._counts.reconnects + 1)
        return True


class Gaps:
    """How many pictures are missing between two.

    By the device's numbers where it has them. Else by the stamps, against the median of the last intervals rather than
    the rate that was asked for: in the dark cameras expose longer, and take fewer pictures without losing any.
    """

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)

    def between(self, previous: Frame | None, frame: Frame) -> int:
        """Pictures lost between two that came one after the other."""
        if previous is None:
            return 0
        if frame.number is not None and previous.number is not None:
            return max(0, frame.number - previous.number - 1)
        interval = frame.stamp - previous.stamp
        usual = float(np.median(self._intervals)) if len(self._intervals) >= _ENOUGH else 0.0
        self._intervals.append(interval)
        return max(0, round(interval / usual) - 1) if usual > 0 else 0


def wall(monotonic: float) -> float:
    """The wall-clock time [s] of a time of the monotonic clock [s]."""
    return time.time() - (time.monotonic() - monotonic)
