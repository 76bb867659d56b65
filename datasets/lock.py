"""One writer at a time: an advisory lock (`flock`) on `meta/writer.lock`.

The kernel drops the lock when its process dies, however it dies, so there are no stale locks to clean up. The file's
content (process, host, start) only serves the message to the second writer.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import weakref
from pathlib import Path

from robot_rl.datasets.errors import StoreLocked


class WriterLock:
    """Holds the lock until `release`, or until the process ends.

    Raises:
        StoreLocked: another writer holds it, in this process or another.
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 4096, 0)
            os.close(self._descriptor)
            self._descriptor = -1
            raise _locked(path, holder) from None
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, holder, 0)
        _held.add(self)

    @property
    def held(self) -> bool:
        """Whether this process still holds it."""
        return self._descriptor >= 0

    def release(self) -> None:
        """Let the next writer in."""
        if self._descriptor >= 0:
            _held.discard(self)
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if self.__dict__.get("_descriptor", -1) >= 0:
            os.close(self._descriptor)

    def _forget(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _after_fork() -> None:
    # A forked worker shares the open file, and with it the lock: it would keep the store locked after our death.
    for lock in list(_held):
        lock._forget()
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)


def _locked(path: Path, content: bytes) -> StoreLocked:
    store = path.parent.parent
    try:
        holder = json.loads(content)
        pid, host = int(holder["pid"]), str(holder["host"])
    except (ValueError, KeyError, TypeError):
        return StoreLocked(f"{store}: another writer is just opening it. Wait for it, or stop it.", None)
    where = "this very process" if pid == os.getpid() else f"process {pid} on {host}"
    return StoreLocked(
        f"{store} is being written by {where} (pid {pid}). One writer at a time: wait until it is done or stop it. "
        "Reading is possible meanwhile.",
        pid,
    )
