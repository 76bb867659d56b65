"""3Dconnexion SpaceMouse: a cap that is pushed and turned along all six axes.

Its HID reports (little endian, first byte the report's number):

| report | bytes after the number                 | what                                             |
|--------|----------------------------------------|--------------------------------------------------|
| 1      | three or six signed 16-bit numbers     | translation x y z, of newer models also rotation |
| 2      | three signed 16-bit numbers            | rotation about x y z                             |
| 3      | bit field                              | buttons                                          |

Full deflection is about 350. The device's x points right, y towards the person, z down, rotations right-handed about
them; that is FLU turned by half a turn about the axis between forward and left, so x' = -y, y' = -x, z' = -z.

On Linux the device is read as `/dev/hidraw*`; elsewhere by the package `hidapi` (extra `spacemouse`).
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from robot_rl.hardware.opened import Opened
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.graph import Graph
from robot_rl.hardware.teleop.control_map import pressed
from robot_rl.hardware.teleop.device import ANGULAR_SPEED, HELD, LINEAR_SPEED, DeviceError, Reading

FULL = 350.0
"""Deflection that counts as full."""

VENDORS = {0x256F: "3Dconnexion", 0x046D: "Logitech"}
"""3Dconnexion's own id, and Logitech's for models until about 2013, which share it with mice and keyboards."""

LOGITECH_MODELS = {0xC603, 0xC605, 0xC606, 0xC621, 0xC623, 0xC625, 0xC626, 0xC627, 0xC628, 0xC629, 0xC62B}

RULE = (
    'echo \'KERNEL=="hidraw*", ATTRS{idVendor}=="256f", MODE="0660", TAG+="uaccess"\\n'
    'KERNEL=="hidraw*", ATTRS{idVendor}=="046d", MODE="0660", TAG+="uaccess"\' | '
    "sudo tee /etc/udev/rules.d/70-spacemouse.rules && sudo udevadm control --reload && sudo udevadm trigger"
)

SILENT = 0.5
"""A deflected cap reports all the time; without a report for so long it is taken to be at rest [s]."""

LOOK = 1.0
"""Between two looks for a device that was lost [s]."""


class Reports:
    """The state of the device by its reports.

    Attributes:
        deflection: as the device counts, translation over rotation, [6].
        buttons: bit field.
    """

    def __init__(self) -> None:
        self.deflection = np.zeros(6)
        self.buttons = 0

    def take(self, report: bytes) -> bool:
        """The next report; whether it was understood."""
        if len(report) < 2:
            return False
        number, body = report[0], report[1:]
        if number == 1 and len(body) >= 12:
            self.deflection[:] = struct.unpack_from("<6h", body)
        elif number in (1, 2) and len(body) >= 6:
            self.deflection[3 * (number - 1) : 3 * number] = struct.unpack_from("<3h", body)
        elif number == 3:
            self.buttons = int.from_bytes(body[:4], "little")
        else:
            return False
        return True

    @property
    def twist(self) -> np.ndarray:
        """Twist [6] in m/s and rad/s, FLU."""
        part = np.clip(self.deflection / FULL, -1.0, 1.0)
        order = [1, 0, 2, 4, 3, 5]
        twist: np.ndarray = -part[order] * np.repeat([LINEAR_SPEED, ANGULAR_SPEED], 3)
        return twist


class SpaceMouse(Opened):
    """See above.

    Args:
        buttons: what each does, from the first on: of `HELD` or `WORDS`.
        connect: opens the device; gives a function that returns the next report, b"" when there is none yet, and raises
            OSError when the device is gone; and one that closes it.
    """

    name = "spacemouse"

    def __init__(
        self, buttons: Sequence[str] = ("gripper", "takeover"),
        connect: Callable[[], tuple[Callable[[], bytes], Callable[[], None]]] | None = None,
    ) -> None:  # fmt: skip
        self._names, self._connect = tuple(buttons), connect or _connect
        self._next: Callable[[], bytes] | None = None
        self._release: Callable[[], None] = lambda: None
        self._reports, self._heard, self._looked = Reports(), -np.inf, -np.inf
        self._words: list[str] = []

    def open(self) -> None:
        """Raises `DeviceError` with the udev rule that mends it."""
        self._next, self._release = self._connect()
        self._reports = Reports()

    def close(self) -> None:
        """Let go of the device."""
        if self._next is not None:
            self._next = None
            self._release()

    def read(self, now: float) -> Reading | None:
        """How the cap is deflected; None while the device is unplugged."""
        if self._next is None and not self._reconnect(now):
            return None
        assert self._next is not None
        before = self._reports.buttons
        try:
            while report := self._next():
                if self._reports.take(report):
                    self._heard = now
        except OSError:
            self.close()
            return None
        if now - self._heard > SILENT:
            self._reports.deflection[:] = 0.0
        held = self._held(self._reports.buttons)
        self._words += pressed(self._held(self._reports.buttons & ~before))
        return Reading(now, twist=self._reports.twist, buttons=frozenset(held) & HELD)

    def events(self) -> list[str]:
        """Words since the last call."""
        words, self._words = self._words, []
        return words

    def _held(self, bits: int) -> list[str]:
        return [name for bit, name in enumerate(self._names) if bits >> bit & 1]

    def _reconnect(self, now: float) -> bool:
        if now - self._looked < LOOK:
            return False
        self._looked = now
        try:
            self.open()
        except DeviceError:
            return False
        return True


def make(graph: Graph, robot: RobotFile | VehicleFile) -> SpaceMouse:
    """With the parameter `spacemouse.buttons`."""
    text = "what each button does, from the first on"
    return SpaceMouse(graph.parameter("spacemouse.buttons", ["gripper", "takeover"], text, read_only=True).value)


def is_spacemouse(vendor: int, product: int) -> bool:
    """Whether an id is that of such a device."""
    return vendor == 0x256F or (vendor == 0x046D and product in LOGITECH_MODELS)


def _connect() -> tuple[Callable[[], bytes], Callable[[], None]]:
    return _connect_hidraw() if sys.platform == "linux" else _connect_hidapi()


def _connect_hidraw(folder: Path = Path("/sys/class/hidraw")) -> tuple[Callable[[], bytes], Callable[[], None]]:
    for entry in sorted(folder.glob("hidraw*")):
        # HID_ID=0003:0000256F:0000C635
        facts = dict(line.split("=", 1) for line in (entry / "device/uevent").read_text().splitlines() if "=" in line)
        ids = facts.get("HID_ID", "0:0:0").split(":")
        if is_spacemouse(int(ids[1], 16), int(ids[2], 16)):
            return _open_hidraw(Path("/dev") / entry.name, facts.get("HID_NAME", "SpaceMouse"))
    raise DeviceError(
        "spacemouse: none is plugged in (3Dconnexion, USB id 256f). Plug it in; `lsusb | grep 256f` shows it. "
        "In a container, pass the device on: --device /dev/hidraw0"
    )


def _open_hidraw(path: Path, name: str) -> tuple[Callable[[], bytes], Callable[[], None]]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError as error:
        raise DeviceError(f"spacemouse: {name} is {path}, which you may not read. Allow it, once:\n  {RULE}") from error
    except OSError as error:
        raise DeviceError(f"spacemouse: {name} is {path}, which cannot be opened: {error}") from error

    def report() -> bytes:
        try:
            return os.read(descriptor, 64)
        except BlockingIOError:
            return b""

    return report, lambda: os.close(descriptor)


def _connect_hidapi() -> tuple[Callable[[], bytes], Callable[[], None]]:
    try:
        import hid
    except ImportError as error:
        raise DeviceError('spacemouse: the package hidapi is missing: pip install "robot_rl[spacemouse]"') from error
    found = next((e for e in hid.enumerate() if is_spacemouse(e["vendor_id"], e["product_id"])), None)
    if found is None:
        raise DeviceError("spacemouse: none is plugged in (3Dconnexion)")
    device = hid.device()
    try:
        device.open_path(found["path"])
    except OSError as error:
        raise DeviceError(f"spacemouse: it cannot be opened: {error}; end 3DxWare, which may hold it") from error
    device.set_nonblocking(True)
    return lambda: bytes(device.read(64)), device.close
