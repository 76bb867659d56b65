"""Bytes between an actor and the learner, over TCP: both prove that they know the secret, then every message is sealed.

The learner speaks first. Each side sends the name and version of the protocol and 32 random bytes, and proves the
secret by an HMAC-SHA256 of both sides' bytes; the actor goes first, so that a stranger gets nothing to guess by. Each
message then carries its length and an HMAC under a key of this connection, over its number and its content: nothing can
be forged, left out, repeated or exchanged. Nothing is encrypted; a network that others can read wants a tunnel.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
import time
from contextlib import suppress

from robot_rl.rl.apart.messages import MessageError

PROTOCOL = b"robot_rl actors 2"
PATIENCE = 10.0
"""Seconds for the other side to prove itself."""
LARGEST = 512 * 2**20
"""Bytes of a message, unless it is said otherwise."""

_NAME, _NONCE, _SEAL = 32, 32, 32
_LENGTH = struct.Struct("<Q")
_HEAD = _LENGTH.size + _SEAL


class ChannelError(ConnectionError):
    """The connection cannot be used any more; the message says why."""


class AccessError(ChannelError):
    """The other side is not the one to talk to: another protocol, or another secret. Trying again is of no use."""


class Channel:
    """One end of a connection, after both sides have proved that they know the secret. For one thread at a time.

    Args:
        connection: connected socket; closed when the other side does not prove itself.
        secret: that both share.
        learner: whether this is the learner's end.
        largest: bytes of a message to receive or to send.

    Raises:
        AccessError: the other side speaks another protocol, or does not know the secret.
        ChannelError: it went away, or took too long.
    """

    def __init__(self, connection: socket.socket, secret: bytes, learner: bool, largest: int = LARGEST) -> None:
        self._connection, self._largest = connection, largest
        self._until: float | None = time.monotonic() + PATIENCE
        try:
            sending, receiving = self._meet(secret, learner)
            self._until = None
            connection.settimeout(None)
        except BaseException:
            connection.close()
            raise
        self._keys = sending, receiving
        self._numbers = [0, 0]

    def send(self, payload: bytes) -> None:
        """Send a message.

        Raises:
            MessageError: it is too large, and would be at any later time.
            ChannelError: the other side has gone.
        """
        if len(payload) > self._largest:
            raise MessageError(
                f"a message of {len(payload)} bytes is too large: expected at most {self._largest}. Episodes get "
                "smaller by a shorter horizon, and fewer or smaller pictures"
            )
        self._write(_LENGTH.pack(len(payload)) + self._seal(0, payload) + payload)

    def receive(self) -> bytes:
        """Wait for the next message.

        Raises:
            ChannelError: it is too large or not genuine, or the other side has gone.
        """
        head = self._read(_HEAD)
        (length,) = _LENGTH.unpack_from(head)
        if length > self._largest:
            raise ChannelError(f"a message of {length} bytes was announced: expected at most {self._largest}")
        payload = self._read(length)
        if not hmac.compare_digest(head[_LENGTH.size :], self._seal(1, payload)):
            raise ChannelError("a message is not genuine: its seal does not fit its content and its place")
        return payload

    def close(self) -> None:
        """Part from the other side, also while another thread waits for it."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _meet(self, secret: bytes, learner: bool) -> tuple[bytes, bytes]:
        """The keys of what is sent and what is received."""
        ours = secrets.token_bytes(_NONCE)
        self._write(PROTOCOL.ljust(_NAME, b"\0") + ours)
        greeting = self._read(_NAME + _NONCE)
        if (came := greeting[:_NAME].rstrip(b"\0")) != PROTOCOL:
            raise AccessError(
                f"the other side speaks {came!r}, expected {PROTOCOL!r}: install the same version of robot_rl on both, "
                "and check the port"
            )
        theirs = greeting[_NAME:]
        nonces = ours + theirs if learner else theirs + ours

        def derive(purpose: bytes) -> bytes:
            return hmac.digest(secret, purpose + nonces, "sha256")

        known = {True: derive(b"learner proves "), False: derive(b"actor proves ")}
        if not learner:
            self._write(known[False])
        proved = hmac.compare_digest(self._read(_SEAL), known[not learner])
        if learner:
            self._write(known[True] if proved else bytes(_SEAL))
        if not proved:
            raise AccessError(
                "actor and learner do not share the secret; give both the same file (secret=, actors.secret=), or the "
                "same ROBOT_RL_SECRET. A learner that is given none makes one, actors.secret in its run folder"
            )
        keys = {True: derive(b"learner sends "), False: derive(b"actor sends ")}
        return keys[learner], keys[not learner]

    def _seal(self, direction: int, payload: bytes) -> bytes:
        number = self._numbers[direction]
        self._numbers[direction] += 1
        return hmac.digest(self._keys[direction], _LENGTH.pack(number) + payload, "sha256")

    def _write(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise ChannelError(f"the other side has gone: {error}") from error

    def _read(self, size: int) -> bytes:
        buffer = bytearray(size)
        view, done = memoryview(buffer), 0
        while done < size:
            if self._until is not None:
                self._connection.settimeout(max(0.001, self._until - time.monotonic()))
            try:
                count = self._connection.recv_into(view[done:])
            except TimeoutError as error:
                raise ChannelError(f"the other side did not prove itself within {PATIENCE:g} s") from error
            except OSError as error:
                raise ChannelError(f"the other side has gone: {error}") from error
            if not count:
                raise ChannelError(f"the other side has gone, after {done} of {size} bytes")
            done += count
        return bytes(buffer)


def keep_alive(connection: socket.socket) -> None:
    """Notice within half a minute that the other machine has gone; send small messages at once."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
