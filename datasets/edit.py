"""New stores out of episodes of old ones: merge, split, delete, trim.

    edit.assemble("both.zarr", [*edit.whole(first), *edit.whole(second)])       # merge
    edit.replace("lift.zarr", edit.whole(store, kept))                          # delete the others

Encoded frames are never copied or decoded: the new store holds the chunk files of the old ones as hard links (copies on
a file system without them), and only the rows, which say where each frame lies, are written anew. No writer ever writes
into a shared chunk, as the frames of a new store end at the end of a chunk.

Everything is validated before anything is written. The new store is written beside its place, synced, compared with its
sources, and takes its place by one rename. An interrupted edit leaves a hidden folder, never a changed store.
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.datasets import journal
from robot_rl.datasets.chunks import ChunkedArray, ChunkWriter, checksum
from robot_rl.datasets.contract import equal
from robot_rl.datasets.disk import Disk, LateDisk, explain_write_errors
from robot_rl.datasets.errors import StoreError
from robot_rl.datasets.exchange import exchange
from robot_rl.datasets.layout import CHECKSUM, EPISODE_ENDS, FACTS, LOCK, STATISTICS, Layout
from robot_rl.datasets.lock import WriterLock
from robot_rl.datasets.origin import origin
from robot_rl.datasets.store import EpisodeStore, create_beside, new_id

Progress = Callable[[int, int], None]
"""Called with the number of episodes done so far, and of all."""


@dataclass(frozen=True)
class Part:
    """Some steps of an episode, to become one of a new store.

    Attributes:
        store, episode: where it is.
        start, stop: its steps (actions) start to stop - 1; by default to its end.
        facts: that differ from those of the episode.
    """

    store: EpisodeStore
    episode: int
    start: int = 0
    stop: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """T of the episode that it is cut from."""
        return int(self.store.lengths[self.episode])

    @property
    def steps(self) -> slice:
        """Its steps, with both ends."""
        return slice(self.start, self.length if self.stop is None else self.stop)

    @property
    def is_whole(self) -> bool:
        """Whether nothing was cut off."""
        return self.steps == slice(0, self.length)


def whole(store: EpisodeStore, episodes: Iterable[int] | None = None) -> list[Part]:
    """Whole episodes of a store; by default all."""
    return [Part(store, int(number)) for number in (range(len(store)) if episodes is None else episodes)]


def assemble(
    output: str | Path, parts: Sequence[Part], progress: Progress | None = None, disk: LateDisk | None = None
) -> EpisodeStore:
    """Make a new store of parts, in their order.

    Args:
        output: must not exist.
        disk: for tests.

    Raises:
        StoreError: nothing is to be stored, an episode or step does not exist, or the stores keep different things.
        ContractError: their contracts differ; all differences are listed.
        StoreWriteError: the disk is full or not writable. The sources are as before, and there is no output.
    """
    output = Path(output)
    if output.exists():
        raise StoreError(f"{output} exists already. Choose another path.")
    layout = _common_layout(parts)
    with _beside(output) as beside:
        _write(beside, layout, parts, progress, disk or LateDisk())
        beside.rename(output)
        Disk().sync_folder(output.parent)
    return EpisodeStore(output)


def replace(
    path: str | Path, parts: Sequence[Part], progress: Progress | None = None, disk: LateDisk | None = None
) -> Path:
    """Put a new store of parts in the place of one that they come from.

    Returns:
        Where the store is now as it was before; it shares its frames with the new one.

    Raises:
        As `assemble`; StoreLocked: somebody is writing the store; and StoreError: it is not as it was opened any more.
    """
    path = Path(path).resolve()  # a link to a store stays one
    layout = _common_layout(parts)
    with explain_write_errors(path, "opening the store for an edit"):
        lock = WriterLock(path / LOCK)
    try:
        _refuse_changed(path, parts)
        before = _free_name(path)
        with _beside(path) as beside:
            _write(beside, layout, parts, progress, disk or LateDisk())
            _refuse_changed(path, parts)  # facts are noted beside a writer, too
            beside.rename(before)
            _exchange(before, path)
            Disk().sync_folder(path.parent)
    finally:
        lock.release()
    return before


def _refuse_changed(path: Path, parts: Sequence[Part]) -> None:
    """Raise `StoreError` if the store that is to be replaced holds more by now than the parts know of."""
    now = EpisodeStore(path)
    stores = {id(part.store): part.store for part in parts if part.store.path.resolve() == path.resolve()}
    for store in stores.values():
        if _content(store) != _content(now):
            raise StoreError(
                f"{path}: expected the {len(store)} episodes that it was opened with, and the same facts of them, got "
                f"{len(now)} or other facts. Nothing was changed; run it again."
            )


def _content(store: EpisodeStore) -> tuple[Layout, list[dict[str, Any]]]:
    return store.layout, [store.facts(number) for number in range(len(store))]


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A hidden name beside a path; what is left there is removed, and write errors are explained."""
    beside = path.with_name(f".{path.name}.editing-{os.getpid()}")
    with explain_write_errors(path, "writing the edited store"):
        try:
            beside.parent.mkdir(parents=True, exist_ok=True)
            yield beside
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _common_layout(parts: Sequence[Part]) -> Layout:
    """The layout of the new store, after everything was checked that can be wrong."""
    if not parts:
        raise StoreError("no episode is left; a store without episodes is made by EpisodeStore.create.")
    problems = []
    for part in parts:
        if not 0 <= part.episode < len(part.store):
            problems.append(f"{part.store.path}: episode {part.episode} is not among its {len(part.store)}")
        elif not 0 <= part.steps.start < part.steps.stop <= part.length:
            problems.append(
                f"{part.store.path}: steps {part.steps.start} to {part.steps.stop} do not lie within the {part.length} "
                f"steps of episode {part.episode}"
            )
    stores = list({part.store.path.resolve(): part.store for part in parts}.values())
    first = stores[0].layout
    for store in stores[1:]:
        equal(first.contract, store.contract)
        for name in ("encoding", "streams", "sim_state_size"):
            ours, theirs = getattr(first, name), getattr(store.layout, name)
            if ours != theirs:
                problems.append(f"{name}: {stores[0].path} keeps {ours}, {store.path} {theirs}")
    if problems:
        advice = "Nothing was changed. `robot-rl data resample` brings stores to the same encoding."
        raise StoreError("\n".join(["this edit is not possible:", *(f"  - {line}" for line in problems), advice]))
    shared = {
        key: value
        for key, value in first.provenance.items()
        if all(store.layout.provenance.get(key) == value for store in stores)
    }
    made_of = [{"store": store.path.name, **store.layout.provenance} for store in stores]
    provenance = {**shared, "id": new_id(), "made_of": made_of}
    return Layout(first.contract, first.encoding, first.streams, first.sim_state_size, provenance)


