"""Imports the episodes of a bag while it is being written, in a process of its own.

The recorder sends the bag's settings as a line of JSON, then, line by line, the byte up to which the file may be read;
back come lines of JSON: each episode as it is closed, `read` when all is read, `error` when nothing more will come.
When the recorder hangs up or dies, what is left is imported and the process ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robot_rl.datasets import Contract, EpisodeStore
from robot_rl.hardware.recording.bag import Bag
from robot_rl.hardware.recording.bag_import import BagImport, Imported, create_store, robot_for

NICENESS = 10
"""Whatever controls the robot goes first."""

ENCODE_THREADS = 2


class LiveImport:
    """The process, from outside.

    Args:
        bag: MCAP file that is being written.
        robot: name or path of the robot's file.
        contract: of the store.
        output: the store; made where there is none.
        report: called from another thread with each episode, or with the reason why no more will come.
    """

    def __init__(
        self, bag: Path, robot: str, contract: Contract, output: Path, report: Callable[[Imported | str], None]
    ) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        # A process group of its own: Ctrl-C at a terminal is for the recorder, which hangs up when it is done.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from robot_rl.hardware.recording.live_import import main; main()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, process_group=0, text=True, bufsize=1,
        )  # fmt: skip
        self._report = report
        self._idle = False
        self._sent = 0
        settings = {"bag": str(bag), "robot": robot, "contract": contract.to_dict(), "output": str(output)}
        self._send(json.dumps(settings))
        self._thread = threading.Thread(target=self._listen, name="import", daemon=True)
        self._thread.start()

    def advance(self, size: int) -> None:
        """The file may be read up to the byte `size`; nothing happens while the process is busy with more before it."""
        if self._idle and size > self._sent:
            self._idle, self._sent = False, size
            self._send(str(size))

    def close(self, timeout: float) -> None:
        """Wait until all is imported, at most for `timeout` [s]."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it has died, and that was reported
            self._process.stdin.close()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
        except OSError:
            self._idle = False

    def _listen(self) -> None:
        assert self._process.stdout is not None
        failed = False
        for line in self._process.stdout:
            said = json.loads(line)
            if "read" in said:
                self._idle = True
            elif "error" in said:
                failed = True
                self._report(said["error"])
            else:
                self._report(Imported(**said))
        if self._process.wait() and not failed:
            self._report(f"the importing process ended with status {self._process.returncode}")


def main() -> None:
    """Serve one recorder until it hangs up. Started by `LiveImport`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    settings = json.loads(sys.stdin.readline())
    try:
        _serve(settings)
    except Exception as error:
        _say({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


def _serve(settings: Mapping[str, Any]) -> None:
    output, contract = Path(settings["output"]), Contract.from_dict(settings["contract"])
    robot = robot_for(settings["robot"], contract)
    if not output.exists():
        create_store(output, robot)
    with EpisodeStore.append(output, robot.contract, ENCODE_THREADS) as writer:
        bag = Bag(settings["bag"])
        importer = BagImport(robot, bag, writer)
        _say({"read": 0})
        # readline, not iteration, which would wait for more than a line
        for line in iter(sys.stdin.readline, ""):
            _import(bag, importer, int(line))
            _say({"read": int(line)})
        _import(bag, importer, None)
        for imported in importer.finish():
            _say(asdict(imported))


def _import(bag: Bag, importer: BagImport, until: int | None) -> None:
    for recorded in bag.read(until):
        for imported in importer.push(recorded):
            _say(asdict(imported))


def _say(said: Mapping[str, Any]) -> None:
    with suppress(BrokenPipeError):  # the recorder was killed; what is left is imported all the same
        print(json.dumps(said), flush=True)
