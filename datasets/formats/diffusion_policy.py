"""diffusion_policy's replay buffer (Chi et al.), a Zarr v2 group: `data/<key>` [R, ...] and `meta/episode_ends` [E].

It keeps T observations and T actions. Reading repeats the last observation as the final one, and the journal says so
(`final_row`). Writing puts what diffusion_policy has no place for in a group `robot_rl` beside, where its
reader does not look: final observations, contract, facts. Read back, the store is the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from robot_rl.datasets.contract import Contract, Feature
from robot_rl.datasets.errors import StoreError
from robot_rl.datasets.formats.trajectory import (
    BadEpisode,
    Imported,
    Progress,
    Trajectory,
    import_trajectories,
    trajectories,
)
from robot_rl.datasets.layout import FORMAT, RESERVED
from robot_rl.datasets.store import EpisodeStore

CHUNK_BYTES = 2 << 20
"""diffusion_policy aims at chunks of about 2 MB along time."""

_STEPS = ("action", "policy_action", "intervened", "reward")


def read(
    path: str | Path, output: str | Path, *, rate_hz: float = 10.0, encoding: Any = "png", skip_bad: bool = False,
    progress: Progress | None = None,
) -> Imported:  # fmt: skip
    """Make a store of a replay buffer.

    Args:
        path: a folder, or a `.zip` of one.
        encoding: of the frames; PNG keeps them exactly.
        rate_hz: of a buffer that does not say; diffusion_policy's own data are at 10 Hz (PushT, real) or 20 Hz.

    Raises:
        StoreError: there is no replay buffer.
        ImportFailed: episodes are bad.
    """
    path = Path(path)
    root = _open(path)
    ends = np.asarray(root["meta/episode_ends"][:], np.int64)
    if len(ends) == 0 or (np.diff(ends, prepend=0) < 1).any():
        raise StoreError(f"{path}: meta/episode_ends does not increase: {ends[:5].tolist()} …")
    data = {name: root["data"][name] for name in sorted(root["data"].array_keys())}
    if root.attrs.get("format") == FORMAT:
        raise StoreError(f"{path} is an episode store already.")
    if "action" not in data:
        raise StoreError(f"{path} has no data/action; it has {', '.join(data)}")
    ours: Any = dict(root["robot_rl"].attrs) if "robot_rl" in root else {}
    contract = Contract.from_dict(ours["contract"]) if ours else _contract(path.stem, data, rate_hz)
    final = root["robot_rl/final"] if ours else None
    loaders: dict[str, Callable[[], Trajectory]] = {
        f"episode {number}": partial(_trajectory, data, final, ours, contract, number, int(start), int(stop))
        for number, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True))
    }
    return import_trajectories(
        path, output, contract, loaders,
        {**ours.get("provenance", {}), "converted_from": {"format": "diffusion_policy"}},
        encoding=encoding, streams=ours.get("streams", ()),
        sim_state_size=ours.get("sim_state_size", 0), skip_bad=skip_bad, progress=progress,
    )  # fmt: skip


def write(store: EpisodeStore, path: str | Path, *, progress: Progress | None = None) -> None:
    """Write a store as a replay buffer, `path` being a folder that does not exist yet."""
    path = Path(path)
    if path.exists():
        raise StoreError(f"{path} exists already. Choose another path.")
    beside = path.with_name(f".{path.name}.writing")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        root = zarr.open_group(beside, mode="w", zarr_format=2)
        data, meta, ours = (root.create_group(name) for name in ("data", "meta", "robot_rl"))
        final = ours.create_group("final")
        layout = {key: value for key, value in store.layout.to_dict().items() if key not in ("format", "version")}
        rows, start = store.num_steps, 0
        for episode in trajectories(store, progress):
            columns = dict(episode.observation) | {f"stamp.{name}": rows for name, rows in episode.timestamp.items()}
            if store.layout.sim_state_size:
                columns["sim_state"] = episode.sim_state
            steps = {name: getattr(episode, name) for name in _STEPS}
            for name, values in {**{name: values[:-1] for name, values in columns.items()}, **steps}.items():
                _array(data, name, rows, values)[start : start + len(values)] = values
            for name, values in columns.items():
                _array(final, name, len(store), values)[episode.index] = values[-1]
            start += episode.length
        ends = np.cumsum(store.lengths)
        _array(meta, "episode_ends", len(ends), ends)[:] = ends
        ends_by = [[bool(e.terminated[-1]), bool(e.truncated[-1])] for e in store]
        ours.attrs.update({**layout, "facts": [e.facts for e in store], "ended": ends_by})
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _open(path: Path) -> Any:
    if not path.exists():
        raise StoreError(f"{path}: there is nothing.")
    try:
        where: Any = zarr.storage.ZipStore(path, mode="r") if path.is_file() else path
        root = zarr.open_group(where, mode="r")
        if "data" in root and "meta/episode_ends" in root:
            return root
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path} is not readable as Zarr: {error}") from error
    raise StoreError(f"{path} has no `data` and `meta/episode_ends`: it is no replay buffer of diffusion_policy.")


def _contract(name: str, data: dict[str, Any], rate_hz: float) -> Contract:
    observation = {}
    for key, array in data.items():
        shape, kind = array.shape[1:], np.dtype(array.dtype).kind
        if key in RESERVED:
            continue
        if len(shape) == 3 and shape[2] == 3:
            observation[key] = Feature(key, shape, "uint8", kind="image")
        else:
            observation[key] = Feature(key, shape, "float32" if kind == "f" else np.dtype(array.dtype).name)
    (size,) = data["action"].shape[1:]
    return Contract(name, rate_hz, observation, {"action": Feature("action", (size,), kind="action")})


def _trajectory(
    data: dict[str, Any], final: Any, ours: dict[str, Any], contract: Contract, number: int, start: int, stop: int
) -> Trajectory:
    def rows(name: str) -> np.ndarray:
        found = np.asarray(data[name][start:stop])
        if len(found) != stop - start:
            raise BadEpisode(f"data/{name} has only {len(found)} of its {stop - start} rows")
        last = found[-1:] if final is None else np.asarray(final[name][number])[None]
        return np.concatenate([found, last])

    def frames(name: str) -> Iterator[np.ndarray]:
        # Some buffers keep pictures as floats from 0 to 255.
        pictures = rows(name)
        yield from pictures if pictures.dtype == contract.cameras[name].dtype else np.rint(pictures).astype(np.uint8)

    def steps(name: str) -> np.ndarray | None:
        return np.asarray(data[name][start:stop]) if ours else None

    try:
        plain = {"source": "teleop", "final_row": "repeated"}
        facts: dict[str, Any] = dict(ours["facts"][number]) if ours else plain
        terminated, truncated = ours["ended"][number] if ours else (False, False)
        return Trajectory(
            f"episode {number}",
            {name: rows(name) for name, feature in contract.observation.items() if not feature.is_frame},
            np.asarray(data["action"][start:stop], np.float32),
            frames={name: frames(name) for name in contract.cameras},
            reward=steps("reward"),
            terminated=terminated,
            truncated=truncated,
            # What diffusion_policy is trained on counts as demonstrated well.
            success=facts.pop("success", None) if ours else True,
            facts=facts,
            stamps={name.removeprefix("stamp."): rows(name) for name in data if ours and name.startswith("stamp.")},
            sim_state=rows("sim_state") if ours.get("sim_state_size") else None,
            policy_action=steps("policy_action"),
            intervened=steps("intervened"),
        )
    except (KeyError, OSError, ValueError, RuntimeError) as error:
        raise BadEpisode(f"{type(error).__name__}: {error}") from error


def _array(group: Any, name: str, rows: int, values: np.ndarray) -> Any:
    if name in group:
        return group[name]
    row = max(1, values[0].nbytes if len(values) else 1)
    chunk = min(rows, max(1, CHUNK_BYTES // row))
    shape = (rows, *values.shape[1:])
    return group.create_array(name, shape=shape, chunks=(chunk, *values.shape[1:]), dtype=values.dtype)
