"""A camera that is computed: a disc that goes round, with the picture's number written into it. For tests, and to try
everything else without a camera.

The number stands in the upper eighth of the picture, as two rows of `BITS` black and white cells: the number, and below
it its complement. It survives scaling and JPEG, so that each picture can be recognised wherever it arrives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from robot_rl.hardware.cameras.camera import CameraError, Frame

BITS = 16

SILENT = 1.0
"""How long a stalled camera says nothing before it counts as lost [s]."""

Fault = Literal["", "stall", "disconnect"]


class SyntheticSource:
    """See above.

    Args:
        device: for its name.
        size: height and width of the pictures.
        rate: pictures per second.
        latency: from the moment of the picture until `read` gives it [s]; the stamp is that of the moment.
        drop: part of the pictures that are lost.
        seed: of the draws of what is lost.
        scene: what is before the camera at a time [s], uint8 [height, width, 3]; else the disc.

    Attributes:
        fault: may be set at any time: `stall` (no pictures come) or `disconnect` (it is unplugged).
    """

    def __init__(
        self, device: str = "", size: Sequence[int] = (480, 640), rate: float = 30.0, latency: float = 0.0,
        drop: float = 0.0, seed: int = 0, scene: Callable[[float], NDArray[np.uint8]] | None = None,
    ) -> None:  # fmt: skip
        if not 0.0 <= drop < 1.0 or latency < 0.0:
            raise CameraError(f"synthetic: expected drop from 0 to below 1 and latency >= 0, got {drop} and {latency}")
        self.name = f"synthetic {device}".strip()
        self.calibration: Mapping[str, Any] = {}
        self.fault: Fault = ""
        self._size, self._period, self._latency, self._drop = (size[0], size[1]), 1.0 / rate, latency, drop
        self._scene, self._generator = scene, np.random.default_rng(seed)
        self._number = 0

    def open(self) -> None:
        """Raises `CameraError` while it is unplugged."""
        if self.fault == "disconnect":
            raise CameraError(f"{self.name}: it is not there")
        self._number = int(time.time() / self._period)

    def read(self) -> Frame:
        """The next picture that is not lost."""
        while True:
            self._number = max(self._number + 1, int((time.time() - self._latency) / self._period))
            stamp = self._number * self._period
            self._wait(stamp + self._latency)
            if self._generator.random() >= self._drop:
                break
        picture = self._scene(stamp) if self._scene is not None else draw(self._size, self._number, stamp)
        return Frame(picture, stamp, time.time(), self._number)

    def close(self) -> None:
        """Nothing to let go of."""

    def _wait(self, until: float) -> None:
        began = time.monotonic()
        while (left := until - time.time()) > 0 or self.fault:
            if self.fault == "disconnect":
                raise CameraError(f"{self.name}: it was unplugged")
            if time.monotonic() - began > SILENT:
                raise CameraError(f"{self.name}: no picture for {SILENT:g} s")
            time.sleep(min(max(left, 0.001), 0.01))


def draw(size: tuple[int, int], number: int, now: float) -> NDArray[np.uint8]:
    """The picture of a number [height, width, 3]: a disc that goes round once in two seconds, before a gradient."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0], picture[..., 1], picture[..., 2] = 60 + 100 * x / width, 60 + 100 * y / height, 110
    angle, radius = np.pi * now, 0.3 * min(height, width)
    centre = height * 0.56 + radius * np.sin(angle), width * 0.5 + radius * np.cos(angle)
    picture[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (radius / 3) ** 2] = (240, 120, 40)
    bits = number >> np.arange(BITS)[::-1] & 1
    rows, columns = max(1, height // 16), np.arange(width) * BITS // width
    picture[:rows] = (255 * bits[columns])[None, :, None]
    picture[rows : 2 * rows] = (255 * (1 - bits[columns]))[None, :, None]
    return picture


def read_number(picture: NDArray[np.uint8]) -> int | None:
    """The number modulo 2^`BITS` in a picture of any size; None where it cannot be read."""
    height, width = picture.shape[:2]
    rows = height / 16
    grey = picture.mean(axis=2)
    columns = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    upper, lower = grey[int(rows * 0.5), columns], grey[int(rows * 1.5), columns]
    if (np.abs(upper - lower) < 64).any():
        return None
    return int(((upper > lower) << np.arange(BITS)[::-1]).sum())
