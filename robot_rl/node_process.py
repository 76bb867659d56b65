"""A node as a process of its own: started, its log shown with its name in front and kept in a file, stopped for sure.

The kernel ends the process when the one that started it dies, however that happens. Ctrl-C at the terminal does not
reach it, so that nodes are stopped in an order that is safe.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from robot_rl.hardware.child_process import describe_exit, end_with_parent

_KEPT_LINES = 12
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class NodeProcess:
    """A node of `robot_rl.hardware.nodes`.

    Args:
        name: of the node; `policy` runs `robot_rl.hardware.nodes.policy_node`.
        parameters: ROS parameters.
        log: file that its output is added to.
        show: called with each line of its output, by another thread.

    Attributes:
        starts: how often it was started.
    """

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        log: Path,
        show: Callable[[str], None],
    ) -> None:
        self.name, self.starts = name, 0
        self._arguments = [sys.executable, "-P", "-m", f"robot_rl.hardware.nodes.{name}_node", "--ros-args"]
        for key, value in parameters.items():
            self._arguments += ["-p", f"{key}:={_ros(value)}"]
        self._log, self._show = log, show
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """Id of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def ended(self) -> str:
        """How the process ended, and what it said last."""
        assert self._process is not None
        if self._reader is not None:
            self._reader.join(1.0)
        said = "".join(f"\n    {line}" for line in self._last)
        return f"{self.name} node ended: {describe_exit(self._process.wait())}{said}"

    def start(self) -> None:
        """Start the process, which must not be running. Only from a thread that lives as long as the program."""
        environment = {
            **dict.fromkeys(_ONE_THREAD, "1"), **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        self._last.clear()
        self.starts += 1
        self._process = subprocess.Popen(
            self._arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", env=environment, process_group=0,
            preexec_fn=functools.partial(end_with_parent, signal.SIGTERM, os.getpid()),
        )  # fmt: skip
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def stop(self, grace: float = 5.0) -> None:
        """Ask the process to end, and after `grace` seconds kill it."""
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(number)
                try:
                    self._process.wait(grace)
                except subprocess.TimeoutExpired:
                    self._say(f"does not end within {grace:g} s and is killed")
        if self._reader is not None:
            self._reader.join(1.0)

    def _read(self, output: IO[str]) -> None:
        with self._log.open("a", buffering=1) as file:
            for line in output:
                with suppress(OSError):
                    file.write(line)
                self._last.append(line.rstrip())
                self._say(line.rstrip())

    def _say(self, line: str) -> None:
        """Show it. Where that fails, reading goes on: the node would wait for somebody who reads."""
        with suppress(OSError):
            self._show(line)


def _ros(value: Any) -> str:
    """A value as `--ros-args -p` reads it: YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
