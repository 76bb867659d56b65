"""Recording and reading episodes: what is written is read, by us and by plain zarr; what does not fit is refused."""

import contextlib
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from robot_rl.datasets import (
    Contract,
    ContractError,
    EpisodeStore,
    Feature,
    NotAStore,
    StepError,
    StoreError,
    StoreLocked,
    StoreVersionError,
    StoreWriteError,
)
from robot_rl.datasets.check import check
from robot_rl.datasets.disk import Disk

Record = Callable[..., None]
Same = Callable[..., None]


def blank(contract: Contract) -> dict[str, np.ndarray]:
    return {name: np.zeros(feature.shape, feature.dtype) for name, feature in contract.observation.items()}


def test_episodes_come_back_as_recorded(store: EpisodeStore, same: Same) -> None:
    assert len(store) == 3
    assert (store.num_rows, store.num_steps) == (15, 12)
    assert store.lengths.tolist() == [3, 4, 5]
    for number, episode in enumerate(store):
        same(episode, number, steps=3 + number)
        assert episode.facts["seed"] == number
        assert episode.success is (number != 1)
        assert not episode.terminated.any()
        assert not episode.truncated.any()
        np.testing.assert_allclose(episode.timestamp["control"], np.arange(4 + number) / 20)
        assert episode.sim_state.shape == (4 + number, 0)
    same(store[-1], 2, steps=5)
    assert [episode.index for episode in store[1:]] == [1, 2]
    with pytest.raises(IndexError, match="has 3 episodes"):
        store[3]
    assert check(store) == []


def test_plain_zarr_reads_everything(store: EpisodeStore) -> None:
    group = zarr.open_group(store.path, mode="r")
    attributes = dict(group.attrs)
    assert (attributes["format"], attributes["version"], attributes["rate_hz"]) == ("robot_rl.episodes", 1, 20.0)
    assert Contract.from_dict(attributes["contract"]) == store.contract
    assert group["meta/episode_ends"][:].tolist() == [4, 9, 15]
    for path, kind in store.layout.arrays.items():
        array = group[path]
        assert array.dtype == kind.dtype, path
        assert array.shape[1:] == kind.row_shape, path
        length = store.num_rows if path in store.layout.row_arrays else 3
        if path not in store.layout.frame_arrays:
            assert array.shape[0] == length, path
            np.testing.assert_array_equal(array[:], store.array(path).slice(0, length), err_msg=path)
    row = 5
    offset, size = group["frames/wrist/offset"][row], group["frames/wrist/size"][row]
    assert (
        group["frames/wrist/bytes"][offset : offset + size].tobytes() == store.frames("wrist").read(np.array([row]))[0]
    )
    assert group["data/is_first"][:].nonzero()[0].tolist() == [0, 4, 9]
    assert group["data/is_last"][:].nonzero()[0].tolist() == [3, 8, 14]


