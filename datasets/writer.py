"""Recording: the one writer of a store, and the episode being recorded.

Frames are encoded and written while the episode runs, many at once, behind the committed length, where no reader looks;
its rows are kept in memory (a kilobyte or so a step). `finish` commits in an order that survives a kill and a power cut
anywhere:

1. write the rows, the episode's statistics, checksum and end, its facts, and beside the headers (`zarr.json`) of all
   arrays ones with the new length; sync all that, and the frames;
2. put the new headers into the place of the old ones, but that of `meta/episode_ends`; sync the folders;
3. the same for the header of `meta/episode_ends`. This one rename is the commit.

Several episodes may be recorded at once, for example one of each of a batch of environments; each takes its number when
it is finished. All of that is for one thread: those that encode are the writer's own.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from robot_rl.datasets import frames, journal
from robot_rl.datasets.chunks import ChunkWriter, checksum
from robot_rl.datasets.contract import Contract, Feature, equal
from robot_rl.datasets.disk import Disk, explain_write_errors
from robot_rl.datasets.encoders import Encoders
from robot_rl.datasets.errors import StepError, StoreDamaged, StoreError
from robot_rl.datasets.layout import CHECKSUM, CONTROL, EPISODE_ENDS, FACTS, LOCK, STATISTICS
from robot_rl.datasets.lock import WriterLock
from robot_rl.datasets.packing import FramePacker
from robot_rl.datasets.store import EpisodeStore

_FIRST_ROWS = 256
_AGAIN = "record the episode again"

Place = tuple[int, int, int]
"""Offset, size and CRC-32 of an encoded frame."""
_NOWHERE: Place = (-1, -1, -1)


class StoreWriter:
    """Records episodes into a store; made by `EpisodeStore.append`, used in a `with` statement. For one thread.

    Attributes:
        store: what is committed so far, for reading.
    """

    def __init__(self, path: str | Path, contract: Contract | None, encode_threads: int, disk: Disk | None) -> None:
        self.store = EpisodeStore(path)
        if contract is not None:
            equal(self.store.contract, contract)
        with explain_write_errors(self.store.path, "opening the store for writing"):
            self._lock = WriterLock(self.store.path / LOCK)
        try:
            self.store.refresh()
            self._disk = disk or Disk()
            self._arrays = self._open_arrays()
        except BaseException:
            self._lock.release()
            raise
        self._process = os.getpid()
        self._unusable = ""
        self._open_episodes: set[EpisodeWriter] = set()
        self._packers = {
            camera: FramePacker(self._arrays[f"frames/{camera}/bytes"]) for camera in self.store.contract.cameras
        }
        self._encoders = Encoders(encode_threads) if encode_threads and self._packers else None

    def episode(
        self, task: str = "", source: str = "", seed: int | None = None, operator: str = "", text: str = ""
    ) -> EpisodeWriter:
        """Begin an episode; use it in a `with` statement. Leaving it without `finish` discards what was recorded.

        Args:
            task: name of the task.
            source: `expert`, `teleop`, `policy` or `intervention`.
            seed: that the environment was reset with.
            operator: who held the controls.
            text: the instruction, in words.
        """
        self._check_usable()
        facts = {"task": task, "source": source, "seed": seed, "operator": operator, "text": text}
        episode = EpisodeWriter(self, facts)
        self._open_episodes.add(episode)
        return episode

    def close(self) -> None:
        """Discard unfinished episodes and let the next writer in."""
        if self._lock.held:
            for episode in list(self._open_episodes):
                episode.discard()
            if self._encoders is not None:
                self._encoders.close()
            self._disk.close()
            self._lock.release()
            self._unusable = self._unusable or "it was closed. EpisodeStore.append opens another"

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_arrays(self) -> dict[str, ChunkWriter]:
        arrays, layout = {}, self.store.layout
        for path, kind in layout.arrays.items():
            array = ChunkWriter(self.store.path / path, self._disk)
            enough = self.store.num_rows if path in layout.row_arrays else len(self.store)
            if path in layout.frame_arrays:
                enough = 0
            if (array.dtype, array.row_shape) != (np.dtype(kind.dtype), kind.row_shape) or array.length < enough:
                raise StoreDamaged(
                    f"{array.folder}: the store needs {kind.dtype} {list(kind.row_shape)} with at least {enough} rows, "
                    f"its zarr.json says {array.dtype} {list(array.row_shape)} with {array.length}. "
                    "Run `robot-rl data check --repair`."
                )
            arrays[path] = array
        return arrays

    def _check_usable(self) -> None:
        if os.getpid() != self._process:
            raise StoreError(
                f"this writer of {self.store.path} belongs to process {self._process}; a forked process cannot use it."
            )
        if self._unusable:
            raise StoreError(f"this writer of {self.store.path} cannot be used any more: {self._unusable}.")

    def _place_frame(self, camera: str, frame: np.ndarray) -> Place:
        """Encode a frame and put it behind all others of its camera."""
        data = frames.encode(self.store.layout.encoding[camera], frame)
        try:
            offset = self._packers[camera].place(data)
        except OSError:
            with explain_write_errors(self.store.path, f"writing frames of {camera}", _AGAIN):
                raise
        return offset, len(data), zlib.crc32(data)

    def _commit(self, rows: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> int:
        self._check_usable()
        with explain_write_errors(self.store.path, "committing an episode", _AGAIN):
            number, start = len(self.store), self.store.num_rows
            stop = start + len(rows["data/action"])
            lengths = dict.fromkeys(rows, stop)
            per_episode = self._episode_row(rows)
            lengths |= dict.fromkeys(per_episode, number + 1)
            lengths |= {f"frames/{camera}/bytes": packer.flush() for camera, packer in self._packers.items()}
            lengths[EPISODE_ENDS] = number + 1
            self._unusable = "a commit did not come to its end. Open the store again; what was committed is intact"
            for path, values in rows.items():
                self._arrays[path].write(start, values)
            for path, values in per_episode.items():
                self._arrays[path].write(number, values[None])
            self._arrays[EPISODE_ENDS].write(number, np.array([stop]))
            self._disk.together([
                partial(journal.append, self.store.path / FACTS, number, facts, self._disk, begin=True),
                *(self._arrays[path].sync for path in lengths),
                *(partial(self._arrays[path].prepare_length, length) for path, length in lengths.items()),
            ])
            self._disk.together(self._arrays[path].install_length for path in lengths if path != EPISODE_ENDS)
            self._arrays[EPISODE_ENDS].install_length()
            self._unusable = ""
        self.store.refresh()
        return number

    def _episode_row(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {CHECKSUM: np.asarray(checksum(rows), np.uint32)}
        for name in self.store.layout.statistics_shapes:
            found[f"{STATISTICS}{name}"] = self.store.layout.statistics_of(name, rows)
        return found

    def _done(self, episode: EpisodeWriter) -> None:
        self._open_episodes.discard(episode)
        if not self._open_episodes:
            # Space of discarded episodes is used again once nobody can be writing behind it.
            for packer in self._packers.values():
                packer.reset()


class EpisodeWriter:
    """One episode being recorded: `add` a step at a time, then `finish`. Made by `StoreWriter.episode`.

    Attributes:
        length: steps so far.
    """

    def __init__(self, writer: StoreWriter, facts: Mapping[str, Any]) -> None:
        self._writer = writer
        self._layout = writer.store.layout
        self._contract = self._layout.contract
        self._facts = dict(facts)
        self._rows = {
            path: np.zeros((_FIRST_ROWS, *kind.row_shape), kind.dtype) for path, kind in self._layout.row_arrays.items()
        }
        self._states = {
            name: (f"data/{name}", feature, np.dtype(feature.dtype)) for name, feature in self._layout.lowdim.items()
        }
        self._cameras = self._contract.cameras
        self._action_dim = self._contract.action_dim
        self._places: dict[str, list[Place]] = {camera: [] for camera in self._cameras}
        self._frame_of_row: dict[str, list[int]] = {camera: [] for camera in self._cameras}
        self._last_frames: dict[str, tuple[float, np.ndarray]] = {}
        self._failure: BaseException | None = None
        self._ended = ""
        self._has_stamps = False
        self.length = 0

    def add(
        self,
        observation: Mapping[str, Any],
        action: Any,
        reward: float = 0.0,
        terminated: bool = False,
        truncated: bool = False,
        stamps: Mapping[str, float] | None = None,
        sim_state: Any = None,
        policy_action: Any = None,
        intervened: bool = False,
    ) -> None:
        """Record an observation and the action that was taken after it.

        Args:
            observation: every feature of the contract, by name.
            action: what was executed, float [A], finite.
            reward: for the action.
            terminated, truncated: whether the action ended the task, or the episode was cut off after it.
            stamps: seconds, by stream: `control` for the row (by default its number over `rate_hz`), each stream of
                the store, and cameras (by default as the row).
            sim_state: float64 [S] before the action, where the store keeps it.
            policy_action: what the policy proposed, where it differs; [A].
            intervened: whether a person took over.

        Raises:
            StepError: something does not fit; all problems are listed and nothing is recorded.
            StoreWriteError: frames cannot be written.
        """
        self._check_open()
        last = self.length - 1
        if self.length and (self._rows["data/terminated"][last] or self._rows["data/truncated"][last]):
            raise StoreError(f"step {last} ended the episode (terminated or truncated): call finish instead of add.")
        problems: list[str] = []
        values = self._observation_row(observation, stamps, sim_state, problems)
        values["data/action"] = _vector("action", action, self._action_dim, problems)
        if policy_action is not None:
            values["data/policy_action"] = _vector("policy_action", policy_action, self._action_dim, problems)
        else:
            values["data/policy_action"] = np.nan if intervened else values["data/action"]
        values["data/intervened"] = bool(intervened)
        values["data/terminated"], values["data/truncated"] = bool(terminated), bool(truncated)
        values["data/reward"] = _number("reward", reward, problems)
        values["data/is_first"] = self.length == 0
        self._record(values, observation, stamps or {}, problems)
        self._has_stamps = CONTROL in (stamps or {})

    def finish(
        self,
        final_observation: Mapping[str, Any],
        success: bool,
        sim_state: Any = None,
        stamps: Mapping[str, float] | None = None,
        **facts: Any,
    ) -> int:
        """Record the observation after the last action and commit the episode.

        Args:
            success: whether the task was achieved; episodes without are left out of training by default.
            sim_state, stamps: as in `add`.
            facts: anything else to keep in the journal: tags, notes, randomisation; JSON types.

        Returns:
            The number of the episode.

        Raises:
            StepError: the observation does not fit. The episode stays open.
            StoreWriteError: it could not be committed; the store is as before.
        """
        self._check_open()
        if not self.length:
            raise StoreError("an episode needs at least one step; call add, or leave without finish to discard it.")
        known = {"success": None if success is None else bool(success), **self._facts, **facts}
        journal.encode(0, known)
        problems: list[str] = []
        values = self._observation_row(final_observation, stamps, sim_state, problems)
        values["data/policy_action"] = 0.0
        values["data/is_last"] = True
        self._record(values, final_observation, stamps or {}, problems)
        try:
            number = self._writer._commit(self._finished_rows(), known)
        except BaseException:
            self._end("it could not be committed")
            raise
        self._end("it is finished")
        return number

    def discard(self) -> None:
        """Forget what was recorded. Nothing happens after `finish`."""
        if not self._ended:
            if self._writer._encoders is not None:
                self._writer._encoders.wait()
            self._end("it was discarded")

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def _end(self, why: str) -> None:
        self._ended = why
        self._rows.clear()
        self._last_frames.clear()
        self._writer._done(self)

    def _check_open(self) -> None:
        if self._ended:
            raise StoreError(
                f"nothing can be added to this episode: {self._ended}. Begin another: writer.episode(...)."
            )
        self._writer._check_usable()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            self.discard()
            raise failure

    def _observation_row(
        self, observation: Mapping[str, Any], stamps: Mapping[str, float] | None, sim_state: Any, problems: list[str]
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if not isinstance(observation, Mapping):
            problems.append(f"observation: expected a mapping by name, got {type(observation).__name__}")
            return values
        for name in sorted(observation.keys() ^ self._contract.observation.keys(), key=str):
            problems.append(f"observation.{name}: {'not in the contract' if name in observation else 'missing'}")
        for name, feature in self._cameras.items():
            if name in observation:
                _check_frame(feature, observation[name], problems)
        for name, (path, feature, dtype) in self._states.items():
            if name in observation:
                values[path] = _state(feature, dtype, observation[name], problems)
        self._stamps(stamps or {}, values, problems)
        size = self._layout.sim_state_size
        if size and sim_state is None:
            problems.append(f"sim_state: missing; this store keeps {size} elements of every row")
        elif size:
            values["data/sim_state"] = _vector("sim_state", sim_state, size, problems, np.float64)
        elif sim_state is not None:
            problems.append("sim_state: this store keeps none; create it with sim_state_size")
        return values

    def _stamps(self, stamps: Mapping[str, float], values: dict[str, Any], problems: list[str]) -> None:
        streams = (CONTROL, *self._layout.streams)
        known = (*streams, *self._cameras)
        for name in stamps:
            if name not in known:
                problems.append(f"stamps.{name}: no such stream; this store keeps {', '.join(known)}")
            else:
                _number(f"stamps.{name}", stamps[name], problems)
        if self.length and (CONTROL in stamps) != self._has_stamps:
            problems.append(f"stamps.{CONTROL}: give it in every step or in none")
        control = stamps.get(CONTROL, self.length / self._contract.rate_hz)
        for name in streams:
            if name != CONTROL and name not in stamps:
                problems.append(f"stamps.{name}: missing")
            values[f"data/timestamp/{name}"] = stamps.get(name, control)
        for camera in self._cameras:
            values[f"frames/{camera}/stamp"] = stamps.get(camera, control)

    def _record(
        self, values: Mapping[str, Any], observation: Mapping[str, Any], stamps: Mapping[str, float],
        problems: list[str],
    ) -> None:  # fmt: skip
        if problems:
            raise StepError(
                f"step {self.length} does not fit the contract {self._contract.name!r}:", problems,
                "Nothing of it was recorded.",
            )  # fmt: skip
        row = self.length
        if row == len(self._rows["data/action"]):
            self._rows = {path: np.concatenate([rows, np.zeros_like(rows)]) for path, rows in self._rows.items()}
        try:
            for camera in self._cameras:
                self._place(camera, np.asarray(observation[camera]), stamps.get(camera))
        except BaseException:
            self.discard()
            raise
        for path, value in values.items():
            self._rows[path][row] = value
        self.length += 1

    def _place(self, camera: str, frame: np.ndarray, stamp: float | None) -> None:
        places, frame_of_row = self._places[camera], self._frame_of_row[camera]
        if stamp is not None:
            # A camera slower than the rows gives the same frame again: it is stored once.
            last = self._last_frames.get(camera)
            if last is not None and last[0] == stamp and np.array_equal(last[1], frame):
                frame_of_row.append(len(places) - 1)
                return
            self._last_frames[camera] = stamp, frame.copy()
        frame_of_row.append(len(places))
        places.append(_NOWHERE)
        encoders = self._writer._encoders
        if encoders is None:
            places[-1] = self._writer._place_frame(camera, frame)
        else:
            encoders.submit(partial(self._encode_later, camera, frame.copy(), len(places) - 1))

    def _encode_later(self, camera: str, frame: np.ndarray, number: int) -> None:
        try:
            self._places[camera][number] = self._writer._place_frame(camera, frame)
        except BaseException as error:
            self._failure = error

    def _finished_rows(self) -> dict[str, np.ndarray]:
        if self._writer._encoders is not None:
            self._writer._encoders.wait()
            if self._failure is not None:
                raise self._failure
        rows = {path: values[: self.length] for path, values in self._rows.items()}
        for camera, places in self._places.items():
            found = np.array(places)[self._frame_of_row[camera]].T
            for name, column in zip(("offset", "size", "checksum"), found, strict=True):
                rows[f"frames/{camera}/{name}"][:] = column
        return rows


def _vector(name: str, value: Any, size: int, problems: list[str], dtype: Any = np.float32) -> Any:
    try:
        vector = np.asarray(value, dtype)
    except (TypeError, ValueError) as error:
        problems.append(f"{name}: expected {size} numbers, got {value!r} ({error})")
        return None
    if vector.shape != (size,):
        problems.append(f"{name}: expected shape [{size}], got {list(vector.shape)}")
    # A simulator's state is its own affair: it may mark what is not set by NaN.
    elif name != "sim_state" and not _finite(vector):
        problems.append(f"{name}: expected finite numbers, got {vector.tolist()}")
    return vector


def _number(name: str, value: Any, problems: list[str]) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        problems.append(f"{name}: expected a finite number, got {value!r}")
    return number


def _state(feature: Feature, dtype: np.dtype, value: Any, problems: list[str]) -> Any:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        problems.append(f"observation.{feature.name}: not an array ({error})")
        return None
    if array.shape != feature.shape:
        problems.append(f"observation.{feature.name}: expected shape {list(feature.shape)}, got {list(array.shape)}")
    if array.dtype != dtype:
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            problems.append(f"observation.{feature.name}: expected {dtype}, got {array.dtype}; convert it explicitly")
            return None
        with np.errstate(over="ignore"):  # what overflows is infinite, and found below
            array = array.astype(dtype)
    if dtype.kind == "f" and feature.role != "diagnostic" and not _finite(array):
        problems.append(f"observation.{feature.name}: expected finite numbers, got {array.tolist()}")
    return array


def _finite(values: np.ndarray) -> bool:
    return bool(np.logical_and.reduce(np.isfinite(values), axis=None))


def _check_frame(feature: Feature, value: Any, problems: list[str]) -> None:
    frame = np.asarray(value)
    if frame.shape != feature.shape or frame.dtype != np.dtype(feature.dtype):
        wanted, found = f"{feature.dtype} {list(feature.shape)}", f"{frame.dtype} {list(frame.shape)}"
        problems.append(f"observation.{feature.name}: expected {wanted}, got {found}")
