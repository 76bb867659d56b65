"""Threads that encode frames beside the one that records."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Semaphore, Thread

_BACKLOG = 32
"""Frames that may wait; recording is held up by more, so that memory stays bounded."""


class Encoders:
    """Does jobs of one thread, which must not raise. A small frame is encoded so soon that a future each would tell."""

    def __init__(self, threads: int) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._room = Semaphore(_BACKLOG)
        self._threads = [Thread(target=self._work, name="encode", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Hand over a job, as soon as there is room for it."""
        self._room.acquire()
        self._jobs.put(job)

    def wait(self) -> None:
        """Until all jobs handed over so far are done."""
        for _ in range(_BACKLOG):
            self._room.acquire()
        self._room.release(_BACKLOG)

    def close(self) -> None:
        """Do what waits, and end the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # its frame must not be kept until the next one comes
            self._room.release()
