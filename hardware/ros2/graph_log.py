"""A node's log: to the terminal in the form of ROS 2's own nodes, and as messages for /rosout."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from robot_rl.hardware.ros2 import messages

SEVERITIES = ((logging.CRITICAL, "FATAL"), (logging.ERROR, "ERROR"), (logging.WARNING, "WARN"), (logging.INFO, "INFO"))

WAITING = 1000
"""Lines that may wait for the terminal; further ones are left out there."""

PATIENCE = 1.0
"""At the end, for lines that wait [s]."""


class Printer:
    """Writes lines to the standard error from a thread of its own.

    Who holds a robot does not wait for a terminal that is held up, a pipe that nobody reads or a disk that is full.
    """

    def __init__(self) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Write it as soon as that is possible."""
        with suppress(queue.Full):
            self._lines.put_nowait(line)

    def close(self) -> None:
        """Wait a little for what is not written yet."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
            self._thread.join(PATIENCE)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            with suppress(OSError, ValueError):
                _write(f"{line}\n")


def _write(text: str) -> None:
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):  # replaced by something without one
        print(text, end="", file=sys.stderr, flush=True)
        return
    # Not through its buffer, whose lock would be held while this is held up, also at the end of the process.
    rest = text.encode(errors="replace")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class GraphLog(logging.Handler):
    """Writes `[INFO] [1763900000.123456789] [name]: text`, and publishes rcl_interfaces/msg/Log."""

    def __init__(self, name: str, stdout: bool, publish: Callable[[Any], None] | None) -> None:
        super().__init__()
        self._name, self._publish = name, publish
        self._printer = Printer() if stdout else None

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        if self._printer is not None:
            self._printer.say(f"[{severity(record.levelno)}] [{record.created:.9f}] [{self._name}]: {text}")
        if self._publish is not None:
            self._publish(
                messages.make(
                    "rcl_interfaces/msg/Log",
                    stamp=messages.stamp(record.created),
                    level=record.levelno,
                    name=self._name,
                    msg=text,
                    file=record.pathname,
                    function=record.funcName,
                    line=record.lineno,
                )
            )

    def close(self) -> None:
        """Wait a little for lines that are not written yet."""
        if self._printer is not None:
            self._printer.close()
        super().close()


def severity(level: int) -> str:
    return next((name for least, name in SEVERITIES if level >= least), "DEBUG")


def open_log(full_name: str, level: int, handler: logging.Handler) -> logging.Logger:
    """The logger of one node; it hands nothing on to the process's own log."""
    logger = logging.getLogger("robot_rl.graph" + full_name.replace("/", "."))
    logger.setLevel(level)
    logger.propagate = False
    logger.handlers[:] = [handler]
    return logger
