"""Numbers in registers: signs as the servos write them, and what does not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.hardware.feetech import registers


def test_signs_and_magnitudes():
    assert registers.HOMING_OFFSET.encode(-1) == b"\x01\x08"  # bit 11
    assert registers.PRESENT_VELOCITY.decode(b"\x64\x80") == -100  # bit 15
    assert registers.PRESENT_LOAD.decode(b"\x0a\x04") == -10  # bit 10
    assert registers.PRESENT_POSITION.decode(bytes.fromhex("1805")) == 1304  # manual, example 2


@given(st.integers(-2047, 2047))
def test_offsets_come_back(value):
    assert registers.HOMING_OFFSET.decode(registers.HOMING_OFFSET.encode(value)) == value


@pytest.mark.parametrize(
    ("register", "value"), [(registers.HOMING_OFFSET, 2048), (registers.ID, 256), (registers.MAX_POSITION, -1)]
)
def test_what_does_not_fit_is_refused(register, value):
    with pytest.raises(ValueError, match="is not within"):
        register.encode(value)


def test_error_bits_have_words():
    assert registers.errors(0b100101) == ["voltage", "overheated", "overload"]
    assert registers.errors(0) == []
