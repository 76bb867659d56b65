"""A clock that is read from pictures of a screen: how a camera's latency is measured.

The screen shows the number of the present tick of `TICK` seconds in Gray code, in which neighbours differ in one bit:
what is seen during a change, or by a rolling shutter, is one of the two. Each bit is shown twice, as it is and
inverted, and the two are compared with each other: brightness and colours of the camera do not matter, and a bit that
was changing is known as such. Four ArUco markers in the corners say where the cells are, in whatever perspective.

    draw(tick)                       the pattern, as the page shows it
    read(picture)                    the tick in a picture, or None
    shown(tick, near)                its time [s]
    LatencyMeter().take(frame)       collects what a camera's frames say

Resolution: half a tick for one picture, far less for the median of many, whose phases differ. What the screen itself
needs (some 10 to 30 ms for most) counts as latency of the camera.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_rl.hardware.cameras.camera import Frame

TICK = 0.02
"""How long a code is shown [s]: longer than a refresh of a screen of 60 Hz, so that none is left out."""

BITS = 16
TICKS = 1 << BITS
"""After so many the codes begin again: 22 minutes."""

WIDTH, HEIGHT = 32, 18
"""Of the pattern, in units."""

_MARKER = 6  # units: 4x4 cells within a black border of one
_CORNERS = ((1, 1), (WIDTH - 7, 1), (1, HEIGHT - 7), (WIDTH - 7, HEIGHT - 7))
_COLUMNS, _CELL = BITS // 2, (2, 4)
_SCALE = 8  # pixels of a unit in the straightened picture
_CONTRAST = 24  # least difference of a bit and its inverse that counts, of 255
_CHANGING = 0.4  # part of the full difference below which a bit was changing
_MOST_CHANGING = 2


class Cell(NamedTuple):
    """A rectangle of the pattern that shows a bit: left, top, width and height in units; black for one, or inverted."""

    bit: int
    inverted: bool
    x: int
    y: int
    width: int
    height: int


def cells() -> list[Cell]:
    """Two rows of eight bits, each above its inverse."""
    width, height = _CELL
    places = [(8 + width * (bit % _COLUMNS), 1 + 2 * height * (bit // _COLUMNS)) for bit in range(BITS)]
    return [
        Cell(bit, inverted, x, y + height * inverted, width, height)
        for bit, (x, y) in enumerate(places)
        for inverted in (False, True)
    ]


def squares() -> list[tuple[int, int]]:
    """The black units of the markers, left and top."""
    found = []
    for number, (left, top) in enumerate(_CORNERS):
        marker = _cv().aruco.generateImageMarker(_dictionary(), number, _MARKER)
        found += [(left + int(x), top + int(y)) for y, x in np.argwhere(marker == 0)]
    return found


def tick_at(now: float) -> int:
    """The tick that is shown at a time [s]."""
    return int(now // TICK) % TICKS


def gray(tick: int) -> int:
    """The code of a tick."""
    return tick ^ tick >> 1


def draw(tick: int, scale: int = 8) -> NDArray[np.uint8]:
    """The pattern, uint8 [18 scale, 32 scale]."""
    pattern = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for x, y in squares():
        pattern[y, x] = 0
    for cell in cells():
        if bool(gray(tick) >> cell.bit & 1) != cell.inverted:
            pattern[cell.y : cell.y + cell.height, cell.x : cell.x + cell.width] = 0
    return pattern.repeat(scale, 0).repeat(scale, 1)


def read(picture: NDArray[np.uint8]) -> float | None:
    """The tick in a picture [height, width, 3] or [height, width]; between two of them where it was changing.

    None where the pattern is not there as a whole, or too blurred or dim to be read for sure.
    """
    straight = _straighten(picture)
    if straight is None:
        return None
    levels = np.array([_level(straight, cell) for cell in cells()]).reshape(BITS, 2)
    difference = levels[:, 1] - levels[:, 0]  # a one is black, its inverse white
    strongest = float(np.abs(difference).max())
    if strongest < _CONTRAST:
        return None
    changing = np.flatnonzero(np.abs(difference) < _CHANGING * strongest).tolist()
    if len(changing) > _MOST_CHANGING:
        return None
    code = sum(1 << bit for bit in range(BITS) if difference[bit] > 0 and bit not in changing)
    return _middle(sorted(_ticks(code, changing)), len(changing) + 1)


def shown(tick: float, near: float) -> float:
    """The middle of the time for which a tick was shown [s]: of all such times the nearest to `near`."""
    time, period = (tick + 0.5) * TICK, TICKS * TICK
    return time + period * round((near - time) / period)


class LatencyMeter:
    """Collects latencies.

    Attributes:
        arrival: of each picture that could be read, from the screen to this process [s].
        stamp: of each, from the screen to its stamp [s]: the `latency` of the robot's file.
        pictures: how many there were.
    """

    def __init__(self) -> None:
        self.arrival: list[float] = []
        self.stamp: list[float] = []
        self.pictures = 0

    def take(self, frame: Frame) -> bool:
        """Count a frame; whether it could be read."""
        self.pictures += 1
        tick = read(frame.picture)
        if tick is None:
            return False
        time = shown(tick, frame.received)
        self.arrival.append(frame.received - time)
        self.stamp.append(frame.stamp - time)
        return True


def _straighten(picture: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The pattern as it is drawn, `_SCALE` pixels a unit."""
    cv2 = _cv()
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    corners, numbers, _ = _detector().detectMarkers(grey)
    found = {} if numbers is None else dict(zip(numbers.ravel().tolist(), corners, strict=True))
    if not set(range(len(_CORNERS))) <= set(found):
        return None
    seen = np.concatenate([found[number].reshape(4, 2) for number in range(len(_CORNERS))])
    square = np.array([(0, 0), (_MARKER, 0), (_MARKER, _MARKER), (0, _MARKER)])
    drawn = np.concatenate([np.array(corner) + square for corner in _CORNERS])
    # Corners lie between pixels; OpenCV counts from the middle of the first one.
    transform, _ = cv2.findHomography(seen, drawn * _SCALE - 0.5)
    if transform is None:
        return None
    straight: NDArray[np.uint8] = cv2.warpPerspective(
        grey, transform, (WIDTH * _SCALE, HEIGHT * _SCALE), flags=cv2.INTER_AREA
    )
    return straight