def test_the_reader_in_the_format_reference_runs(
    store: EpisodeStore, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EpisodeStore.append(store.path) as writer:
        record(writer, 3)
    text = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    found: dict[str, Any] = {}
    exec(code.replace("lift.zarr", str(store.path)), found)
    episode = EpisodeStore.open(store.path)[3]
    np.testing.assert_array_equal(found["joints"], episode.observation["joint_position"])
    np.testing.assert_array_equal(found["actions"], episode.action)


def test_bytes_lie_where_the_format_reference_says(store: EpisodeStore) -> None:
    rows = np.fromfile(store.path / "data/joint_position/c.0.0", "<f4").reshape(-1, 2)
    assert len(rows) == (4 << 20) // 8
    np.testing.assert_array_equal(rows[4:9], store[1].observation["joint_position"])
    assert not rows[15:].any()
    value = 0
    names = [path for path in zarr.open_group(store.path, mode="r")["data"].array_keys() if path != "timestamp"]
    paths = [f"data/{name}" for name in names] + ["data/timestamp/control"]
    paths += [
        f"frames/{camera}/{name}" for camera in ("wrist", "range") for name in ("offset", "size", "stamp", "checksum")
    ]
    for path in sorted(paths):
        array = zarr.open_array(store.path / path, mode="r")
        value = zlib.crc32(array[4:9].tobytes(), value)
    assert value == zarr.open_array(store.path / "meta/checksum", mode="r")[1]
    block = zarr.open_array(store.path / "meta/statistics/opening", mode="r")[1]
    opening = store[1].observation["opening"].astype(float)
    assert block.shape == (70, 1)
    np.testing.assert_allclose(block[:5], [[5], opening.sum(0), [opening.var() * 5], opening.min(0), opening.max(0)])
    levels = 0.5 - 0.5 * np.cos(np.pi * np.arange(65) / 64)
    np.testing.assert_allclose(block[5:], np.quantile(opening, levels, axis=0))


def test_the_extras_of_a_step_are_kept(tmp_path: Path, contract: Contract) -> None:
    store = EpisodeStore.create(tmp_path / "a", contract, sim_state_size=3, streams=["joints"])
    stamps = [{"control": 10.0, "joints": 9.5, "wrist": 9.0}, {"control": 10.1, "joints": 9.6}]
    with EpisodeStore.append(store.path) as writer, writer.episode(operator="eve", text="lift it") as episode:
        episode.add(
            blank(contract),
            [1, 2, 3],
            0.5,
            stamps=stamps[0],
            sim_state=[1, 2, 3],
            policy_action=[4, 5, 6],
            intervened=True,
        )
        episode.add(blank(contract), [1, 2, 3], terminated=True, stamps=stamps[1], sim_state=[1, 2, 4])
        number = episode.finish(
            blank(contract),
            success=True,
            stamps={"control": 10.2, "joints": 9.7},
            sim_state=[0, 0, 1],
            tags=["a"],
            mass=np.float32(2),
        )
    assert number == 0
    store.refresh()
    read = store[0]
    assert read.reward.tolist() == [0.5, 0.0]
    assert read.terminated.tolist() == [False, True]
    assert read.intervened.tolist() == [True, False]
    assert read.policy_action.tolist() == [[4, 5, 6], [1, 2, 3]]
    assert read.sim_state.tolist() == [[1, 2, 3], [1, 2, 4], [0, 0, 1]]
    assert read.timestamp["control"].tolist() == [10.0, 10.1, 10.2]
    assert read.timestamp["joints"].tolist() == [9.5, 9.6, 9.7]
    assert read.timestamp["wrist"].tolist() == [9.0, 10.1, 10.2]
    assert read.timestamp["range"].tolist() == [10.0, 10.1, 10.2]
    facts = {"success": True, "task": "", "source": "", "seed": None, "operator": "eve", "text": "lift it"}
    assert read.facts == {**facts, "tags": ["a"], "mass": 2.0}


def test_a_slow_cameras_repeated_frame_is_stored_once(tmp_path: Path, contract: Contract) -> None:
    store = EpisodeStore.create(tmp_path / "a", contract, encoding="raw")
    frames = [np.full((8, 8, 3), value, np.uint8) for value in (1, 2, 3)]
    shown = [(0, 0.0), (0, 0.0), (1, 0.1), (2, 0.1), (2, 0.2)]
    with EpisodeStore.append(store.path) as writer, writer.episode() as episode:
        for index, stamp in shown[:-1]:
            episode.add({**blank(contract), "wrist": frames[index]}, np.zeros(3), stamps={"wrist": stamp})
        episode.finish({**blank(contract), "wrist": frames[2]}, success=True, stamps={"wrist": 0.2})
    store.refresh()
    np.testing.assert_array_equal(store[0].observation["wrist"][:, 0, 0, 0], [1, 1, 2, 3, 3])
    offsets = store.array("frames/wrist/offset").slice(0, 5)
    assert (np.diff(offsets) != 0).tolist() == [False, True, True, True]


def test_leaving_without_finish_discards(store: EpisodeStore, record: Record, same: Same) -> None:
    before = zarr.open_group(store.path, mode="r")["frames/wrist/bytes"].shape
    with EpisodeStore.append(store.path) as writer:
        with writer.episode() as episode:
            episode.add(blank(store.contract), np.zeros(3))
        with contextlib.suppress(RuntimeError), writer.episode() as episode:
            episode.add(blank(store.contract), np.zeros(3))
            raise RuntimeError("on purpose")
        record(writer, 3)
        assert len(writer.store) == 4
        # Two threads encode: the first frame that is placed need not be of the first row.
        assert writer.store.array("frames/wrist/offset").slice(15, 19).min() == before[0], "the space is used again"
    assert len(store) == 3
    store.refresh()
    assert len(store) == 4
    same(store[3], 3)
    assert check(store) == []


@pytest.mark.parametrize("threads", [0, 2])
def test_episodes_may_be_recorded_side_by_side(
    tmp_path: Path, contract: Contract, record: Record, same: Same, threads: int, small_chunks: None
) -> None:
    from_record = [({}, []) for _ in range(3)]
    store = EpisodeStore.create(tmp_path / "a", contract, encoding="lz4")
    with EpisodeStore.append(store.path, encode_threads=threads) as writer:

        def steps(number: int) -> Any:
            class Capture:
                def __getattr__(self, name: str) -> Any:
                    return lambda *args, **options: from_record[number][1].append((name, args, options))

                def __enter__(self) -> "Capture":
                    return self

                def __exit__(self, *error: object) -> None: ...

            class Writer:
                def episode(self, **options: Any) -> Capture:
                    from_record[number][0].update(options)
                    return Capture()

            record(Writer(), number)
            return writer.episode(**from_record[number][0])

        episodes = [steps(number) for number in range(3)]
        for turn in range(4):
            for number in (2, 0, 1):
                name, args, options = from_record[number][1][turn]
                if number == 1 and turn == 3:
                    episodes[number].discard()
                else:
                    getattr(episodes[number], name)(*args, **options)
    store.refresh()
    assert len(store) == 2
    same(store[0], 2)
    same(store[1], 0)
    assert check(store) == []


def test_an_episode_longer_than_the_first_buffer(tmp_path: Path, contract: Contract) -> None:
    store = EpisodeStore.create(tmp_path / "a", contract.select(["opening"]))
    with EpisodeStore.append(store.path) as writer, writer.episode() as episode:
        for step in range(600):
            episode.add({"opening": [step]}, np.zeros(3))
        episode.finish({"opening": [600]}, success=True)
    store.refresh()
    np.testing.assert_array_equal(store[0].observation["opening"][:, 0], np.arange(601))


def test_everything_wrong_with_a_step_is_listed_and_nothing_recorded(tmp_path: Path, contract: Contract) -> None:
    store = EpisodeStore.create(tmp_path / "a", contract, sim_state_size=2, streams=["joints"])
    wrong = {
        "joint_position": np.zeros(3),
        "opening": [np.nan],
        "contact": 0.5,
        "wrist": np.zeros((8, 8, 3), np.float32),
        "elbow": 1,
    }
    with EpisodeStore.append(store.path) as writer, writer.episode() as episode:
        with pytest.raises(StepError) as error:
            episode.add(
                wrong,
                [1, np.inf, 2],
                reward=np.nan,
                stamps={"jonts": 1.0, "control": "now"},
                policy_action=[1],
                intervened=True,
            )
        assert episode.length == 0
        episode.add(blank(contract), np.zeros(3), stamps={"joints": 0}, sim_state=[0, 0])
        episode.finish(blank(contract), success=True, stamps={"joints": 1}, sim_state=[0, 0])
    expected = [
        "observation.joint_position: expected shape [2], got [3]",
        "observation.opening: expected finite numbers, got [nan]",
        "observation.contact: expected bool, got float64; convert it explicitly",
        "observation.wrist: expected uint8 [8, 8, 3], got float32 [8, 8, 3]",
        "observation.range: missing",
        "observation.elbow: not in the contract",
        "action: expected finite numbers, got [1.0, inf, 2.0]",
        "policy_action: expected shape [3], got [1]",
        "reward: expected a finite number, got nan",
        "stamps.jonts: no such stream; this store keeps control, joints, wrist, range",
        "stamps.control: expected a finite number, got 'now'",
        "stamps.joints: missing",
        "sim_state: missing; this store keeps 2 elements of every row",
    ]
    assert sorted(error.value.problems) == sorted(expected)
    store.refresh()
    assert store[0].length == 1
    assert check(store) == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"action": "go"}, "action: expected 3 numbers"),
        ({"action": np.zeros((1, 3))}, r"action: expected shape \[3\], got \[1, 3\]"),
        ({"observation": [1, 2]}, "observation: expected a mapping by name, got list"),
        ({"sim_state": [1]}, "sim_state: this store keeps none"),
        ({"reward": None}, "reward: expected a finite number, got None"),
    ],
)
def test_single_problems(store: EpisodeStore, values: dict[str, Any], problem: str) -> None:
    with (
        EpisodeStore.append(store.path) as writer,
        writer.episode() as episode,
        pytest.raises(StepError, match=problem),
    ):
        episode.add(**{"observation": blank(store.contract), "action": np.zeros(3), **values})


