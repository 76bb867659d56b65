"""Edits: what comes out equals what went in, shares its frames, and nothing goes wrong half-way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robot_rl.datasets import Contract, ContractError, Episode, EpisodeStore, StoreError, StoreLocked, edit
from robot_rl.datasets.check import check
from robot_rl.datasets.disk import LateDisk

Record = Callable[..., None]


def record_into(record: Record, path: Path, numbers: dict[int, int]) -> None:
    """Episodes by number, with their steps."""
    with EpisodeStore.append(path) as writer:
        for number, steps in numbers.items():
            record(writer, number, steps)


@pytest.fixture
def other(tmp_path: Path, contract: Contract, record: Record) -> EpisodeStore:
    path = tmp_path / "other.zarr"
    EpisodeStore.create(path, contract, encoding="png")
    record_into(record, path, {50: 4, 51: 9})
    return EpisodeStore.open(path)


def assert_same_steps(ours: Episode, theirs: Episode, start: int = 0, stop: int | None = None) -> None:
    stop = theirs.length if stop is None else stop
    np.testing.assert_array_equal(ours.action, theirs.action[start:stop])
    for name in theirs.observation:
        np.testing.assert_array_equal(ours.observation[name], theirs.observation[name][start : stop + 1], name)
    for name in theirs.timestamp:
        np.testing.assert_array_equal(ours.timestamp[name], theirs.timestamp[name][start : stop + 1], name)


def test_a_merge_holds_every_episode_of_both_and_shares_their_frames(
    store: EpisodeStore, other: EpisodeStore, tmp_path: Path
) -> None:
    made = edit.assemble(tmp_path / "both.zarr", [*edit.whole(store), *edit.whole(other)])
    assert not check(made)
    assert len(made) == len(store) + len(other)
    for number, theirs in enumerate([*store, *other]):
        assert_same_steps(made[number], theirs)
        assert {**made.facts(number), **theirs.facts} == made.facts(number)
    (camera, *_) = made.contract.cameras
    assert (
        made.array(f"frames/{camera}/bytes").chunk_path(0).samefile(store.array(f"frames/{camera}/bytes").chunk_path(0))
    )
    for name, statistics in made.statistics(range(len(made))).items():
        rows = [each.action if name == "action" else each.observation[name] for each in [*store, *other]]
        np.testing.assert_allclose(statistics.mean, np.concatenate(rows).mean(axis=0), atol=1e-6)


def test_what_is_recorded_into_an_edited_store_leaves_the_shared_frames_alone(
    store: EpisodeStore, tmp_path: Path, record: Record
) -> None:
    before = [{name: each.observation[name] for name in store.contract.cameras} for each in store]
    made = edit.assemble(tmp_path / "some.zarr", edit.whole(store, [1]))
    record_into(record, made.path, {77: 5})
    record_into(record, store.path, {78: 6})
    for each in (made, store):
        each.refresh()
    assert not check(made)
    assert not check(store)
    for number, frames in enumerate(before):
        for name, expected in frames.items():
            np.testing.assert_array_equal(store[number].observation[name], expected)


def test_delete_keeps_the_store_as_it_was_beside(store: EpisodeStore) -> None:
    kept = [*range(1, len(store))]
    before = edit.replace(store.path, edit.whole(store, kept))
    edited, old = EpisodeStore.open(store.path), EpisodeStore.open(before)
    assert not check(edited)
    assert not check(old)
    assert (len(edited), len(old)) == (len(kept), len(kept) + 1)
    for number, episode in enumerate(kept):
        assert_same_steps(edited[number], old[episode])
    assert edited.facts(0)["origin"] == {"store": store.path.name, "id": store.provenance["id"], "episode": 1}


def test_a_store_is_edited_where_a_link_points_to(store: EpisodeStore, tmp_path: Path) -> None:
    link = tmp_path / "links" / "link.zarr"
    link.parent.mkdir()
    link.symlink_to(store.path)
    before = edit.replace(link, edit.whole(EpisodeStore.open(link), [1]))
    assert link.readlink() == store.path
    assert before.parent == store.path.parent
    assert [*link.parent.iterdir()] == [link]
    assert (len(EpisodeStore.open(store.path)), len(EpisodeStore.open(before))) == (1, 3)


@pytest.mark.parametrize("came", ["an episode", "a fact", "a fact meanwhile"])
def test_what_came_since_the_store_was_opened_is_not_dropped(store: EpisodeStore, record: Record, came: str) -> None:
    other, length = EpisodeStore.open(store.path), len(store)

    def note(*_: int) -> None:
        other.annotate(1, note="seen")

    if came == "an episode":
        record_into(record, store.path, {77: 3})
    elif came == "a fact":
        note()
    with pytest.raises(StoreError, match="run it again"):
        edit.replace(store.path, edit.whole(store, [1]), note if came == "a fact meanwhile" else None)
    other.refresh()
    assert (len(other), "note" in other.facts(1)) == ((length + 1, False) if came == "an episode" else (length, True))
    assert [each.name for each in store.path.parent.glob("*.before-*")] == []


def test_a_trimmed_episode_is_a_whole_one(store: EpisodeStore, tmp_path: Path) -> None:
    episode = max(range(len(store)), key=lambda number: store.lengths[number])
    length = int(store.lengths[episode])
    made = edit.assemble(tmp_path / "trimmed.zarr", [edit.Part(store, episode, 1, length - 1)])
    assert not check(made)
    assert_same_steps(made[0], store[episode], 1, length - 1)
    assert made[0].truncated.tolist() == [False] * (length - 3) + [True]
    assert made.facts(0)["steps"] == [1, length - 1]
    assert_same_steps(edit.assemble(tmp_path / "end.zarr", [edit.Part(store, episode, 2)])[0], store[episode], 2)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"episode": 99}, "episode 99 is not among"),
        ({"episode": -1}, "episode -1 is not among"),
        ({"episode": 0, "stop": 999}, "do not lie within"),
        ({"episode": 0, "start": 2, "stop": 2}, "do not lie within"),
    ],
)
def test_a_wrong_number_changes_nothing(store: EpisodeStore, part: dict[str, int], message: str) -> None:
    files = {path: path.stat().st_mtime_ns for path in store.path.parent.rglob("*")}
    with pytest.raises(StoreError, match=message):
        edit.replace(store.path, [edit.Part(store, 0), edit.Part(store, **part)])
    assert {path: path.stat().st_mtime_ns for path in store.path.parent.rglob("*")} == files


def test_stores_that_do_not_fit_are_refused(
    store: EpisodeStore, tmp_path: Path, contract: Contract, record: Record
) -> None:
    with pytest.raises(StoreError, match="no episode"):
        edit.replace(store.path, [])
    with pytest.raises(StoreError, match="exists already"):
        edit.assemble(store.path, edit.whole(store))
    with EpisodeStore.append(store.path), pytest.raises(StoreLocked):
        edit.replace(store.path, edit.whole(store, [0]))
    jpeg = EpisodeStore.create(tmp_path / "jpeg.zarr", contract)
    record_into(record, jpeg.path, {3: 3})
    jpeg.refresh()
    with pytest.raises(StoreError, match="encoding"):
        edit.assemble(tmp_path / "o.zarr", [*edit.whole(store), *edit.whole(jpeg)])
    fewer = contract.select([name for name in contract.observation if name not in contract.cameras])
    EpisodeStore.create(tmp_path / "fewer.zarr", fewer)
    with EpisodeStore.append(tmp_path / "fewer.zarr") as writer, writer.episode() as episode:
        row = {name: np.zeros(f.shape, f.dtype) for name, f in fewer.observation.items()}
        episode.add(row, np.zeros(fewer.action_dim))
        episode.finish(row, success=True)
    parts = [*edit.whole(store), *edit.whole(EpisodeStore.open(tmp_path / "fewer.zarr"))]
    with pytest.raises(ContractError):
        edit.assemble(tmp_path / "o.zarr", parts)
    assert not (tmp_path / "o.zarr").exists()


class FullDisk(LateDisk):
    """Has no space left after some writes."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.left = writes

    def write(self, path: Path, offset: int, data: bytes | memoryview) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")
        super().write(path, offset, data)


