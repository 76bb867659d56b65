"""A run's recording: its black box, written by a thread of its own, and the import of its episodes beside it.

Whoever receives messages only puts them here, which takes microseconds. When the disk is full they wait in memory,
until there is room again or the memory set aside for them is used up; what is then lost is counted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from robot_rl.datasets import Contract
from robot_rl.hardware.recording.bag_import import Imported
from robot_rl.hardware.recording.black_box import BlackBox, BlackBoxError, Topic
from robot_rl.hardware.recording.live_import import LiveImport

FLUSH_S = 0.1
"""What a killed recorder loses at most [s]."""

RETRY_S = 1.0
"""Between two attempts to write on a full disk [s]."""

IMPORT_S = 55.0
"""How long `close` waits for the import of the last episodes [s]."""


class _Message(NamedTuple):
    topic: Topic
    received: int
    cdr: bytes


class Recording:
    """Writes what is put.

    Args:
        box: to be written; closed by `close`.
        memory: that messages may take while they wait [byte].
        importing: makes the import of episodes, which is told how far the file may be read; None: there is none.

    Attributes:
        dropped: messages lost for want of memory.
        problem: why nothing is written at present, else empty.
    """

    def __init__(self, box: BlackBox, memory: int, importing: LiveImport | None = None) -> None:
        self._box, self._memory, self._import = box, memory, importing
        self._waiting: deque[_Message] = deque()
        self._bytes = 0
        self._wake = threading.Condition()
        self._sync = self._closed = False
        self.dropped, self.messages, self.problem = 0, 0, ""
        self._thread = threading.Thread(target=self._run, name="black box", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """Folder of the bag."""
        return self._box.path.parent

    @property
    def size(self) -> int:
        """Of the file [byte]."""
        return self._box.size

    def put(self, topic: Topic, received: int, cdr: bytes) -> None:
        """Record a message received at `received` [ns]; returns at once."""
        with self._wake:
            if self._bytes + len(cdr) > self._memory:
                self.dropped += 1
                return
            self._waiting.append(_Message(topic, received, cdr))
            self._bytes += len(cdr)
            self.messages += 1

    def sync(self) -> None:
        """Have what was put until now on the drive soon, and imported; returns at once."""
        with self._wake:
            self._sync = True
            self._wake.notify()

    def close(self) -> None:
        """Write what waits, finish the file and the import.

        Raises:
            BlackBoxError: the file could not be finished; what was recorded can be recovered.
        """
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        try:
            self._box.close()
        finally:
            if self._import is not None:
                self._import.close(IMPORT_S)

    def _run(self) -> None:
        wait = FLUSH_S
        while not self._closed:
            with self._wake:
                if not (self._closed or self._sync):
                    self._wake.wait(wait)
                sync, self._sync = self._sync, False
            try:
                self._write()
                if sync:
                    self._box.sync()
                self.problem, wait = "", FLUSH_S
            except (BlackBoxError, OSError) as error:
                self.problem, wait = str(error), RETRY_S
            if self._import is not None:
                self._import.advance(self._box.size)
        try:
            self._write()
        except BlackBoxError as error:
            self.problem = str(error)

    def _write(self) -> None:
        self._box.flush()  # what could not be written the last time
        for _ in range(len(self._waiting)):
            message = self._waiting[0]
            self._box.add_topic(message.topic)
            with self._wake:
                self._waiting.popleft()
                self._bytes -= len(message.cdr)
            self._box.write(message.topic.name, message.received, message.cdr)
        self._box.flush()


def record(
    folder: Path, notes: Mapping[str, str], memory: int, robot: str, contract: Contract, dataset: Path | None,
    report: Callable[[Imported | str], None],
) -> Recording:  # fmt: skip
    """Begin a recording in a new folder.

    Args:
        notes: kept in the bag.
        robot: name or path of its file.
        dataset: store that episodes are imported into; None: none.
        report: called from another thread with each episode, or why no more will be imported.

    Raises:
        BlackBoxError: the folder exists or cannot be written.
    """
    box = BlackBox(folder, notes)
    importing = None if dataset is None else LiveImport(box.path, robot, contract, dataset, report)
    return Recording(box, memory, importing)
