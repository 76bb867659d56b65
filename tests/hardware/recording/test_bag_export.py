"""Stores become bags and stores again, exactly; other readers see the robot that was recorded."""

from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from robot_rl.datasets import Contract, ContractError, EpisodeStore
from robot_rl.datasets.check import check
from robot_rl.datasets.errors import StoreError
from robot_rl.datasets.formats.trajectory import ImportFailed
from robot_rl.datasets.store import Episode
from robot_rl.hardware.recording.bag import CHUNK, McapFile
from robot_rl.hardware.recording.bag_export import Storage, export_bag
from robot_rl.hardware.recording.bag_import import import_bag
from robot_rl.hardware.recording.store_import import import_store_bag
from robot_rl.hardware.ros2 import messages

from .test_bag_import import START, panda, policy_run

STATES = 3


def made_store(path: Path, begins: list[float], contract: Contract | None = None) -> EpisodeStore:
    """Episodes with stamps and simulator states of their own, slow cameras, and a person who takes over."""
    rng, contract = np.random.default_rng(0), contract or panda().contract
    store = EpisodeStore.create(path, contract, {"made": "by hand"}, "png", STATES, ["joint_position", "action"])
    with EpisodeStore.append(path) as writer:
        for number, begin in enumerate(begins):
            times = begin + np.cumsum(rng.uniform(0.04, 0.06, 8))
            picture = np.zeros(1)
            with writer.episode("lift", "intervention", seed=number, text="lift it") as episode:
                for row, time in enumerate(times.tolist()):
                    if row % 3 == 0:
                        picture, shown = rng.integers(0, 256, (16, 20, 3), np.uint8), time - 0.013
                    observation = {n: rng.normal(size=f.shape).astype(f.dtype) for n, f in contract.observation.items()}
                    observation |= {"wrist": picture, "gripper_opening": np.array([0.04], np.float32)}
                    observation["cube_pose"] = np.array([0.5, 0, 0.02, 1, 0, 0, 0], np.float32)
                    stamps = {"control": time, "joint_position": time - 0.007, "action": time + 1e-4, "wrist": shown}
                    if row == len(times) - 1:
                        episode.finish(observation, number != 1, np.full(STATES, np.nan), stamps, tags=["ours"])
                        break
                    episode.add(
                        observation, rng.normal(size=8), rng.normal(), stamps=stamps, sim_state=rng.normal(size=STATES),
                        intervened=row > 3, policy_action=rng.normal(size=8) if row > 4 else None,
                        terminated=row == len(times) - 2,
                    )  # fmt: skip
    store.refresh()
    return store


def assert_equal(one: Episode, other: Episode) -> None:
    assert one.facts == other.facts
    for name in one.observation:
        np.testing.assert_array_equal(one.observation[name], other.observation[name], name)
    assert {*one.timestamp} == {*other.timestamp}
    for name in one.timestamp:
        np.testing.assert_array_equal(one.timestamp[name], other.timestamp[name], name)
    keys = ["action", "policy_action", "intervened", "reward", "terminated", "truncated"]
    for key in keys + ["sim_state"] * bool(one.store.layout.sim_state_size):
        np.testing.assert_array_equal(getattr(one, key), getattr(other, key), key)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("begins", [[0.0, 0.0, 0.3], [START, START + 5, START + 5.5]])
