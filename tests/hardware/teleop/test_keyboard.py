"""Keys typed into a pseudo-terminal, with the rhythm of a terminal's repetition."""

import os
import pty

import numpy as np
import pytest

from robot_rl.hardware.teleop.device import ANGULAR_SPEED, LINEAR_SPEED, DeviceError
from robot_rl.hardware.teleop.keyboard import AXES, KEYS, Keyboard


@pytest.fixture
def typed():
    ours, theirs = pty.openpty()
    with Keyboard(speed=1.0, descriptor=theirs) as keyboard:

        def type_(keys, now):
            os.write(ours, keys.encode())
            return keyboard.read(now)

        type_.keyboard = keyboard
        yield type_
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("key", AXES)
def test_each_key_moves_along_its_axis_for_a_tap(typed, key):
    axis, sign = AXES[key]
    expected = np.eye(6)[axis] * sign * (LINEAR_SPEED if axis < 3 else ANGULAR_SPEED)
    np.testing.assert_array_equal(typed(key, 1.0).twist, expected)
    np.testing.assert_array_equal(typed("", 1.11).twist, expected)
    assert not typed("", 1.13).twist.any()


def test_a_held_key_waits_for_the_repetition_and_stops_soon_after_the_last_one(typed):
    moves = {}
    pressed = [0.0, *np.arange(0.5, 1.0, 0.033)]
    for now in np.arange(0.0, 1.5, 0.01):
        due = [time for time in pressed if now <= time < now + 0.01]
        moves[round(float(now), 2)] = typed("w" * len(due), float(now)).twist.any()
    assert moves[0.1]
    assert not moves[0.3]
    assert all(moves[round(0.52 + 0.01 * index, 2)] for index in range(45))
    assert not any(moving for now, moving in moves.items() if now > 1.16)


def test_two_keys_add_up_opposite_ones_do_not_and_capitals_are_slow(typed):
    assert np.count_nonzero(typed("wa", 1.0).twist) == 2
    assert typed("s", 1.02).twist[0] < 0
    assert typed("W", 1.04).buttons == {"slow"}
    assert not typed("", 1.06).buttons - {"slow"}
    assert not typed("", 2.0).buttons


def test_arrows_and_words(typed):
    assert typed("\x1b[A", 1.0).twist[0] > 0
    assert typed("\x1b[6~", 2.0).twist[2] < 0
    typed("".join(KEYS) + "\x1b[Z?", 3.0)
    assert typed.keyboard.events() == list(KEYS.values())
    assert typed.keyboard.events() == []


def test_the_terminal_is_given_back_and_a_pipe_is_none():
    import termios

    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with Keyboard(descriptor=theirs):
        assert termios.tcgetattr(theirs) != before
    assert termios.tcgetattr(theirs) == before
    read, write = os.pipe()
    with pytest.raises(DeviceError, match="no terminal"):
        Keyboard(descriptor=read).open()
    for descriptor in (ours, theirs, read, write):
        os.close(descriptor)
