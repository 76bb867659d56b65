"""Single keys from the terminal, without Enter and without waiting.

    with Terminal() as terminal:
        pressed = terminal.keys()

Who holds a robot must not be stopped in place. So Ctrl-Z, Ctrl-\\, Ctrl-S and Ctrl-Q are keys like others here, and
only Ctrl-C interrupts.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from robot_rl.hardware.opened import Opened


class Terminal(Opened):
    """Inside the `with` block, or from `open` to `close`, keys are read as they are pressed, unseen.

    Args:
        descriptor: of the terminal; default: the standard input.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._before: list[Any] | None = None

    def open(self) -> None:
        """Take the keys. Raises OSError: this is no terminal."""
        try:
            descriptor = sys.stdin.fileno() if self._descriptor is None else self._descriptor
            is_terminal = os.isatty(descriptor)
        except (OSError, ValueError, AttributeError):
            is_terminal = False
        if not is_terminal:
            raise OSError("the standard input is no terminal, and somebody has to press keys there")
        import termios
        import tty

        self._descriptor, self._before = descriptor, termios.tcgetattr(descriptor)
        tty.setcbreak(descriptor)
        settings = termios.tcgetattr(descriptor)
        settings[0] &= ~termios.IXON
        none = os.fpathconf(descriptor, "PC_VDISABLE").to_bytes(1, "little")
        settings[6][termios.VSUSP] = settings[6][termios.VQUIT] = none
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)

    def close(self) -> None:
        """Give the terminal back as it was."""
        if self._before is None or self._descriptor is None:
            return
        import termios

        with suppress(termios.error):  # it may be closed
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)
        self._before = None

    def keys(self) -> str:
        """The keys that were pressed since the last call, in order; none once the terminal is closed."""
        typed = b""
        with suppress(OSError):
            while self._descriptor is not None and select.select([self._descriptor], [], [], 0)[0]:
                part = os.read(self._descriptor, 256)
                if not part:
                    break
                typed += part
        return typed.decode(errors="replace")


@contextmanager
def own_terminal() -> Iterator[Terminal | None]:
    """The terminal, where this process is in its foreground; else None."""
    try:
        ours = sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        yield None
        return
    with Terminal() as terminal:
        yield terminal
