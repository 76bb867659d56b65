"""A store survives whatever ends its writer: kills at any instant, power cuts anywhere, full disks, readers beside."""

import errno
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
import zarr

from robot_rl.datasets import Contract, EpisodeStore, StoreWriteError
from robot_rl.datasets.check import check
from robot_rl.datasets.disk import Disk

Record = Callable[..., None]
Same = Callable[..., None]


# ---------------------------------------------------------------------------------------------------------------- kills

KILLED = """
import os, pathlib, sys
import numpy as np
from robot_rl.datasets import EpisodeStore

def write(path, said):
    with EpisodeStore.append(path, encode_threads=int(sys.argv[2])) as writer:
        while True:
            number = len(writer.store)
            with writer.episode(seed=number) as episode:
                for step in range(6):
                    frame = np.full((8, 8, 3), number % 251, np.uint8)
                    episode.add({"count": [number, step], "wrist": frame}, np.full(3, number % 97), reward=step)
                number = episode.finish({"count": [number, 6], "wrist": frame}, success=True)
                os.write(said, (number + 1).to_bytes(8, "little"))

# One import for many victims: each is forked, killed from outside at a random instant, and followed by the next.
for line in sys.stdin:
    delay = float(line)
    read, said = os.pipe()
    victim = os.fork()
    if not victim:
        write(sys.argv[1], said)
    os.close(said)
    __import__("time").sleep(delay)
    os.kill(victim, 9)
    os.waitpid(victim, 0)
    told = b""
    while piece := os.read(read, 1 << 16):
        told += piece
    os.close(read)
    print(int.from_bytes(told[-8:], "little") if told else -1, flush=True)
"""


@pytest.fixture
def counting(tmp_path: Path, contract: Contract) -> Path:
    observation = {"count": {"shape": [2]}, "wrist": contract.observation["wrist"].to_dict()}
    plain = {**contract.to_dict(), "observation": observation}
    return EpisodeStore.create(tmp_path / "counting.zarr", Contract.from_dict(plain), encoding="raw").path


def demand_counting(path: Path, first: int = 0) -> int:
    """Every episode holds what its number says; returns how many there are."""
    store = EpisodeStore.open(path)
    for number in range(first, len(store)):
        episode = store[number]
        assert episode.observation["count"].tolist() == [[number, step] for step in range(7)]
        assert (episode.observation["wrist"] == number % 251).all()
        assert (episode.action == number % 97).all()
        assert episode.facts["seed"] == number
        assert episode.success is True
    return len(store)


