"""Services over DDS with the framing of rmw_cyclonedds: a client's id and a sequence number before each body."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.dds_participant import DdsParticipant, user_value
from robot_rl.hardware.ros2.qos import RELIABLE
from robot_rl.hardware.ros2.spin_loop import SpinLoop

HEADER = struct.Struct("<Qq")
RETRY = 0.01
"""Between two looks for the other side's endpoints [s]."""
PATIENCE = 200
"""Looks for a client's reader before its response is given up. rmw_cyclonedds waits for 0.1 s, too little for a busy
machine.
"""


def frame(cdr: bytes, client: int, sequence: int) -> bytes:
    """Put the header behind the 4 bytes of the CDR encapsulation."""
    return cdr[:4] + HEADER.pack(client, sequence) + cdr[4:]


def unframe(cdr: bytes) -> tuple[int, int, bytes]:
    """(client, sequence, CDR of the body)."""
    client, sequence = HEADER.unpack_from(cdr, 4)
    return client, sequence, cdr[:4] + cdr[4 + HEADER.size :]


class DdsService:
    """Answers requests with `handler(request) -> response`."""

    def __init__(
        self,
        participant: DdsParticipant,
        loop: SpinLoop,
        name: str,
        service_type: str,
        handler: Callable[[Any], Any],
    ) -> None:
        self._loop, self._handler = loop, handler
        self._request_type, response_type = f"{service_type}_Request", f"{service_type}_Response"
        self._response_type = response_type
        identity = f"serviceid={_unique_id(participant)};"
        self._writer = participant.writer(f"rr{name}Reply", response_type, RELIABLE, identity)
        self._reader = participant.reader(f"rq{name}Request", self._request_type, RELIABLE, self._on_request, identity)

    def _on_request(self, cdr: bytes, info: Any) -> None:
        client, sequence, body = unframe(cdr)
        response = self._handler(messages.decode(body, self._request_type))
        if getattr(response, "__msgtype__", None) != self._response_type:
            raise TypeError(f"a handler of {self._request_type} returns a {self._response_type}, not {response!r}")
        self._respond(frame(messages.encode(response), client, sequence), info.publication_handle, PATIENCE)

    def _respond(self, cdr: bytes, request_writer: int, looks: int) -> None:
        """Write once the client's reader has been discovered: before that the response would be lost.

        Also a client that seems to be gone is looked for: a machine that stood still may have taken it for dead.
        """
        data = self._reader.entity.get_matched_publication_data(request_writer)
        identity = user_value(data.qos, "clientid") if data else None
        readers = map(
            self._writer.entity.get_matched_subscription_data, self._writer.entity.get_matched_subscriptions()
        )
        found = any(user_value(reader.qos, "clientid") == identity for reader in readers if reader)
        if data and (found or not identity):
            self._writer.write(cdr)
        elif looks > 0:
            self._loop.call_later(RETRY, lambda: self._respond(cdr, request_writer, looks - 1))


class DdsClient:
    """See `graph.Client`. Requests that are made too early go out when the service is there."""

    def __init__(self, participant: DdsParticipant, loop: SpinLoop, name: str, service_type: str) -> None:
        self._loop = loop
        self._response_type = f"{service_type}_Response"
        identity = f"clientid={_unique_id(participant)};"
        self._writer = participant.writer(f"rq{name}Request", f"{service_type}_Request", RELIABLE, identity)
        self._reader = participant.reader(f"rr{name}Reply", self._response_type, RELIABLE, self._on_response, identity)
        self._id = self._writer.entity.get_instance_handle() % 2**64
        self._sequence = 0
        self._waiting: dict[int, Callable[[Any | None], None]] = {}

    @property
    def ready(self) -> bool:
        """Whether both endpoints of one server are matched."""
        writer, reader = self._writer.entity, self._reader.entity
        listening = map(writer.get_matched_subscription_data, writer.get_matched_subscriptions())
        answering = map(reader.get_matched_publication_data, reader.get_matched_publications())
        servers = {user_value(data.qos, "serviceid") for data in listening if data}
        return bool(servers & {user_value(data.qos, "serviceid") for data in answering if data})

    def call(self, request: Any, done: Callable[[Any | None], None], timeout: float = 5.0) -> None:
        self._sequence += 1
        self._waiting[self._sequence] = done
        self._send(self._sequence, frame(messages.encode(request), self._id, self._sequence))
        sequence = self._sequence
        self._loop.call_later(timeout, lambda: self._finish(sequence, None))

    def _send(self, sequence: int, cdr: bytes) -> None:
        if sequence in self._waiting and not (self.ready and self._writer.write(cdr)):
            self._loop.call_later(RETRY, lambda: self._send(sequence, cdr))

    def _on_response(self, cdr: bytes, info: Any) -> None:
        client, sequence, body = unframe(cdr)
        if client == self._id:
            self._finish(sequence, messages.decode(body, self._response_type))

    def _finish(self, sequence: int, response: Any | None) -> None:
        done = self._waiting.pop(sequence, None)
        if done is not None:
            done(response)


def _unique_id(participant: DdsParticipant) -> str:
    """The participant's gid with a counter in the place of the entity, as bytes in hexadecimal digits."""
    participant.identities += 1
    data = participant.gid[:12] + participant.identities.to_bytes(4, "big")
    return ".".join(f"{byte:x}" for byte in data)
