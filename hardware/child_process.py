"""Processes that live no longer than the process that started them, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(number: int = signal.SIGTERM, parent: int | None = None) -> None:
    """Have the kernel send this process a signal when its parent thread ends (Linux; elsewhere nothing happens).

    Args:
        number: of the signal.
        parent: process id of the parent, if it may have ended already, before this call.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


def describe_exit(code: int) -> str:
    """`exit code 1`, or `SIGKILL` for a process that a signal ended."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
