"""Registers of the STS3215 and its kin: where each lies, and what its number means.

A register of more than one byte has its low byte first. Numbers with a sign are sign and magnitude: the bit `sign` is
set when they are negative. EEPROM keeps its contents without power, wears out by writing, and takes them only while
`LOCK` is 0.

Sources: Feetech, "SMS/STS series memory table" (addresses, units, error bits, phase); LeRobot, `motors/feetech` (the
sign bit of the homing offset, which the table calls complex, and `position = encoder - homing offset`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

RESOLUTION = 4096
"""Ticks of a turn."""

RADIANS = 2.0 * math.pi / RESOLUTION
"""Of a tick."""

HALF_TURN = 2047
"""Where LeRobot's calibration puts the middle of every joint."""

FAST_UNIT = 50
"""Ticks/s in the unit of velocities of a servo whose phase has not the bit `FINE_VELOCITY` (0.732 turns/min)."""

FINE_VELOCITY = 4
"""Bit of `PHASE`: velocities count in ticks/s (0.0146 turns/min)."""

ERRORS = {0: "voltage", 1: "encoder", 2: "overheated", 3: "overcurrent", 5: "overload"}
"""Bits of the error byte of every status packet, and of the register `STATUS`."""

BAUD_RATES = (1_000_000, 500_000, 250_000, 128_000, 115_200, 76_800, 57_600, 38_400)
"""By the number in the register `BAUD_RATE`."""


class Register(NamedTuple):
    """One register.

    Attributes:
        address, size: where it lies, in bytes.
        sign: number of the bit that says negative; None: there are no negative numbers.
        eeprom: it is kept without power.
    """

    address: int
    size: int = 1
    sign: int | None = None
    eeprom: bool = False

    def encode(self, value: int) -> bytes:
        """Bytes of a number. Raises ValueError when it does not fit."""
        largest = (1 << (8 * self.size if self.sign is None else self.sign)) - 1
        if abs(value) > largest or (value < 0 and self.sign is None):
            raise ValueError(f"register {self.address}: {value} is not within ±{largest}")
        raw = abs(value) | (1 << self.sign if value < 0 and self.sign is not None else 0)
        return raw.to_bytes(self.size, "little")

    def decode(self, data: bytes) -> int:
        """The number in bytes."""
        raw = int.from_bytes(data[: self.size], "little")
        if self.sign is None:
            return raw
        magnitude = raw & ((1 << self.sign) - 1)
        return -magnitude if raw >> self.sign & 1 else magnitude


MODEL = Register(3, 2)
ID = Register(5, eeprom=True)
BAUD_RATE = Register(6, eeprom=True)
RETURN_DELAY = Register(7, eeprom=True)
MIN_POSITION = Register(9, 2, eeprom=True)
MAX_POSITION = Register(11, 2, eeprom=True)
MAX_TEMPERATURE = Register(13, eeprom=True)
MAX_TORQUE = Register(16, 2, eeprom=True)
PHASE = Register(18, eeprom=True)
HOMING_OFFSET = Register(31, 2, sign=11, eeprom=True)
OPERATING_MODE = Register(33, eeprom=True)
TORQUE_ENABLE = Register(40)
ACCELERATION = Register(41)
GOAL_POSITION = Register(42, 2, sign=15)
TORQUE_LIMIT = Register(48, 2)
LOCK = Register(55)
PRESENT_POSITION = Register(56, 2, sign=15)
PRESENT_VELOCITY = Register(58, 2, sign=15)
PRESENT_LOAD = Register(60, 2, sign=10)
PRESENT_VOLTAGE = Register(62)
PRESENT_TEMPERATURE = Register(63)
PRESENT_CURRENT = Register(69, 2, sign=15)

SETTINGS = {
    "return_delay": RETURN_DELAY,  # 2 µs
    "max_temperature": MAX_TEMPERATURE,  # °C
    "max_torque": MAX_TORQUE,  # 0.1 %
    "p_gain": Register(21, eeprom=True),
    "d_gain": Register(22, eeprom=True),
    "i_gain": Register(23, eeprom=True),
    "protection_current": Register(28, 2, eeprom=True),  # 6.5 mA
    "protective_torque": Register(34, eeprom=True),  # %, after an overload
    "protection_time": Register(35, eeprom=True),  # 10 ms
    "overload_torque": Register(36, eeprom=True),  # %
    "acceleration": ACCELERATION,  # 100 ticks/s²; 0: the largest
}
"""What a robot's file may set, by name."""

STS3215 = 777
"""The model number."""

FULL_TORQUE = 1000
"""In `TORQUE_LIMIT`: 0.1 %."""

CURRENT_UNIT = 6.5e-3
"""Of `PRESENT_CURRENT` [A]."""


def errors(bits: int) -> list[str]:
    """The words for error bits."""
    return [ERRORS.get(bit, f"error bit {bit}") for bit in range(8) if bits >> bit & 1]
