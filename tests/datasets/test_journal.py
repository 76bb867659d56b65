"""The journal: last value wins, half-written lines do not count, writers do not disturb each other."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from robot_rl.datasets import StoreError, StoreWriteError, journal
from robot_rl.datasets.disk import Disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facts.jsonl"


def read(path: Path) -> journal.Journal:
    found = journal.Journal(path)
    found.refresh()
    return found


def test_the_last_value_wins_and_others_stay(path: Path) -> None:
    journal.append(path, 0, {"success": True, "task": "lift"}, Disk(), begin=True)
    journal.append(path, 0, {"success": False, "tags": ["slow"]}, Disk())
    assert read(path).facts(0) == {"success": False, "task": "lift", "tags": ["slow"]}
    assert read(path).facts(1) == {}


def test_a_new_episode_forgets_the_unfinished_one_of_its_number(path: Path) -> None:
    journal.append(path, 0, {"success": True, "tags": ["dead"]}, Disk(), begin=True)
    journal.append(path, 0, {"success": False}, Disk(), begin=True)
    assert read(path).facts(0) == {"success": False}


def test_a_half_written_line_is_ignored_and_cut_by_the_next_append(path: Path) -> None:
    journal.append(path, 0, {"success": True}, Disk())
    whole = path.read_bytes()
    line = journal.encode(0, {"success": False})
    for size in range(1, len(line)):
        path.write_bytes(whole + line[:size])
        assert read(path).facts(0) == {"success": True}
        assert journal.torn_tail(path) == size
    journal.append(path, 1, {"success": True}, Disk())
    assert read(path).bad_lines == []
    assert [json.loads(text)["episode"] for text in path.read_text().splitlines()] == [0, 1]


def test_facts_of_several_episodes_are_all_written_or_none(path: Path) -> None:
    journal.append(path, [0, 2], {"success": True}, Disk())
    assert [read(path).facts(number) for number in range(3)] == [{"success": True}, {}, {"success": True}]
    before = path.read_bytes()

    class Full(Disk):
        def append(self, path: Path, data: bytes) -> None:
            super().append(path, data[: len(data) // 2 + 3])
            raise OSError(28, "No space left on device")

    with pytest.raises(StoreWriteError):
        journal.append(path, [0, 1, 2], {"success": False}, Full())
    assert path.read_bytes() == before


def test_refresh_reads_only_what_is_new(path: Path) -> None:
    found = read(path)
    for number in range(3):
        journal.append(path, number, {"success": True}, Disk())
        assert found.facts(number) == {}
        found.refresh()
        assert found.facts(number) == {"success": True}
    path.write_bytes(journal.encode(0, {"success": False}))
    found.refresh()
    assert found.facts(0) == {"success": False}, "a journal that got shorter is read anew"
    assert found.facts(2) == {}


def test_lines_that_are_no_records_are_counted_and_skipped(path: Path) -> None:
    path.write_text('nonsense\n{"episode": 0, "set": {"a": 1}}\n{"set": {}}\n[]\n{"episode": "0", "set": {}}\n')
    found = read(path)
    assert found.facts(0) == {"a": 1}
    assert found.bad_lines == [1, 3, 4, 5]


def test_a_line_ends_at_a_line_feed_alone_and_may_be_nested_as_deep_as_it_likes(path: Path) -> None:
    good = journal.encode(0, {"a": 1})
    path.write_bytes(b"bad\rbad\x0bbad\x0c\x1c\n" + good + b"[" * 200_000 + b"\n")
    found = read(path)
    assert found.facts(0) == {"a": 1}
    assert found.bad_lines == [1, 3]
    journal.append(path, 0, {"a": 2}, Disk())
    found.refresh()
    assert (found.facts(0), found.bad_lines) == ({"a": 2}, [1, 3])


def test_numpy_and_paths_become_json(path: Path) -> None:
    facts = {"a": np.float32(0.5), "b": np.arange(2), "c": np.bool_(True), "d": Path("x/y"), "e": {"z", "y"}}
    journal.append(path, 0, facts, Disk())
    assert read(path).facts(0) == {"a": 0.5, "b": [0, 1], "c": True, "d": "x/y", "e": ["y", "z"]}


@pytest.mark.parametrize("value", [object(), float("nan"), np.inf])
def test_what_is_not_json_is_refused_before_anything_is_written(path: Path, value: object) -> None:
    with pytest.raises(StoreError, match="facts of episode 0 are not JSON"):
        journal.append(path, 0, {"bad": value}, Disk())
    assert not path.exists()


def test_an_unwritable_journal_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreWriteError, match="writing facts failed: Is a directory"):
        journal.append(tmp_path, 0, {}, Disk())


def test_many_writers_at_once_lose_nothing(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: journal.append(path, number, {"n": number}, Disk()), range(64)))
    found = read(path)
    assert [found.facts(number) for number in range(64)] == [{"n": number} for number in range(64)]
    assert found.bad_lines == []