def _level(straight: NDArray[np.uint8], cell: Cell) -> float:
    """Mean brightness of the middle half of a cell."""
    rows, columns = (
        slice(round((start + 0.25 * size) * _SCALE), round((start + 0.75 * size) * _SCALE))
        for start, size in ((cell.y, cell.height), (cell.x, cell.width))
    )
    return float(straight[rows, columns].mean())


def _ticks(code: int, changing: list[int]) -> list[int]:
    """The ticks whose codes agree with one in all bits but those that were changing."""
    found = []
    for values in itertools.product((0, 1), repeat=len(changing)):
        number = code | sum(value << bit for bit, value in zip(changing, values, strict=True))
        tick = 0
        while number:
            tick, number = tick ^ number, number >> 1
        found.append(tick)
    return found


def _middle(ticks: list[int], least: int) -> float | None:
    """The middle of `least` or more ticks that follow each other, as those seen in one exposure do; else None."""
    around = [*ticks, *(tick + TICKS for tick in ticks)]
    runs: list[list[int]] = []
    for tick in around:
        if runs and tick == runs[-1][-1] + 1:
            runs[-1].append(tick)
        else:
            runs.append([tick])
    longest = max(runs, key=len)
    return math.fsum(longest) / len(longest) % TICKS if len(longest) >= least else None


@functools.cache
def _dictionary() -> Any:
    return _cv().aruco.getPredefinedDictionary(_cv().aruco.DICT_4X4_50)


@functools.cache
def _detector() -> Any:
    aruco = _cv().aruco
    settings = aruco.DetectorParameters()
    settings.cornerRefinementMethod = aruco.CORNER_REFINE_SUBPIX
    return aruco.ArucoDetector(_dictionary(), settings)


def _cv() -> Any:
    import cv2

    return cv2
