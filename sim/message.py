"""Messages between processes: JSON for the structure, raw bytes for its arrays, behind their length."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import numpy as np

_LENGTH = struct.Struct("<I")
_ARRAY = "__array__"


def encode(content: Any = None) -> bytes:
    """Bytes to send for JSON types, tuples (which arrive as lists), NumPy scalars and arrays. None is the shortest.

    Raises:
        TypeError: something in it cannot be sent.
    """
    payload = b"" if content is None else _encode(content)
    return _LENGTH.pack(len(payload)) + payload


def receive(connection: socket.socket) -> Any:
    """What was encoded and sent next. Raises `EOFError` when the other side has gone."""
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
    return _decode(_read(connection, length)) if length else None


def _encode(content: Any) -> bytes:
    arrays: list[np.ndarray] = []

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            arrays.append(np.asarray(value, order="C"))
            return {_ARRAY: [value.dtype.str, list(value.shape)]}
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"cannot be sent between processes: {type(value).__name__} {value!r}")

    text = json.dumps(content, default=plain).encode()
    return b"".join([_LENGTH.pack(len(text)), text, *(array.tobytes() for array in arrays)])


def _decode(payload: bytearray) -> Any:
    (length,) = _LENGTH.unpack_from(payload)
    offset = _LENGTH.size + length

    def array(value: dict[str, Any]) -> Any:
        nonlocal offset
        if _ARRAY not in value:
            return value
        dtype, shape = np.dtype(value[_ARRAY][0]), tuple(value[_ARRAY][1])
        made = np.ndarray(shape, dtype, payload, offset)
        offset += made.nbytes
        return made

    return json.loads(payload[_LENGTH.size : _LENGTH.size + length], object_hook=array)


def _read(connection: socket.socket, length: int) -> bytearray:
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError("the other process has gone")
        view = view[count:]
    return buffer
