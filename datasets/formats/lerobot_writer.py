"""To a LeRobotDataset v3.0; `lerobot_layout` says what becomes of what."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from robot_rl.datasets.contract import element_names
from robot_rl.datasets.errors import StoreError
from robot_rl.datasets.formats import lerobot_statistics as statistics
from robot_rl.datasets.formats.lerobot_layout import (
    CHUNK_FILES,
    DATA_MB,
    DATA_PATH,
    OURS,
    VERSION,
    VIDEO_MB,
    VIDEO_PATH,
    camera_key,
    joined,
)
from robot_rl.datasets.formats.lerobot_video import VideoWriter
from robot_rl.datasets.formats.optional import pyarrow
from robot_rl.datasets.formats.trajectory import Progress, trajectories
from robot_rl.datasets.store import Episode, EpisodeStore

_INDICES = ("frame_index", "episode_index", "index", "task_index")


def write(
    store: EpisodeStore, path: str | Path, *, video: bool = True, codec: str = "libsvtav1", robot_type: str = "",
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Write a store as a LeRobot data set.

    Args:
        path: a folder that does not exist yet.
        video: encode pictures as MP4, which loses some detail; otherwise they are embedded as PNG, exactly. Depth and
            pictures of odd size are always embedded.
        codec: of PyAV, `libsvtav1` as LeRobot's own or `libx264`, which decodes faster.
        robot_type: for the metadata; by default the name of the contract.

    Raises:
        StoreError: LeRobot cannot hold it; nothing was written.
    """
    path, rate = Path(path), store.contract.rate_hz
    if path.exists():
        raise StoreError(f"{path} exists already. Choose another path.")
    if rate != round(rate):
        raise StoreError(f"LeRobot needs a whole number of frames a second, not {rate:g}; resample the store first.")
    beside = path.with_name(f".{path.name}.writing")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        writer = _Writer(store, beside, video, codec, robot_type or store.contract.name)
        for episode in trajectories(store, progress):
            writer.add(episode)
        writer.finish()
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@dataclass
class _Column:
    """A column of the Parquet rows: LeRobot's description, and the values of an episode [T, ...]."""

    dtype: str
    shape: tuple[int, ...]
    names: list[str] | None
    values: Callable[[Episode], np.ndarray]

    def plain(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "shape": list(self.shape), "names": self.names}