@pytest.mark.parametrize("writes", [0, 3, 20])
def test_a_full_disk_leaves_the_store_as_it_was(store: EpisodeStore, writes: int) -> None:
    names = sorted(store.path.parent.iterdir())
    with pytest.raises(StoreError, match="full: free some space and try again"):
        edit.replace(store.path, edit.whole(store, [1]), disk=FullDisk(writes))
    assert sorted(store.path.parent.iterdir()) == names
    assert not check(store)


KILLED = """
import os, signal, sys
from robot_rl.datasets import EpisodeStore, edit
from robot_rl.datasets.disk import LateDisk
store, left = EpisodeStore.open(sys.argv[1]), int(sys.argv[2])

class Killed(LateDisk):
    def install(self, path):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        super().install(path)

exchange = edit._exchange
if left == 999:
    edit._exchange = lambda one, other: os.kill(os.getpid(), signal.SIGKILL)
if left == 1000:
    edit._exchange = lambda one, other: (exchange(one, other), os.kill(os.getpid(), signal.SIGKILL))
edit.replace(store.path, edit.whole(store, [1]), disk=Killed())
"""


@pytest.mark.parametrize("moment", [0, 20, 60, 999, 1000])
def test_killed_at_any_moment_the_store_is_the_old_or_the_new_one(store: EpisodeStore, moment: int) -> None:
    count = len(store)
    command = [sys.executable, "-c", KILLED, str(store.path), str(moment)]
    assert subprocess.run(command, env=os.environ, check=False).returncode == -signal.SIGKILL
    left = EpisodeStore.open(store.path)
    assert not check(left)
    assert len(left) == (1 if moment == 1000 else count)
    if moment == 1000:
        (before,) = store.path.parent.glob("*.before-*")
        assert len(EpisodeStore.open(before)) == count
