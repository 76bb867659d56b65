"""The few file operations a store is written with, in one place.

A test replaces `Disk` by one that records or fails, and so sees what is left after a power cut or on a full disk. Only
what was passed to `sync` and `sync_folder` may be trusted to be there after either.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock

from robot_rl.datasets.errors import StoreWriteError
from robot_rl.datasets.exchange import exchange

_OPEN_FILES = 64
_SYNC_THREADS = 8  # a file system joins concurrent syncs in one transaction, and a drive flushes once for many


class Disk:
    """Writes files below a store. Errors of the operating system leave as `OSError`.

    `write` must not be called from several threads for the same path; `sync` may run beside anything.

    To make and to remove a file costs a file system far more than to change one. What `install` replaces therefore
    stays beside the new content, and takes the next one once no power cut can bring it back: after `sync_folder`.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._replaced: dict[Path, set[Path]] = {}
        self._spare: set[Path] = set()
        self._files: OrderedDict[Path, int] = OrderedDict()
        self._lock = Lock()
        self._threads: ThreadPoolExecutor | None = None

    def make_folder(self, path: Path) -> None:
        """Create one folder."""
        path.mkdir()

    def create(self, path: Path, size: int) -> None:
        """Make sure that the file exists and has at least this size [bytes], sparse; what it holds is kept."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)
        finally:
            os.close(fd)

    def write(self, path: Path, offset: int, data: bytes | memoryview) -> None:
        """Write into an existing file at a byte offset."""
        view = memoryview(data)
        with self._lock:
            fd = self._descriptor(path)
            while view:
                written = os.pwrite(fd, view, offset)
                offset, view = offset + written, view[written:]

    def append(self, path: Path, data: bytes) -> None:
        """Append to a file in one call and sync it."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            if (written := os.write(fd, data)) != len(data):
                raise OSError(f"only {written} of {len(data)} bytes fitted into {path}")
            self._sync(fd, path)
        finally:
            os.close(fd)

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file to `size` bytes and sync it."""
        with path.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())

    def replace(self, path: Path, content: bytes) -> None:
        """Give a small file new content at once: `prepare` and `install`."""
        self.prepare(path, content)
        self.install(path)

    def prepare(self, path: Path, content: bytes) -> None:
        """Write a small file's new content beside it, and sync that."""
        beside = _beside(path)
        if beside not in self._spare or _has_other_names(beside):
            beside.unlink(missing_ok=True)  # of a writer that died: it may be what the drive still knows as `path`
        self._spare.discard(beside)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.ftruncate(fd, len(content))
            self._sync(fd, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def install(self, path: Path) -> None:
        """Give a file the content that was prepared, at once. `sync_folder` makes that last."""
        beside = _beside(path)
        if exchange(beside, path):
            self._replaced.setdefault(path.parent, set()).add(beside)
        else:
            beside.replace(path)

    def rename(self, source: Path, target: Path) -> None:
        """Move a folder to a name that is free, or an empty folder. `sync_folder` of the parent makes it last."""
        source.replace(target)

    def sync(self, path: Path) -> None:
        """Wait until the file's content is on the drive."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._sync(fd, path)
        finally:
            os.close(fd)

    def sync_folder(self, path: Path) -> None:
        """Wait until the names in a folder are on the drive."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._sync(fd, path)
            self._spare |= self._replaced.pop(path, set())
        finally:
            os.close(fd)

    def together(self, jobs: Iterable[Callable[[], object]]) -> None:
        """Run jobs at once and wait for all that were begun; the first error is raised."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_SYNC_THREADS, "sync")
        every = list(jobs)
        parts = [every[start::_SYNC_THREADS] for start in range(min(_SYNC_THREADS, len(every)))]
        futures = [self._threads.submit(_in_turn, part) for part in parts]
        wait(futures)
        for future in futures:
            future.result()

    def close(self) -> None:
        """Close all files, and remove what was replaced, unless this is a copy in a forked process."""
        replaced = self._spare.union(*self._replaced.values())
        self._spare, self._replaced = set(), {}
        for beside in replaced if os.getpid() == self._process else ():
            beside.unlink(missing_ok=True)
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        with self._lock:
            while self._files:
                os.close(self._files.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def _sync(self, descriptor: int, path: Path) -> None:
        os.fsync(descriptor)

    def _descriptor(self, path: Path) -> int:
        fd = self._files.get(path)
        if fd is None:
            fd = self._files[path] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            if len(self._files) > _OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
        else:
            self._files.move_to_end(path)
        return fd


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _has_other_names(path: Path) -> bool:
    """Whether a file belongs to a copy by hard links, too, such as a backup."""
    try:
        return path.stat().st_nlink > 1
    except FileNotFoundError:
        return False


def _in_turn(jobs: Iterable[Callable[[], object]]) -> None:
    for job in jobs:
        job()


class LateDisk(Disk):
    """Syncs every file and folder once, at `flush`: for a folder that nobody may trust before it is finished."""

    def __init__(self) -> None:
        super().__init__()
        self._late: set[Path] = set()

    def flush(self) -> None:
        """Wait until everything is on the drive."""
        late, self._late = sorted(self._late), set()
        now = Disk()
        try:
            now.together(partial(now.sync_folder if path.is_dir() else now.sync, path) for path in late)
        finally:
            now.close()

    def _sync(self, descriptor: int, path: Path) -> None:
        self._late.add(path)


@contextmanager
def explain_write_errors(path: Path, doing: str, again: str = "try again") -> Iterator[None]:
    """Turn an `OSError` into a `StoreWriteError` that says what was tried, why it failed and what to do.

    Args:
        again: what to do once there is space on the disk.
    """
    try:
        yield
    except OSError as error:
        raise StoreWriteError(
            f"{path}: {doing} failed: {error.strerror or error}. {_advice(error, again)} "
            "The episodes committed before are intact."
        ) from error


def _advice(error: OSError, again: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"The disk (or the quota) is full: free some space and {again}."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            "The folder is not writable for this user: mend its permissions, or copy the store to where you can write."
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "The folder is gone, or none can be made there: look at the path, or choose another."
    return "Look at the drive (`dmesg`), then run `robot-rl data check`."
