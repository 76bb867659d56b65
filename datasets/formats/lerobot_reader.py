"""From a LeRobotDataset v3.0; `lerobot_layout` says what becomes of what."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from robot_rl.datasets.contract import Contract, Feature
from robot_rl.datasets.errors import StoreError
from robot_rl.datasets.formats.lerobot_layout import DATA_PATH, OURS, VERSION, VIDEO_PATH, camera_key, joined
from robot_rl.datasets.formats.lerobot_video import VideoReader
from robot_rl.datasets.formats.optional import pyarrow
from robot_rl.datasets.formats.trajectory import BadEpisode, Imported, Progress, Trajectory, import_trajectories
from robot_rl.datasets.layout import RESERVED


def read(
    path: str | Path, output: str | Path, *, encoding: Any = None, skip_bad: bool = False,
    progress: Progress | None = None,
) -> Imported:  # fmt: skip
    """Make a store of a LeRobot data set.

    Args:
        encoding: of the frames; by default PNG, which keeps them exactly, and JPEG for video, which is lossy anyway.

    Raises:
        StoreError: there is no data set of version 3.
        ImportFailed: episodes are bad.
    """
    path = Path(path)
    found = _Dataset(path)
    loaders: dict[str, Callable[[], Trajectory]] = {
        f"episode {number}": partial(found.trajectory, number) for number in range(len(found.episodes))
    }
    ours = found.ours
    try:
        return import_trajectories(
            path, output, found.contract, loaders,
            {**ours.get("provenance", {}), "converted_from": {"format": f"LeRobot {VERSION}", "robot": found.robot}},
            encoding=encoding or found.encoding, streams=ours.get("streams", ()),
            sim_state_size=ours.get("sim_state_size", 0), skip_bad=skip_bad, progress=progress,
        )  # fmt: skip
    finally:
        found.close()


class _Dataset:
    """A LeRobot data set, opened for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        info_path = path / "meta" / "info.json"
        if not info_path.is_file():
            raise StoreError(f"{path} is no LeRobot data set: it has no meta/info.json.")
        try:
            self.info = json.loads(info_path.read_bytes())
            version, features, self.fps = self.info["codebase_version"], self.info["features"], self.info["fps"]
        except (ValueError, KeyError) as error:
            raise StoreError(f"{info_path} is unreadable: {error!r}") from error
        if not str(version).startswith("v3"):
            raise StoreError(
                f"{path} has version {version}; {VERSION} is read. LeRobot converts older data: "
                "python -m lerobot.datasets.v30.convert_dataset_v21_to_v30"
            )
        self.robot = self.info.get("robot_type") or "lerobot"
        ours = path / OURS / "layout.json"
        self.ours: dict[str, Any] = json.loads(ours.read_bytes()) if ours.is_file() else {}
        self.episodes = self._episodes()
        self.tasks = self._tasks()
        self.features: dict[str, dict[str, Any]] = features
        if "action" not in features:
            raise StoreError(f"{path} has no feature `action`; it has {', '.join(features)}")
        if self.ours:
            self.contract = Contract.from_dict(self.ours["contract"])
            self.camera_keys = {name: camera_key(name) for name in self.contract.cameras}
        else:
            self.contract, self.camera_keys = self._contract()
        self._table: tuple[Path, Any] | None = None
        self._videos: dict[str, tuple[Path, VideoReader]] = {}
        self._facts: list[dict[str, Any]] = []
        self._final: Mapping[str, np.ndarray] = {}
        if self.ours:
            lines = (path / OURS / "facts.jsonl").read_text().splitlines()
            self._facts = [json.loads(line) for line in lines]
            self._final = dict(np.load(path / OURS / "final.npz", allow_pickle=False))

    @property
    def encoding(self) -> dict[str, str]:
        """Of the frames, that of their source in kind."""
        filmed = {name: self.features[key]["dtype"] == "video" for name, key in self.camera_keys.items()}
        return {name: "jpeg" if lossy else "png" for name, lossy in filmed.items()}

    def trajectory(self, number: int) -> Trajectory:
        """One episode."""
        entry = self.episodes[number]
        try:
            table = self._rows(number, entry)
            return self._of_rows(number, entry, table)
        except (KeyError, OSError, ValueError, IndexError, TypeError, pyarrow().ArrowException) as error:
            raise BadEpisode(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close the videos."""
        for _, video in self._videos.values():
            video.close()

    def _of_rows(self, number: int, entry: Mapping[str, Any], table: Any) -> Trajectory:
        steps = len(table)
        skipped = ("image", "video", "string")
        names = [name for name in table.column_names if self.features[name]["dtype"] not in skipped]
        rows = {name: _numpy(table.column(name)) for name in names}
        # LeRobot lays out vectors of one element as scalars.
        vectors = {
            name: rows[name].reshape(steps, -1) for name in ("action", "policy_action", "sim_state") if name in rows
        }
        repeated = np.arange(steps + 1).clip(max=steps - 1)
        observation = {}
        for name, feature in self.contract.observation.items():
            if not feature.is_frame:
                values = self._lowdim(name, feature, rows)[repeated]
                if self._final:
                    values[-1] = self._final[name][number]
                observation[name] = values
        frames = {name: self._frames(name, number, entry, table) for name in self.contract.cameras}
        plain = {"source": "teleop", "final_row": "repeated"}
        facts: dict[str, Any] = dict(self._facts[number]) if self._facts else plain
        if not self._facts:
            facts["text"] = facts["task"] = self.tasks.get(int(rows["task_index"][0]), "")
        stamps = {name.removeprefix("stamp."): rows[name][repeated] for name in rows if name.startswith("stamp.")}
        for name, values in stamps.items():
            values[-1] = self._final[f"stamp.{name}"][number]
        states = vectors["sim_state"][repeated] if self.ours.get("sim_state_size") else None
        if states is not None:
            states[-1] = self._final["sim_state"][number]
        done = rows["next.done"].reshape(-1) if "next.done" in rows else np.zeros(steps, bool)
        success = facts.pop("success", None) if self._facts else self._success(rows)
        return Trajectory(
            f"episode {number}", observation, vectors["action"].astype(np.float32), frames,
            rows["next.reward"].reshape(-1) if "next.reward" in rows else None,
            terminated=bool(self._final["terminated"][number]) if self._final else bool(done[-1]),
            truncated=bool(self._final["truncated"][number]) if self._final else False,
            success=success, facts=facts, stamps=stamps, sim_state=states,
            policy_action=vectors.get("policy_action"), intervened=rows.get("intervened"),
        )  # fmt: skip

    def _success(self, rows: Mapping[str, np.ndarray]) -> bool:
        # Without a mark of its own, what LeRobot is trained on counts as demonstrated well.
        return bool(rows["next.success"].any()) if "next.success" in rows else True

    def _lowdim(self, name: str, feature: Feature, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        column = f"observation.{name}"
        if self.ours and column not in rows:
            state, start = rows["observation.state"].reshape(len(rows["index"]), -1), 0
            for other in joined(self.contract):
                if other.name == name:
                    return state[:, start : start + other.size].reshape(-1, *feature.shape).astype(feature.dtype)
                start += other.size
        return rows[column].reshape(-1, *feature.shape).astype(feature.dtype)

    def _rows(self, number: int, entry: Mapping[str, Any]) -> Any:
        start, stop = int(entry["dataset_from_index"]), int(entry["dataset_to_index"])
        file = self.path / self.info.get("data_path", DATA_PATH).format(
            chunk_index=int(entry["data/chunk_index"]), file_index=int(entry["data/file_index"])
        )
        if self._table is None or self._table[0] != file:
            table = pyarrow().parquet.read_table(file)
            self._table = file, table
        table = self._table[1]
        indices = table.column("index").to_numpy()
        chosen = table.slice(int(np.searchsorted(indices, start)), stop - start)
        if chosen.column("index").to_numpy().tolist() != list(range(start, stop)):
            raise BadEpisode(f"{file.relative_to(self.path)} does not hold its rows {start} to {stop - 1}")
        if set(chosen.column("episode_index").to_numpy().tolist()) != {number}:
            raise BadEpisode(f"rows {start} to {stop - 1} say that they are of another episode")
        if int(entry.get("length", stop - start)) != stop - start or stop == start:
            raise BadEpisode(f"its length {entry.get('length')} is not that of its rows {start} to {stop - 1}")
        return chosen

    def _frames(self, name: str, number: int, entry: Mapping[str, Any], table: Any) -> Iterator[np.ndarray]:
        key = self.camera_keys[name]
        final = self._final[name][number] if self._final else None
        if self.features[key]["dtype"] == "image":
            pictures = self._embedded(table.column(key), self.contract.cameras[name])
        else:
            pictures = self._filmed(key, entry, len(table))
        return _with_final(pictures, final)

    def _embedded(self, column: Any, feature: Feature) -> Iterator[np.ndarray]:
        for value in column:
            data = value["bytes"].as_py()
            if data is None:
                raise BadEpisode(f"{feature.name}: a picture is not embedded, but said to lie at {value['path']}")
            try:
                yield imagecodecs.imread(data).reshape(feature.shape)
            except (ValueError, RuntimeError) as error:
                raise BadEpisode(f"{feature.name}: a picture does not decode: {error}") from error

    def _filmed(self, key: str, entry: Mapping[str, Any], steps: int) -> Iterator[np.ndarray]:
        file = self.path / self.info.get("video_path", VIDEO_PATH).format(
            video_key=key, chunk_index=int(entry[f"videos/{key}/chunk_index"]),
            file_index=int(entry[f"videos/{key}/file_index"]),
        )  # fmt: skip
        if key not in self._videos or self._videos[key][0] != file:
            if key in self._videos:
                self._videos.pop(key)[1].close()
            self._videos[key] = file, VideoReader(file, self.fps)
        start = round(float(entry[f"videos/{key}/from_timestamp"]) * self.fps)
        yield from self._videos[key][1].frames(start, start + steps)

    def _contract(self) -> tuple[Contract, dict[str, str]]:
        observation, keys = {}, {}
        for key, feature in self.features.items():
            if not key.startswith("observation"):
                continue
            shape, dtype = tuple(feature["shape"]), feature["dtype"]
            if dtype in ("image", "video"):
                name = key.removeprefix("observation.images.").removeprefix("observation.")
                keys[name] = key
                height, width, channels = shape if shape[-1] in (1, 3) else (shape[1], shape[2], shape[0])
                if channels != 3:
                    raise StoreError(f"{key}: pictures of {channels} channels are not imported; remove the feature")
                observation[name] = Feature(name, (height, width, 3), "uint8", kind="image")
            elif dtype != "string":
                name = key.removeprefix("observation.")
                if name in RESERVED:
                    raise StoreError(f"{key}: this name is taken by the episode store; rename the feature first")
                observation[name] = Feature(name, shape, dtype, names=_names(feature, shape))
        feature = self.features["action"]
        action = Feature("action", tuple(feature["shape"]), kind="action", names=_names(feature, feature["shape"]))
        return Contract(str(self.robot), float(self.fps), observation, {"action": action}), keys

    def _episodes(self) -> list[dict[str, Any]]:
        files = sorted((self.path / "meta" / "episodes").rglob("*.parquet"))
        if not files:
            raise StoreError(f"{self.path} has no meta/episodes: it holds no episode.")
        rows: list[dict[str, Any]] = []
        for file in files:
            try:
                schema = pyarrow().parquet.read_schema(file)
                wanted = [name for name in schema.names if not name.startswith("stats/")]
                rows += pyarrow().parquet.read_table(file, columns=wanted).to_pylist()
            except (OSError, pyarrow().ArrowException) as error:
                raise StoreError(f"{file} is unreadable: {error}") from error
        rows.sort(key=lambda row: row["episode_index"])
        if [row["episode_index"] for row in rows] != list(range(len(rows))):
            raise StoreError(f"{self.path}/meta/episodes: the episodes are not numbered 0 to {len(rows) - 1}")
        return rows

    def _tasks(self) -> dict[int, str]:
        file = self.path / "meta" / "tasks.parquet"
        if not file.is_file():
            return {}
        columns = pyarrow().parquet.read_table(file).to_pydict()
        texts = columns.get("task", columns.get("__index_level_0__", []))
        return dict(zip(columns["task_index"], map(str, texts), strict=True))


def _with_final(pictures: Iterator[np.ndarray], final: np.ndarray | None) -> Iterator[np.ndarray]:
    for picture in pictures:
        yield picture
    if final is not None:
        picture = final
    yield picture


def _numpy(column: Any) -> np.ndarray:
    rows = column.combine_chunks()
    if hasattr(rows, "storage"):
        rows = rows.storage
    shape: list[int] = [len(rows)]
    while pyarrow().types.is_nested(rows.type):
        flat = rows.flatten()
        shape.append(len(flat) // max(len(rows), 1))
        rows = flat
    return np.array(rows.to_numpy(zero_copy_only=False)).reshape(shape if len(shape) < 3 else (shape[0], -1))


def _names(feature: Mapping[str, Any], shape: Any) -> tuple[str, ...]:
    names = feature.get("names") or ()
    if isinstance(names, Mapping):
        names = [name for value in names.values() for name in (value if isinstance(value, list) else [value])]
    flat = tuple(str(name) for name in names)
    return flat if len(shape) == 1 and len(flat) == shape[0] and len(set(flat)) == len(flat) else ()
