"""What a person moves the robot with: one small interface for all devices.

    with device:                      # or open() and close()
        reading = device.read(now)    # the newest; None before the first, and when the device is lost
        for word in device.events():  # "record", "success", "gripper", …: each press once

A device says how it is moved in one of four ways, in SI units and radians:

| field            | shape | what                                                | while            |
|------------------|-------|-----------------------------------------------------|------------------|
| `twist`          | 6     | velocity m/s, rad/s; all zero at rest               | it is not zero   |
| `pose`           | 7     | where the device is; the robot follows how it moves | `clutch` is held |
| `target`         | 7     | where the end-effector shall be, in the base frame  | it is there      |
| `joint_position` | dof   | of a leader arm, under the robot's names and signs  | it has moved     |

Twist and pose are in the device's frame, FLU as it lies before the person: x forward, away from the person; y to the
left; z up; rotations right-handed about them. `Mapping` turns that into the robot's frame. Poses are x y z and a unit
quaternion wxyz.

The module of a device has `make(graph, robot) -> Device`; it declares its settings as ROS parameters `<device>.<key>`,
and is entered in `devices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np

LINEAR_SPEED = 0.25
"""Of a twist at full deflection [m/s]: a device that knows deflections from -1 to 1 multiplies by this."""

ANGULAR_SPEED = 1.0
"""The same for rotations [rad/s]."""

HELD = frozenset({"clutch", "takeover", "slow", "gripper"})
"""Buttons that count for as long as they are held: clutch (dead man of `pose`), takeover (from a policy), slow motion,
gripper (each press toggles it, or it is closed meanwhile)."""

WORDS = frozenset({
    "gripper", "record", "success", "failure", "discard", "redo", "reset", "home", "land", "release", "stop", "clear",
})  # fmt: skip
"""Words of `events()`. `gripper` opens or closes, `release` gives the robot back to the policy, `stop` is the emergency
stop, `clear` undoes it; a vehicle takes off by `home` and lands by `land`; the others are of a recording session."""


class DeviceError(RuntimeError):
    """The device is missing or may not be used; the message holds the command that mends it."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What a device says at one time; see the table above.

    Attributes:
        stamp: when it was measured [s], on the clock of `Device.read`.
        gripper: from 0 (closed) to 1 (open); None: the gripper is moved by the word `gripper`, if at all.
        buttons: those of `HELD` that are held now.
    """

    stamp: float
    twist: np.ndarray | None = None
    pose: np.ndarray | None = None
    target: np.ndarray | None = None
    joint_position: np.ndarray | None = None
    gripper: float | None = None
    buttons: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name, size in (("twist", 6), ("pose", 7), ("target", 7), ("joint_position", None)):
            given = getattr(self, name)
            if given is not None:
                values = np.asarray(given, float)
                if values.ndim != 1 or size not in (None, len(values)) or not np.isfinite(values).all():
                    raise ValueError(f"{name}: expected {size or 'some'} finite numbers, got {np.shape(given)} {given}")
                object.__setattr__(self, name, values)
        if self.gripper is not None and not 0.0 <= self.gripper <= 1.0:
            raise ValueError(f"gripper: expected a number from 0 (closed) to 1 (open), got {self.gripper}")


class Device(Protocol):
    """A device; every method is called by one thread. Whatever else it runs is its own affair."""

    name: str

    def open(self) -> None:
        """Begin to read. Raises `DeviceError` when it is missing or may not be used."""
        ...

    def read(self, now: float) -> Reading | None:
        """The newest reading, without waiting; `now` is the node's clock [s]. Never raises: a lost device gives None,
        or an old reading, and is looked for again."""
        ...

    def events(self) -> list[str]:
        """The words (of `WORDS`) that were pressed since the last call, in order."""
        ...

    def close(self) -> None:
        """End; twice is fine."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