class _Writer:
    """A LeRobot data set being written to a folder."""

    def __init__(self, store: EpisodeStore, folder: Path, video: bool, codec: str, robot_type: str) -> None:
        self.store, self.folder, self.robot_type = store, folder, robot_type
        self.fps = round(store.contract.rate_hz)
        self.columns = dict(_columns(store))
        self.cameras = {name: camera_key(name) for name in store.contract.cameras}
        self.videos: dict[str, VideoWriter] = {}
        for name, key in self.cameras.items():
            height, width, _ = store.contract.cameras[name].shape
            if video and store.contract.cameras[name].kind == "image" and height % 2 == width % 2 == 0:
                path = partial(self._video_path, key)
                self.videos[name] = VideoWriter(path, (height, width), self.fps, codec, VIDEO_MB * 1_000_000)
        self.tasks: dict[str, int] = {}
        self.rows: list[dict[str, Any]] = []
        self.index, self.file_index, self.file_bytes = 0, 0, 0
        self.parquet: Any = None
        self.final: dict[str, list[np.ndarray]] = {}
        for part in ("meta/episodes/chunk-000", OURS):
            (folder / part).mkdir(parents=True)

    def add(self, episode: Episode) -> None:
        """Write an episode."""
        pa, number, steps = pyarrow(), episode.index, episode.length
        facts = episode.facts
        task = str(facts.get("text") or facts.get("task") or "")
        task_index = self.tasks.setdefault(task, len(self.tasks))
        values = {name: column.values(episode) for name, column in self.columns.items()}
        summaries = {name: statistics.of_rows(rows) for name, rows in values.items()}
        arrays = {name: _arrow(rows, self.columns[name]) for name, rows in values.items()}
        counts = {
            "frame_index": np.arange(steps), "episode_index": np.full(steps, number),
            "index": np.arange(self.index, self.index + steps), "task_index": np.full(steps, task_index),
        }  # fmt: skip
        timestamp = (np.arange(steps) / self.fps).astype(np.float32)
        for name, rows in {"timestamp": timestamp, **counts}.items():
            arrays[name], summaries[name] = pa.array(rows), statistics.of_rows(rows[:, None])
        entry: dict[str, Any] = {
            "episode_index": number, "tasks": [task], "length": steps,
            "dataset_from_index": self.index, "dataset_to_index": self.index + steps,
        }  # fmt: skip
        for name, key in self.cameras.items():
            pictures = episode.observation[name]
            summaries[key] = statistics.of_pictures(pictures[:-1])
            if name in self.videos:
                place = self.videos[name].add(pictures[:-1])
                entry |= {f"videos/{key}/{part}": value for part, value in place.items()}
            else:
                arrays[key] = _embed(pictures[:-1])
            self.final.setdefault(name, []).append(pictures[-1])
        self._write_rows(pa.table(arrays), entry)
        self._keep_final(episode)
        entry |= {f"stats/{name}/{key}": v for name, each in summaries.items() for key, v in each.items()}
        self.rows.append(entry)
        self.index += steps

    def finish(self) -> None:
        """Write the metadata."""
        pa, meta = pyarrow(), self.folder / "meta"
        self.parquet.close()
        for video in self.videos.values():
            video.close()
        names = [*self.columns, "timestamp", *_INDICES, *self.cameras.values()]
        merged = {
            name: statistics.merge([{key: row[f"stats/{name}/{key}"] for key in statistics.KEYS} for row in self.rows])
            for name in names
        }
        pa.parquet.write_table(pa.Table.from_pylist(self.rows), meta / "episodes/chunk-000/file-000.parquet")
        tasks = pa.table({"task_index": list(self.tasks.values()), "task": list(self.tasks)})
        # So that pandas, with which LeRobot reads it, makes the task the index of the table.
        kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
        columns = [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, (kind, numpy) in kinds.items()
        ]
        pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"}
        pa.parquet.write_table(tasks.replace_schema_metadata({"pandas": json.dumps(pandas)}), meta / "tasks.parquet")
        (meta / "stats.json").write_text(json.dumps(merged, indent=4))
        (meta / "info.json").write_text(json.dumps(self._info(), indent=4))
        layout = {k: v for k, v in self.store.layout.to_dict().items() if k not in ("format", "version")}
        (self.folder / OURS / "layout.json").write_text(json.dumps(layout, indent=2))
        facts = "".join(json.dumps(self.store.facts(number)) + "\n" for number in range(len(self.store)))
        (self.folder / OURS / "facts.jsonl").write_text(facts)
        final: dict[str, Any] = {name: np.stack(rows) for name, rows in self.final.items()}
        np.savez_compressed(self.folder / OURS / "final.npz", **final)

    def _info(self) -> dict[str, Any]:
        features: dict[str, Any] = {name: column.plain() for name, column in self.columns.items()}
        for name, key in self.cameras.items():
            shape = list(self.store.contract.cameras[name].shape)
            features[key] = {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]}
            if name in self.videos:
                features[key] |= {"dtype": "video", "info": self.videos[name].info}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        features |= {name: {"dtype": "int64", "shape": [1], "names": None} for name in _INDICES}
        return {
            "codebase_version": VERSION,
            "robot_type": self.robot_type,
            "total_episodes": len(self.rows),
            "total_frames": self.index,
            "total_tasks": len(self.tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self.rows)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.videos else None,
            "features": features,
        }

    def _write_rows(self, table: Any, entry: dict[str, Any]) -> None:
        if self.parquet is not None and self.file_bytes + table.nbytes > DATA_MB * 1_000_000:
            self.parquet.close()
            self.parquet, self.file_bytes, self.file_index = None, 0, self.file_index + 1
        place = dict(zip(("chunk_index", "file_index"), divmod(self.file_index, CHUNK_FILES), strict=True))
        if self.parquet is None:
            file = self.folder / DATA_PATH.format(**place)
            file.parent.mkdir(parents=True, exist_ok=True)
            self.parquet = pyarrow().parquet.ParquetWriter(file, table.schema, compression="snappy")
        self.parquet.write_table(table, row_group_size=len(table))
        self.file_bytes += table.nbytes
        entry |= {f"data/{key}": value for key, value in place.items()}
        entry |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}

    def _keep_final(self, episode: Episode) -> None:
        rows = {name: episode.observation[name][-1] for name in self.store.layout.lowdim}
        rows |= {f"stamp.{name}": stamps[-1] for name, stamps in episode.timestamp.items()}
        rows |= {"terminated": episode.terminated[-1], "truncated": episode.truncated[-1]}
        if self.store.layout.sim_state_size:
            rows["sim_state"] = episode.sim_state[-1]
        for name, row in rows.items():
            self.final.setdefault(name, []).append(row)

    def _video_path(self, key: str, number: int) -> tuple[Path, dict[str, int]]:
        place = dict(zip(("chunk_index", "file_index"), divmod(number, CHUNK_FILES), strict=True))
        return self.folder / VIDEO_PATH.format(video_key=key, **place), place