def kill_many(path: Path, delays: list[float], threads: int) -> None:
    command = [sys.executable, "-c", KILLED, str(path), str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as victims:
        assert victims.stdin is not None
        assert victims.stdout is not None
        committed = 0
        for delay in delays:
            print(delay, file=victims.stdin, flush=True)
            said = int(victims.stdout.readline())
            found = demand_counting(path, first=committed)
            if said >= 0:
                assert said <= found <= said + 1, "at most the episode that nobody was told of yet"
            assert committed <= found
            group = zarr.open_group(path, mode="r")
            assert group["meta/episode_ends"].shape == (found,)
            assert group["data/count"].shape[0] >= found * 7
            committed = found
    assert check(path) == []
    assert demand_counting(path) == committed


@pytest.mark.parametrize("threads", [0, 2])
def test_a_kill_at_any_instant_loses_at_most_the_unfinished_episode(counting: Path, threads: int) -> None:
    kill_many(counting, [random.uniform(0.0, 0.12) for _ in range(25)], threads)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("threads", [0, 2])
def test_five_hundred_kills(counting: Path, threads: int) -> None:
    kill_many(counting, [random.uniform(0.0, 0.1) for _ in range(500)], threads)


# ----------------------------------------------------------------------------------------------------------- power cuts


class RecordingDisk(Disk):
    """Does everything, and writes down what it did: (operation, path, details), and what a sync covers."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, Path, Any]] = []
        self._log_lock = Lock()
        self._prepared: dict[Path, bytes] = {}

    def _note(self, operation: str, path: Path, details: Any = None) -> None:
        with self._log_lock:
            self.log.append((operation, path, details))

    def create(self, path: Path, size: int) -> None:
        self._note("create", path, size)
        super().create(path, size)

    def write(self, path: Path, offset: int, data: bytes | memoryview) -> None:
        self._note("write", path, (offset, bytes(data)))
        super().write(path, offset, data)

    def append(self, path: Path, data: bytes) -> None:
        self._note("append", path, data)
        super().append(path, data)
        self._note("sync", path)

    def truncate(self, path: Path, size: int) -> None:
        self._note("truncate", path, size)
        super().truncate(path, size)
        self._note("sync", path)

    def prepare(self, path: Path, content: bytes) -> None:
        super().prepare(path, content)
        self._prepared[path] = content

    def install(self, path: Path) -> None:
        self._note("replace", path, self._prepared.pop(path))
        super().install(path)

    def sync(self, path: Path) -> None:
        super().sync(path)
        self._note("sync", path)

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self._note("sync_folder", path)


def after_power_cut(log: list[tuple[str, Path, Any]], choose: random.Random) -> Iterator[tuple[str, Path, Any]]:
    """What may be found on the drive when the power fails after `log`: all that was synced, and any part of the rest.

    Content lasts by `sync` of the file, names (new files, renames) by `sync_folder` of the folder.
    """
    synced = {path: index for index, (operation, path, _) in enumerate(log) if operation == "sync"}
    named = {path: index for index, (operation, path, _) in enumerate(log) if operation == "sync_folder"}
    lost: set[Path] = set()
    for index, (operation, path, details) in enumerate(log):
        lasts = synced.get(path, -1) > index
        has_name = named.get(path.parent, -1) > index
        if operation == "create":
            if path in lost or not (has_name or choose.random() < 0.5):
                lost.add(path)
            elif lasts or choose.random() < 0.7:
                yield operation, path, details
            else:
                yield operation, path, 0
        elif operation == "replace" and (has_name or choose.random() < 0.5):
            yield operation, path, details
        elif operation == "write" and path not in lost:
            offset, data = details
            if lasts:
                yield operation, path, details
            elif choose.random() < 0.7:
                start, stop = sorted(choose.randrange(len(data) + 1) for _ in range(2))
                yield operation, path, (offset + start, data[start:stop])
        elif operation == "append":
            size = len(details) if lasts else choose.randrange(len(details) + 1)
            torn = details[:size] if choose.random() < 0.7 or lasts else bytes(size)
            yield operation, path, torn
        elif operation == "truncate":
            yield operation, path, details


def replay(operations: Iterator[tuple[str, Path, Any]], source: Path, target: Path) -> None:
    for operation, original, details in operations:
        path = target / original.relative_to(source)
        if operation == "create":
            with path.open("ab") as file:
                file.truncate(max(details, file.tell()))
        elif operation == "replace":
            path.write_bytes(details)
        elif operation == "append":
            with path.open("ab") as file:
                file.write(details)
        elif operation == "truncate":
            os.truncate(path, details)
        else:
            offset, data = details
            with path.open("r+b") as file:
                file.seek(offset)
                file.write(data)


def cut_power(tmp_path: Path, contract: Contract, record: Record, same: Same, seeds: range, every: int) -> int:
    """Record, cut the power after every n-th operation, look at what is left, go on; returns the number of cuts."""
    store = EpisodeStore.create(tmp_path / "live", contract, encoding="png")
    with EpisodeStore.append(store.path) as writer:
        record(writer, 0)
    before = tmp_path / "before"
    shutil.copytree(store.path, before)
    disk = RecordingDisk()
    with EpisodeStore.append(store.path, disk=disk) as writer:
        record(writer, 1, steps=4)
        with writer.episode() as episode:
            episode.add({name: np.zeros(f.shape, f.dtype) for name, f in contract.observation.items()}, np.zeros(3))
        record(writer, 2, steps=5)
    ends = store.path / "meta/episode_ends"
    renamed = [i for i, (operation, path, _) in enumerate(disk.log) if operation == "replace" and path.parent == ends]
    certain = [i for i, (operation, path, _) in enumerate(disk.log) if operation == "sync_folder" and path == ends]
    certain = [next(i for i in certain if i > start) for start in renamed]
    cuts = 0
    for seed in seeds:
        for stop in range(seed % every, len(disk.log) + 1, every):
            left = tmp_path / "left"
            shutil.copytree(before, left)
            choose = random.Random(f"{seed} {stop}")
            replay(after_power_cut(disk.log[:stop], choose), store.path, left)
            found = EpisodeStore.open(left)
            least, most = (1 + sum(index < stop for index in marks) for marks in (certain, renamed))
            assert least <= len(found) <= most, (seed, stop)
            for number in range(len(found)):
                same(found[number], number, steps=3 + number)
            assert check(left) == [], (seed, stop)
            cuts += 1
            if cuts % 4 == 0:
                with EpisodeStore.append(left) as writer:
                    record(writer, len(found), steps=3)
                assert check(left) == [], (seed, stop)
                same(EpisodeStore.open(left)[-1], len(found))
            shutil.rmtree(left)
    return cuts


def test_a_power_cut_leaves_a_committed_state(
    tmp_path: Path, contract: Contract, record: Record, same: Same, small_chunks: None
) -> None:
    assert cut_power(tmp_path, contract, record, same, range(2), every=31) > 15


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_power_cut_after_every_operation(
    tmp_path: Path, contract: Contract, record: Record, same: Same, small_chunks: None
) -> None:
    assert cut_power(tmp_path, contract, record, same, range(1), every=1) > 300


# ----------------------------------------------------------------------------------------------------------- full disks


class FullDisk(Disk):
    """Works until so many operations are done; from then on nothing that needs space does."""

    def __init__(self, operations: int) -> None:
        super().__init__()
        self.left = operations

    def _spend(self, path: Path) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def create(self, path: Path, size: int) -> None:
        self._spend(path)
        super().create(path, size)

    def write(self, path: Path, offset: int, data: bytes | memoryview) -> None:
        self._spend(path)
        super().write(path, offset, data)

    def append(self, path: Path, data: bytes) -> None:
        self._spend(path)
        super().append(path, data)

    def prepare(self, path: Path, content: bytes) -> None:
        self._spend(path)
        super().prepare(path, content)

    def sync(self, path: Path) -> None:
        self._spend(path)
        super().sync(path)


@pytest.mark.parametrize("threads", [0, 1])
def test_a_disk_that_fills_up_anywhere_says_so_and_keeps_what_was_committed(
    tmp_path: Path, contract: Contract, record: Record, same: Same, small_chunks: None, threads: int
) -> None:
    store = EpisodeStore.create(tmp_path / "a", contract, encoding="png")
    with EpisodeStore.append(store.path) as writer:
        record(writer, 0)
    operations, refused = 0, True
    while refused:
        disk = FullDisk(operations)
        with EpisodeStore.append(store.path, encode_threads=threads, disk=disk) as writer:
            said = ""
            try:
                record(writer, 1)
            except StoreWriteError as error:
                said = str(error)
        refused = bool(said)
        assert not refused or "No space left on device. The disk (or the quota) is full: free some space" in said
        found = EpisodeStore.open(store.path)
        assert len(found) == (1 if refused else 2)
        same(found[0], 0)
        if operations % 20 == 0:
            assert check(store.path) == []
        operations += 3
    assert operations > 100
    same(found[1], 1)
    assert check(store.path) == []


def test_a_disk_that_is_full_while_a_store_is_made_leaves_nothing(tmp_path: Path, contract: Contract) -> None:
    for operations in (0, 1, 20, 35):
        with pytest.raises(StoreWriteError, match="creating the store failed: No space left"):
            EpisodeStore.create(tmp_path / "a", contract, disk=FullDisk(operations))
        assert list(tmp_path.iterdir()) == []


def test_a_real_limit_on_file_sizes(tmp_path: Path, contract: Contract, record: Record, same: Same) -> None:
    store = EpisodeStore.create(tmp_path / "a", contract, encoding="png")
    with EpisodeStore.append(store.path) as writer:
        record(writer, 0)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256, hard))
        try:
            with pytest.raises(StoreWriteError, match=r"File too large\. The disk \(or the quota\) is full"):
                record(writer, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with EpisodeStore.append(store.path) as writer:
        record(writer, 1)
    same(EpisodeStore.open(store.path)[1], 1)
    assert check(store.path) == []


def test_a_small_file_that_fits_in_part_is_not_installed(tmp_path: Path) -> None:
    """The kernel writes what fits, and only the next call fails."""
    header = tmp_path / "zarr.json"
    header.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            Disk().replace(header, b"n" * 300)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert header.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [header]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a file system in which no folder can be made")
def test_a_place_where_no_store_can_be_made_is_told(contract: Contract) -> None:
    with pytest.raises(StoreWriteError, match="none can be made there: look at the path, or choose another"):
        EpisodeStore.create("/proc/new.zarr", contract)


# -------------------------------------------------------------------------------------------------------------- readers


@pytest.mark.slow
def test_a_thousand_reads_by_zarr_beside_a_writer(counting: Path) -> None:
    code = KILLED.split("# One import")[0] + "write(sys.argv[1], os.open(os.devnull, os.O_WRONLY))"
    command = [sys.executable, "-c", code, str(counting), "0"]
    draw = np.random.default_rng(0)
    seen, known = set(), EpisodeStore.open(counting)
    with subprocess.Popen(command, cwd="/") as writer:
        while not len(known):
            assert writer.poll() is None
            time.sleep(0.01)
            known.refresh()
        for _ in range(1000):
            group = zarr.open_group(counting, mode="r")
            ends = group["meta/episode_ends"]
            number = int(draw.integers(max(0, ends.shape[0] - 3), ends.shape[0]))
            stop = int(ends[number])
            rows = group["data/count"][stop - 7 : stop]
            assert rows.tolist() == [[number, step] for step in range(7)]
            seen.add(ends.shape[0])
        assert writer.poll() is None, "the writer was at work all the time"
        writer.kill()
    assert len(seen) > 5
    assert check(counting) == []


def test_our_own_reader_beside_a_writer(counting: Path) -> None:
    code = KILLED.split("# One import")[0] + "write(sys.argv[1], os.open(os.devnull, os.O_WRONLY))"
    store = EpisodeStore.open(counting)
    with subprocess.Popen([sys.executable, "-c", code, str(counting), "0"], cwd="/") as writer:
        while len(store) < 30:
            before = len(store)
            store.refresh()
            for number in range(before, len(store)):
                assert store[number].observation["count"].tolist() == [[number, step] for step in range(7)]
                assert (store[number].observation["wrist"] == number % 251).all()
                assert store.facts(number)["seed"] == number
            assert writer.poll() is None
            time.sleep(0.002)
        writer.kill()
    assert demand_counting(counting) >= 30
