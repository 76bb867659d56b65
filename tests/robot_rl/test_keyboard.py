import os
import pty
import subprocess
import sys

import pytest

from robot_rl.keyboard import Keyboard

SCRIPT = """
import termios, time
from robot_rl.keyboard import Keyboard
before = termios.tcgetattr(0)
with Keyboard() as keyboard:
    assert keyboard.pressed() == ""
    print("ready", flush=True)
    keys = ""
    while "f" not in keys:
        keys += keyboard.pressed()
        time.sleep(0.01)
print(repr(keys), termios.tcgetattr(0) == before, flush=True)
"""


def test_keys_come_without_enter_and_the_terminal_is_restored() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=theirs, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.write(ours, b"s ")
    os.write(ours, b"f")
    assert process.stdout.readline() == "'s f' True\n"
    assert process.wait(10) == 0
    os.close(ours)
    os.close(theirs)


def test_without_a_terminal_the_error_says_so(monkeypatch) -> None:
    with open(os.devnull) as nothing:  # noqa: PTH123
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(OSError, match="no terminal"), Keyboard():
            pass