def test_a_store_comes_back_as_it_was(tmp_path: Path, storage: Storage, begins: list[float]) -> None:
    store = made_store(tmp_path / "a.zarr", begins)
    export_bag(store, "panda", tmp_path / "bag", storage)
    made = import_store_bag(tmp_path / "bag", tmp_path / "b.zarr")
    assert not made.bad
    assert check(tmp_path / "b.zarr") == []
    assert made.store.contract.to_dict() == store.contract.to_dict()
    assert made.store.provenance["made"] == "by hand"
    for ours, theirs in zip(store, made.store, strict=True):
        assert_equal(ours, theirs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr", "bag"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_recording_comes_back_as_it_was_imported(tmp_path: Path, storage: Storage) -> None:
    robot = panda()
    run = policy_run(robot)
    run.mark(START + 0.3, "start", task="lift", seed=7)
    run.mark(START + 2.9, "success")
    list(import_bag(run.written(tmp_path / "bag"), robot, tmp_path / "a.zarr"))
    export_bag(EpisodeStore.open(tmp_path / "a.zarr"), "panda", tmp_path / "again", storage)
    made = import_store_bag(tmp_path / "again", tmp_path / "b.zarr")
    assert_equal(EpisodeStore.open(tmp_path / "a.zarr")[0], made.store[0])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_others_see_the_robot_with_true_stamps(tmp_path: Path, storage: Storage) -> None:
    """rosbags reads the topics; the importer of robots' recordings, without `store/row`, finds rows and actions."""
    robot = panda()
    run = policy_run(robot)
    run.mark(START + 0.3, "start", task="lift", seed=7)
    run.mark(START + 2.9, "success")
    list(import_bag(run.written(tmp_path / "bag"), robot, tmp_path / "a.zarr", encoding="png"))
    store = EpisodeStore.open(tmp_path / "a.zarr")
    export_bag(store, "panda", tmp_path / "again", storage)
    stamps = []
    with Reader(tmp_path / "again") as reader:
        assert reader.topics["/wrist/image_raw"].msgtype == "sensor_msgs/msg/Image"
        for connection, received, cdr in reader.messages():
            if connection.topic == "/wrist/image_raw":
                message = messages.decode(cdr, connection.msgtype)
                stamps.append(messages.seconds(message.header.stamp))
                assert 0 <= received * 1e-9 - stamps[-1] < 0.1
    np.testing.assert_array_equal(stamps, np.unique(store[0].timestamp["wrist"]))
    (done,) = import_bag(tmp_path / "again", robot, tmp_path / "b.zarr", encoding="png")
    assert done.facts["success"] is True
    ours, theirs = store[0], EpisodeStore.open(tmp_path / "b.zarr")[0]
    assert theirs.length >= ours.length - 1
    for name in ours.observation:
        rows = slice(len(theirs.observation[name]))
        np.testing.assert_allclose(theirs.observation[name], ours.observation[name][rows], atol=1e-6, err_msg=name)
    np.testing.assert_allclose(theirs.action, ours.action[: theirs.length], atol=1e-6)


@pytest.mark.slow
def test_a_damaged_bag_names_the_episode_and_gives_the_others(tmp_path: Path) -> None:
    store = made_store(tmp_path / "a.zarr", [0.0] * 200)
    export_bag(store, "panda", tmp_path / "bag")
    (path,) = (tmp_path / "bag").glob("*.mcap")
    chunks = [at for opcode, at, _ in McapFile(path).records() if opcode == CHUNK]
    assert len(chunks) > 1
    content = bytearray(path.read_bytes())
    content[chunks[1] + 1000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ImportFailed, match="is damaged") as failed:
        import_store_bag(tmp_path / "bag", tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()
    bad = {int(name.split()[1]) for name, _ in failed.value.bad}
    assert 0 < len(bad) < len(store)
    made = import_store_bag(tmp_path / "bag", tmp_path / "b.zarr", skip_bad=True)
    assert len(made.bad) == len(bad)
    kept = [number for number in range(len(store)) if number not in bad]
    for number, theirs in zip(kept, made.store, strict=True):
        assert_equal(store[number], theirs)


@pytest.mark.slow
def test_a_torn_bag_names_what_is_missing(tmp_path: Path) -> None:
    store = made_store(tmp_path / "a.zarr", [0.0] * 200)
    export_bag(store, "panda", tmp_path / "bag")
    (path,) = (tmp_path / "bag").glob("*.mcap")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    made = import_store_bag(tmp_path / "bag", tmp_path / "b.zarr", skip_bad=True)
    assert len(made.store) + len(made.bad) == 200
    assert made.bad[-1] == ("episode 199", "none of its rows is in the bag")
    assert_equal(store[0], made.store[0])


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_database_gives_the_episodes_on_its_whole_pages(tmp_path: Path, cut: bool) -> None:
    store = made_store(tmp_path / "a.zarr", [0.0] * 200)
    export_bag(store, "panda", tmp_path / "bag", "sqlite3")
    (path,) = (tmp_path / "bag").glob("*.db3")
    content, half = path.read_bytes(), path.stat().st_size // 8192 * 4096
    path.write_bytes(content[:half] + (b"" if cut else b"\xa5" * 8192 + content[half + 8192 :]))
    with pytest.raises(ImportFailed, match="damaged"):
        import_store_bag(tmp_path / "bag", tmp_path / "b.zarr")
    made = import_store_bag(tmp_path / "bag", tmp_path / "b.zarr", skip_bad=True)
    assert len(made.store) + len(made.bad) == len(store)
    assert len(made.store) > (50 if cut else 150)
    kept = [number for number in range(len(store)) if f"episode {number}" not in dict(made.bad)]
    for number, theirs in zip(kept, made.store, strict=True):
        assert_equal(store[number], theirs)


def test_what_does_not_fit_is_said_before_anything_is_written(tmp_path: Path) -> None:
    contract = panda().contract
    store = made_store(tmp_path / "a.zarr", [0.0], contract)
    with pytest.raises(ContractError, match="wrist"):
        export_bag(store, "ur5e", tmp_path / "bag")
    with pytest.raises(StoreError, match="exists already"):
        export_bag(store, "panda", tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
