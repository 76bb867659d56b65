"""The calibration of an arm: where each joint's zero lies, and how far it turns.

The method is LeRobot's: with every joint in the middle of its range, `homing_offset` makes the servo count `HALF_TURN`
there; then each joint is moved from one end to the other, which gives `range_min` and `range_max`. So is the file, JSON
by joint; either program reads that of the other. Both parts are also written into the servos, which then refuse to go
beyond the range. A file that does not say the same as the servos belongs to another arm, and nothing moves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from robot_rl.hardware.feetech import registers
from robot_rl.hardware.feetech.bus import Bus
from robot_rl.hardware.feetech.registers import HALF_TURN, RADIANS, RESOLUTION, Register
from robot_rl.hardware.robot_file import Motor

SMALLEST_RANGE = 170
"""Ticks (15°) that every joint has to be moved at least."""

ENOUGH = 0.85
"""Part of the range by the robot's file that has to be reached, or else zero is not in the middle of the joint."""


class CalibrationError(ValueError):
    """There is no calibration, it is not valid, or it does not fit the arm; the message says what to do."""


@dataclass(frozen=True)
class JointCalibration:
    """Of one joint.

    Attributes:
        id: of the servo.
        drive_mode: 1: the joint turns the other way than the servo counts.
        homing_offset: ticks that the servo takes off what its encoder says.
        range_min, range_max: ends of the range, in ticks as the servo counts.
    """

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int

    def radians(self, ticks: np.ndarray | float, motor: Motor) -> np.ndarray:
        """Angles [rad] by the servo's count."""
        sign, zero = self._scale(motor)
        return (np.asarray(ticks, float) - zero) * (sign * RADIANS)

    def ticks(self, radians: np.ndarray | float, motor: Motor) -> np.ndarray:
        """The servo's count by angles [rad]; not rounded, not limited."""
        sign, zero = self._scale(motor)
        return np.asarray(radians, float) / (sign * RADIANS) + zero

    def part(self, ticks: float) -> float:
        """Where in the range, from 0 (lower end) to 1."""
        part = (ticks - self.range_min) / (self.range_max - self.range_min)
        return float(np.clip(1.0 - part if self.drive_mode else part, 0.0, 1.0))

    def _scale(self, motor: Motor) -> tuple[int, float]:
        sign = -1 if self.drive_mode else 1
        if motor.lower is None:
            return sign, 0.5 * (self.range_min + self.range_max)
        end = self.range_max if self.drive_mode else self.range_min
        return sign, end - motor.lower / (sign * RADIANS)


Calibration = Mapping[str, JointCalibration]


def place(name: str) -> Path:
    """The file of an arm: the path where `name` is one, else by name in the user's own folder."""
    if name.endswith(".json"):
        return Path(name).expanduser()
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "robot_rl" / "calibration" / f"{name}.json"


def load(path: Path, motors: Mapping[str, Motor]) -> dict[str, JointCalibration]:
    """Read and validate a calibration.

    Raises:
        CalibrationError: there is none, or it is not one of these motors.
    """
    try:
        plain = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CalibrationError(
            f"this arm is not calibrated: there is no {path}. Run `robot-rl robots calibrate`, or give LeRobot's "
            "file as calibration="
        ) from error
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path} cannot be read: {error}") from error
    names = {item.name for item in fields(JointCalibration)}
    if not isinstance(plain, dict) or set(plain) != set(motors):
        has = list(plain) if isinstance(plain, dict) else type(plain).__name__
        raise CalibrationError(f"{path}: expected the joints {list(motors)}, got {has}")
    found = {}
    for name, values in plain.items():
        if not isinstance(values, dict) or set(values) != names or not all(type(v) is int for v in values.values()):
            raise CalibrationError(f"{path}: {name}: expected whole numbers {sorted(names)}, got {values}")
        found[name] = JointCalibration(**values)
    validate(found, motors, str(path))
    return found


