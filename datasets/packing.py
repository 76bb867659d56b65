"""Packing encoded frames of one camera behind each other, none across a chunk, and many in one write.

A write of 256 KiB costs a third of what its frames would cost one by one: the kernel takes whole runs of pages at once.
"""

from __future__ import annotations

from threading import Lock

from robot_rl.datasets.chunks import ChunkWriter
from robot_rl.datasets.errors import StoreError

_TOGETHER_BYTES = 256 << 10


class FramePacker:
    """Gives every frame its place in an array of bytes. Safe to use from several threads."""

    def __init__(self, array: ChunkWriter) -> None:
        self._array = array
        self._lock = Lock()
        self._tail = self._written = array.length
        self._waiting: list[bytes] = []

    def place(self, data: bytes) -> int:
        """Put a frame behind all others: its offset. It is in the file after the next `flush`, or before.

        Raises:
            StoreError: it is larger than a chunk.
            OSError: frames could not be written. They are kept, so that the next `flush` tries, and fails, again.
        """
        chunk = self._array.chunk_rows
        if len(data) > chunk:
            camera = self._array.folder.parent.name
            raise StoreError(f"{camera}: a frame takes {len(data)} bytes, more than a chunk of {chunk}")
        with self._lock:
            left = -self._tail % chunk
            if len(data) > left and left:
                self._flush()
                self._tail += left
                self._written = self._tail
            offset = self._tail
            self._tail += len(data)
            self._waiting.append(data)
            if self._tail - self._written >= _TOGETHER_BYTES or self._tail % chunk == 0:
                self._flush()
        return offset

    def flush(self) -> int:
        """Write what was placed: where the next frame will begin."""
        with self._lock:
            self._flush()
            return self._tail

    def reset(self) -> None:
        """Forget what lies behind the array's length: its space is used again."""
        with self._lock:
            self._tail = self._written = self._array.length
            self._waiting.clear()

    def _flush(self) -> None:
        if self._waiting:
            self._array.write_bytes(self._written, b"".join(self._waiting))
            self._waiting.clear()
            self._written = self._tail
