"""LeRobotDataset v3.0: round trips, data sets of several files, and damaged ones.

Pictures carry their episode and step as a watermark, which proves the identity of every frame through lossy video.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robot_rl.datasets import Contract, EpisodeStore, Feature, StoreError
from robot_rl.datasets.check import check
from robot_rl.datasets.formats import lerobot
from robot_rl.datasets.formats.trajectory import ImportFailed

from .conftest import LENGTHS, SIZE, identity, watermark

FPS = 10


def make_theirs(path: Path, lengths: tuple[int, ...] = (6, 4, 7, 3), split: int = 2) -> Path:
    """A data set after the published description of v3.0: `split` episodes in a first file of each kind, then a second.

    Columns, metadata and the order of episodes within videos follow the description, not our writer.
    """
    draw = np.random.default_rng(0)
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["a", "b"]},
        "observation.images.top": {"dtype": "video", "shape": [SIZE, SIZE, 3], "names": ["height", "width", "channel"]},
        "observation.images.side": {
            "dtype": "image",
            "shape": [3, SIZE, SIZE],
            "names": ["channel", "height", "width"],
        },
        "action": {"dtype": "float32", "shape": [3], "names": {"motors": ["x", "y", "z"]}},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **{
            name: {"dtype": "int64", "shape": [1], "names": None}
            for name in ("frame_index", "episode_index", "index", "task_index")
        },
    }
    info = {
        "codebase_version": "v3.0", "robot_type": "so100", "total_episodes": len(lengths), "fps": FPS,
        "total_frames": sum(lengths), "total_tasks": 2, "features": features,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }  # fmt: skip
    for part in ("meta/episodes/chunk-000", "data/chunk-000", "videos/observation.images.top/chunk-000"):
        (path / part).mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pa.table({"task_index": [0, 1], "task": ["pick", "place"]}), path / "meta/tasks.parquet")
    entries, index = [], 0
    for file, numbers in enumerate((range(split), range(split, len(lengths)))):
        rows: list[dict[str, Any]] = []
        video = av.open(str(path / f"videos/observation.images.top/chunk-000/file-{file:03d}.mp4"), "w")
        stream = video.add_stream("libx264", rate=FPS, options={"g": "2", "crf": "23"})
        stream.width = stream.height = SIZE
        stream.pix_fmt, filmed = "yuv420p", 0
        for number in numbers:
            entries.append({
                "episode_index": number, "tasks": [["pick", "place"][number % 2]], "length": lengths[number],
                "dataset_from_index": index, "dataset_to_index": index + lengths[number],
                "data/chunk_index": 0, "data/file_index": file,
                "videos/observation.images.top/chunk_index": 0, "videos/observation.images.top/file_index": file,
                "videos/observation.images.top/from_timestamp": filmed / FPS,
                "videos/observation.images.top/to_timestamp": (filmed + lengths[number]) / FPS,
            })  # fmt: skip
            for step in range(lengths[number]):
                picture = watermark(number, step)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = filmed + step
                video.mux(stream.encode(frame))
                rows.append({
                    "observation.state": draw.normal(size=2).astype(np.float32).tolist(),
                    "action": [float(number), float(step), 0.5], "timestamp": step / FPS, "frame_index": step,
                    "episode_index": number, "index": index + step, "task_index": number % 2,
                    "observation.images.side": {"bytes": _png(picture), "path": f"frame-{step}.png"},
                })  # fmt: skip
            index, filmed = index + lengths[number], filmed + lengths[number]
        video.mux(stream.encode(None))
        video.close()
        schema = pa.schema([
            ("observation.state", pa.list_(pa.float32(), 2)), ("action", pa.list_(pa.float32(), 3)),
            ("timestamp", pa.float32()), ("frame_index", pa.int64()), ("episode_index", pa.int64()),
            ("index", pa.int64()), ("task_index", pa.int64()),
            ("observation.images.side", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ])  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows, schema), path / f"data/chunk-000/file-{file:03d}.parquet")
    half = len(entries) // 2
    for file, part in enumerate((entries[:half], entries[half:])):
        pq.write_table(pa.Table.from_pylist(part), path / f"meta/episodes/chunk-000/file-{file:03d}.parquet")
    return path


def _png(picture: np.ndarray) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", picture[..., ::-1])[1])


def test_round_trip_without_video_is_exact(store: EpisodeStore, tmp_path: Path, same: Callable[..., None]) -> None:
    lerobot.write(store, tmp_path / "out", video=False)
    back = lerobot.read(tmp_path / "out", tmp_path / "back.zarr").store
    assert not check(back)
    same(back, store)


@pytest.mark.parametrize("others", [(), ("counter",)])
def test_vectors_of_one_element_and_scalars_stay_what_they_are(
    tmp_path: Path, same: Callable[..., None], others: tuple[str, ...]
) -> None:
    features = {"opening": Feature("opening", (1,)), "counter": Feature("counter", (1,), dtype="int64")}
    observed = {name: features[name] for name in ("opening", *others)}
    if others:
        observed["width"] = Feature("width", ())
    contract = Contract("one", 20.0, observed, {"gripper": Feature("gripper", (1,), kind="action")})
    store = EpisodeStore.create(tmp_path / "one.zarr", contract, sim_state_size=1)
    with EpisodeStore.append(store.path) as writer, writer.episode() as episode:
        for step in range(4):
            row = {name: np.full(each.shape, step, each.dtype) for name, each in observed.items()}
            if step < 3:
                episode.add(row, [step], sim_state=[step], policy_action=[step + 0.5])
        episode.finish(row, success=True, sim_state=[3])
    store.refresh()
    lerobot.write(store, tmp_path / "out")
    same(lerobot.read(tmp_path / "out", tmp_path / "back.zarr").store, store)


@pytest.mark.parametrize("codec", ["libsvtav1", "libx264"])
def test_round_trip_through_video_keeps_every_frame_in_its_place(
    store: EpisodeStore, tmp_path: Path, same: Callable[..., None], codec: str
) -> None:
    lerobot.write(store, tmp_path / "out", codec=codec)
    threads = [int(entry.name) for entry in Path("/proc/self/task").iterdir()]
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_OTHER}, "SVT-AV1 takes real-time priority"
    back = lerobot.read(tmp_path / "out", tmp_path / "back.zarr").store
    same(back, store, but=("top",))
    for episode in back:
        found = [identity(picture) for picture in episode.observation["top"]]
        assert found == [(episode.index, step) for step in range(episode.length + 1)]


def test_their_data_sets_of_several_files(tmp_path: Path) -> None:
    lengths = (6, 4, 7, 3)
    path = make_theirs(tmp_path / "theirs", lengths)
    made = lerobot.read(path, tmp_path / "in.zarr").store
    assert not check(made)
    assert (made.contract.name, made.contract.rate_hz) == ("so100", FPS)
    assert made.contract.observation["state"].names == ("a", "b")
    assert made.contract.action["action"].names == ("x", "y", "z")
    assert made.lengths.tolist() == [*lengths]
    for episode in made:
        expected = [(episode.index, min(step, episode.length - 1)) for step in range(episode.length + 1)]
        for camera in ("top", "side"):
            assert [identity(picture) for picture in episode.observation[camera]] == expected, camera
        np.testing.assert_array_equal(episode.action[:, 0], episode.index)
        np.testing.assert_array_equal(episode.action[:, 1], np.arange(episode.length))
        assert episode.facts["task"] == ["pick", "place"][episode.index % 2]
        assert episode.success
    both = [
        np.stack(pq.read_table(path / f"data/chunk-000/file-{file:03d}.parquet")["observation.state"].to_pylist())
        for file in range(2)
    ]
    states = np.concatenate([episode.observation["state"][:-1] for episode in made])
    np.testing.assert_array_equal(states, np.concatenate(both).astype(np.float32))


def test_metadata_and_statistics_are_those_of_the_rows(store: EpisodeStore, tmp_path: Path) -> None:
    lerobot.write(store, tmp_path / "out", video=False, robot_type="tiny_arm")
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == ("v3.0", 20, "tiny_arm")
    assert (info["total_episodes"], info["total_frames"]) == (len(LENGTHS), sum(LENGTHS))
    assert info["features"]["observation.state"]["names"] == [
        "joint_position.a", "joint_position.b", "opening"
    ]  # fmt: skip
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    actions = np.concatenate([episode.action for episode in store])
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(axis=0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["max"], actions.max(axis=0))
    assert np.shape(stats["observation.images.top"]["mean"]) == (3, 1, 1)
    pictures = np.concatenate([episode.observation["top"][:-1] for episode in store]) / 255
    np.testing.assert_allclose(np.ravel(stats["observation.images.top"]["mean"]), pictures.mean(axis=(0, 1, 2)))
    episodes = pq.read_table(tmp_path / "out/meta/episodes").to_pylist()
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in episodes] == [(0, 5), (5, 14), (14, 17)]
    data = pq.ParquetFile(tmp_path / "out/data/chunk-000/file-000.parquet")
    assert [data.metadata.row_group(i).num_rows for i in range(data.num_row_groups)] == [*LENGTHS]


def test_large_data_sets_are_cut_in_files(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: Callable[..., None]
) -> None:
    from robot_rl.datasets.formats import lerobot_writer

    monkeypatch.setattr(lerobot_writer, "DATA_MB", 0.0001)
    monkeypatch.setattr(lerobot_writer, "VIDEO_MB", 0.0001)
    monkeypatch.setattr(lerobot_writer, "CHUNK_FILES", 2)
    lerobot.write(store, tmp_path / "out", codec="libx264")
    for part, suffix in (("data", "parquet"), ("videos/observation.images.top", "mp4")):
        files = sorted(
            str(file.relative_to(tmp_path / "out" / part)) for file in (tmp_path / "out" / part).rglob("*.*")
        )
        assert files == [f"chunk-000/file-000.{suffix}", f"chunk-000/file-001.{suffix}", f"chunk-001/file-000.{suffix}"]
    back = lerobot.read(tmp_path / "out", tmp_path / "back.zarr").store
    same(back, store, but=("top",))
    assert [identity(picture)[0] for picture in back[2].observation["top"]] == [2] * (LENGTHS[2] + 1)


def test_all_bad_episodes_are_named_and_the_others_imported_on_request(tmp_path: Path) -> None:
    path = make_theirs(tmp_path / "theirs")
    video = path / "videos/observation.images.top/chunk-000/file-001.mp4"
    video.write_bytes(video.read_bytes()[:300])
    rows = pq.read_table(path / "data/chunk-000/file-000.parquet").to_pylist()
    rows[7]["episode_index"] = 0
    schema = pq.read_schema(path / "data/chunk-000/file-000.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema), path / "data/chunk-000/file-000.parquet")
    with pytest.raises(ImportFailed) as failed:
        lerobot.read(path, tmp_path / "in.zarr")
    assert [name for name, _ in failed.value.bad] == ["episode 1", "episode 2", "episode 3"]
    assert "of another episode" in str(failed.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs"]
    made = lerobot.read(path, tmp_path / "in.zarr", skip_bad=True)
    assert made.store.lengths.tolist() == [6]


def test_what_cannot_be_read_or_written_is_said(store: EpisodeStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no LeRobot data set"):
        lerobot.read(tmp_path, tmp_path / "x.zarr")
    path = make_theirs(tmp_path / "theirs")
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    with pytest.raises(StoreError, match=r"version v2\.1"):
        lerobot.read(path, tmp_path / "x.zarr")
    with pytest.raises(StoreError, match="exists already"):
        lerobot.write(store, path)