def _write(beside: Path, layout: Layout, parts: Sequence[Part], progress: Progress | None, disk: LateDisk) -> None:
    create_beside(beside, layout, disk)
    frames = {camera: _SharedFrames(beside, camera, parts) for camera in layout.contract.cameras}
    for camera in frames.values():
        camera.link(disk)
    arrays = {path: ChunkWriter(beside / path, disk) for path in layout.arrays}
    lines, stop = [], 0
    for number, part in enumerate(parts):
        rows = _rows(part, frames)
        for path, values in rows.items():
            arrays[path].append(values)
        arrays[CHECKSUM].append(np.array([checksum(rows)], np.uint32))
        for name in layout.statistics_shapes:
            arrays[f"{STATISTICS}{name}"].append(_statistics(part, layout, name, rows)[None])
        stop += len(rows["data/action"])
        arrays[EPISODE_ENDS].append(np.array([stop]))
        cut = {} if part.is_whole else {"steps": [part.steps.start, part.steps.stop]}
        facts = {**part.store.facts(part.episode), "origin": origin(part.store, part.episode), **cut, **part.facts}
        lines.append(journal.encode(number, facts, begin=True))
        if progress is not None:
            progress(number + 1, len(parts))
    disk.append(beside / FACTS, b"".join(lines))
    for path, array in arrays.items():
        array.sync()
        length = frames[Path(path).parent.name].length if path in layout.frame_arrays else array.length
        array.set_length(length)
    disk.flush()
    disk.close()
    _compare(EpisodeStore(beside), parts)


