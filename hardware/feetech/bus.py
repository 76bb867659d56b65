"""The bus: instructions go out by a serial port, answers come back or are asked for again.

Only packets with a right checksum, from a servo that was asked, and of the size that was asked for count. What is
missing after a short wait is asked for again, up to `ATTEMPTS` times in all.
"""

from __future__ import annotations

import select
import termios
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robot_rl.hardware.feetech import packet, registers
from robot_rl.hardware.feetech.packet import LARGEST_ID, Status
from robot_rl.hardware.feetech.registers import Register

ATTEMPTS = 3
"""How often something is asked for, in all."""

PATIENCE = 0.02
"""How long the next bytes of an answer may take [s]; the slowest USB adapters wait for 16 ms."""

GLANCE = 0.006
"""The same while ids are looked for, of which most do not exist [s]."""

USB_VENDORS = {"1a86": "WCH, as on Waveshare's and Feetech's boards", "0403": "FTDI", "10c4": "Silicon Labs"}
"""Makers of the USB chips on servo boards."""

RULE = (
    'echo \'SUBSYSTEM=="tty", ATTRS{idVendor}=="1a86", MODE="0660", TAG+="uaccess"\' | '
    "sudo tee /etc/udev/rules.d/70-feetech.rules && sudo udevadm control --reload && sudo udevadm trigger"
)
GROUP = "sudo usermod -aG dialout $USER   # then log in again"


GONE = (OSError, termios.error, ValueError, TypeError)
"""What pyserial raises when a cable was pulled, by where it notices."""


class BusError(RuntimeError):
    """Servos do not answer, or not as expected; the message says which, and what to look at."""


class PortError(BusError):
    """The serial port is missing, may not be used, is in use, or is gone; the message holds what mends it."""


