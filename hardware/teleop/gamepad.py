"""A gamepad or joystick, read as Linux's own event device (evdev) with a mapping file; needs no package.

Each event is `struct input_event`: seconds and microseconds (two longs), type, code (16 bits), value (32 bits). Ranges
of axes come from the device (`EVIOCGABS`), so that every axis deflects from -1 to 1. See linux/input-event-codes.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robot_rl.hardware.opened import Opened
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.graph import Graph
from robot_rl.hardware.teleop.control_map import ControlMap, directions, pressed
from robot_rl.hardware.teleop.device import DeviceError, Reading

EVENT = struct.Struct("@llHHi")
_KEY, _ABS = 1, 3

AXES = {
    0: "ABS_X", 1: "ABS_Y", 2: "ABS_Z", 3: "ABS_RX", 4: "ABS_RY", 5: "ABS_RZ", 6: "ABS_THROTTLE", 7: "ABS_RUDDER",
    9: "ABS_GAS", 10: "ABS_BRAKE", 16: "ABS_HAT0X", 17: "ABS_HAT0Y",
}  # fmt: skip
BUTTONS = {
    0x120: "BTN_TRIGGER", 0x121: "BTN_THUMB", 0x122: "BTN_THUMB2", 0x123: "BTN_TOP", 0x124: "BTN_TOP2",
    0x130: "BTN_SOUTH", 0x131: "BTN_EAST", 0x133: "BTN_NORTH", 0x134: "BTN_WEST", 0x136: "BTN_TL", 0x137: "BTN_TR",
    0x138: "BTN_TL2", 0x139: "BTN_TR2", 0x13A: "BTN_SELECT", 0x13B: "BTN_START", 0x13C: "BTN_MODE",
    0x13D: "BTN_THUMBL", 0x13E: "BTN_THUMBR",
}  # fmt: skip

GROUP = "sudo usermod -aG input $USER   # then log in again"
RULE = (
    'echo \'SUBSYSTEM=="input", ENV{ID_INPUT_JOYSTICK}=="1", MODE="0660", TAG+="uaccess"\' | '
    "sudo tee /etc/udev/rules.d/70-gamepad.rules && sudo udevadm control --reload && sudo udevadm trigger"
)

LOOK = 1.0
"""Between two looks for a device that was lost [s]."""


class Controls:
    """The state of all controls by their events.

    Args:
        ranges: of axes, lowest and highest value; default: signed 16 bits.
    """

    def __init__(self, ranges: Mapping[str, tuple[int, int]] | None = None) -> None:
        self._ranges = dict(ranges or {})
        self.axes: dict[str, float] = {}
        self.held: set[str] = set()

    def take(self, data: bytes) -> None:
        """Events, one after the other; others than of known axes and buttons are left out."""
        for *_, kind, code, value in EVENT.iter_unpack(data[: len(data) // EVENT.size * EVENT.size]):
            if kind == _ABS and code in AXES:
                low, high = self._ranges.get(AXES[code], (-1, 1) if code in (16, 17) else (-32768, 32767))
                self.axes[AXES[code]] = float(np.clip((2.0 * value - low - high) / max(high - low, 1), -1.0, 1.0))
            elif kind == _KEY and code in BUTTONS:
                (self.held.add if value else self.held.discard)(BUTTONS[code])


class Gamepad(Opened):
    """See above.

    Args:
        controls: which does what.
        path: of the event device; empty: the first joystick that there is.
    """

    name = "gamepad"

    def __init__(self, controls: ControlMap, path: str = "") -> None:
        self._map, self._path = controls, path
        self._descriptor: int | None = None
        self._state, self._before = Controls(), set[str]()
        self._looked = -np.inf
        self._words: list[str] = []

    def open(self) -> None:
        """Raises `DeviceError` with the command that mends it."""
        path = self._path or _find()
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except PermissionError as error:
            raise DeviceError(f"gamepad: you may not read {path}. Allow it, once:\n  {RULE}\nor {GROUP}") from error
        except OSError as error:
            raise DeviceError(f"gamepad: {path} cannot be opened: {error}; `ls /dev/input/by-id`") from error
        self._state, self._before = Controls(_ranges(self._descriptor, AXES)), set()

    def close(self) -> None:
        """Let go of the device."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def read(self, now: float) -> Reading | None:
        """How the controls are; None while the device is unplugged."""
        if self._descriptor is None and not self._reconnect(now):
            return None
        assert self._descriptor is not None
        try:
            while data := os.read(self._descriptor, 64 * EVENT.size):
                self._state.take(data)
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return None
        held = self._state.held | directions(self._state.axes)
        self._words += pressed(self._map.said(held - self._before))
        self._before = held
        return self._map.reading(now, self._state.axes, held)

    def events(self) -> list[str]:
        """Words since the last call."""
        words, self._words = self._words, []
        return words

    def _reconnect(self, now: float) -> bool:
        if now - self._looked < LOOK:
            return False
        self._looked = now
        try:
            self.open()
        except DeviceError:
            return False
        return True


def make(graph: Graph, robot: RobotFile | VehicleFile) -> Gamepad:
    """With the parameters `gamepad.mapping` and `gamepad.path`."""
    default = "flight" if isinstance(robot, VehicleFile) else "gamepad"
    mapping = graph.parameter("gamepad.mapping", default, "mapping file, by name or path", read_only=True).value
    path = graph.parameter("gamepad.path", "", "/dev/input/event…; empty: the first joystick", read_only=True).value
    return Gamepad(ControlMap.load(mapping), path)


def _find() -> str:
    for folder in ("by-id", "by-path"):
        found = sorted(Path(f"/dev/input/{folder}").glob("*-event-joystick"))
        if found:
            return str(found[0])
    raise DeviceError(
        "gamepad: none is plugged in (no /dev/input/by-id/*-event-joystick). Plug it in or pair it; in a container, "
        "pass /dev/input on. With another name: settings={gamepad.path: /dev/input/event5}"
    )


def _ranges(descriptor: int, axes: Mapping[int, str]) -> dict[str, tuple[int, int]]:
    """Lowest and highest value of each axis that the device has, as it says."""
    import fcntl

    found = {}
    for code, name in axes.items():
        info = bytearray(24)  # struct input_absinfo: value, minimum, maximum, fuzz, flat, resolution
        try:
            fcntl.ioctl(descriptor, 2 << 30 | 24 << 16 | ord("E") << 8 | 0x40 + code, info)
        except OSError:
            continue
        _, low, high, *_ = struct.unpack("6i", info)
        if low < high:
            found[name] = low, high
    return found
