"""A node's log: to the terminal in the form of ROS 2's own nodes, and as messages for /rosout."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from robot_rl.hardware.ros2 import messages

SEVERITIES = ((logging.CRITICAL, "FATAL"), (logging.ERROR, "ERROR"), (logging.WARNING, "WARN"), (logging.INFO, "INFO"))


class GraphLog(logging.Handler):
    """Writes `[INFO] [1763900000.123456789] [name]: text`, and publishes rcl_interfaces/msg/Log."""

    def __init__(self, name: str, stdout: bool, publish: Callable[[Any], None] | None) -> None:
        super().__init__()
        self._name, self._stdout, self._publish = name, stdout, publish

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        if self._stdout:
            # A full disk or a reader that is gone must not end a node that holds a robot.
            with suppress(OSError):
                line = f"[{severity(record.levelno)}] [{record.created:.9f}] [{self._name}]: {text}"
                print(line, file=sys.stderr, flush=True)
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


def severity(level: int) -> str:
    return next((name for least, name in SEVERITIES if level >= least), "DEBUG")


def open_log(full_name: str, level: int, handler: logging.Handler) -> logging.Logger:
    """The logger of one node; it hands nothing on to the process's own log."""
    logger = logging.getLogger("robot_rl.graph" + full_name.replace("/", "."))
    logger.setLevel(level)
    logger.propagate = False
    logger.handlers[:] = [handler]
    return logger
