"""One array of a store: a Zarr v3 array without compression, cut along its first axis in chunk files of one fixed size.

A chunk file has its full size from the start (sparse), so that appending never changes what a reader sees of it:
rows are written beyond the committed length, then the small `zarr.json` is replaced with the new shape.

Reading goes past zarr, where one read costs 1 ms. Rows are taken from memory maps as long as all mapped arrays of the
process stay within `MAPPED_BYTES`; beyond that, and for camera frames, ranges are read into place (`preadv`, 2 µs).
Mapped pages count as memory of the process, so mapping a whole store would let it grow with the store, and a failing
drive would kill the process by SIGBUS instead of raising an error.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import resource
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock, RLock
from typing import Any

import numpy as np

from robot_rl.datasets.disk import Disk
from robot_rl.datasets.errors import StoreDamaged, StoreError

ROW_CHUNK_BYTES = 4 << 20
FRAME_CHUNK_BYTES = 64 << 20
MAPPED_BYTES = 128 << 20
MAPPED_CHUNKS = 256
RUN_BYTES = 64 << 10
_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
OPEN_FILES = 4096 if _LIMIT == resource.RLIM_INFINITY else min(_LIMIT // 2, 4096)

DTYPES = frozenset([
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
])
"""The NumPy names of what an array may hold; Zarr v3 uses the same names."""


class ChunkedArray:
    """Reads one array. Everything it returns belongs to the caller; nothing refers to the file.

    Safe to use from several threads and after a fork.

    Attributes:
        folder: of the array, with its `zarr.json` and chunk files `c.0`, `c.1`, ...
        dtype: of the elements.
        row_shape: shape of one row.
        chunk_rows: rows per chunk file.
        length: rows that may be read. A store sets it to what is committed.
    """

    def __init__(self, folder: Path, dtype: np.dtype, row_shape: tuple[int, ...], chunk_rows: int, length: int) -> None:
        self.folder = folder
        self.dtype = dtype
        self.row_shape = row_shape
        self.chunk_rows = chunk_rows
        self.length = length
        self.row_bytes = dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))
        self._suffix = ".0" * len(row_shape)
        self._maps: dict[int, np.ndarray] = {}
        self._key = next(_serial)
        weakref.finalize(self, _forget, self._key, self._maps)

    @staticmethod
    def open(folder: str | Path, length: int | None = None) -> ChunkedArray:
        """Open an array for reading.

        Args:
            length: rows that may be read; by default as many as its `zarr.json` says.

        Raises:
            StoreDamaged: the header is missing, unreadable, or says fewer rows than `length`.
        """
        folder = Path(folder)
        dtype, shape, chunk_rows = read_header(folder)
        if length is not None and shape[0] < length:
            raise StoreDamaged(
                f"{folder}: {length} rows are committed, but its zarr.json says {shape[0]}. "
                "Run `robot-rl data check --repair` on the store."
            )
        return ChunkedArray(folder, dtype, shape[1:], chunk_rows, shape[0] if length is None else length)

    def __len__(self) -> int:
        return self.length

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkedArray, (self.folder, self.dtype, self.row_shape, self.chunk_rows, self.length)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what may be read: (length, *row_shape)."""
        return (self.length, *self.row_shape)

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1, [stop - start, *row_shape], in memory of their own."""
        out = np.empty((max(stop - start, 0), *self.row_shape), self.dtype)
        self.read_into(start, out)
        return out

    def read_into(self, start: int, out: np.ndarray) -> None:
        """Fill `out` [n, *row_shape] (C-contiguous, of the array's dtype) with the rows from `start` on."""
        self._check_range(start, start + len(out))
        if out.dtype != self.dtype or out.shape[1:] != self.row_shape or not out.flags.c_contiguous:
            raise ValueError(
                f"{self.folder.name}: expected contiguous {self.dtype} rows {list(self.row_shape)} to read into, "
                f"got {out.dtype} {list(out.shape[1:])}"
            )
        row, done, count = start, 0, len(out)
        while done < count:
            chunk, inside = divmod(row, self.chunk_rows)
            rows = min(count - done, self.chunk_rows - inside)
            self._read(chunk, inside, out[done : done + rows])
            row, done = row + rows, done + rows

    def pieces(self, starts: np.ndarray, sizes: np.ndarray) -> Iterator[bytes]:
        """Pieces of a one-dimensional uint8 array, one after the other: encoded frames.

        Args:
            starts, sizes: int [n]; piece i consists of `sizes[i]` bytes from `starts[i]` on, all within one chunk.
                Pieces that follow each other are read by one call, as far as they begin in the same `RUN_BYTES`.
        """
        if not len(starts):
            return
        chunks, begins = np.divmod(starts, self.chunk_rows)
        ends = begins + sizes
        apart = (begins[1:] != ends[:-1]) | (np.diff(chunks) != 0) | (np.diff(begins // RUN_BYTES) != 0)
        edges = np.flatnonzero(np.concatenate([[True], apart, [True]]))
        first, last = edges[:-1], edges[1:] - 1
        runs = (places.tolist() for places in (first, last, chunks[first], begins[first], ends[last]))
        lengths = np.asarray(sizes).tolist()
        current = -1
        for one, other, chunk, begin, end in zip(*runs, strict=True):
            if chunk != current:
                file, current = self._file(chunk), chunk
            data = os.pread(file.descriptor, end - begin, begin)
            if len(data) != end - begin:
                raise self._short(chunk, chunk * self.chunk_rows + begin, chunk * self.chunk_rows + end)
            start = 0
            for length in lengths[one : other + 1]:
                yield data[start : start + length]
                start += length

    def gather(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Rows by number, in any order and with repetitions.

        Args:
            indices: integers of any shape [...], each within 0..length-1.
            out: [..., *row_shape] to fill, of the array's dtype; by default a new array.

        Returns:
            `out`.
        """
        indices = np.asarray(indices)
        if out is None:
            out = np.empty((*indices.shape, *self.row_shape), self.dtype)
        flat = indices.reshape(-1)
        if not flat.size:
            return out
        first, last = int(flat.min()), int(flat.max())
        self._check_range(first, last + 1)
        rows = out.reshape(-1, *self.row_shape)
        if not np.shares_memory(rows, out):
            raise ValueError(f"{self.folder.name}: gather needs an output whose leading axes are contiguous")
        if not self._may_map():
            self._gather_runs(flat, rows)
        elif first // self.chunk_rows == last // self.chunk_rows:
            chunk = first // self.chunk_rows
            rows[...] = self._map(chunk)[flat - chunk * self.chunk_rows]
        else:
            self._gather_mapped(flat, rows)
        return out

    def chunk_path(self, chunk: int) -> Path:
        """Where a chunk lies."""
        return self.folder / f"c.{chunk}{self._suffix}"

    def _gather_mapped(self, indices: np.ndarray, rows: np.ndarray) -> None:
        """Take sorted rows chunk by chunk."""
        order = np.argsort(indices)
        ordered = indices[order]
        found = np.empty(rows.shape, self.dtype)
        chunks = range(int(ordered[0]) // self.chunk_rows, int(ordered[-1]) // self.chunk_rows + 1)
        cuts = np.searchsorted(ordered, np.array([*chunks[1:]]) * self.chunk_rows).tolist()
        for chunk, (start, stop) in zip(chunks, itertools.pairwise([0, *cuts, len(ordered)]), strict=True):
            if start < stop:
                inside = ordered[start:stop] - chunk * self.chunk_rows
                np.take(self._map(chunk), inside, axis=0, out=found[start:stop], mode="clip")
        rows[order] = found

    def _gather_runs(self, indices: np.ndarray, rows: np.ndarray) -> None:
        """Read every run of consecutive rows within a chunk by a call of its own."""
        found = rows if rows.flags.c_contiguous else np.empty_like(rows, order="C")
        view = found.reshape(-1).view(np.uint8).data
        chunks, inside = np.divmod(indices, self.chunk_rows)
        starts = np.concatenate([[0], np.flatnonzero((np.diff(indices) != 1) | (np.diff(chunks) != 0)) + 1])
        bounds = itertools.pairwise([*(starts * self.row_bytes).tolist(), len(view)])
        places = zip(chunks[starts].tolist(), inside[starts].tolist(), bounds, strict=True)
        current = -1
        for chunk, row, (start, stop) in places:
            if chunk != current:
                file, current = self._file(chunk), chunk
            if os.preadv(file.descriptor, [view[start:stop]], row * self.row_bytes) != stop - start:
                self._read(chunk, row, found[start // self.row_bytes : stop // self.row_bytes])
        if found is not rows:
            rows[...] = found

    def _read(self, chunk: int, inside: int, out: np.ndarray) -> None:
        file = self._file(chunk)
        view = out.reshape(-1).view(np.uint8).data
        offset = inside * self.row_bytes
        while view:
            count = os.preadv(file.descriptor, [view], offset)
            if not count:
                start = chunk * self.chunk_rows + inside
                raise self._short(chunk, start, start + len(out))
            offset, view = offset + count, view[count:]

    def _may_map(self) -> bool:
        """Whether the whole array fits, beside those mapped already, into what this process may map."""
        used, chunks = self.length * self.row_bytes, -(-self.length // self.chunk_rows)
        return _mapped.reserve(self._key, used, chunks)

    def _map(self, chunk: int) -> np.ndarray:
        mapped = self._maps.get(chunk)
        if mapped is None:
            file, size = self._file(chunk), self.chunk_rows * self.row_bytes
            if os.fstat(file.descriptor).st_size < size:
                raise self._short(chunk, chunk * self.chunk_rows, (chunk + 1) * self.chunk_rows)
            memory = mmap.mmap(file.descriptor, size, access=mmap.ACCESS_READ)
            mapped = np.frombuffer(memory, self.dtype).reshape(self.chunk_rows, *self.row_shape)
            self._maps[chunk] = mapped
        return mapped

    def _file(self, chunk: int) -> _File:
        file = _files.get((self._key, chunk))
        if file is None:
            try:
                file = _File(self.chunk_path(chunk))
            except FileNotFoundError:
                raise StoreDamaged(
                    f"{self.chunk_path(chunk)} is missing, but rows of it are committed. Restore the file from a copy, "
                    "or run `robot-rl data check --repair` to go on without the episodes in it."
                ) from None
            _files[self._key, chunk] = file
            while len(_files) > OPEN_FILES:
                _files.popitem(last=False)
        return file

    def _check_range(self, start: int, stop: int) -> None:
        if start < 0 or stop > self.length:
            raise IndexError(f"{self.folder.name}: rows {start}..{stop - 1} asked for, there are {self.length}")

    def _short(self, chunk: int, start: int, stop: int) -> StoreDamaged:
        return StoreDamaged(
            f"{self.chunk_path(chunk)} is too short for the committed rows {start}..{stop - 1}. Restore the file from "
            "a copy, or run `robot-rl data check --repair` to go on without the episodes in it."
        )


class ChunkWriter:
    """Writes one array. What counts for readers changes only by `set_length`, after `sync`.

    Use: `append` or `write` rows beyond the committed length, `sync`, and `set_length`, or instead of that
    `prepare_length`, which may go beside `sync`, and after both `install_length`.
    """

    def __init__(self, folder: str | Path, disk: Disk, length: int | None = None) -> None:
        self.folder = Path(folder)
        self.disk = disk
        self.dtype, shape, self.chunk_rows = read_header(self.folder)
        self.row_shape = shape[1:]
        self.length = shape[0] if length is None else length
        self.row_bytes = self.dtype.itemsize * int(np.prod(self.row_shape, dtype=np.int64))
        self._suffix = ".0" * len(self.row_shape)
        # A commit replaces all headers: what stands around the length is made once.
        self._around = header(self.dtype.name, ("length", *self.row_shape), self.chunk_rows).split(b'"length"')
        self._prepared = self.length
        self._made: dict[int, Path] = {}
        self._touched: set[int] = set()
        self._new_files = False
        self._lock = Lock()

    @staticmethod
    def create(folder: str | Path, dtype: str, row_shape: tuple[int, ...], chunk_rows: int, disk: Disk) -> ChunkWriter:
        """Make an empty array of a dtype out of `DTYPES`, cut every `chunk_rows` rows."""
        folder = Path(folder)
        disk.make_folder(folder)
        disk.replace(folder / "zarr.json", header(dtype, (0, *row_shape), chunk_rows))
        disk.sync_folder(folder)
        return ChunkWriter(folder, disk)

    def append(self, rows: np.ndarray) -> None:
        """Write rows [n, *row_shape] behind the last and move `length` on."""
        self.write(self.length, rows)
        self.length += len(rows)

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write rows [n, *row_shape], of the array's dtype, at row `start`."""
        rows = np.ascontiguousarray(rows, self.dtype)
        done = 0
        while done < len(rows):
            chunk, inside = divmod(start + done, self.chunk_rows)
            count = min(len(rows) - done, self.chunk_rows - inside)
            part = rows[done : done + count].reshape(-1).view(np.uint8)
            self._write(chunk, inside * self.row_bytes, part.data)
            done += count

    def write_bytes(self, start: int, data: bytes) -> None:
        """Write an encoded frame into a one-dimensional uint8 array; it must fit into the chunk of `start`."""
        chunk, inside = divmod(start, self.chunk_rows)
        if inside + len(data) > self.chunk_rows:
            raise ValueError(f"{len(data)} bytes at {start} would cross a chunk of {self.chunk_rows} bytes")
        self._write(chunk, inside, data)

    def sync(self) -> None:
        """Wait until all written rows are on the drive."""
        with self._lock:
            touched, self._touched = self._touched, set()
            new_files, self._new_files = self._new_files, False
        for chunk in sorted(touched):
            self.disk.sync(self._made[chunk])
        if new_files:
            self.disk.sync_folder(self.folder)

    def set_length(self, length: int) -> None:
        """Replace `zarr.json` by one that says `length` rows, and make that last."""
        self.prepare_length(length)
        self.install_length()

    def prepare_length(self, length: int) -> None:
        """Write a `zarr.json` that says `length` rows beside the present one, and sync it."""
        self.disk.prepare(self.folder / "zarr.json", str(length).encode().join(self._around))
        self._prepared = length

    def install_length(self) -> None:
        """Put the `zarr.json` that was prepared into the place of the present one, and make that last."""
        self.length = self._prepared
        self.disk.install(self.folder / "zarr.json")
        self.disk.sync_folder(self.folder)

    def _write(self, chunk: int, offset: int, data: bytes | memoryview) -> None:
        path = self._made.get(chunk)
        if path is None:
            path = self.folder / f"c.{chunk}{self._suffix}"
            self.disk.create(path, self.chunk_rows * self.row_bytes)
            with self._lock:
                self._made[chunk] = path
                self._new_files = True
        self.disk.write(path, offset, data)
        with self._lock:
            self._touched.add(chunk)


def header(dtype: str, shape: tuple[int | str, ...], chunk_rows: int) -> bytes:
    """The `zarr.json` of an array (Zarr v3 core specification)."""
    codec: dict[str, Any] = {"name": "bytes"}
    if np.dtype(dtype).itemsize > 1:
        codec["configuration"] = {"endian": "little"}
    plain = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk_rows, *shape[1:]]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": False if dtype == "bool" else 0,
        "codecs": [codec],
        "attributes": {},
    }
    return json.dumps(plain, indent=2).encode()


def read_header(folder: Path) -> tuple[np.dtype, tuple[int, ...], int]:
    """dtype, shape and rows per chunk of an array.

    Raises:
        StoreDamaged: there is no readable `zarr.json`, or it is not laid out as this format demands.
    """
    path = folder / "zarr.json"
    try:
        plain = json.loads(path.read_bytes())
        shape = tuple(int(length) for length in plain["shape"])
        dtype = np.dtype(plain["data_type"]).newbyteorder("<")
        chunk_shape = plain["chunk_grid"]["configuration"]["chunk_shape"]
        separator = plain["chunk_key_encoding"]["configuration"]["separator"]
        codecs = [codec["name"] for codec in plain["codecs"]]
    except FileNotFoundError:
        raise StoreDamaged(f"{path} is missing. Run `robot-rl data check --repair` on the store.") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise StoreDamaged(
            f"{path} is not the header of an array ({type(error).__name__}: {error}). "
            "Run `robot-rl data check --repair` on the store."
        ) from error
    if codecs != ["bytes"] or separator != "." or tuple(chunk_shape[1:]) != shape[1:] or chunk_shape[0] < 1:
        raise StoreError(
            f"{path}: expected uncompressed chunks along the first axis, named c.0; got chunk shape {chunk_shape}, "
            f"codecs {codecs}, separator {separator!r}. It was not written in this format."
        )
    return dtype, shape, int(chunk_shape[0])


def checksum(rows: Mapping[str, np.ndarray]) -> int:
    """CRC-32 over the rows of an episode: all its arrays in the order of their paths, as bytes."""
    value = 0
    for name in sorted(rows):
        value = zlib.crc32(np.ascontiguousarray(rows[name]).data, value)
    return value


class _File:
    """An open file that closes itself when nobody reads from it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if descriptor := self.__dict__.get("descriptor"):
            os.close(descriptor)


class _Mapped:
    """What all mapped arrays of the process hold together."""

    def __init__(self) -> None:
        self.bytes = 0
        self.chunks = 0
        self._shares: dict[int, tuple[int, int]] = {}
        # Arrays are removed when they are collected, which may happen anywhere, also in here.
        self._lock = RLock()

    def reserve(self, key: int, size: int, chunks: int) -> bool:
        """Whether an array of that many bytes and chunks may be mapped; once it may, it may until it is removed."""
        if self._shares.get(key) == (size, chunks):
            return True
        with self._lock:
            own_size, own_chunks = self._shares.get(key, (0, 0))
            more, more_chunks = size - own_size, chunks - own_chunks
            if self.bytes + more > MAPPED_BYTES or self.chunks + more_chunks > MAPPED_CHUNKS:
                return False
            self._shares[key] = (size, chunks)
            self.bytes, self.chunks = self.bytes + more, self.chunks + more_chunks
        return True

    def remove(self, key: int) -> None:
        with self._lock:
            size, chunks = self._shares.pop(key, (0, 0))
            self.bytes, self.chunks = self.bytes - size, self.chunks - chunks


_serial = itertools.count()
_mapped = _Mapped()
_files: OrderedDict[tuple[int, int], _File] = OrderedDict()


def _forget(key: int, maps: dict[int, np.ndarray]) -> None:
    maps.clear()
    _mapped.remove(key)
    for entry in [entry for entry in _files if entry[0] == key]:
        _files.pop(entry, None)
