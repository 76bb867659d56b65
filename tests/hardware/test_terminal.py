import fcntl
import os
import pty
import subprocess
import sys
import termios

import pytest

from robot_rl.hardware.terminal import Terminal, own_terminal

SCRIPT = """
import signal, termios, time
from robot_rl.hardware.terminal import own_terminal
hung_up = []
signal.signal(signal.SIGHUP, lambda *_: hung_up.append(True))
before = termios.tcgetattr(0)
with own_terminal() as terminal:
    assert terminal.keys() == ""
    print("ready", flush=True)
    keys = ""
    while "f" not in keys:
        keys += terminal.keys()
        time.sleep(0.01)
    print(repr(keys), flush=True)
    while "e" not in terminal.keys():
        time.sleep(0.01)
        if hung_up:
            assert terminal.keys() == ""
            print("hung up", flush=True)
            break
if not hung_up:
    print(termios.tcgetattr(0) == before, flush=True)
"""


def begin():
    """The script as the leader of a session in a terminal; the other end of the terminal, and the process."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=theirs, stdout=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return ours, process, process.stdout


def test_keys_come_without_enter_none_stops_the_program_and_the_terminal_is_restored() -> None:
    ours, process, said = begin()
    os.write(ours, b"s \x1a\x13\x1c")  # Ctrl-Z, Ctrl-S, Ctrl-\
    os.write(ours, b"f")
    assert said.readline() == r"'s \x1a\x13\x1cf'" + "\n"
    os.write(ours, b"e")
    assert said.readline() == "True\n"
    assert process.wait(10) == 0
    os.close(ours)


def test_a_terminal_that_is_closed_has_no_more_keys() -> None:
    ours, process, said = begin()
    os.write(ours, b"f")
    assert said.readline() == "'f'\n"
    os.close(ours)
    assert said.readline() == "hung up\n"
    assert process.wait(10) == 0


def test_without_a_terminal_the_error_says_so(monkeypatch) -> None:
    with open(os.devnull) as nothing:  # noqa: PTH123
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(OSError, match="no terminal"), Terminal():
            pass
        with own_terminal() as terminal:
            assert terminal is None