def test_numbers_are_widened_or_narrowed_within_their_kind(store: EpisodeStore) -> None:
    with EpisodeStore.append(store.path) as writer, writer.episode() as episode:
        episode.add(
            {**blank(store.contract), "opening": np.array([0.1], np.float64), "joint_position": [1, 2]}, [1, 2, 3]
        )
        with pytest.raises(StepError, match="opening: expected finite numbers"):
            episode.add({**blank(store.contract), "opening": [1e300]}, [1, 2, 3])


def test_order_of_calls(store: EpisodeStore) -> None:
    observation = blank(store.contract)
    with EpisodeStore.append(store.path) as writer:
        with writer.episode() as episode:
            with pytest.raises(StoreError, match="at least one step"):
                episode.finish(observation, success=True)
            episode.add(observation, np.zeros(3), stamps={"control": 1.0})
            with pytest.raises(StepError, match="give it in every step or in none"):
                episode.add(observation, np.zeros(3))
            episode.add(observation, np.zeros(3), truncated=True, stamps={"control": 1.1})
            with pytest.raises(StoreError, match="step 1 ended the episode"):
                episode.add(observation, np.zeros(3), stamps={"control": 1.2})
            with pytest.raises(StoreError, match="are not JSON"):
                episode.finish(observation, success=True, stamps={"control": 1.2}, thing=object())
            assert episode.finish(observation, success=True, stamps={"control": 1.2}) == 3
            with pytest.raises(StoreError, match="it is finished"):
                episode.add(observation, np.zeros(3))
            with pytest.raises(StoreError, match="it is finished"):
                episode.finish(observation, success=True)
        with writer.episode() as episode:
            episode.discard()
            with pytest.raises(StoreError, match="it was discarded"):
                episode.add(observation, np.zeros(3))
    with pytest.raises(StoreError, match="it was closed"):
        writer.episode()
    assert check(store.path) == []


