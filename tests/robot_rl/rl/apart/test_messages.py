"""Messages arrive as they were sent, or not at all."""

import json
import struct
from dataclasses import fields

import numpy as np
import pytest

from robot_rl.rl.apart.messages import (
    Join,
    Message,
    MessageError,
    Poll,
    Recorded,
    Refused,
    Reply,
    Welcome,
    decode,
    encode,
)

ARRAYS = {
    "action": np.arange(6, dtype=np.float32).reshape(3, 2), "flag": np.array([True, False]),
    "image": np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3), "scalar": np.array(0.5, np.float32),
    "stamp": np.array([0.1, 0.2]), "turned": np.arange(6.0).reshape(2, 3).T,
}  # fmt: skip
MESSAGES: list[Message] = [
    Welcome(
        "run", {"task": "line"}, "sac", {"temperature": 1.0}, {}, {"name": "line"}, {"name": "line"},
        {"name": "task"}, 1, 10_000_000,
    ),
    Join("actor", {"name": "line"}, "task"), Recorded(3, {"success": None, "tags": ["a"]}, 7, ARRAYS), Poll(2),
    Reply(4, 2, False, True, ARRAYS), Reply(4, 2, False, True), Refused("why"),
]  # fmt: skip


def raw(content: object, behind: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<I", len(text)) + text + behind


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_arrives_as_it_was_sent(message: Message) -> None:
    came = decode(encode(message), type(message))
    for item in fields(message):
        ours, theirs = getattr(message, item.name), getattr(came, item.name)
        if item.name != "arrays":
            assert ours == theirs
            continue
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert (theirs[name].dtype, theirs[name].shape) == (value.dtype, value.shape)
            np.testing.assert_array_equal(theirs[name], value)


def test_another_kind_is_named() -> None:
    with pytest.raises(MessageError, match="expected Recorded or Poll, got Join"):
        decode(encode(Join("a", {}, "task")), Recorded, Poll)
    with pytest.raises(MessageError, match="expected Reply, got Refused: another contract"):
        decode(encode(Refused("another contract")), Reply)
    for kind in ("Launch", None, 3, ["Poll"]):
        with pytest.raises(MessageError, match="expected Poll, got a message of unknown kind"):
            decode(raw({"kind": kind}), Poll)


def test_all_that_does_not_fit_is_named_at_once() -> None:
    with pytest.raises(MessageError) as raised:
        decode(
            raw({"kind": "Reply", "received": True, "begin": 1, "finished": False, "code": "x", "arrays": {}}), Reply
        )
    text = str(raised.value)
    assert "received: expected int, got bool True" in text
    assert "begin: expected bool, got int 1" in text
    assert "version: missing" in text
    assert "code: no such field" in text
    assert "arrays: no such field" in text
    with pytest.raises(MessageError, match="arrays: none expected, got 4 bytes"):
        decode(raw({"kind": "Poll", "version": 1}, b"more"), Poll)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"abc", struct.pack("<I", 2**32 - 1) + b"{}", struct.pack("<I", 3) + b"\xff{}", raw([]), raw("Poll"),
        struct.pack("<I", 4) + b"NaN ", struct.pack("<I", 200_000) + b"[" * 200_000,
    ],
    ids=range(8),
)  # fmt: skip
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    with pytest.raises(MessageError):
        decode(payload, Poll)


def test_every_cut_is_noticed() -> None:
    whole = encode(Recorded(0, {}, 0, {"action": np.ones((2, 1), np.float32)}))
    (length,) = struct.unpack_from("<I", whole)
    for size in range(len(whole)):
        if size == 4 + length:
            continue  # all fields and no arrays, which the reception misses
        with pytest.raises(MessageError):
            decode(whole[:size], Recorded)


def test_arrays_that_lie_about_their_size_are_refused() -> None:
    header = json.dumps({"action": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4]}}).encode()
    fields_ = {"kind": "Recorded", "number": 0, "facts": {}, "version": 0}
    with pytest.raises(MessageError, match="arrays of a message Recorded cannot be read"):
        decode(raw(fields_, struct.pack("<Q", len(header)) + header + bytes(4)), Recorded)
