"""Frames behind each other, whatever the order in which they are written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from robot_rl.datasets.chunks import ChunkedArray, ChunkWriter
from robot_rl.datasets.disk import Disk
from robot_rl.datasets.errors import StoreError
from robot_rl.datasets.packing import FramePacker

CHUNK = 1 << 20


@pytest.fixture
def array(tmp_path: Path) -> ChunkWriter:
    return ChunkWriter.create(tmp_path / "bytes", "uint8", (), CHUNK, Disk())


def pieces(seed: int, number: int = 300) -> list[bytes]:
    draw = np.random.default_rng(seed)
    return [draw.bytes(int(size)) for size in draw.integers(1, 20_000, number)]


def stored(array: ChunkWriter, length: int) -> bytes:
    array.set_length(length)
    return ChunkedArray.open(array.folder).slice(0, length).tobytes()


def test_every_frame_lies_whole_where_it_was_placed(array: ChunkWriter) -> None:
    packer, data = FramePacker(array), pieces(0)
    offsets = [packer.place(piece) for piece in data]
    found = stored(array, packer.flush())
    assert len(found) == offsets[-1] + len(data[-1])
    assert len(found) > 2 * CHUNK, "several chunks"
    for piece, offset in zip(data, offsets, strict=True):
        assert found[offset : offset + len(piece)] == piece
        assert offset // CHUNK == (offset + len(piece) - 1) // CHUNK
    gaps = len(found) - sum(map(len, data))
    assert 0 < gaps < 20_000 * (len(found) // CHUNK)


def test_threads_place_beside_each_other(array: ChunkWriter) -> None:
    packer, data = FramePacker(array), [piece for seed in range(4) for piece in pieces(seed, 100)]
    with ThreadPoolExecutor(4) as threads:
        offsets = list(threads.map(packer.place, data))
    found = stored(array, packer.flush())
    assert all(found[offset : offset + len(piece)] == piece for piece, offset in zip(data, offsets, strict=True))


def test_a_frame_that_fills_a_chunk_and_one_that_is_larger(array: ChunkWriter) -> None:
    packer = FramePacker(array)
    assert packer.place(bytes(3)) == 0
    assert packer.place(b"\1" * CHUNK) == CHUNK
    assert packer.place(b"\2") == 2 * CHUNK
    with pytest.raises(StoreError, match=r"takes 1048577 bytes, more than a chunk of 1048576"):
        packer.place(bytes(CHUNK + 1))
    found = stored(array, packer.flush())
    assert found == bytes(CHUNK) + b"\1" * CHUNK + b"\2"


def test_what_could_not_be_written_is_tried_again(array: ChunkWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    packer = FramePacker(array)
    write = array.write_bytes

    def full(start: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array, "write_bytes", full)
    first, second = bytes(range(256)) * 100, b"\1" * (256 << 10)
    assert packer.place(first) == 0
    with pytest.raises(OSError, match="space"):
        packer.place(second)
    with pytest.raises(OSError, match="space"):
        packer.flush()
    monkeypatch.setattr(array, "write_bytes", write)
    assert stored(array, packer.flush()) == first + second


def test_space_behind_the_length_is_used_again(array: ChunkWriter) -> None:
    packer = FramePacker(array)
    packer.place(b"abc")
    array.set_length(packer.flush())
    packer.place(b"lost")
    packer.reset()
    assert packer.place(b"kept") == 3
    assert stored(array, packer.flush()) == b"abckept"