def test_facts_can_change_beside_a_writer(store: EpisodeStore) -> None:
    with EpisodeStore.append(store.path):
        store.annotate(0, success=False, tags=["slow"])
        store.annotate(-1, note="last")
    other = EpisodeStore.open(store.path)
    assert other.facts(0) == {**store.facts(0), "success": False, "tags": ["slow"]}
    assert other.facts(2)["note"] == "last"
    assert other.select(success=True).tolist() == [2]
    with pytest.raises(IndexError):
        store.annotate(3, success=True)
    with pytest.raises(StoreError, match="not JSON"):
        store.annotate(0, success=object())


def test_select(store: EpisodeStore) -> None:
    assert store.select().tolist() == [0, 1, 2]
    assert store.select(success=True).tolist() == [0, 2]
    assert store.select(success=True, seed=[0, 1]).tolist() == [0]
    assert store.select(source="teleop").tolist() == []
    store.annotate(2, damaged="frames lost")
    assert store.select(success=True).tolist() == [0]
    assert store.select(damaged="frames lost").tolist() == [2]


def test_split(store: EpisodeStore) -> None:
    train, held_out = store.split(0.5, seed=1)
    assert sorted([*train, *held_out]) == [0, 2]
    assert len(held_out) == 1
    many = np.arange(3)
    assert [part.tolist() for part in store.split(0.0, episodes=many)] == [[0, 1, 2], []]
    assert len(store.split(0.001, episodes=many)[1]) == 1
    assert store.split(0.3, seed=5, episodes=many)[1].tolist() == store.split(0.3, seed=5, episodes=many)[1].tolist()
    with pytest.raises(ValueError, match="between 0 and 1"):
        store.split(1.0)


