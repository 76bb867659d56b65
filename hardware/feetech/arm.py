"""An arm on the bus: angles by the robot's names and signs, in radians, on top of ids and ticks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from robot_rl.hardware.feetech import calibration, registers
from robot_rl.hardware.feetech.bus import Bus, BusError
from robot_rl.hardware.feetech.calibration import Calibration
from robot_rl.hardware.feetech.registers import FULL_TORQUE, RADIANS, SETTINGS, Register
from robot_rl.hardware.robot_file import Driver

_BLOCK = registers.TORQUE_ENABLE.address
_BLOCK_SIZE = registers.PRESENT_CURRENT.address + registers.PRESENT_CURRENT.size - _BLOCK


class State(NamedTuple):
    """What all servos said in one round of the bus, in the order of the driver's motors.

    Attributes:
        stamp: the middle of the round, on the clock of `Arm` [s].
        position: [n] rad.
        velocity: [n] rad/s.
        load: part of the full drive, with its sign [n].
        current: [n] A.
        voltage: [n] V.
        temperature: [n] °C.
        torque: whether each holds [n].
        errors: bits of each, see `registers.ERRORS` [n].
    """

    stamp: float
    position: np.ndarray
    velocity: np.ndarray
    load: np.ndarray
    current: np.ndarray
    voltage: np.ndarray
    temperature: np.ndarray
    torque: np.ndarray
    errors: np.ndarray


class Arm:
    """See above.

    Args:
        bus: with all of the motors.
        driver: of the robot's file.
        joints: the calibration of this arm.
        clock: that stamps are on [s].

    Attributes:
        names: of the motors, in the order of all arrays.
        lower, upper: ends of their ranges [n] rad.
    """

    def __init__(self, bus: Bus, driver: Driver, joints: Calibration, clock: Callable[[], float] = time.time) -> None:
        self.bus, self.names = bus, tuple(driver.motors)
        self._motors = [driver.motors[name] for name in self.names]
        self._joints = [joints[name] for name in self.names]
        self._clock = clock
        self.ids = [motor.id for motor in self._motors]
        ends = np.array([
            [joint.radians(end, motor) for end in (joint.range_min, joint.range_max)]
            for joint, motor in zip(self._joints, self._motors, strict=True)
        ])  # fmt: skip
        self.lower, self.upper = ends.min(1), ends.max(1)
        self._signs = np.array([-1.0 if joint.drive_mode else 1.0 for joint in self._joints])
        self._units = np.ones(len(self.ids))

    def check(self) -> None:
        """Every servo answers and holds this calibration. Nothing moves, nothing is written.

        Raises:
            BusError: servos are missing, or other ones.
            CalibrationError: the calibration is that of another arm.
        """
        named = zip(self.names, self.ids, strict=True)
        missing = [f"{name} ({servo})" for name, servo in named if not self.bus.ping(servo)]
        if missing:
            there = len(self.ids) - len(missing)
            raise BusError(
                f"{self.bus.port}: {there} of {len(self.ids)} servos answer; missing: {', '.join(missing)}. Is the "
                "power on, are all cables plugged in? New servos need their ids first: `robot-rl robots setup`"
            )
        calibration.check(self.bus, dict(zip(self.names, self._joints, strict=True)))
        phases = np.array([self.bus.read(servo, registers.PHASE) for servo in self.ids])
        self._units = np.where(phases & registers.FINE_VELOCITY, 1, registers.FAST_UNIT)

    def configure(self) -> None:
        """Set what the robot's file says, where the servos do not hold it yet. Raises `BusError`."""
        for servo, motor in zip(self.ids, self._motors, strict=True):
            wanted = {SETTINGS[name]: value for name, value in motor.settings.items()}
            eeprom = {register: value for register, value in wanted.items() if register.eeprom}
            calibration.write_eeprom(self.bus, servo, {registers.OPERATING_MODE: 0, **eeprom})
            for register, value in wanted.items():
                if not register.eeprom:
                    self.bus.write(servo, register, value)

    def read(self) -> State:
        """One round of the bus. Raises `BusError` when a servo is silent: half an arm is no observation."""
        began = self._clock()
        answers = self.bus.sync_read(self.ids, _BLOCK, _BLOCK_SIZE)
        ended = self._clock()
        data = [answers[servo].data for servo in self.ids]

        def column(register: Register) -> np.ndarray:
            at = register.address - _BLOCK
            return np.array([register.decode(part[at : at + register.size]) for part in data], float)

        ticks = column(registers.PRESENT_POSITION)
        return State(
            0.5 * (began + ended),
            np.array([j.radians(t, m) for j, t, m in zip(self._joints, ticks, self._motors, strict=True)], float),
            column(registers.PRESENT_VELOCITY) * self._units * self._signs * RADIANS,
            column(registers.PRESENT_LOAD) * self._signs * 1e-3,
            column(registers.PRESENT_CURRENT) * registers.CURRENT_UNIT,
            column(registers.PRESENT_VOLTAGE) * 0.1,
            column(registers.PRESENT_TEMPERATURE),
            column(registers.TORQUE_ENABLE) == 1,
            np.array([answers[servo].errors for servo in self.ids]),
        )

    def move(self, position: np.ndarray, only: Sequence[bool] | np.ndarray | None = None) -> None:
        """Have servos go to angles [n] rad, within their ranges. One that has no torque gets it by that.

        Args:
            only: which [n]; None: all.
        """
        goals = self._goals(position)
        chosen = np.ones(len(self.ids), bool) if only is None else np.asarray(only)
        values = {servo: goal for servo, goal, use in zip(self.ids, goals, chosen, strict=True) if use}
        if values:
            self.bus.sync_write(registers.GOAL_POSITION, values)

    def hold(self, position: np.ndarray) -> None:
        """Give all servos torque, at angles [n] rad. Raises `BusError`."""
        # A goal that is left from before would be gone to at once.
        self.bus.sync_write(registers.TORQUE_LIMIT, dict.fromkeys(self.ids, FULL_TORQUE))
        self.move(position)
        for servo in self.ids:
            self.bus.write(servo, registers.TORQUE_ENABLE, 1)

    def weaken(self, part: float) -> None:
        """Limit the torque of all servos to a part of the full one, from 0 to 1."""
        self.bus.sync_write(registers.TORQUE_LIMIT, dict.fromkeys(self.ids, round(FULL_TORQUE * part)))

    def release(self) -> None:
        """Take the torque away. Raises `BusError`, after having tried with every servo."""
        problem: BusError | None = None
        for servo in self.ids:
            try:
                self.bus.write(servo, registers.TORQUE_ENABLE, 0)
            except BusError as error:
                problem = error
        if problem is not None:
            raise problem

    def parts(self, state: State) -> dict[str, float]:
        """Where in its range each joint is, from 0 (lower end) to 1, by name."""
        where = zip(self.names, self._joints, self._motors, state.position, strict=True)
        return {name: joint.part(float(joint.ticks(angle, motor))) for name, joint, motor, angle in where}

    def _goals(self, position: np.ndarray) -> list[int]:
        joints = zip(self._joints, self._motors, position, strict=True)
        return [
            int(np.clip(np.rint(joint.ticks(angle, motor)), joint.range_min, joint.range_max))
            for joint, motor, angle in joints
        ]
