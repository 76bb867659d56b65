"""Packets of Feetech's serial bus, as bytes.

    instruction   FF FF  id  length  instruction  parameters …  checksum
    status        FF FF  id  length  errors       data …        checksum

`length` counts what follows it; the checksum is the inverted low byte of the sum from `id` on. Of numbers of two bytes
the low byte comes first. Servos have the ids 0 to 253; 254 addresses all.

Source: Feetech, "Communication Protocol User Manual" (FT-SCS), sections 2 to 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

HEADER = b"\xff\xff"
BROADCAST = 0xFE
LARGEST_ID = 0xFD


class Instruction(IntEnum):
    """What a servo is asked to do."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


class Status(NamedTuple):
    """What a servo answers: its id, its error bits (see `registers.ERRORS`), and the data that it was asked for."""

    id: int
    errors: int
    data: bytes


class Decoded(NamedTuple):
    """What bytes held.

    Attributes:
        statuses: whole packets whose checksum is right, in order.
        rest: the beginning of a packet that is not complete yet.
        corrupted: packets with a wrong checksum or an impossible length, which are left out.
    """

    statuses: list[Status]
    rest: bytes
    corrupted: int


def checksum(body: bytes) -> int:
    """Of everything between header and checksum."""
    return ~sum(body) & 0xFF


def encode(servo: int, instruction: int, parameters: bytes = b"") -> bytes:
    """An instruction packet; a status packet where `instruction` holds the error bits."""
    body = bytes([servo, len(parameters) + 2, instruction]) + parameters
    return HEADER + body + bytes([checksum(body)])


def ping(servo: int) -> bytes:
    """Asks whether a servo is there."""
    return encode(servo, Instruction.PING)


def read(servo: int, address: int, size: int) -> bytes:
    """Asks for `size` bytes from an address on."""
    return encode(servo, Instruction.READ, bytes([address, size]))


def write(servo: int, address: int, data: bytes) -> bytes:
    """Writes bytes from an address on."""
    return encode(servo, Instruction.WRITE, bytes([address]) + data)


def sync_read(servos: Sequence[int], address: int, size: int) -> bytes:
    """Asks several servos for the same; they answer one after the other, in this order."""
    return encode(BROADCAST, Instruction.SYNC_READ, bytes([address, size, *servos]))


def sync_write(data: Mapping[int, bytes], address: int) -> bytes:
    """Writes to several servos at the same moment, each as many bytes; none answers.

    Raises:
        ValueError: the numbers of bytes differ, or there are none.
    """
    sizes = {len(part) for part in data.values()}
    if len(sizes) != 1:
        raise ValueError(f"expected as many bytes for every servo, got {sorted(sizes)}")
    parts = b"".join(bytes([servo]) + part for servo, part in data.items())
    return encode(BROADCAST, Instruction.SYNC_WRITE, bytes([address, sizes.pop()]) + parts)


def decode(received: bytes) -> Decoded:
    """Find the status packets in what was received; noise between them is skipped."""
    statuses: list[Status] = []
    at = done = corrupted = 0
    while (at := received.find(HEADER, at)) >= 0:
        if received[at + 2 : at + 3] == b"\xff":
            at += 1  # an id is never FF: the header begins one byte later
            continue
        if len(received) < at + 4:
            return Decoded(statuses, received[at:], corrupted)
        length = received[at + 3]
        end = at + 4 + length
        if length < 2:
            corrupted, at = corrupted + 1, at + 1
        elif len(received) < end:
            return Decoded(statuses, received[at:], corrupted)
        elif checksum(received[at + 2 : end - 1]) != received[end - 1]:
            corrupted, at = corrupted + 1, at + 1
        else:
            statuses.append(Status(received[at + 2], received[at + 4], received[at + 5 : end - 1]))
            at = done = end
    return Decoded(statuses, b"\xff" if received[done:].endswith(b"\xff") else b"", corrupted)