def test_statistics_are_those_of_the_chosen_rows(store: EpisodeStore) -> None:
    for episodes in ([0], [0, 2], [2, 1, 0]):
        found = store.statistics(episodes)
        assert set(found) == {"joint_position", "opening", "contact", "action"}
        joints = np.concatenate([store[number].observation["joint_position"] for number in episodes]).astype(float)
        actions = np.concatenate([store[number].action for number in episodes]).astype(float)
        for name, rows in (("joint_position", joints), ("action", actions)):
            assert found[name].count == len(rows)
            np.testing.assert_allclose(found[name].mean, rows.mean(0))
            np.testing.assert_allclose(found[name].std, rows.std(0))
            np.testing.assert_allclose(found[name].min, rows.min(0))
            np.testing.assert_allclose(found[name].max, rows.max(0))
    default = store.statistics()
    np.testing.assert_allclose(default["action"].mean, store.statistics([0, 2])["action"].mean)


def test_a_store_is_pickled_as_its_path_and_length(store: EpisodeStore, record: Record, same: Same) -> None:
    packed = pickle.dumps(store)
    with EpisodeStore.append(store.path) as writer:
        record(writer, 3)
    copy = pickle.loads(packed)
    assert len(packed) < 1000
    assert len(copy) == 3
    same(copy[1], 1, steps=4)


def test_creation_is_all_or_nothing(tmp_path: Path, contract: Contract) -> None:
    path = tmp_path / "deep" / "a.zarr"
    store = EpisodeStore.create(path, contract, provenance={"environment": {"task": "lift"}})
    assert len(store) == 0
    assert store.num_rows == 0
    assert [*store] == []
    assert store.select(success=True).tolist() == []
    assert store.provenance["environment"] == {"task": "lift"}
    assert store.provenance["versions"]["numpy"] == np.__version__
    assert check(store) == []
    assert [entry.name for entry in path.parent.iterdir()] == ["a.zarr"]
    with pytest.raises(StoreError, match="exists already"):
        EpisodeStore.create(path, contract)
    for value in (np.nan, object()):
        with pytest.raises(StoreError, match="provenance is not JSON"):
            EpisodeStore.create(tmp_path / "b", contract, provenance={"a": value})
    assert not (tmp_path / "b").exists()


def test_two_that_create_a_store_at_the_same_time(tmp_path: Path, contract: Contract) -> None:
    path = tmp_path / "a.zarr"

    class Slow(Disk):
        def rename(self, source: Path, target: Path) -> None:
            shutil.copytree(source, target)
            super().rename(source, target)

    with pytest.raises(StoreError, match=r"exists already\. EpisodeStore.append adds") as raised:
        EpisodeStore.create(path, contract, disk=Slow())
    assert not isinstance(raised.value, StoreWriteError)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]
    assert check(EpisodeStore.open(path)) == []


