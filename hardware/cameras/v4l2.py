"""What Linux knows about its cameras: devices by name, their formats, who uses them (V4L2, linux/videodev2.h).

OpenCV opens a camera or says no; this says which cameras there are, what they can do, and why not. Numbers and layouts
below are the kernel's interface, the same on all 64-bit Linux.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from robot_rl.hardware.cameras.camera import CameraError

QUERYCAP, ENUM_FMT, G_FMT, S_FMT = 0x80685600, 0xC0405602, 0xC0D05604, 0xC0D05605
ENUM_FRAMESIZES, ENUM_FRAMEINTERVALS = 0xC02C564A, 0xC034564B
VIDEO_CAPTURE = 1
"""v4l2_buf_type of what comes from a camera, and its capability."""

DISCRETE = 1

NEAR = 0.5
"""A rate that differs by less is the one that was meant: 29.97 Hz for 30 [Hz]."""

_CAPABILITY, _FMTDESC, _FRMSIZE, _FRMIVAL, _FORMAT = 104, 64, 44, 52, 208  # bytes

SYSTEM = Path("/sys/class/video4linux")
MEND_PERMISSION = "sudo usermod -aG video $USER   (then log in again)"


@dataclass(frozen=True)
class Format:
    """What a camera can deliver.

    Attributes:
        fourcc: pixel format, such as `MJPG` or `YUYV`.
        size: height and width.
        rates: pictures per second, highest first; empty where the device does not list them.
        smallest: height and width from which on every size comes, up to `size`; None: this size alone.
    """

    fourcc: str
    size: tuple[int, int]
    rates: tuple[float, ...]
    smallest: tuple[int, int] | None = None

    def gives(self, size: tuple[int, int], rate: float) -> bool:
        """Whether pictures of a size come at a rate."""
        low = self.smallest or self.size
        return all(low[side] <= size[side] <= self.size[side] for side in (0, 1)) and (
            not self.rates or any(abs(known - rate) < NEAR for known in self.rates)
        )


def devices(system: Path = SYSTEM) -> list[tuple[str, str]]:
    """Path and name of every video device, in the kernel's order."""
    nodes = sorted(system.glob("video*"), key=lambda node: int(node.name.removeprefix("video")))
    return [(f"/dev/{node.name}", (node / "name").read_text().strip()) for node in nodes]


def formats(path: str) -> list[Format]:
    """What a camera can deliver; empty for a device that is no camera, such as one for metadata.

    Raises:
        CameraError: it may not be opened; see `opened`.
    """
    with opened(path) as device:
        return list(_formats(device)) if _captures(device) else []


def check_free(path: str) -> None:
    """See whether pictures could be taken now.

    Raises:
        CameraError: the device is missing, may not be opened, is no camera, or somebody else takes pictures with it.
    """
    with opened(path) as device:
        if not _captures(device):
            cameras = [known for known, _ in devices() if known != path and _is_camera(known)]
            raise CameraError(f"{path} gives no pictures{_list('; cameras are', cameras)}")
        chosen = bytearray(_FORMAT)
        struct.pack_into("<I", chosen, 0, VIDEO_CAPTURE)
        try:
            # To set the format that is set already changes nothing, and is refused while another one takes pictures.
            fcntl.ioctl(device, G_FMT, chosen)
            fcntl.ioctl(device, S_FMT, chosen)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise CameraError(f"{path} is in use{_list(' by', users(path))}; end that first") from error
            raise CameraError(f"{path}: {error.strerror}") from error


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A device, opened for questions.

    Raises:
        CameraError: it is missing, busy, or its permissions are not enough; with the command that mends it.
    """
    try:
        device = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except FileNotFoundError as error:
        known = [f"{device} ({name})" for device, name in devices()]
        advice = _list("; there are", known) or (
            "; there is no camera at all. Plug one in; in a container, pass it on: --device /dev/video0"
        )
        raise CameraError(f"{path}: no such device{advice}") from error
    except PermissionError as error:
        raise CameraError(f"{path}: you may not use it. Allow it, once:\n  {MEND_PERMISSION}") from error
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise CameraError(f"{path} is in use{_list(' by', users(path))}; end that first") from error
        raise CameraError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        yield device
    finally:
        os.close(device)


def users(path: str) -> list[str]:
    """The processes that have a device open, as far as we may see."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if folder.name == str(os.getpid()):
            continue
        try:
            if any(os.path.realpath(path) == str(link.readlink()) for link in (folder / "fd").iterdir()):
                found.append(f"{(folder / 'comm').read_text().strip()} (process {folder.name})")
        except OSError:
            continue
    return found


def describe(offered: list[Format]) -> str:
    """Formats for people: one line for each pixel format."""
    lines: dict[str, list[str]] = {}
    for one in offered:
        rates = "/".join(f"{rate:g}" for rate in one.rates)
        size = f"{one.size[0]}x{one.size[1]}"
        size = size if one.smallest is None else f"{one.smallest[0]}x{one.smallest[1]} to {size}"
        lines.setdefault(one.fourcc, []).append(size + (f" at {rates} Hz" if rates else ""))
    return "\n".join(f"  {fourcc}  {', '.join(sizes)}" for fourcc, sizes in lines.items())


def _is_camera(path: str) -> bool:
    try:
        with opened(path) as device:
            return _captures(device)
    except CameraError:
        return False


def _captures(device: int) -> bool:
    capability = bytearray(_CAPABILITY)
    try:
        fcntl.ioctl(device, QUERYCAP, capability)
    except OSError:
        return False
    # `device_caps` are those of this node; `capabilities` those of the whole device, which may have several.
    return bool(struct.unpack_from("<I", capability, 88)[0] & VIDEO_CAPTURE)


def _formats(device: int) -> Iterator[Format]:
    for description in _enumerate(device, ENUM_FMT, _FMTDESC, struct.pack("<II", 0, VIDEO_CAPTURE)):
        pixels = bytes(description[44:48])
        for answer in _enumerate(device, ENUM_FRAMESIZES, _FRMSIZE, b"\0\0\0\0" + pixels):
            kind, width, height = struct.unpack_from("<III", answer, 8)
            smallest = None
            if kind != DISCRETE:  # smallest, largest and step of the width, then of the height
                left, width, _, low, height, _ = struct.unpack_from("<6I", answer, 12)
                smallest = (low, left)
            rates = _rates(device, pixels, width, height)
            yield Format(pixels.decode("ascii", "replace"), (height, width), rates, smallest)
            if kind != DISCRETE:
                break


def _rates(device: int, pixels: bytes, width: int, height: int) -> tuple[float, ...]:
    rates = []
    head = b"\0\0\0\0" + pixels + struct.pack("<II", width, height)
    for answer in _enumerate(device, ENUM_FRAMEINTERVALS, _FRMIVAL, head):
        kind, numerator, denominator = struct.unpack_from("<III", answer, 16)
        if kind != DISCRETE:
            return ()
        rates.append(round(denominator / max(1, numerator), 2))
    return tuple(sorted(rates, reverse=True))


def _enumerate(device: int, request: int, size: int, head: bytes) -> Iterator[bytearray]:
    """The answers to a request for index 0, 1, …, with which its structure begins, until the device says no."""
    for index in range(1000):
        answer = bytearray(size)
        answer[: len(head)] = head
        struct.pack_into("<I", answer, 0, index)
        try:
            fcntl.ioctl(device, request, answer)
        except OSError:
            return
        yield answer


def _list(words: str, found: list[str]) -> str:
    return f"{words} {', '.join(found)}" if found else ""
