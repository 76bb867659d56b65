"""A store at another rate, with other image sizes or another encoding of the frames.

A row of the new rate holds what was last known at its time: the observation of the latest old row, and the action that
was being executed. Nothing is interpolated, so nothing is invented. Pictures are cropped first, then scaled; the
intrinsics in the contract follow, and so does what the store says of the simulator that it was recorded in.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robot_rl.datasets.contract import Contract, Feature
from robot_rl.datasets.disk import explain_write_errors
from robot_rl.datasets.errors import StoreError
from robot_rl.datasets.layout import CONTROL
from robot_rl.datasets.origin import origin
from robot_rl.datasets.store import Episode, EpisodeStore


@dataclass(frozen=True)
class View:
    """What becomes of a camera's pictures.

    Attributes:
        crop: top, left, height and width to keep [pixel]; None keeps all.
        size: height and width to scale that to [pixel]; None leaves them.
    """

    crop: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None

    def feature(self, feature: Feature) -> Feature:
        """The camera's feature with its new shape and intrinsics.

        Raises:
            StoreError: the crop leaves the picture, or a size is not positive.
        """
        height, width, channels = feature.shape
        top, left, rows, columns = self.crop or (0, 0, height, width)
        if not (0 <= top < top + rows <= height and 0 <= left < left + columns <= width):
            raise StoreError(f"{feature.name}: crop {self.crop} does not lie within {height} x {width} pixels")
        new_rows, new_columns = self.size or (rows, columns)
        if min(new_rows, new_columns) < 1:
            raise StoreError(f"{feature.name}: expected a positive height and width, got {self.size}")
        known = dict(feature.calibration)
        for focal, centre, start, scale in (
            ("fx", "cx", left, new_columns / columns), ("fy", "cy", top, new_rows / rows),
        ):  # fmt: skip
            if focal in known and centre in known:
                # A pixel's centre lies half a pixel inside its edge.
                known |= {focal: known[focal] * scale, centre: (known[centre] - start + 0.5) * scale - 0.5}
        return replace(feature, shape=(new_rows, new_columns, channels), calibration=known)

    def is_rendered(self, feature: Feature) -> bool:
        """Whether a simulated camera shows the same at the new size: all rows, middle columns and square pixels."""
        height, width, _ = feature.shape
        _, left, rows, columns = self.crop or (0, 0, height, width)
        new_rows, new_columns = self.size or (rows, columns)
        centred = abs(2 * left + columns - width) <= 1
        return rows == height and centred and abs(new_columns * rows - columns * new_rows) < rows

    def apply(self, frames: np.ndarray) -> np.ndarray:
        """Pictures [n, H, W, C] to [n, H', W', C]; depth keeps measured values, colours are averaged."""
        if self.crop is not None:
            top, left, rows, columns = self.crop
            frames = frames[:, top : top + rows, left : left + columns]
        if self.size is None or self.size == frames.shape[1:3]:
            return frames
        shrinks = self.size[0] <= frames.shape[1] and self.size[1] <= frames.shape[2]
        way = cv2.INTER_NEAREST if frames.dtype != np.uint8 else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        scaled = [cv2.resize(frame, self.size[::-1], interpolation=way) for frame in frames]
        return np.stack(scaled).reshape(len(frames), *self.size, frames.shape[3])


def resample(
    store: EpisodeStore,
    output: str | Path,
    rate_hz: float | None = None,
    views: Mapping[str, View] | None = None,
    encoding: str | Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EpisodeStore:
    """Make a new store of all episodes of one.

    Args:
        output: must not exist; it appears when it is complete.
        rate_hz: rows per second; None as before.
        views: by camera.
        encoding: of the frames; None as before.
        progress: called with the number of episodes done, and of all.

    Raises:
        StoreError: an argument does not fit. Nothing was written.
    """
    output, views, old = Path(output), dict(views or {}), store.contract
    if output.exists():
        raise StoreError(f"{output} exists already. Choose another path.")
    if unknown := sorted(set(views) - set(old.cameras)):
        raise StoreError(f"no such camera: {', '.join(unknown)}; there are: {', '.join(old.cameras) or 'none'}")
    if rate_hz is not None and not rate_hz > 0:
        raise StoreError(f"rate: expected a positive number of rows per second, got {rate_hz}")
    deltas = [name for name, feature in old.action.items() if feature.mode == "delta"]
    if deltas and rate_hz not in (None, old.rate_hz):
        raise StoreError(
            f"rate: {', '.join(deltas)} of {store.path} are steps of {1 / old.rate_hz:g} s each, which mean something "
            f"else at {rate_hz:g} Hz; only absolute actions can be resampled"
        )
    observation = {name: views[name].feature(f) if name in views else f for name, f in old.observation.items()}
    contract = replace(old, rate_hz=rate_hz or old.rate_hz, observation=observation)
    provenance = {**store.provenance, "resampled_from": {"store": store.path.name, "rate_hz": old.rate_hz}}
    if isinstance(spec := provenance.get("environment"), Mapping):
        provenance["environment"] = _simulated(spec, old, contract, views)
    beside = output.with_name(f".{output.name}.resampling")
    with explain_write_errors(output, "writing the resampled store"):
        shutil.rmtree(beside, ignore_errors=True)
        try:
            EpisodeStore.create(
                beside, contract, provenance, encoding or dict(store.layout.encoding), store.layout.sim_state_size,
                store.layout.streams,
            )  # fmt: skip
            with EpisodeStore.append(beside) as writer:
                for episode in store:
                    _copy(episode, writer, views, old.rate_hz / contract.rate_hz)
                    if progress is not None:
                        progress(episode.index + 1, len(store))
            beside.rename(output)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return EpisodeStore(output)


def rows_at(length: int, ratio: float) -> np.ndarray:
    """The old rows of the new steps, and last that of the final observation, int64 [T' + 1].

    Args:
        length: T, old steps.
        ratio: old rate divided by new rate.
    """
    steps = np.floor(np.arange(max(round(length / ratio), 1)) * ratio + 1e-9).astype(np.int64)
    return np.append(np.minimum(steps, length - 1), length)


def _simulated(
    spec: Mapping[str, Any], old: Contract, new: Contract, views: Mapping[str, View]
) -> dict[str, Any]:  # fmt: skip
    """The environment that offers what the new store holds, as long; without cameras that it could not render."""
    changed: dict[str, Any] = {"rate_hz": new.rate_hz}
    if spec.get("horizon") is not None:
        changed["horizon"] = max(round(spec["horizon"] * new.rate_hz / spec.get("rate_hz", old.rate_hz)), 1)
    if spec.get("cameras"):
        changed["cameras"] = {
            name: list(new.observation[name].shape[:2]) if name in views else size
            for name, size in spec["cameras"].items()
            if name not in views or views[name].is_rendered(old.observation[name])
        }
    return {**spec, **changed}


def _copy(episode: Episode, writer: Any, views: Mapping[str, View], ratio: float) -> None:
    store, rows = episode.store, rows_at(episode.length, ratio)
    names = [name for name in store.contract.observation if name not in views]
    observation = {name: episode.observation[name][rows] for name in names}
    observation |= {name: view.apply(episode.observation[name][rows]) for name, view in views.items()}
    stamps = {name: values[rows] for name, values in episode.timestamp.items()}
    start = stamps[CONTROL][0]
    # Two new rows of one old row must not claim the same time.
    stamps[CONTROL] = start + np.arange(len(rows)) / writer.store.contract.rate_hz if ratio < 1 else stamps[CONTROL]
    reward = np.diff(np.append(0, np.cumsum(episode.reward))[rows])
    action, proposed, intervened, states = episode.action, episode.policy_action, episode.intervened, episode.sim_state
    facts = {**episode.facts, "origin": origin(store, episode.index)}
    known = {key: facts.pop(key) for key in ("task", "source", "seed", "operator", "text") if key in facts}
    success = facts.pop("success", None)

    def state(row: int) -> np.ndarray | None:
        return states[row] if store.layout.sim_state_size else None

    with writer.episode(**known) as made:
        for step, row in enumerate(rows[:-1].tolist()):
            last = step == len(rows) - 2
            made.add(
                _row(observation, step), action[row], reward[step],
                terminated=last and bool(episode.terminated[-1]), truncated=last and bool(episode.truncated[-1]),
                stamps=_row(stamps, step), sim_state=state(row), intervened=bool(intervened[row]),
                policy_action=proposed[row] if np.isfinite(proposed[row]).all() else None,
            )  # fmt: skip
        made.finish(_row(observation, -1), success, state(-1), _row(stamps, -1), **facts)


def _row(columns: Mapping[str, Sequence[Any] | np.ndarray], step: int) -> dict[str, Any]:
    return {name: values[step] for name, values in columns.items()}