class _SharedFrames:
    """The chunk files of one camera that the parts need, numbered anew."""

    def __init__(self, beside: Path, camera: str, parts: Sequence[Part]) -> None:
        self._folder, self._camera = beside / "frames" / camera / "bytes", camera
        self._chunks: dict[tuple[Path, int], int] = {}
        self._arrays: dict[Path, ChunkedArray] = {}
        for part in parts:
            store = part.store.path
            if store not in self._arrays:
                self._arrays[store] = part.store.array(f"frames/{camera}/bytes")
            offset = part.store.array(f"frames/{camera}/offset").slice(*_bounds(part))
            for chunk in np.unique(offset // self._size(store)).tolist():
                self._chunks.setdefault((store, chunk), len(self._chunks))

    @property
    def length(self) -> int:
        """Of the new array: full chunks, so that frames to come go into files of their own."""
        return len(self._chunks) * next(self._size(store) for store in self._arrays)

    def link(self, disk: Disk) -> None:
        """Let the new store share the files."""
        for (store, chunk), number in self._chunks.items():
            source, target = self._arrays[store].chunk_path(chunk), self._folder / f"c.{number}"
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
                disk.sync(target)
        disk.sync_folder(self._folder)

    def moved(self, part: Part, offset: np.ndarray) -> np.ndarray:
        """Where frames of a part lie now, int64 [n]."""
        size = self._size(part.store.path)
        chunks, inside = np.divmod(offset, size)
        known, where = np.unique(chunks, return_inverse=True)
        numbers = np.array([self._chunks[part.store.path, chunk] for chunk in known.tolist()], np.int64)
        return numbers[where] * size + inside

    def _size(self, store: Path) -> int:
        return self._arrays[store].chunk_rows


def _bounds(part: Part) -> tuple[int, int]:
    """First row and the row after the last, in the part's store."""
    start = part.store[part.episode].rows.start
    return start + part.steps.start, start + part.steps.stop + 1


def _rows(part: Part, frames: Mapping[str, _SharedFrames]) -> dict[str, np.ndarray]:
    rows = {path: part.store.array(path).slice(*_bounds(part)) for path in part.store.layout.row_arrays}
    for camera, shared in frames.items():
        rows[f"frames/{camera}/offset"] = shared.moved(part, rows[f"frames/{camera}/offset"])
    if not part.is_whole:
        for name, row in (("is_first", 0), ("is_last", -1)):
            rows[f"data/{name}"][:] = False
            rows[f"data/{name}"][row] = True
        if part.steps.stop < part.length:
            rows["data/truncated"][-2] = True
            # After the final observation there is no action.
            for name in ("action", "policy_action", "reward", "intervened", "terminated", "truncated"):
                rows[f"data/{name}"][-1] = 0
    return rows


def _statistics(part: Part, layout: Layout, name: str, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    if part.is_whole:
        row: np.ndarray = part.store.array(f"{STATISTICS}{name}").slice(part.episode, part.episode + 1)[0]
        return row
    return layout.statistics_of(name, rows)


def _compare(made: EpisodeStore, parts: Sequence[Part]) -> None:
    """Read the new store back and compare it with its sources: rows by their values, frames by their bytes."""
    if len(made) != len(parts):
        raise StoreError(f"the edited store holds {len(made)} episodes instead of {len(parts)}. Nothing was changed.")
    same_file: dict[tuple[Path, Path], bool] = {}
    for number, part in enumerate(parts):
        rows, (start, stop) = made[number].rows, _bounds(part)
        last = 1 if part.steps.stop < part.length else 0
        for path in made.layout.row_arrays:
            if Path(path).name in ("offset", "is_first", "is_last", "truncated"):
                continue
            ours = made.array(path).slice(rows.start, rows.stop - last)
            if ours.tobytes() != part.store.array(path).slice(start, stop - last).tobytes():
                raise StoreError(f"{path} of episode {number} does not read back as written. Nothing was changed.")
        for camera in made.contract.cameras:
            _compare_frames(made, part, camera, rows, start, same_file)


def _compare_frames(
    made: EpisodeStore, part: Part, camera: str, rows: slice, start: int, same_file: dict[tuple[Path, Path], bool]
) -> None:
    reader, theirs = made.frames(camera), part.store.frames(camera)
    count = rows.stop - rows.start
    ours_at = reader.offset.slice(rows.start, rows.stop)
    theirs_at = theirs.offset.slice(start, start + count)
    size = reader.packed.chunk_rows
    if (ours_at % size != theirs_at % size).any():
        raise StoreError(f"frames of {camera} lie in the wrong place. Nothing was changed.")
    for ours, other in {*zip((ours_at // size).tolist(), (theirs_at // size).tolist(), strict=True)}:
        pair = reader.packed.chunk_path(ours), theirs.packed.chunk_path(other)
        if pair not in same_file:
            same_file[pair] = pair[0].samefile(pair[1])
        if not same_file[pair]:
            chosen = np.flatnonzero(ours_at // size == ours) + rows.start
            found = [zlib.crc32(data) for data in reader.read(chosen)]
            if found != reader.checksum.gather(chosen).tolist():
                raise StoreError(f"frames of {camera} do not read back as copied. Nothing was changed.")


def _free_name(path: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    names = (path.with_name(f"{path.stem}.before-{stamp}{more}{path.suffix}") for more in ("", *range(2, 100)))
    return next(name for name in names if not name.exists())


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders, at once where that can be done, else by three renames."""
    if exchange(one, other):
        return
    aside = one.with_name(one.name + ".old")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)