def test_what_cannot_be_stored_is_refused_at_creation(tmp_path: Path, contract: Contract) -> None:
    observation = {
        "reward": Feature("reward", (1,)),
        "control": Feature("control", (1, 1, 3), dtype="uint8", kind="image"),
        "huge": Feature("huge", (5000, 4500, 3), dtype="uint8", kind="image"),
        "complex": Feature("complex", (1,), dtype="complex64"),
        "elbow": contract.observation["wrist"],
    }
    with pytest.raises(StoreError) as error:
        EpisodeStore.create(
            tmp_path / "a", replace(contract, observation=observation), encoding={"huge": "raw"},
            streams=["elbow", "x y", "c.0"], sim_state_size=-1,
        )  # fmt: skip
    for part in (
        "reward: this name is taken",
        "c.0: this name is taken by the files",
        "observation.control: exists already",
        "huge: a raw frame takes 67500000 bytes, more than a chunk of 67108864",
        "complex64 cannot be stored",
        "x y: a name",
        "elbow: exists",
    ):
        assert part in str(error.value)
    assert "sim_state_size: expected 0 or more" in str(error.value)
    assert not (tmp_path / "a").exists()


def test_what_is_no_store(tmp_path: Path, store: EpisodeStore) -> None:
    with pytest.raises(NotAStore, match="does not exist"):
        EpisodeStore.open(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotAStore, match=r"has no zarr\.json"):
        EpisodeStore.open(tmp_path / "empty")
    zarr.create_group(tmp_path / "run" / "recorded.zarr")
    with pytest.raises(NotAStore, match=rf"Give {tmp_path / 'run' / 'recorded.zarr'}\."):
        EpisodeStore.open(tmp_path / "run")
    zarr.create_group(tmp_path / "other")
    with pytest.raises(NotAStore, match="no episode store"):
        EpisodeStore.open(tmp_path / "other")
    header = store.path / "zarr.json"
    plain = json.loads(header.read_text())
    plain["attributes"]["version"] = 2
    header.write_text(json.dumps(plain))
    for use in (EpisodeStore.open, EpisodeStore.append, check):
        with pytest.raises(StoreVersionError, match="version 2 of the format; this package reads version 1"):
            use(store.path)


def test_appending_under_another_contract_is_refused(store: EpisodeStore, contract: Contract) -> None:
    with pytest.raises(ContractError, match=r"rate_hz: 20\.0 against 10\.0"):
        EpisodeStore.append(store.path, replace(contract, rate_hz=10.0))
    with EpisodeStore.append(store.path, contract):
        pass