def _columns(store: EpisodeStore) -> Iterator[tuple[str, _Column]]:
    contract = store.contract
    state_features = joined(contract)
    if state_features:
        names = [element for feature in state_features for element in element_names(feature)]

        def state(episode: Episode) -> np.ndarray:
            return np.concatenate(
                [episode.observation[f.name][:-1].reshape(-1, f.size) for f in state_features], axis=1
            )

        yield "observation.state", _Column("float32", (len(names),), names, state)
    for name, feature in store.layout.lowdim.items():
        if feature not in state_features:
            shape = feature.shape or (1,)

            def other(episode: Episode, name: str = name, shape: tuple[int, ...] = shape) -> np.ndarray:
                return episode.observation[name][:-1].reshape(-1, *shape)

            yield f"observation.{name}", _Column(feature.dtype, shape, None, other)
    size = (contract.action_dim,)
    yield "action", _Column("float32", size, contract.action_names, lambda episode: episode.action)
    yield "next.reward", _Column("float32", (1,), None, lambda episode: episode.reward[:, None])
    yield "next.done", _Column("bool", (1,), None, _done)
    yield "policy_action", _Column("float32", size, None, lambda episode: episode.policy_action)
    yield "intervened", _Column("bool", (1,), None, lambda episode: episode.intervened[:, None])
    for name in store[0].timestamp if len(store) else ():
        yield f"stamp.{name}", _Column("float64", (1,), None, partial(_stamps, name))
    if store.layout.sim_state_size:
        yield "sim_state", _Column("float64", (store.layout.sim_state_size,), None, lambda e: e.sim_state[:-1])


def _done(episode: Episode) -> np.ndarray:
    done = np.zeros((episode.length, 1), bool)
    done[-1] = True
    return done


def _stamps(name: str, episode: Episode) -> np.ndarray:
    return episode.timestamp[name][:-1, None]


def _arrow(rows: np.ndarray, column: _Column) -> Any:
    """A column as LeRobot lays it out: scalars for shape [1], else lists of fixed size."""
    pa = pyarrow()
    array = pa.array(rows.reshape(-1))
    if column.shape != (1,):
        for length in reversed(column.shape):
            array = pa.FixedSizeListArray.from_arrays(array, length)
    return array


def _embed(pictures: np.ndarray) -> Any:
    pa = pyarrow()
    data = [imagecodecs.png_encode(picture[..., 0] if picture.shape[-1] == 1 else picture) for picture in pictures]
    rows = [{"bytes": bytes(each), "path": None} for each in data]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
