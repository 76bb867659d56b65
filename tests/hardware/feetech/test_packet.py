"""Packets byte by byte: the examples of Feetech's protocol manual, sections 4.1 to 4.7, and damaged ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.hardware.feetech import packet


def test_the_examples_of_the_manual():
    assert packet.ping(1).hex(" ") == "ff ff 01 02 01 fb"
    assert packet.read(1, 0x38, 2).hex(" ") == "ff ff 01 04 02 38 02 be"
    assert packet.write(0xFE, 5, b"\x01").hex(" ") == "ff ff fe 04 03 05 01 f4"
    assert packet.write(1, 0x2A, bytes.fromhex("00080000e803")).hex(" ") == "ff ff 01 09 03 2a 00 08 00 00 e8 03 d5"
    assert packet.sync_read([1, 2], 0x38, 8).hex(" ") == "ff ff fe 06 82 38 08 01 02 36"
    goals = packet.sync_write(dict.fromkeys([1, 2, 3, 4], bytes.fromhex("00080000e803")), 0x2A)
    assert goals.hex() == "fffffe20832a060100080000e8030200080000e8030300080000e8030400080000e80358"


def test_the_answers_of_the_manual():
    answers = bytes.fromhex("ffff010a000008000000007 91e55".replace(" ", "")) + bytes.fromhex(
        "ffff020a00ff070000000077 2353".replace(" ", "")
    )
    decoded = packet.decode(answers + bytes.fromhex("ffff010200fc"))
    first, second, pong = decoded.statuses
    assert (first.id, first.errors, first.data.hex()) == (1, 0, "000800000000791e")
    assert (second.id, second.data[:2]) == (2, b"\xff\x07")
    assert pong == (1, 0, b"")
    assert (decoded.rest, decoded.corrupted) == (b"", 0)


def test_different_sizes_in_one_write_are_refused():
    with pytest.raises(ValueError, match="as many bytes"):
        packet.sync_write({1: b"\x00", 2: b"\x00\x00"}, 42)


@given(st.lists(st.tuples(st.integers(0, 253), st.integers(0, 255), st.binary(max_size=40)), max_size=5), st.data())
def test_answers_come_out_whatever_pieces_they_come_in(answers, data):
    stream = b"".join(packet.encode(*answer) for answer in answers)
    found, rest = [], b""
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        decoded = packet.decode(rest + stream[:size])
        found, rest, stream = found + decoded.statuses, decoded.rest, stream[size:]
    assert found == answers
    assert rest == b""


@given(st.integers(0, 253), st.binary(min_size=1, max_size=20), st.integers(0), st.integers(1, 255))
def test_one_wrong_byte_never_gives_other_data(servo, data, place, wrong):
    whole = bytearray(packet.encode(servo, 0, data))
    at = 2 + place % (len(whole) - 2)
    whole[at] ^= wrong
    for status in packet.decode(bytes(whole)).statuses:
        assert (status.id, len(status.data)) != (servo, len(data))


def test_noise_and_a_header_that_begins_late():
    decoded = packet.decode(b"\x00\xff\x13" + b"\xff" + packet.encode(7, 0, b"\x05") + b"\xff")
    assert decoded.statuses == [(7, 0, b"\x05")]
    assert decoded.rest == b"\xff"


def test_what_comes_after_a_corrupted_packet_is_found():
    broken = bytearray(packet.encode(1, 0, b"\x01\x02"))
    broken[-1] ^= 1
    decoded = packet.decode(bytes(broken) + packet.encode(2, 0, b"\x03\x04"))
    assert decoded.statuses == [(2, 0, b"\x03\x04")]
    assert decoded.corrupted == 1
