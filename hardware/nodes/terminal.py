"""The terminal of a node, whose every key is an emergency stop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def keys_pressed() -> Iterator[Callable[[], bool] | None]:
    """Whether a key was pressed in the terminal since the last call; None without a terminal of our own."""
    import os
    import select

    try:
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        ours = sys.stdin.isatty() and os.tcgetpgrp(descriptor) == os.getpgrp()
    except (ImportError, OSError, ValueError):
        ours = False
    if not ours:
        yield None
        return

    def pressed() -> bool:
        return bool(select.select([descriptor], [], [], 0)[0] and os.read(descriptor, 64))

    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