def test_a_second_writer_is_refused_by_pid(store: EpisodeStore) -> None:
    with EpisodeStore.append(store.path):
        with pytest.raises(StoreLocked, match="this very process") as error:
            EpisodeStore.append(store.path)
        assert error.value.pid == os.getpid()
    code = (
        "import sys, time; from robot_rl.datasets import EpisodeStore; "
        f"writer = EpisodeStore.append({str(store.path)!r}); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd="/") as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(StoreLocked, match=f"process {other.pid} on .*pid {other.pid}") as error:
            EpisodeStore.append(store.path)
        assert error.value.pid == other.pid
        other.kill()
    with EpisodeStore.append(store.path):
        pass


def test_a_forked_worker_neither_keeps_the_lock_nor_uses_the_writer(store: EpisodeStore) -> None:
    fork = multiprocessing.get_context("fork")
    writer = EpisodeStore.append(store.path)
    said, gone = fork.SimpleQueue(), fork.Event()

    def work() -> None:
        try:
            writer.episode()
        except StoreError as error:
            said.put(str(error))
        gone.wait(30)

    worker = fork.Process(target=work, daemon=True)
    worker.start()
    assert "belongs to process" in said.get()
    writer.close()
    with EpisodeStore.append(store.path):
        assert worker.is_alive()
    gone.set()
    worker.join(30)


def test_a_writer_that_was_dropped_lets_go(store: EpisodeStore) -> None:
    writer = EpisodeStore.append(store.path)
    del writer
    with EpisodeStore.append(store.path):
        pass


def test_a_read_only_folder_is_read_and_its_writer_refused(contract: Contract, record: Record, same: Same) -> None:
    """As another user, since root may write everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = EpisodeStore.create(root / "a", contract, encoding="png")
        with EpisodeStore.append(store.path) as writer:
            record(writer, 0)
        for path in [root, *root.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            same(EpisodeStore.open(root / "a")[0], 0)
            assert check(root / "a") == []
            for act in (
                lambda: EpisodeStore.append(root / "a"),
                lambda: EpisodeStore.create(root / "b", contract),
                lambda: EpisodeStore.open(root / "a").annotate(0, success=False),
            ):
                with pytest.raises(StoreWriteError, match=r"Permission denied\. The folder is not writable"):
                    act()
        finally:
            os.seteuid(user)
            for path in [root, *root.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)
        assert check(root / "a") == []


def test_frames_in_threads_give_the_same_store(tmp_path: Path, contract: Contract, record: Record, same: Same) -> None:
    store = EpisodeStore.create(tmp_path / "a", contract, encoding="png")
    with EpisodeStore.append(store.path, encode_threads=3) as writer:
        for number in range(3):
            record(writer, number, steps=50)
    store.refresh()
    for number in range(3):
        same(store[number], number, steps=50)
    assert check(store) == []


def test_an_error_in_a_thread_ends_the_episode(
    store: EpisodeStore, record: Record, monkeypatch: pytest.MonkeyPatch, same: Same
) -> None:
    from robot_rl.datasets import frames

    encode = frames.encode
    observation = blank(store.contract)
    with EpisodeStore.append(store.path, encode_threads=1) as writer:
        with writer.episode() as episode:
            episode.add(observation, np.zeros(3))
            monkeypatch.setattr(frames, "encode", lambda *_: (_ for _ in ()).throw(RuntimeError("no encoder")))
            episode.add(observation, np.zeros(3))
            while episode._failure is None:
                time.sleep(0.01)
            with pytest.raises(RuntimeError, match="no encoder"):
                episode.add(observation, np.zeros(3))
            with pytest.raises(StoreError, match="it was discarded"):
                episode.add(observation, np.zeros(3))
        monkeypatch.setattr(frames, "encode", encode)
        record(writer, 7)
    store.refresh()
    same(store[3], 7)
    assert check(store) == []


def test_memory_does_not_grow_with_the_episode_or_the_store(tmp_path: Path) -> None:
    camera = Feature("camera", (128, 128, 3), "uint8", "image")
    contract = Contract("one camera", 20.0, {"camera": camera}, {"a": Feature("a", (1,), kind="action")})
    store = EpisodeStore.create(tmp_path / "a", contract, encoding="raw")
    steps, frame_bytes = 400, camera.size
    for threads in (0, 2):
        tracemalloc.start()
        with EpisodeStore.append(store.path, encode_threads=threads) as writer, writer.episode() as episode:
            for step in range(steps):
                episode.add({"camera": np.full(camera.shape, step % 251, np.uint8)}, [step])
            episode.finish({"camera": np.zeros(camera.shape, np.uint8)}, success=True)
        assert tracemalloc.get_traced_memory()[1] < 60 * frame_bytes
        tracemalloc.stop()
    with EpisodeStore.append(store.path) as writer:
        for _ in range(30):
            with writer.episode() as episode:
                episode.add({"camera": np.ones(camera.shape, np.uint8)}, [0])
                episode.finish({"camera": np.ones(camera.shape, np.uint8)}, success=True)
    store.refresh()
    tracemalloc.start()
    for short in store[2:]:
        assert short.observation["camera"].all()
    assert tracemalloc.get_traced_memory()[1] < 10 * frame_bytes
    tracemalloc.stop()


def test_a_large_store_opens_by_reading_its_ends_only(
    tmp_path: Path, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robot_rl.datasets.chunks import ChunkedArray

    store = EpisodeStore.create(tmp_path / "a", contract)
    opened: list[str] = []
    original = ChunkedArray.open
    monkeypatch.setattr(
        ChunkedArray, "open", lambda folder, length=None: (opened.append(str(folder)), original(folder, length))[1]
    )
    EpisodeStore.open(store.path)
    assert [path.removeprefix(str(store.path)) for path in opened] == ["/meta/episode_ends"]
