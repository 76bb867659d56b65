"""Keys in the terminal that this process runs in.

    w s  forward, back     a d  left, right      q e  up, down         (arrows and page up, page down do the same)
    i k  nose down, up     j l  turn left, right u o  roll left, right
    g    gripper           capital letters: slow
    Enter record   y success   n failure   x discard   z redo   t reset   h home   b give back   c clear   Space STOP
    v land, of a vehicle, which takes off by h

A terminal tells that a key was pressed, never that it was let go: while it is held, the terminal repeats it. So a press
moves the robot for `tap` seconds, and one that comes again within `repeat` seconds holds the motion until none has come
for `gap` seconds. Between a first press and its repetition (a quarter to half a second, by the terminal's settings) the
arm waits: it never goes on without the person. Of keys held at once the terminal repeats the last one alone. The web
page knows when keys are let go, and has neither limit.
"""

from __future__ import annotations

import numpy as np

from robot_rl.hardware.opened import Opened
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.graph import Graph
from robot_rl.hardware.teleop.device import ANGULAR_SPEED, LINEAR_SPEED, DeviceError, Reading
from robot_rl.hardware.terminal import Terminal

AXES = {
    "w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "q": (2, 1), "e": (2, -1),
    "u": (3, -1), "o": (3, 1), "i": (4, 1), "k": (4, -1), "j": (5, 1), "l": (5, -1),
}  # fmt: skip
"""Axis of the twist and sign of each key."""

KEYS = {
    "g": "gripper", "\n": "record", "\r": "record", "y": "success", "n": "failure", "x": "discard", "z": "redo",
    "t": "reset", "h": "home", "v": "land", "b": "release", "c": "clear", " ": "stop",
}  # fmt: skip

HELP = (
    "w/s forward/back  a/d left/right  q/e up/down  i/k j/l u/o rotate  g gripper  CAPITALS slow\n"
    "Enter record  y success  n failure  x discard  z redo  t reset  h home  b give back  c clear  SPACE EMERGENCY STOP"
)
FLIGHT_HELP = (
    "w/s forward/back  a/d left/right  q/e up/down  j/l turn  CAPITALS slow  h TAKE OFF, go home  v LAND\n"
    "Enter record  y success  n failure  x discard  z redo  b let it hold  c clear  SPACE EMERGENCY LANDING"
)

_ESCAPES = {
    "\x1b[A": "w", "\x1b[B": "s", "\x1b[D": "a", "\x1b[C": "d", "\x1b[5~": "q", "\x1b[6~": "e",
    "\x1bOA": "w", "\x1bOB": "s", "\x1bOD": "a", "\x1bOC": "d",
}  # fmt: skip


class Keyboard(Opened):
    """See above.

    Args:
        speed: of a held key, as a part of full deflection.
        tap, repeat, gap: see above [s].
        descriptor: of the terminal; default: the standard input.
    """

    name = "keyboard"

    def __init__(
        self,
        speed: float = 0.6,
        tap: float = 0.12,
        repeat: float = 0.7,
        gap: float = 0.15,
        descriptor: int | None = None,
    ) -> None:
        self._speed, self._tap, self._repeat, self._gap = speed, tap, repeat, gap
        self._terminal = Terminal(descriptor)
        self._until: dict[str, float] = {}
        self._pressed: dict[str, float] = {}
        self._slow = False
        self._words: list[str] = []

    def open(self) -> None:
        """Take the terminal's keys one by one, unseen. Raises `DeviceError` without a terminal."""
        try:
            self._terminal.open()
        except OSError as error:
            raise DeviceError(
                "keyboard: the standard input is no terminal; run it in one, or use device=web"
            ) from error

    def close(self) -> None:
        """Give the terminal back as it was."""
        self._terminal.close()

    def read(self, now: float) -> Reading:
        """What is held now."""
        for key in _split(self._terminal.keys()):
            self._press(key, now)
        held = [key for key, until in self._until.items() if now < until]
        twist = np.zeros(6)
        for key in held:
            axis, sign = AXES[key]
            twist[axis] += sign * self._speed * (LINEAR_SPEED if axis < 3 else ANGULAR_SPEED)
        return Reading(now, twist=twist, buttons=frozenset({"slow"}) if self._slow and held else frozenset())

    def events(self) -> list[str]:
        """Words since the last call."""
        words, self._words = self._words, []
        return words

    def _press(self, key: str, now: float) -> None:
        small = key.lower()
        if small in AXES:
            again = now - self._pressed.get(small, -np.inf) < self._repeat
            for other in self._until.keys() - {small}:
                if AXES[other][0] == AXES[small][0]:
                    self._until[other] = 0.0
            self._pressed[small], self._slow = now, key != small
            self._until[small] = now + (self._gap if again else self._tap)
        elif small in KEYS:
            self._words.append(KEYS[small])


def _split(text: str) -> list[str]:
    """Single keys, with the escape sequences of arrows as the letters that do the same."""
    keys, place = [], 0
    while place < len(text):
        found = next((escape for escape in _ESCAPES if text.startswith(escape, place)), None)
        if found:
            keys.append(_ESCAPES[found])
        elif text[place] == "\x1b":
            break  # another sequence: none of our keys
        else:
            keys.append(text[place])
        place += len(found) if found else 1
    return keys


def make(graph: Graph, robot: RobotFile | VehicleFile) -> Keyboard:
    """With the parameters `keyboard.speed`, `.tap`, `.repeat` and `.gap`."""
    chosen = {
        name: graph.parameter(f"keyboard.{name}", default, text, read_only=True).value
        for name, default, text in (
            ("speed", 0.6, "of a held key, as a part of full deflection"),
            ("tap", 0.12, "motion of a single press [s]"),
            ("repeat", 0.7, "within which a press counts as repeated [s]"),
            ("gap", 0.15, "without a repetition, after which the key counts as let go [s]"),
        )
    }
    for line in (FLIGHT_HELP if isinstance(robot, VehicleFile) else HELP).splitlines():
        graph.log.info("%s", line)
    return Keyboard(**chosen)
