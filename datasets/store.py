"""The episode store: a folder of episodes that any Zarr reader opens, at any moment, also beside a running writer.

docs/format.md describes every file. This module reads; `robot_rl.datasets.writer` records.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_rl.datasets import frames, journal
from robot_rl.datasets.chunks import ChunkedArray, ChunkWriter
from robot_rl.datasets.contract import Contract
from robot_rl.datasets.disk import Disk, explain_write_errors
from robot_rl.datasets.errors import StoreDamaged, StoreError
from robot_rl.datasets.layout import CONTROL, EPISODE_ENDS, FACTS, STATISTICS, Layout
from robot_rl.datasets.split import split
from robot_rl.datasets.statistics import Statistics, merge

if TYPE_CHECKING:
    from robot_rl.datasets.windows import Windows
    from robot_rl.datasets.writer import StoreWriter

_RECORDED_VERSIONS = ("robot_rl", "numpy", "mujoco", "robosuite", "imagecodecs")


class EpisodeStore(Sequence["Episode"]):
    """A read-only view of the episodes that were committed when it was opened, or at the last `refresh`.

        store = EpisodeStore.create("lift.zarr", contract)
        with EpisodeStore.append("lift.zarr") as writer, writer.episode(task="lift") as episode:
            ...
        store.refresh()
        for episode in store: ...

    Attributes:
        path: the folder.
        layout: contract, encodings, streams and provenance, as the attributes of the root.
        episode_ends: int64 [E], for each episode the row after its last.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.layout = Layout.read(self.path)
        self.episode_ends = np.zeros(0, np.int64)
        self._arrays: dict[str, ChunkedArray] = {}
        self._journal = journal.Journal(self.path / FACTS)
        self.refresh()

    @staticmethod
    def create(
        path: str | Path, contract: Contract, provenance: Mapping[str, Any] | None = None,
        encoding: str | Mapping[str, str] = "jpeg", sim_state_size: int = 0, streams: Sequence[str] = (),
        disk: Disk | None = None,
    ) -> EpisodeStore:  # fmt: skip
        """Make an empty store; it appears whole or not at all.

        Args:
            provenance: JSON types, added to the versions, git commit and command line that are recorded anyway; the
                store's `id` is always its own.
            encoding: of the frames, for all cameras or by name: `jpeg`, `png`, `lz4` or `raw`.
            sim_state_size: elements of the simulator state to keep for each row; 0 for none.
            streams: names of time stamps to keep for each row beside `control` and one for each camera.
            disk: for tests.

        Raises:
            StoreError: the path exists, or the contract or an option cannot be stored.
            StoreWriteError: the folder cannot be written.
        """
        path, disk = Path(path), disk or Disk()
        known = {**_provenance(), **(provenance or {}), "id": new_id()}
        layout = Layout(contract, frames.resolve(encoding, contract), tuple(streams), int(sim_state_size), known)
        try:
            layout.group_header("")
        except (TypeError, ValueError) as error:
            raise StoreError(
                f"provenance is not JSON: {error}. It may hold texts, finite numbers, lists and mappings."
            ) from None
        there = f"{path} exists already. EpisodeStore.append adds to a store; or choose another path."
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise StoreError(there)
        beside = path.with_name(f".{path.name}.creating-{os.getpid()}")
        try:
            with explain_write_errors(path, "creating the store"):
                path.parent.mkdir(parents=True, exist_ok=True)
                create_beside(beside, layout, disk)
                try:
                    disk.rename(beside, path)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    raise StoreError(there) from error  # another process was quicker
                disk.sync_folder(path.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return EpisodeStore(path)

    @staticmethod
    def open(path: str | Path) -> EpisodeStore:
        """Open a store for reading.

        Raises:
            NotAStore, StoreVersionError, StoreDamaged: as their names say.
        """
        return EpisodeStore(path)

    @staticmethod
    def append(
        path: str | Path, contract: Contract | None = None, encode_threads: int = 2, disk: Disk | None = None
    ) -> StoreWriter:
        """Open a store for recording; use it in a `with` statement.

        Args:
            contract: what the recorder is about to write; must equal the store's.
            encode_threads: threads that encode frames beside the one that records. 0 encodes within `add`.
            disk: for tests.

        Raises:
            StoreLocked: another writer has it open.
            ContractError: the contracts differ; all differences are listed.
            StoreWriteError: the folder cannot be written.
        """
        from robot_rl.datasets.writer import StoreWriter

        return StoreWriter(path, contract, encode_threads, disk)

    @property
    def contract(self) -> Contract:
        """What every row observes and which action it took."""
        return self.layout.contract

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the data."""
        return dict(self.layout.provenance)

    @property
    def num_rows(self) -> int:
        """Rows of all episodes: their steps, and one more each for the final observation."""
        return int(self.episode_ends[-1]) if len(self.episode_ends) else 0

    @property
    def num_steps(self) -> int:
        """Actions of all episodes."""
        return self.num_rows - len(self)

    @property
    def episode_starts(self) -> np.ndarray:
        """int64 [E], the first row of each episode."""
        return np.concatenate([[0], self.episode_ends[:-1]]).astype(np.int64)[: len(self)]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [E], the number of actions T of each episode; it has T + 1 rows."""
        lengths: np.ndarray = self.episode_ends - self.episode_starts - 1
        return lengths

    def __len__(self) -> int:
        return len(self.episode_ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [Episode(self, number) for number in range(*index.indices(len(self)))]
        number = int(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.path} has {len(self)} episodes, asked for number {number}")
        return Episode(self, number % len(self))

    def __iter__(self) -> Iterator[Episode]:
        return (Episode(self, number) for number in range(len(self)))

    def __repr__(self) -> str:
        return f"EpisodeStore({str(self.path)!r}: {self.contract.name}, {len(self)} episodes, {self.num_steps} steps)"

    def __reduce__(self) -> tuple[Callable[..., EpisodeStore], tuple[Path, int]]:
        return _reopen, (self.path, len(self))

    def refresh(self) -> None:
        """See what was committed since."""
        ends = ChunkedArray.open(self.path / EPISODE_ENDS)
        self._trust(ends.slice(0, len(ends)))
        self._journal.refresh()

    def array(self, path: str) -> ChunkedArray:
        """One of the store's arrays, for example `data/joint_position`; its length is what is committed."""
        array = self._arrays.get(path)
        if array is None:
            kind = self.layout.arrays.get(path)
            if kind is None:
                raise KeyError(f"{self.path} has no array {path!r}; it has {', '.join(self.layout.arrays)}")
            array = ChunkedArray.open(self.path / path, self._committed(path))
            if (array.dtype, array.row_shape) != (np.dtype(kind.dtype), kind.row_shape):
                raise StoreDamaged(
                    f"{self.path / path}: the contract says {kind.dtype} {list(kind.row_shape)}, its zarr.json "
                    f"{array.dtype} {list(array.row_shape)}. Run `robot-rl data check --repair`."
                )
            self._arrays[path] = array
        return array

    def frames(self, camera: str) -> frames.FrameReader:
        """The frames of one camera, by row."""
        if camera not in self.contract.cameras:
            raise KeyError(f"{self.path} has no camera {camera!r}; it has {', '.join(self.contract.cameras) or 'none'}")
        arrays = (self.array(f"frames/{camera}/{name}") for name in ("bytes", "offset", "size", "checksum"))
        return frames.FrameReader(self.contract.cameras[camera], self.layout.encoding[camera], *arrays)

    def facts(self, episode: int) -> dict[str, Any]:
        """What the journal says of an episode: success, task, source, operator, seed, text, tags, ..."""
        return self._journal.facts(range(len(self))[episode])

    def annotate(self, episode: int | Sequence[int], **facts: Any) -> None:
        """Change or add facts of one or several episodes: a line each in the journal, also beside a running writer.

        Raises:
            StoreError: a fact is not JSON.
            StoreWriteError: the journal cannot be written.
        """
        numbers = [episode] if isinstance(episode, int | np.integer) else list(episode)
        journal.append(self.path / FACTS, [range(len(self))[number] for number in numbers], facts, Disk())
        self._journal.refresh()

    def select(self, **facts: Any) -> np.ndarray:
        """The episodes whose facts have the given values, int64 [n], in order.

            store.select(success=True, source=["expert", "teleop"])

        A list or tuple stands for any of its values. Episodes that a check found damaged are left out unless `damaged`
        is asked for.
        """
        wanted = {"damaged": [None, False], **facts}
        allowed = {key: value if isinstance(value, (list, tuple)) else [value] for key, value in wanted.items()}
        numbers = [
            number
            for number in range(len(self))
            if all(self._journal.facts(number).get(key) in values for key, values in allowed.items())
        ]
        return np.asarray(numbers, np.int64)

    def split(
        self, held_out: float = 0.1, seed: int = 0, episodes: Sequence[int] | np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Divide episodes at random in two sets, for training and held out, each int64 and in order.

        Args:
            held_out: share in [0, 1) of the recordings; at least one of two or more when positive.
            episodes: to divide, see `split.split`; by default the successful ones.
        """
        return split([self], held_out, seed, [episodes])[0]

    def statistics(self, episodes: Sequence[int] | np.ndarray | None = None) -> dict[str, Statistics]:
        """Statistics of the low-dimensional features and of `action`, over some episodes; no data are read again.

        Args:
            episodes: by default the successful ones.
        """
        chosen = self.select(success=True) if episodes is None else np.asarray(episodes, np.int64)
        found = {}
        for name in self.layout.statistics_shapes:
            rows = self.array(f"{STATISTICS}{name}").gather(chosen)
            found[name] = merge(self.layout.unpack_statistics(name, rows))
        return found

    def windows(
        self, obs_horizon: int, action_horizon: int, episodes: Sequence[int] | np.ndarray | None = None,
        weights: np.ndarray | None = None, **options: Any,
    ) -> Windows:  # fmt: skip
        """Training samples, see `robot_rl.datasets.windows.Windows` for the options.

        Args:
            episodes: to read; by default the successful ones.
            weights: of each episode [E] or of each row [R], handed out with every window; by default 1.
        """
        from robot_rl.datasets.windows import Windows

        return Windows([self], obs_horizon, action_horizon, episodes=[episodes], weights=[weights], **options)

    def _trust(self, ends: np.ndarray) -> None:
        if len(ends) and (ends[0] < 2 or (np.diff(ends) < 2).any()):
            raise StoreDamaged(
                f"{self.path / EPISODE_ENDS}: the ends of the episodes do not increase. "
                "Run `robot-rl data check --repair`."
            )
        self.episode_ends = ends
        for path, array in self._arrays.items():
            committed = self._committed(path)
            array.length = array.length if committed is None else committed

    def _committed(self, path: str) -> int | None:
        if path in self.layout.row_arrays:
            return self.num_rows
        return None if path in self.layout.frame_arrays else len(self)


class Episode:
    """One attempt. Every attribute reads from the store when asked, into memory of its own; keep what you need.

    An episode of T actions has T + 1 rows: the last holds the final observation, and no action.

    Attributes:
        store: it belongs to.
        index: number in the store.
        length: T, the number of actions.
        observation: by name, [T + 1, *shape]; frames are decoded.
        timestamp: by stream (`control`, those of the recorder, cameras), float64 [T + 1], seconds.
    """

    def __init__(self, store: EpisodeStore, index: int) -> None:
        self.store = store
        self.index = index
        self._start = int(store.episode_ends[index - 1]) if index else 0
        self._stop = int(store.episode_ends[index])
        self.length = self._stop - self._start - 1
        contract, streams = store.contract, (CONTROL, *store.layout.streams)
        self.observation: Mapping[str, np.ndarray] = _OnDemand({
            name: partial(self._observation, name) for name in contract.observation
        })
        stamps = {name: partial(self._rows, f"data/timestamp/{name}") for name in streams}
        stamps |= {name: partial(self._rows, f"frames/{name}/stamp") for name in contract.cameras}
        self.timestamp: Mapping[str, np.ndarray] = _OnDemand(stamps)

    @property
    def action(self) -> np.ndarray:
        """What was executed, float32 [T, A]."""
        return self._rows("data/action")[:-1]

    @property
    def policy_action(self) -> np.ndarray:
        """What the policy proposed, float32 [T, A]; the action where it was executed, NaN where there was no policy."""
        return self._rows("data/policy_action")[:-1]

    @property
    def intervened(self) -> np.ndarray:
        """Where a person took over, bool [T]."""
        return self._rows("data/intervened")[:-1]

    @property
    def reward(self) -> np.ndarray:
        """After each action, float32 [T]."""
        return self._rows("data/reward")[:-1]

    @property
    def terminated(self) -> np.ndarray:
        """Whether the action ended the task, bool [T]."""
        return self._rows("data/terminated")[:-1]

    @property
    def truncated(self) -> np.ndarray:
        """Whether the episode was cut off after the action, bool [T]."""
        return self._rows("data/truncated")[:-1]

    @property
    def sim_state(self) -> np.ndarray:
        """State of the simulator, float64 [T + 1, S]; S = 0 when none was recorded."""
        if not self.store.layout.sim_state_size:
            return np.zeros((self.length + 1, 0))
        return self._rows("data/sim_state")

    @property
    def facts(self) -> dict[str, Any]:
        """What the journal says of it."""
        return self.store.facts(self.index)

    @property
    def success(self) -> bool | None:
        """Whether it reached its goal; None when nobody said."""
        return self.facts.get("success")

    @property
    def rows(self) -> slice:
        """Its T + 1 rows in the arrays of the store."""
        return slice(self._start, self._stop)

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return f"Episode({self.index} of {str(self.store.path)!r}: {self.length} steps)"

    def _rows(self, path: str) -> np.ndarray:
        return self.store.array(path).slice(self._start, self._stop)

    def _observation(self, name: str) -> np.ndarray:
        if self.store.contract.observation[name].is_frame:
            feature = self.store.contract.observation[name]
            frames = np.empty((self._stop - self._start, *feature.shape), feature.dtype)
            self.store.frames(name).decode(np.arange(self._start, self._stop), frames)
            return frames
        return self._rows(f"data/{name}")


class _OnDemand(Mapping[str, np.ndarray]):
    """Arrays by name, read when asked for."""

    def __init__(self, readers: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self._readers = readers

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._readers:
            raise KeyError(f"no {name!r}; there are {', '.join(self._readers)}")
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def _reopen(path: Path, episodes: int) -> EpisodeStore:
    store = EpisodeStore(path)
    store._trust(store.episode_ends[:episodes])
    return store


def create_beside(beside: Path, layout: Layout, disk: Disk) -> None:
    """Make an empty store that has yet to be given its name."""
    disk.make_folder(beside)
    for group in ["", *layout.groups]:
        if group:
            disk.make_folder(beside / group)
        disk.replace(beside / group / "zarr.json", layout.group_header(group))
    disk.together(
        partial(ChunkWriter.create, beside / name, kind.dtype, kind.row_shape, kind.chunk_rows, disk)
        for name, kind in layout.arrays.items()
    )
    disk.append(beside / FACTS, b"")
    for group in reversed(["", *layout.groups]):
        disk.sync_folder(beside / group)


def new_id() -> str:
    """What tells a store from all others."""
    return secrets.token_hex(8)


def _provenance() -> dict[str, Any]:
    versions = {"python": sys.version.split()[0]}
    for name in _RECORDED_VERSIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "git_commit": _git_commit(),
        "command": list(sys.argv),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git_commit() -> str:
    source = Path(__file__).resolve().parent
    if "site-packages" in source.parts:
        return ""
    command = ["git", "-C", str(source), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