class Bus:
    """Servos on one serial port.

    Args:
        line: an open `serial.Serial` that never blocks, or something like it.
        port: its name, for messages.
        patience: see `PATIENCE`.

    Attributes:
        counts: `asked` again, `corrupted` packets, `silent` (nothing after the last attempt).
    """

    def __init__(self, line: Any, port: str, patience: float = PATIENCE) -> None:
        self._line, self.port, self._patience = line, port, patience
        self.counts: Counter[str] = Counter()

    @classmethod
    def open(cls, port: str, baud_rate: int = registers.BAUD_RATES[0], patience: float | None = None) -> Bus:
        """Open a port, which then belongs to this process alone.

        Raises:
            PortError: with the command that mends it.
        """
        if not port:
            raise PortError("no serial port was named: `robot-rl robots ports` lists those with servos, port=/dev/…")
        try:
            import serial
        except ImportError as error:
            raise PortError('the package pyserial is missing: pip install "robot_rl[feetech]"') from error
        try:
            # Not to block is the bus's own affair: setting a time-out anew sets up the whole port again.
            line = serial.Serial(port, baud_rate, timeout=0, write_timeout=1.0, exclusive=True)
        except (OSError, ValueError) as error:
            raise PortError(_explain(port, error)) from error
        return cls(line, port, patience or PATIENCE)

    def close(self) -> None:
        """Let go of the port; servos do on what they did last."""
        self._line.close()

    def ping(self, servo: int) -> bool:
        """Whether a servo answers."""
        return servo in self._ask(packet.ping(servo), [servo], 0)

    def scan(self, servos: Iterable[int] = range(LARGEST_ID + 1)) -> list[int]:
        """The ids that answer at the first attempt."""
        answered = (self._ask(packet.ping(servo), [servo], 0, attempts=1, patience=GLANCE) for servo in servos)
        return [servo for found in answered for servo in found]

    def read(self, servo: int, register: Register) -> int:
        """A register of a servo. Raises `BusError` when there is no answer."""
        asked = packet.read(servo, register.address, register.size)
        return register.decode(self._answer(asked, [servo], register.size)[servo].data)

    def write(self, servo: int, register: Register, value: int) -> None:
        """Set a register of a servo. Raises `BusError` when it is not confirmed."""
        self._answer(packet.write(servo, register.address, register.encode(value)), [servo], 0)

    def sync_read(self, servos: Sequence[int], address: int, size: int) -> dict[int, Status]:
        """The same bytes of several servos, by id. Raises `BusError` when one does not answer."""
        found = self._ask(packet.sync_read(servos, address, size), servos, size, attempts=1)
        for servo in servos:
            if servo not in found:
                self.counts["asked"] += 1
                one = packet.read(servo, address, size)
                found |= self._answer(one, [servo], size, ATTEMPTS - 1)
        return found

    def sync_write(self, register: Register, values: Mapping[int, int]) -> None:
        """Set a register of several servos at the same moment. Nothing confirms it."""
        data = {servo: register.encode(value) for servo, value in values.items()}
        self._send(packet.sync_write(data, register.address))

    def _answer(self, asked: bytes, servos: Sequence[int], size: int, attempts: int = ATTEMPTS) -> dict[int, Status]:
        found = self._ask(asked, servos, size, attempts)
        if missing := [servo for servo in servos if servo not in found]:
            self.counts["silent"] += 1
            raise BusError(
                f"{self.port}: servo {', '.join(map(str, missing))} does not answer. Is the power on, are all cables "
                "plugged in? `robot-rl robots ports` shows which servos answer"
            )
        return found

    def _ask(
        self, asked: bytes, servos: Sequence[int], size: int, attempts: int = ATTEMPTS, patience: float | None = None
    ) -> dict[int, Status]:
        """The answers that came, by id."""
        found: dict[int, Status] = {}
        for attempt in range(attempts):
            self.counts["asked"] += attempt > 0
            self._send(asked)
            self._receive(found, servos, size, patience or self._patience)
            if len(found) == len(servos):
                break
        return found

    def _send(self, data: bytes) -> None:
        try:
            self._line.reset_input_buffer()
            self._line.write(data)
        except GONE as error:
            raise self._gone(error) from error

    def _receive(self, found: dict[int, Status], servos: Sequence[int], size: int, patience: float) -> None:
        received = b""
        try:
            while len(found) < len(servos) and select.select([self._line.fileno()], [], [], patience)[0]:
                decoded = packet.decode(received + self._line.read(max(1, self._line.in_waiting)))
                received = decoded.rest
                self.counts["corrupted"] += decoded.corrupted
                found |= {s.id: s for s in decoded.statuses if s.id in servos and len(s.data) == size}
        except GONE as error:
            raise self._gone(error) from error

    def _gone(self, error: Exception) -> PortError:
        return PortError(f"{self.port}: the port is gone ({error}); plug the cable in again")


def ports() -> list[tuple[str, str]]:
    """Serial ports that a servo board may be on, each with what it says of itself.

    Raises:
        PortError: pyserial is missing.
    """
    try:
        from serial.tools import list_ports
    except ImportError as error:
        raise PortError('the package pyserial is missing: pip install "robot_rl[feetech]"') from error
    found = [port for port in list_ports.comports() if port.vid is not None]
    found.sort(key=lambda port: (f"{port.vid:04x}" not in USB_VENDORS, port.device))
    return [(port.device, f"USB {port.vid:04x}:{port.pid:04x}, serial number {port.serial_number}") for port in found]


def _explain(port: str, error: Exception) -> str:
    number = getattr(error, "errno", None)
    if isinstance(error, PermissionError) or number == 13:
        return f"{port}: you may not use it. Allow it, once:\n  {RULE}\nor {GROUP}"
    if number == 2:
        return f"{port}: there is no such port. Plug the board in; `robot-rl robots ports` lists those that there are"
    if number in (11, 16) or "lock" in str(error):
        return f"{port}: another program uses it; end that one first (`fuser {port}` names it)"
    return f"{port}: {error}"
