from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from robot_rl.datasets.recent import RecentFrames


class Reader:
    """Frames that say which row they are of."""

    def __init__(self) -> None:
        self.decoded: list[int] = []

    def decode_each(self, rows: np.ndarray, offsets: np.ndarray, sizes: np.ndarray, out: Any) -> Any:
        for row, offset, size, frame in zip(rows.tolist(), offsets.tolist(), sizes.tolist(), out, strict=True):
            assert (offset, size) == (10 * row, row)
            self.decoded.append(row)
            frame[...] = row
            yield frame


def read(recent: RecentFrames, reader: Any, rows: list[int], again: list[bool] | None = None) -> list[int]:
    out = np.full((len(rows), 4, 5, 3), -1)
    wanted = np.array(rows)
    recent.decode(reader, wanted, 10 * wanted, wanted, list(out), np.array(again or [True] * len(rows)))
    assert all((frame == frame[0, 0, 0]).all() for frame in out)
    return [int(value) for value in out[:, 0, 0, 0]]


def test_what_will_be_asked_for_again_is_decoded_once():
    recent, reader = RecentFrames(10), Reader()
    assert read(recent, reader, [3, 4, 9], [False, True, True]) == [3, 4, 9]
    assert read(recent, reader, [3, 4, 9, 10]) == [3, 4, 9, 10]
    assert reader.decoded == [3, 4, 9, 3, 10]


def test_a_frame_is_forgotten_at_its_last_use():
    recent, reader = RecentFrames(10), Reader()
    read(recent, reader, [3, 4], [True, True])
    assert read(recent, reader, [3, 4], [False, True]) == [3, 4]
    assert len(recent) == 1
    assert read(recent, reader, [3, 4], [False, False]) == [3, 4]
    assert (len(recent), reader.decoded) == (0, [3, 4, 3])


def test_the_frames_used_longest_ago_are_forgotten():
    recent, reader = RecentFrames(3), Reader()
    read(recent, reader, [1, 2, 3])
    read(recent, reader, [1])
    read(recent, reader, [4])
    assert len(recent) == 3
    reader.decoded.clear()
    assert read(recent, reader, [1, 3, 4, 2]) == [1, 3, 4, 2]
    assert reader.decoded == [2]


def test_a_remembered_frame_is_nobodys_memory():
    recent, reader = RecentFrames(3), Reader()
    out = np.zeros((1, 4, 5, 3))
    recent.decode(reader, np.array([7]), np.array([70]), np.array([7]), list(out), np.array([True]))
    out[:] = 0
    assert read(recent, reader, [7]) == [7]
    assert reader.decoded == [7]


def test_threads_get_what_they_asked_for():
    recent = RecentFrames(20)

    def many(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(300):
            rows = np.unique(generator.integers(0, 60, 12)).tolist()
            assert read(recent, Reader(), rows) == rows

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(many, range(4)))
    assert len(recent) <= 24


def test_an_error_of_the_reader_is_handed_on_and_nothing_remembered():
    class Broken:
        def decode_each(self, *_: Any) -> Any:
            raise ValueError("damaged")
            yield

    recent = RecentFrames(3)
    with pytest.raises(ValueError, match="damaged"):
        read(recent, Broken(), [1, 2])
    assert len(recent) == 0


def test_frames_do_not_travel_to_other_processes():
    recent = RecentFrames(3)
    read(recent, Reader(), [1, 2])
    assert len(pickle.loads(pickle.dumps(recent))) == 0
