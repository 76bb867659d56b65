"""A V4L2 camera by OpenCV: most USB cameras on Linux. Also video files and network streams, as OpenCV opens them.

**Stamps.** A V4L2 driver stamps each buffer on the monotonic clock, OpenCV hands that on as `CAP_PROP_POS_MSEC`
(cap_v4l.cpp: the `timestamp` of the buffer dequeued last), and here it becomes wall-clock time. USB cameras (uvcvideo)
stamp when the first bytes of a picture arrive, or with the camera's own clock when its exposure began, where the kernel
has that enabled (`uvcvideo.hwtimestamps`): exposure, readout and JPEG come before. `robot-rl cameras check --latency`
measures how long before. A driver that stamps on no known clock is left with the time of reception.

**Lost pictures** are told by the stamps: OpenCV does not hand on the driver's count.

A file is played at its own rate, over and over, stamped when a picture is given. A network stream is stamped when
received.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robot_rl.hardware.cameras import v4l2
from robot_rl.hardware.cameras.camera import CameraError, Frame
from robot_rl.hardware.cameras.v4l2 import Format

SILENT = 2.0
"""How long a camera may say nothing before it counts as lost [s]."""

PREFERRED = ("MJPG", "YUYV")
"""Pixel formats in the order in which they are tried: compressed first, as USB 2 carries little else at full rate."""

OLDEST = 10.0
"""An age beyond which a stamp is none [s]."""

_MANUAL, _AUTOMATIC = 1, (3, 0)  # V4L2_EXPOSURE_MANUAL; V4L2_EXPOSURE_APERTURE_PRIORITY, V4L2_EXPOSURE_AUTO
_EXPOSURE_UNIT = 1e-4  # s, of V4L2_CID_EXPOSURE_ABSOLUTE


class OpenCVSource:
    """See above.

    Args:
        device: a path such as `/dev/video0`, better one of `/dev/v4l/by-id`, which stays when cameras are plugged
            elsewhere; a number; or a file or URL.
        size: height and width.
        rate: pictures per second.
        exposure: [s]; None: automatic.
        fourcc: pixel format; empty: the first of `PREFERRED`, then of all, that comes in this size and rate.
    """

    def __init__(
        self, device: str | int = "/dev/video0", size: Sequence[int] = (480, 640), rate: float = 30.0,
        exposure: float | None = None, fourcc: str = "",
    ) -> None:  # fmt: skip
        self._device = f"/dev/video{device}" if str(device).isdigit() else str(device)
        self._is_camera = self._device.startswith("/dev/")
        self._size, self._rate, self._exposure, self._fourcc = (size[0], size[1]), rate, exposure, fourcc
        self.name = f"opencv {self._device}"
        self.calibration: Mapping[str, Any] = {}
        self._capture: Any = None
        self._due = 0.0

    def open(self) -> None:
        """Raises `CameraError`: missing, not allowed, in use, or not in this size, rate, format or exposure."""
        self.close()
        if self._is_camera:
            self._open_camera()
        else:
            self._open_file()

    def read(self) -> Frame:
        """The next picture."""
        import cv2

        assert self._capture is not None
        try:
            if self._is_camera:
                # Alone, `grab` would wait 10 s for a camera that says nothing.
                came = cv2.VideoCapture.waitAny([self._capture], int(SILENT * 1e9))[0]
            else:
                came = self._capture.grab()
            received = time.time()
            done, picture = self._capture.retrieve() if came else (False, None)
        except cv2.error as error:
            raise CameraError(f"{self.name}: {error.err}") from error
        if not done or picture is None:
            raise CameraError(f"{self.name}: {self._silence()}")
        stamp = received
        if self._is_camera:
            driver = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
            stamp = stamp_of(driver, time.time(), time.monotonic(), received)
        elif "://" not in self._device:
            stamp = received = self._paced()
        return Frame(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), stamp, received)

    def close(self) -> None:
        """Let go of the device."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _open_camera(self) -> None:
        import cv2

        v4l2.check_free(self._device)
        fourcc = choose(self._device, v4l2.formats(self._device), self._size, self._rate, self._fourcc)
        self._capture = capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise CameraError(f"{self.name}: OpenCV cannot open it; `robot-rl cameras list` shows what it is")
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[1])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[0])
        capture.set(cv2.CAP_PROP_FPS, self._rate)
        size = round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), round(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        if size != self._size:
            raise CameraError(f"{self.name}: asked for {_by(self._size)}, the driver gives {_by(size)}")
        self._expose()

    def _expose(self) -> None:
        import cv2

        capture = self._capture
        if self._exposure is None:
            for mode in _AUTOMATIC:  # a camera without the control, or without the mode, stays as it is
                if capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, mode):
                    return
            return
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL)
        if not capture.set(cv2.CAP_PROP_EXPOSURE, round(self._exposure / _EXPOSURE_UNIT)):
            raise CameraError(
                f"{self.name}: its exposure cannot be set to {self._exposure:g} s; "
                f"`v4l2-ctl -d {self._device} -L` shows the range of exposure_time_absolute, in units of 0.0001 s"
            )

    def _open_file(self) -> None:
        import cv2

        if "://" not in self._device and "%" not in self._device and not Path(self._device).is_file():
            raise CameraError(f"{self.name}: no such file; a camera is a path such as /dev/video0, or a number")
        self._capture = cv2.VideoCapture(self._device)
        if not self._capture.isOpened():
            raise CameraError(f"{self.name}: OpenCV cannot open it as a video or a sequence of pictures")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self._rate = rate if 0 < rate < 1000 else self._rate

    def _paced(self) -> float:
        """Wait until a picture of a file is due; returns the time."""
        now = time.time()
        self._due = max(now, self._due + 1.0 / self._rate) if now - self._due < 1.0 else now
        time.sleep(max(0.0, self._due - now))
        return time.time()

    def _silence(self) -> str:
        if not self._is_camera:
            return "it has ended"
        return f"no picture for {SILENT:g} s" if Path(self._device).exists() else "it was unplugged"


def choose(device: str, offered: Sequence[Format], size: tuple[int, int], rate: float, fourcc: str = "") -> str:
    """The pixel format to ask a camera for, of those that it offers in a size and rate.

    Raises:
        CameraError: there is none; with all that the camera offers.
    """
    fitting = [one.fourcc for one in offered if one.gives(size, rate)]
    order = [fourcc] if fourcc else [*PREFERRED, *fitting]
    for name in order:
        if name in fitting:
            return name
    wanted = f"{_by(size)} at {rate:g} Hz" + (f" as {fourcc}" if fourcc else "")
    raise CameraError(
        f"{device} does not give {wanted}. What it gives (height x width):\n{v4l2.describe(list(offered))}"
    )


def stamp_of(driver: float, now: float, monotonic: float, received: float) -> float:
    """Wall-clock time [s] of a driver's stamp.

    Args:
        driver: on the monotonic clock, as V4L2 wants it, or on the wall clock, as some drivers do [s].
        now, monotonic: both clocks at the same moment [s].
        received: that counts where the driver's stamp is on neither.
    """
    for clock in (monotonic, now):
        if 0.0 <= clock - driver <= OLDEST:
            return now - (clock - driver)
    return received


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
