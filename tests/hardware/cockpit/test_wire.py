import json
import struct

import numpy as np
import pytest

from robot_rl.hardware.cockpit import wire
from robot_rl.hardware.teleop.device import ANGULAR_SPEED, LINEAR_SPEED

GOOD = {"type": "input", "sent": 1.5, "deflection": [1, 0, -0.5, 0, 0, 1], "target": None, "buttons": ["slow"]}


def test_a_deflection_becomes_a_twist_in_si_units():
    given = wire.read_input(wire.read(json.dumps(GOOD)))
    expected = [LINEAR_SPEED, 0, -0.5 * LINEAR_SPEED, 0, 0, ANGULAR_SPEED]
    np.testing.assert_allclose(given.twist, expected)
    assert given.sent == 1.5
    assert given.buttons == {"slow"}
    assert given.target is None


def test_a_target_is_normalised():
    target = wire.read_input({**GOOD, "target": [0.5, 0.1, 0.2, 1.004, 0, 0, 0]}).target
    np.testing.assert_allclose(target, [0.5, 0.1, 0.2, 1, 0, 0, 0])


@pytest.mark.parametrize("change", [
    {"deflection": [1, 0, 0]}, {"deflection": [2, 0, 0, 0, 0, 0]}, {"deflection": None}, {"deflection": ["1"] * 6},
    {"deflection": [float("nan"), 0, 0, 0, 0, 0]}, {"deflection": [True] * 6}, {"sent": None}, {"sent": float("inf")},
    {"target": [0, 0, 0, 0, 0, 0, 0]}, {"target": [99, 0, 0, 1, 0, 0, 0]}, {"buttons": ["fly"]}, {"buttons": "slow"},
    {"buttons": [["slow"]]}, {"deflection": [10**400, 0, 0, 0, 0, 0]},
])  # fmt: skip
def test_malformed_inputs_are_refused(change):
    with pytest.raises(wire.WireError):
        wire.read_input({**GOOD, **change})


@pytest.mark.parametrize("text", ["", "[]", "3", '{"a": 1}', '{"type": 3}', "{", "[" * 10_000])
def test_what_is_no_message_is_refused(text):
    with pytest.raises(wire.WireError):
        wire.read(text)


def test_unknown_words_are_refused():
    assert wire.read_word({"word": "record"}) == "record"
    for word in ("launch", None, ["record"]):
        with pytest.raises(wire.WireError):
            wire.read_word({"word": word})


def test_frames_begin_with_16_bytes():
    data = wire.frame(wire.PICTURE, b"jpeg", stream=2, sequence=2**32 + 7, stamp=1.25)
    assert struct.unpack("<BBHId", data[:16]) == (3, 2, 0, 7, 1.25)
    assert data[16:] == b"jpeg"