def save(calibration: Calibration, path: Path) -> None:
    """Write a calibration, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({name: asdict(joint) for name, joint in calibration.items()}, indent=4) + "\n")
    beside.replace(path)


def validate(calibration: Calibration, motors: Mapping[str, Motor], source: str) -> None:
    """Raises `CalibrationError` naming the joint whose numbers cannot be."""
    for name, joint in calibration.items():
        if joint.id != motors[name].id:
            raise CalibrationError(f"{source}: {name} has id {joint.id}, by the robot's file {motors[name].id}")
        if not 0 <= joint.range_min < joint.range_max < RESOLUTION:
            raise CalibrationError(
                f"{source}: {name}: expected 0 <= range_min < range_max < {RESOLUTION}, got {joint.range_min} and "
                f"{joint.range_max}"
            )
        if joint.range_max - joint.range_min < SMALLEST_RANGE:
            raise CalibrationError(f"{source}: {name} has moved {joint.range_max - joint.range_min} ticks only")
        if joint.drive_mode not in (0, 1) or abs(joint.homing_offset) > HALF_TURN:
            raise CalibrationError(f"{source}: {name}: drive_mode is 0 or 1, homing_offset within ±{HALF_TURN}")


def check(bus: Bus, calibration: Calibration) -> None:
    """Compare a calibration with what the servos hold.

    Raises:
        CalibrationError: it is that of another arm, or the servos were changed since.
        BusError: servos do not answer.
    """
    for name, joint in calibration.items():
        for register, expected in _registers(joint):
            if (held := bus.read(joint.id, register)) != expected:
                raise CalibrationError(
                    f"{name} (servo {joint.id}) holds {held} where the calibration says {expected}: it is that of "
                    "another arm, or the arm was calibrated since. Name the right one as calibration=, or calibrate"
                )


class Procedure:
    """Calibrates an arm by hand: `begin`, then with all joints in the middle `set_middle`, then `observe` again and
    again while each joint is moved from end to end, then `finish`.

    Args:
        bus: of the arm.
        motors: of the arm.
        expected: ranges by the robot's file [rad], of the joints that are to reach them.
    """

    def __init__(self, bus: Bus, motors: Mapping[str, Motor], expected: Mapping[str, float] | None = None) -> None:
        self._bus, self._motors, self._expected = bus, motors, dict(expected or {})
        self._offsets: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self.lowest: dict[str, int] = {}
        self.highest: dict[str, int] = {}

    def begin(self) -> None:
        """Take the torque away, and let the servos count as their encoders do. Raises `BusError`."""
        for motor in self._motors.values():
            self._bus.write(motor.id, registers.TORQUE_ENABLE, 0)
            bare = JointCalibration(motor.id, 0, 0, 0, RESOLUTION - 1)
            write_eeprom(self._bus, motor.id, {registers.OPERATING_MODE: 0, **dict(_registers(bare))})

    def set_middle(self) -> None:
        """All joints are in the middle of their ranges now. Raises `BusError`."""
        for name, motor in self._motors.items():
            # The register holds half a turn less one tick each way.
            self._offsets[name] = min(self._bus.read(motor.id, registers.PRESENT_POSITION) - HALF_TURN, HALF_TURN)
            write_eeprom(self._bus, motor.id, {registers.HOMING_OFFSET: self._offsets[name]})
        self._last = {}
        self.lowest, self.highest = {}, {}
        self.observe()

    def observe(self) -> dict[str, int]:
        """Where the joints are, in ticks.

        Raises:
            CalibrationError: a joint has gone beyond where the servo begins to count anew.
            BusError: a servo does not answer.
        """
        here = {name: self._bus.read(motor.id, registers.PRESENT_POSITION) for name, motor in self._motors.items()}
        for name, ticks in here.items():
            if self._motors[name].range == "measured" and abs(ticks - self._last.get(name, ticks)) > RESOLUTION // 2:
                raise CalibrationError(
                    f"{name} was not in the middle of its range when the middle was set: on its way to one end the "
                    "servo begins to count anew. Begin again"
                )
            self.lowest[name] = min(ticks, self.lowest.get(name, ticks))
            self.highest[name] = max(ticks, self.highest.get(name, ticks))
        self._last = here
        return here

    def finish(self) -> dict[str, JointCalibration]:
        """The calibration, written into the servos.

        Raises:
            CalibrationError: a joint was not moved from end to end.
            BusError: a servo does not answer.
        """
        found = {}
        for name, motor in self._motors.items():
            low, high = (0, RESOLUTION - 1) if motor.range == "full" else (self.lowest[name], self.highest[name])
            found[name] = JointCalibration(motor.id, 0, self._offsets[name], low, high)
            if motor.range == "measured" and (high - low) * RADIANS < ENOUGH * self._expected.get(name, 0.0):
                raise CalibrationError(
                    f"{name} was moved {np.degrees((high - low) * RADIANS):.0f}° of about "
                    f"{np.degrees(self._expected[name]):.0f}°: move it from one end to the other"
                )
        validate(found, self._motors, "calibration")
        for joint in found.values():
            write_eeprom(self._bus, joint.id, dict(_registers(joint)))
        return found


def write_eeprom(bus: Bus, servo: int, values: Mapping[Register, int]) -> None:
    """Write what a servo does not hold yet. Raises `BusError`."""
    changed = {register: value for register, value in values.items() if bus.read(servo, register) != value}
    if changed:
        bus.write(servo, registers.LOCK, 0)
        for register, value in changed.items():
            bus.write(servo, register, value)
        bus.write(servo, registers.LOCK, 1)


def _registers(joint: JointCalibration) -> list[tuple[Register, int]]:
    return [
        (registers.HOMING_OFFSET, joint.homing_offset), (registers.MIN_POSITION, joint.range_min),
        (registers.MAX_POSITION, joint.range_max),
    ]  # fmt: skip
