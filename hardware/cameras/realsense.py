"""An Intel RealSense camera: colour, and depth seen from the colour camera's place. Extra `realsense` (pyrealsense2).

**Stamps.** By default librealsense converts the camera's own clock, which tells the middle of the exposure, to the
computer's (`global_time`). Where it says instead that a stamp is of the camera's clock alone, the time of reception
counts. **Lost pictures** are told by the camera's numbers.

Depth is in mm, 0 where there is none; the camera's unit is read from each picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from robot_rl.hardware.cameras.camera import CameraError, Frame

SILENT = 2.0
"""How long the camera may say nothing before it counts as lost [s]."""

_MISSING = 'realsense: the package pyrealsense2 is missing: pip install "robot_rl[realsense]"'
_RULES = (
    "librealsense's udev rules let everybody use the camera: "
    "https://github.com/IntelRealSense/librealsense/blob/master/config/99-realsense-libusb.rules"
)


class Connection(NamedTuple):
    """A camera that runs.

    Attributes:
        wait: gives the next set of frames; RuntimeError when none comes.
        stop: ends it.
        calibration: of the colour camera.
    """

    wait: Callable[[], Any]
    stop: Callable[[], None]
    calibration: Mapping[str, Any]


class RealSenseSource:
    """See above.

    Args:
        device: serial number; empty: the first camera.
        size: height and width, of depth as well.
        rate: pictures per second.
        exposure: of the colour camera [s]; None: automatic.
        depth: whether to give depth.
        connect: starts the camera; for tests.
    """

    def __init__(
        self, device: str | int = "", size: Sequence[int] = (480, 640), rate: float = 30.0,
        exposure: float | None = None, depth: bool = False, connect: Callable[[], Connection] | None = None,
    ) -> None:  # fmt: skip
        self._serial, self._size, self._rate = str(device), (size[0], size[1]), rate
        self._exposure, self._depth = exposure, depth
        self.name = f"realsense {device}".strip()
        self.calibration: Mapping[str, Any] = {}
        self._connect = connect or self._start
        self._connection: Connection | None = None
        self._align: Any = None

    def open(self) -> None:
        """Raises `CameraError`: the extra is missing, or the camera, or it does not give this size and rate."""
        rs = _library()
        self.close()
        self._connection = self._connect()
        self.calibration = self._connection.calibration
        self._align = rs.align(rs.stream.color) if self._depth else None

    def read(self) -> Frame:
        """The next picture."""
        rs = _library()
        assert self._connection is not None
        try:
            frames = self._connection.wait()
            received = time.time()
            if self._align is not None:
                frames = self._align.process(frames)
            colour, depth = frames.get_color_frame(), frames.get_depth_frame() if self._depth else None
        except RuntimeError as error:
            raise CameraError(f"{self.name}: {error}") from error
        if not colour or (self._depth and not depth):
            raise CameraError(f"{self.name}: a picture without {'depth' if colour else 'colour'}")
        own_clock = colour.get_frame_timestamp_domain() == rs.timestamp_domain.hardware_clock
        stamp = received if own_clock else colour.get_timestamp() / 1000.0
        picture = np.array(colour.get_data())
        return Frame(
            picture, stamp, received, colour.get_frame_number(), None if depth is None else _millimetres(depth)
        )

    def close(self) -> None:
        """Let go of the camera."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.stop()

    def _start(self) -> Connection:
        rs = _library()
        known = cameras()
        if not known or (self._serial and self._serial not in [serial for serial, _ in known]):
            there = ", ".join(f"{name} ({serial})" for serial, name in known) or f"none is plugged in, or {_RULES}"
            raise CameraError(f"{self.name}: not found; there are: {there}")
        pipeline, wanted, (height, width) = rs.pipeline(), rs.config(), self._size
        if self._serial:
            wanted.enable_device(self._serial)
        wanted.enable_stream(rs.stream.color, width, height, rs.format.rgb8, round(self._rate))
        if self._depth:
            wanted.enable_stream(rs.stream.depth, width, height, rs.format.z16, round(self._rate))
        try:
            profile = pipeline.start(wanted)
            self._expose(rs, profile.get_device().first_color_sensor())
            lens = profile.get_stream(rs.stream.color).as_video_stream_profile().get_intrinsics()
        except RuntimeError as error:
            wanted_words = f"{height}x{width} at {self._rate:g} Hz"
            raise CameraError(
                f"{self.name}: {wanted_words}: {error}; `rs-enumerate-devices` lists what it gives"
            ) from error
        calibration = {
            "fx": lens.fx, "fy": lens.fy, "cx": lens.ppx, "cy": lens.ppy, "distortion": list(lens.coeffs)
        }  # fmt: skip
        return Connection(lambda: pipeline.wait_for_frames(int(1000 * SILENT)), pipeline.stop, calibration)

    def _expose(self, rs: Any, sensor: Any) -> None:
        sensor.set_option(rs.option.enable_auto_exposure, float(self._exposure is None))
        if self._exposure is not None:
            # Colour sensors count in units of 0.1 ms; where colour comes from the depth sensor (D405), in µs.
            unit = 1e-6 if sensor.get_info(rs.camera_info.name) == "Stereo Module" else 1e-4
            sensor.set_option(rs.option.exposure, round(self._exposure / unit))


def cameras() -> list[tuple[str, str]]:
    """Serial number and name of every camera. Raises `CameraError` without the extra."""
    rs = _library()
    keys = rs.camera_info.serial_number, rs.camera_info.name
    return [(device.get_info(keys[0]), device.get_info(keys[1])) for device in rs.context().query_devices()]


def _millimetres(depth: Any) -> np.ndarray:
    unit = 1000.0 * depth.get_units()
    raw = np.asarray(depth.get_data())
    return np.array(raw) if abs(unit - 1.0) < 1e-6 else np.clip(np.rint(raw * unit), 0, 65535).astype(np.uint16)


def _library() -> Any:
    try:
        import pyrealsense2
    except ImportError as error:
        raise CameraError(_MISSING) from error
    return pyrealsense2
