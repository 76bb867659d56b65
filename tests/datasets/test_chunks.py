"""Chunked arrays against plain NumPy and against zarr itself."""

import gc
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.datasets import StoreDamaged, StoreError, chunks
from robot_rl.datasets.chunks import ChunkedArray, ChunkWriter
from robot_rl.datasets.disk import Disk


def written(folder: Path, rows: np.ndarray, chunk_rows: int) -> ChunkedArray:
    writer = ChunkWriter.create(folder, rows.dtype.name, rows.shape[1:], chunk_rows, Disk())
    for part in np.array_split(rows, 3):
        writer.append(part)
    writer.sync()
    writer.set_length(len(rows))
    return ChunkedArray.open(folder)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("dtype", sorted(chunks.DTYPES))
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_zarr_reads_what_was_written(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    rows = np.random.default_rng(0).integers(0, 2, (23, *shape)).astype(dtype)
    array = written(tmp_path / "a", rows, chunk_rows=5)
    theirs = zarr.open_array(tmp_path / "a", mode="r")
    np.testing.assert_array_equal(theirs[:], rows)
    assert theirs.dtype == dtype
    np.testing.assert_array_equal(array.slice(0, 23), rows)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 60),
    chunk_rows=st.integers(1, 17),
    mapped=st.booleans(),
    data=st.data(),
)
def test_any_slice_and_gather_equals_numpy(
    tmp_path_factory: pytest.TempPathFactory, length: int, chunk_rows: int, mapped: bool, data: st.DataObject
) -> None:
    rows = np.random.default_rng(length).normal(size=(length, 2)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "MAPPED_BYTES", chunks.MAPPED_BYTES if mapped else 0)
        array = written(tmp_path_factory.mktemp("array") / "a", rows, chunk_rows)
        start = data.draw(st.integers(0, length))
        stop = data.draw(st.integers(start, length))
        np.testing.assert_array_equal(array.slice(start, stop), rows[start:stop])
        indices = np.array(data.draw(st.lists(st.lists(st.integers(0, length - 1), min_size=3, max_size=3))), np.int64)
        np.testing.assert_array_equal(array.gather(indices), rows[indices])
        out = np.zeros((*indices.shape, 2), np.float32)
        assert array.gather(indices, out) is out
        np.testing.assert_array_equal(out, rows[indices])


def test_rows_outside_are_refused(tmp_path: Path) -> None:
    array = written(tmp_path / "a", np.arange(10.0), chunk_rows=4)
    with pytest.raises(IndexError, match="there are 10"):
        array.slice(5, 11)
    with pytest.raises(IndexError, match="there are 10"):
        array.gather(np.array([-1]))


def test_a_wrong_output_is_refused(tmp_path: Path) -> None:
    array = written(tmp_path / "a", np.arange(12.0).reshape(6, 2), chunk_rows=4)
    with pytest.raises(ValueError, match="expected contiguous float64"):
        array.read_into(0, np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="contiguous"):
        array.gather(np.zeros((3, 2), int), np.zeros((2, 3, 2)).transpose(1, 0, 2))


def test_chunk_files_are_sparse_and_of_full_size(tmp_path: Path) -> None:
    array = written(tmp_path / "a", np.arange(10, dtype=np.uint8), chunk_rows=1 << 20)
    status = array.chunk_path(0).stat()
    assert status.st_size == 1 << 20
    assert status.st_blocks * 512 < 1 << 16


def test_rows_beyond_the_length_are_invisible_until_it_is_set(tmp_path: Path) -> None:
    array = written(tmp_path / "a", np.arange(6), chunk_rows=4)
    writer = ChunkWriter(tmp_path / "a", Disk())
    writer.write(6, np.arange(6, 9))
    assert len(ChunkedArray.open(tmp_path / "a")) == 6
    assert zarr.open_array(tmp_path / "a", mode="r").shape == (6,)
    writer.sync()
    writer.set_length(9)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], np.arange(9))
    array.length = 9
    np.testing.assert_array_equal(array.gather(np.arange(9)), np.arange(9))


def test_a_frame_never_crosses_a_chunk(tmp_path: Path) -> None:
    writer = ChunkWriter.create(tmp_path / "a", "uint8", (), 16, Disk())
    writer.write_bytes(8, b"12345678")
    with pytest.raises(ValueError, match="would cross"):
        writer.write_bytes(9, b"12345678")


def test_memory_maps_and_open_files_stay_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MAPPED_BYTES", 10 * 4 * 8)
    monkeypatch.setattr(chunks, "OPEN_FILES", 7)
    gc.collect()
    before = chunks._mapped.bytes
    files = open_files()
    small, large = np.arange(40.0), np.arange(400.0)
    arrays = [written(tmp_path / name, rows, chunk_rows=4) for name, rows in (("a", small), ("b", large), ("c", small))]
    for array, rows in zip(arrays, (small, large, small), strict=True):
        np.testing.assert_array_equal(array.gather(np.arange(len(rows))), rows)
    assert chunks._mapped.bytes == before + 10 * 4 * 8
    assert open_files() <= files + 7 + 11
    del array, arrays
    gc.collect()
    assert chunks._mapped.bytes == before
    assert open_files() <= files


def test_results_do_not_refer_to_the_file(tmp_path: Path) -> None:
    array = written(tmp_path / "a", np.arange(10), chunk_rows=4)
    taken = array.gather(np.arange(10))
    sliced = array.slice(0, 10)
    assert taken.flags.writeable
    assert sliced.flags.writeable
    with array.chunk_path(0).open("r+b") as file:
        file.write(bytes(32))
    np.testing.assert_array_equal(taken, np.arange(10))
    np.testing.assert_array_equal(sliced, np.arange(10))


def test_missing_and_short_chunks_are_named(tmp_path: Path) -> None:
    array = written(tmp_path / "a", np.arange(10), chunk_rows=4)
    os.truncate(array.chunk_path(1), 8)
    with pytest.raises(StoreDamaged, match=r"c\.1 is too short for the committed rows"):
        ChunkedArray.open(tmp_path / "a").slice(0, 10)
    with pytest.raises(StoreDamaged, match=r"c\.1 is too short"):
        ChunkedArray.open(tmp_path / "a").gather(np.array([5]))
    array.chunk_path(2).unlink()
    with pytest.raises(StoreDamaged, match=r"c\.2 is missing"):
        ChunkedArray.open(tmp_path / "a").slice(9, 10)


def test_damaged_and_foreign_headers_are_named(tmp_path: Path) -> None:
    array = written(tmp_path / "a", np.arange(10), chunk_rows=4)
    with pytest.raises(StoreDamaged, match="11 rows are committed"):
        ChunkedArray.open(array.folder, length=11)
    (array.folder / "zarr.json").write_text('{"shape": [10')
    with pytest.raises(StoreDamaged, match="not the header of an array"):
        ChunkedArray.open(array.folder)
    (array.folder / "zarr.json").unlink()
    with pytest.raises(StoreDamaged, match="missing"):
        ChunkedArray.open(array.folder)
    zarr.create_array(tmp_path / "compressed", shape=(4,), chunks=(2,), dtype="f4")
    with pytest.raises(StoreError, match="uncompressed"):
        ChunkedArray.open(tmp_path / "compressed")


def test_a_pickled_array_opens_its_files_anew(tmp_path: Path) -> None:
    array = written(tmp_path / "a", np.arange(10), chunk_rows=4)
    array.gather(np.arange(10))
    copy = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(copy.gather(np.arange(10)), np.arange(10))
