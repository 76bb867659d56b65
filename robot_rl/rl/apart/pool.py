"""Actors as processes on the learner's machine, which end with it, however it ends; those that crash start again."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from robot_rl.hardware.child_process import describe_exit, end_with_parent
from robot_rl.rl.on_policy import FinetuneError

RESTARTS = 10
"""Of all actors together; more crashes than that have a cause that does not go away."""
_GRACE = 5.0
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Pool:
    """Several actors, within a `with` statement.

    Args:
        folder: each actor keeps its store and its log in one below, `0`, `1`, …
        arguments: of `robot-rl act`, but for `output=`.
    """

    def __init__(self, count: int, folder: Path, arguments: Sequence[str]) -> None:
        self._folders = [folder / str(number) for number in range(count)]
        self._arguments, self._restarts = list(arguments), 0
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Pool:
        self._processes = [self._start(folder) for folder in self._folders]
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes]

    def check(self) -> None:
        """Start again what has crashed, or was stopped by somebody else.

        Raises:
            FinetuneError: an actor ended by an error of its own, or crashed too often.
        """
        for number, process in enumerate(self._processes):
            code = process.poll()
            if code is None or code == 0:
                continue
            self._restarts += 1
            stopped = code in (128 + signal.SIGINT, 128 + signal.SIGTERM)
            if (code > 0 and not stopped) or self._restarts > RESTARTS:
                log = self._folders[number] / "actor.log"
                said = "".join(f"\n    {line}" for line in log.read_text(errors="replace").splitlines()[-8:])
                raise FinetuneError(f"actor {number} has ended: {describe_exit(code)}; {log} ends with{said}")
            self._processes[number] = self._start(self._folders[number])

    def _start(self, folder: Path) -> subprocess.Popen[bytes]:
        folder.mkdir(parents=True, exist_ok=True)
        environment = {
            **dict.fromkeys(_ONE_THREAD, "1"), **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        with (folder / "actor.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "robot_rl.cli", "act", *self._arguments, f"output='{folder}'"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, process_group=0,
                preexec_fn=functools.partial(end_with_parent, signal.SIGTERM, os.getpid()),
            )  # fmt: skip
