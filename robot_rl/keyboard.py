"""Single keys from the terminal, without Enter and without waiting."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType


class Keyboard:
    """Inside the `with` block, keys are read as they are pressed. Ctrl-C still interrupts.

    Raises:
        OSError: the standard input is no terminal.
    """

    def __enter__(self) -> Keyboard:
        if not sys.stdin.isatty():
            raise OSError("the standard input is no terminal, and somebody has to press keys there")
        self._descriptor = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def pressed(self) -> str:
        """The keys that were pressed since the last call, in order."""
        keys = b""
        while select.select([self._descriptor], [], [], 0)[0]:
            read = os.read(self._descriptor, 64)
            if not read:
                break
            keys += read
        return keys.decode(errors="replace")
