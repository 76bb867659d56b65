"""Batches computed ahead by threads, handed over in order.

Threads, not processes: decoding and copying run outside the interpreter's lock, a batch is written once into the memory
the trainer gets, an error keeps its traceback, and nothing is left behind when the trainer is killed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")

BATCHES_AHEAD = 2
"""Batches per worker that are finished or under way; together they are the queue."""


class Prefetch(Generic[Item]):
    """Computes `read(position)`, `read(position + step)`, ... before they are asked for.

    Args:
        read: called from several threads at once.
        step: from one position to the next.
        workers: number of threads; with 0 everything is computed when it is asked for.
    """

    def __init__(self, read: Callable[[int], Item], step: int, workers: int) -> None:
        self._read = read
        self._step = step
        self._workers = workers
        self._queue: deque[tuple[int, Future[Item]]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def take(self, position: int) -> Item:
        """The item at a position. Going on from the last one is fast, any other position starts the queue anew.

        Raises:
            Exception: whatever `read` raised for this position.
        """
        if not self._workers:
            return self._read(position)
        if self._process != os.getpid():
            # Threads do not survive a fork, and their pool cannot be shut down from the child.
            self._queue, self._pool, self._process = deque(), None, os.getpid()
        if self._queue and self._queue[0][0] != position:
            self._cancel()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="windows")
        while len(self._queue) < BATCHES_AHEAD * self._workers:
            ahead = position + len(self._queue) * self._step
            self._queue.append((ahead, self._pool.submit(self._read, ahead)))
        return self._queue.popleft()[1].result()

    def close(self) -> None:
        """Drop what was computed ahead and let the threads end."""
        if self._pool is not None and self._process == os.getpid():
            self._cancel()
            self._pool.shutdown(wait=False)
        self._pool = None

    def _cancel(self) -> None:
        while self._queue:
            self._queue.popleft()[1].cancel()
