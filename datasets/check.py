"""Whether a store is whole, and what can be done when it is not.

`check` reads everything: headers, episode ends, rows against their checksum, every frame against its checksum and
through its decoder, statistics against the rows, the journal.

`repair` brings a store back to its last committed state. Statistics are made of the rows again, and so are checksums
whose file was lost. It never deletes: what it replaces is moved to `meta/damaged/<time>/`, and episodes whose data are
lost are marked in the journal (`damaged`, which leaves them out of training) and otherwise stay as they are.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot_rl.datasets import journal
from robot_rl.datasets.chunks import ChunkedArray, checksum, header, read_header
from robot_rl.datasets.disk import Disk, explain_write_errors
from robot_rl.datasets.errors import StoreDamaged, StoreError
from robot_rl.datasets.frames import decode
from robot_rl.datasets.layout import CHECKSUM, CONTROL, EPISODE_ENDS, FACTS, LOCK, STATISTICS, ArrayKind, Layout
from robot_rl.datasets.lock import WriterLock
from robot_rl.datasets.store import EpisodeStore

_CHUNKS = "c.*[0-9]"
"""Matches the chunk files of an array, and not what is being made beside them."""

Progress = Callable[[int, int], None]
"""Called with the number of episodes checked so far, and of all."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        episode: which; None when it concerns the store as a whole.
        where: file or array below the store.
        cause: what was expected and what was found.
    """

    episode: int | None
    where: str
    cause: str

    def __str__(self) -> str:
        return f"{'store' if self.episode is None else f'episode {self.episode}'}: {self.where}: {self.cause}"


def check(store: EpisodeStore | str | Path, progress: Progress | None = None) -> list[Finding]:
    """Verify every episode.

    Returns:
        What is wrong; empty when the store is whole.

    Raises:
        NotAStore, StoreVersionError: there is nothing to check.
    """
    path = store.path if isinstance(store, EpisodeStore) else Path(store)
    findings = list(_check_headers(path))
    if any(finding.where in ("zarr.json", EPISODE_ENDS) for finding in findings):
        return findings
    opened = EpisodeStore(path)
    opened_journal = journal.Journal(path / FACTS)
    opened_journal.refresh()
    findings += [Finding(None, FACTS, f"line {line} is no record of the journal") for line in opened_journal.bad_lines]
    broken = {finding.where for finding in findings}
    for number in range(len(opened)):
        findings += _check_episode(opened, number, broken)
        if progress is not None:
            progress(number + 1, len(opened))
    return findings


def repair(store: EpisodeStore | str | Path, progress: Progress | None = None) -> list[str]:
    """Bring a store back to its last committed state.

    Returns:
        What was done, a line for each; empty when nothing was wrong.

    Raises:
        StoreLocked: somebody is writing it.
        StoreDamaged: the contract is lost in both its copies, nothing can be restored.
        NotAStore, StoreVersionError: there is nothing to repair.
    """
    path = store.path if isinstance(store, EpisodeStore) else Path(store)
    if not (path / LOCK).parent.is_dir():
        Layout.read(path)
    with explain_write_errors(path, "repairing"):
        lock = WriterLock(path / LOCK)
        try:
            return _Repair(path).run(progress)
        finally:
            lock.release()


def _check_headers(path: Path) -> Iterator[Finding]:
    try:
        layout = Layout.read(path)
    except StoreDamaged as error:
        yield Finding(None, "zarr.json", str(error))
        return
    for group in ["", *layout.groups]:
        if problem := _group_problem(path, group):
            yield Finding(None, f"{group}/zarr.json".lstrip("/"), problem)
    try:
        ends = _read_ends(path)
    except StoreError as error:
        yield Finding(None, EPISODE_ENDS, str(error))
        return
    for name, kind in layout.arrays.items():
        length = _committed_length(layout, name, ends)
        if problem := _header_problem(path / name, kind, length):
            yield Finding(None, name, problem)
        else:
            yield from _size_problems(path, name, kind)
    for file, numbers in _lost_checksums(path, layout, len(ends)):
        cause = f"the checksums of {len(numbers)} episodes are lost; a repair makes them of the rows again"
        yield Finding(None, str(file.relative_to(path)), cause)


def _size_problems(path: Path, name: str, kind: ArrayKind) -> Iterator[Finding]:
    """Chunk files that no reader of Zarr takes; those of a writer that is just making them are its own affair."""
    length = read_header(path / name)[1][0]
    for file, size in _wrong_sizes(path / name, kind):
        if int(file.name.split(".")[1]) * kind.chunk_rows < length:
            cause = f"expected a chunk of {kind.chunk_bytes} bytes, found {size}"
            yield Finding(None, str(file.relative_to(path)), cause)


def _wrong_sizes(folder: Path, kind: ArrayKind) -> Iterator[tuple[Path, int]]:
    for file in sorted(folder.glob(_CHUNKS)):
        if (size := file.stat().st_size) != kind.chunk_bytes:
            yield file, size


def _lost_checksums(path: Path, layout: Layout, episodes: int) -> Iterator[tuple[Path, range]]:
    """The files of checksums that are missing or end too early, and the episodes whose checksums stood there."""
    kind = layout.arrays[CHECKSUM]
    for chunk, first in enumerate(range(0, episodes, kind.chunk_rows)):
        file = path / CHECKSUM / f"c.{chunk}"
        kept = file.stat().st_size // kind.row_bytes if file.is_file() else 0
        if numbers := range(first + kept, min(first + kind.chunk_rows, episodes)):
            yield file, numbers


def _check_episode(store: EpisodeStore, number: int, broken: set[str]) -> Iterator[Finding]:
    layout, rows = store.layout, store[number].rows
    values = {}
    for name in layout.row_arrays:
        if name in broken:
            continue
        try:
            values[name] = store.array(name).slice(rows.start, rows.stop)
        except StoreError as error:
            yield Finding(number, name, str(error))
    if not store.facts(number):
        yield Finding(number, FACTS, "holds no facts of it")
    if len(values) < len(layout.row_arrays):
        return
    if CHECKSUM not in broken:
        yield from _check_checksum(store, number, values)
    yield from _check_rows(number, values)
    yield from _check_statistics(store, number, values, broken)
    for camera in store.contract.cameras:
        if f"frames/{camera}/bytes" not in broken:
            yield from _check_frames(store, number, camera, values)


def _check_checksum(store: EpisodeStore, number: int, values: dict[str, np.ndarray]) -> Iterator[Finding]:
    try:
        stored, found = int(store.array(CHECKSUM).slice(number, number + 1)[0]), checksum(values)
    except StoreDamaged:  # it is among the lost ones
        return
    if stored != found:
        yield Finding(number, "data", f"the rows do not match their checksum ({found:08x}, stored is {stored:08x})")


def _check_rows(number: int, values: dict[str, np.ndarray]) -> Iterator[Finding]:
    last = len(values["data/is_first"]) - 1
    for name, place in (("is_first", 0), ("is_last", last)):
        found = np.flatnonzero(values[f"data/{name}"]).tolist()
        if found != [place]:
            yield Finding(
                number, f"data/{name}", f"expected true in row {place} of {last + 1} only, found it in {found}"
            )
    for name in (f"data/timestamp/{CONTROL}", "data/action"):
        # Times need not ascend: a clock that is set while an episode runs spoils nothing but them.
        if not np.isfinite(values[name]).all():
            yield Finding(number, name, "holds numbers that are not finite")


def _check_statistics(
    store: EpisodeStore, number: int, values: dict[str, np.ndarray], broken: set[str]
) -> Iterator[Finding]:
    for name in store.layout.statistics_shapes:
        path = f"{STATISTICS}{name}"
        if path in broken:
            continue
        try:
            stored = store.array(path).slice(number, number + 1)[0]
        except StoreError as error:
            yield Finding(number, path, str(error))
            continue
        if not _are_statistics(store, name, stored, values):
            yield Finding(number, path, "is not what the rows give")


def _are_statistics(store: EpisodeStore, name: str, stored: np.ndarray, values: dict[str, np.ndarray]) -> bool:
    return np.allclose(stored, store.layout.statistics_of(name, values), rtol=1e-6, atol=1e-9)


def _check_frames(store: EpisodeStore, number: int, camera: str, values: dict[str, np.ndarray]) -> Iterator[Finding]:
    reader, feature = store.frames(camera), store.contract.cameras[camera]
    columns = (values[f"frames/{camera}/{name}"].tolist() for name in ("offset", "size", "checksum"))
    frame = np.empty(feature.shape, feature.dtype)
    first_rows: dict[tuple[int, int, int], int] = {}
    for row, place in enumerate(zip(*columns, strict=True)):
        first_rows.setdefault(place, row)
    problems = {
        row: problem
        for place, row in first_rows.items()
        if (problem := _frame_problem(reader.packed, reader.encoding, frame, *place))
    }
    if problems:
        row, problem = next(iter(problems.items()))
        more = f" (and {len(problems) - 1} more frames)" if len(problems) > 1 else ""
        yield Finding(number, f"frames/{camera}", f"row {row}: {problem}{more}")


def _frame_problem(
    packed: ChunkedArray, encoding: str, frame: np.ndarray, offset: int, size: int, stored: int
) -> str | None:
    if offset < 0 or size <= 0 or offset + size > packed.length:
        return f"{size} bytes at {offset} do not lie within the {packed.length} bytes of frames"
    if offset // packed.chunk_rows != (offset + size - 1) // packed.chunk_rows:
        return f"{size} bytes at {offset} cross a chunk of {packed.chunk_rows} bytes"
    try:
        (data,) = packed.pieces(np.array([offset]), np.array([size]))
        if (found := zlib.crc32(data)) != stored:
            return f"the frame does not match its checksum ({found:08x}, stored is {stored:08x})"
        decode(encoding, data, frame)
    except StoreError as error:
        return str(error)
    return None


def _read_ends(path: Path) -> np.ndarray:
    array = ChunkedArray.open(path / EPISODE_ENDS)
    ends = array.slice(0, len(array))
    if len(_increasing(ends)) < len(ends):
        raise StoreDamaged(f"the ends of the episodes do not increase from number {len(_increasing(ends))} on")
    return ends


def _increasing(ends: np.ndarray) -> np.ndarray:
    """The first ends that can be right: an episode has at least two rows."""
    steps = np.diff(ends, prepend=0)
    wrong = np.flatnonzero(steps < 2)
    return ends[: wrong[0]] if len(wrong) else ends


def _group_problem(path: Path, group: str) -> str | None:
    file = path / group / "zarr.json"
    try:
        if json.loads(file.read_bytes())["node_type"] != "group":
            return "is not the header of a group"
        if group in ("", "meta"):
            Layout.read(path, group)
    except (OSError, ValueError, KeyError, TypeError, StoreError) as error:
        return f"is unreadable ({error})"
    return None


def _committed_length(layout: Layout, name: str, ends: np.ndarray) -> int:
    if name in layout.row_arrays:
        return int(ends[-1]) if len(ends) else 0
    return 0 if name in layout.frame_arrays else len(ends)


def _header_problem(folder: Path, kind: ArrayKind, length: int) -> str | None:
    try:
        dtype, shape, rows = read_header(folder)
    except StoreError as error:
        return str(error)
    wanted = (np.dtype(kind.dtype), kind.row_shape, kind.chunk_rows)
    if (dtype, shape[1:], rows) != wanted:
        return f"expected {kind.dtype} {list(kind.row_shape)} in chunks of {wanted[2]}, its header says otherwise"
    if shape[0] < length:
        return f"{length} rows are committed, its header says {shape[0]}"
    return None


class _Repair:
    """One repair of one store, which is locked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.disk = Disk()
        self.done: list[str] = []
        self._aside = path / "meta" / "damaged" / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())

    def run(self, progress: Progress | None) -> list[str]:
        layout = self._attributes()
        self._groups(layout)
        ends = self._episode_ends(layout)
        self._headers(layout, ends)
        self._checksums(layout, len(ends))
        self._chunk_sizes(layout)
        self._journal()
        findings = check(self.path, progress)
        if self._statistics(layout, findings):
            findings = check(self.path, progress)
        self._mark(findings)
        self.disk.close()
        return self.done

    def _attributes(self) -> Layout:
        problems = []
        for group in ("", "meta"):
            try:
                return Layout.read(self.path, group)
            except StoreDamaged as error:
                problems.append(str(error))
        raise StoreDamaged(
            "\n".join([f"{self.path}: both copies of the attributes are lost:", *(f"  - {line}" for line in problems)])
            + "\nCopy zarr.json from another store of the same contract, then repair again."
        )

    def _groups(self, layout: Layout) -> None:
        for group in ["", *layout.groups]:
            (self.path / group).mkdir(exist_ok=True)
            if _group_problem(self.path, group):
                self._replace(self.path / group / "zarr.json", layout.group_header(group), "restored")

    def _episode_ends(self, layout: Layout) -> np.ndarray:
        kind = layout.arrays[EPISODE_ENDS]
        if not _header_problem(self.path / EPISODE_ENDS, kind, 0):
            try:
                return _read_ends(self.path)
            except StoreError:
                pass
        ends = max((self._verified(layout, guess) for guess in self._guesses(layout)), key=len)
        rows = kind.chunk_rows
        for number, part in enumerate(np.split(ends, range(rows, len(ends), rows))):
            file = self.path / EPISODE_ENDS / f"c.{number}"
            file.parent.mkdir(exist_ok=True)
            full = np.zeros(rows, np.int64)
            full[: len(part)] = part
            if len(part) and (not file.is_file() or file.read_bytes() != full.tobytes()):
                self._replace(file, full.tobytes(), f"rebuilt with the ends of {len(part)} episodes")
        return ends

    def _guesses(self, layout: Layout) -> Iterator[np.ndarray]:
        """What the ends may have been: from their chunks, whatever the header says, or from where `is_last` is set."""
        kind = layout.arrays[EPISODE_ENDS]
        files = sorted((self.path / EPISODE_ENDS).glob(_CHUNKS), key=lambda file: int(file.name[2:]))
        parts = [np.frombuffer(data[: len(data) // 8 * 8], kind.dtype) for data in map(Path.read_bytes, files)]
        yield _increasing(np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64))
        flags = self._anyhow(layout, "data/is_last")
        try:
            yield np.flatnonzero(flags.slice(0, len(flags))).astype(np.int64) + 1
        except StoreDamaged:
            return

    def _verified(self, layout: Layout, ends: np.ndarray) -> np.ndarray:
        """The ends up to the last episode whose rows match their checksum."""
        stored = self._anyhow(layout, CHECKSUM)
        arrays = {name: self._anyhow(layout, name) for name in layout.row_arrays}
        starts = [0, *ends[:-1].tolist()]
        good = 0
        for number, (start, stop) in enumerate(zip(starts, ends.tolist(), strict=False)):
            try:
                rows = {name: array.slice(start, stop) for name, array in arrays.items()}
                if checksum(rows) == int(stored.slice(number, number + 1)[0]):
                    good = number + 1
            except (StoreError, IndexError):
                continue
        return ends[:good]

    def _anyhow(self, layout: Layout, name: str) -> ChunkedArray:
        """An array as long as its chunk files, whatever its header says."""
        kind = layout.arrays[name]
        rows = kind.chunk_rows
        array = ChunkedArray(self.path / name, np.dtype(kind.dtype), kind.row_shape, rows, 0)
        chunks = [int(file.name.split(".")[1]) for file in array.folder.glob(_CHUNKS)]
        array.length = (max(chunks, default=-1) + 1) * rows
        return array

    def _headers(self, layout: Layout, ends: np.ndarray) -> None:
        for name, kind in layout.arrays.items():
            folder = self.path / name
            length = _committed_length(layout, name, ends)
            if name in layout.frame_arrays:
                length = self._frame_bytes(layout, Path(name).parent.name, ends)
            rows = kind.chunk_rows
            content = header(kind.dtype, (length, *kind.row_shape), rows)
            problem = _header_problem(folder, kind, length)
            if problem or read_header(folder)[1][0] != length:
                folder.mkdir(exist_ok=True)
                self._replace(folder / "zarr.json", content, f"set to the {length} rows that are committed")

    def _frame_bytes(self, layout: Layout, camera: str, ends: np.ndarray) -> int:
        """Where the committed frames end. Never less than the header says: what lies there may come back."""
        path = f"frames/{camera}/bytes"
        if not _header_problem(self.path / path, layout.arrays[path], 0):
            return read_header(self.path / path)[1][0]
        try:
            offset, size = (self._anyhow(layout, f"frames/{camera}/{name}") for name in ("offset", "size"))
            rows = int(ends[-1]) if len(ends) else 0
            stops = offset.slice(0, rows) + size.slice(0, rows)
        except (StoreError, IndexError):
            stops = np.zeros(0, np.int64)
        return int(np.clip(stops.max(initial=0), 0, self._anyhow(layout, path).length))

    def _checksums(self, layout: Layout, episodes: int) -> None:
        """Make lost ones of the rows again, but for rows that are not those that their statistics were made of."""
        store, kind = EpisodeStore(self.path), layout.arrays[CHECKSUM]
        for file, numbers in _lost_checksums(self.path, layout, episodes):
            found = np.zeros(kind.chunk_rows, kind.dtype)
            kept = numbers.start % kind.chunk_rows
            found[:kept] = np.frombuffer(file.read_bytes() if kept else b"", kind.dtype, kept)
            for number in numbers:
                with suppress(StoreError):
                    found[number % kind.chunk_rows] = self._checksum(store, number)
            self._replace(
                file, found.tobytes(),
                f"was lost, made of the rows of {len(numbers)} episodes again: whether these are as recorded, only "
                "their statistics and frames tell now",
            )  # fmt: skip

    def _checksum(self, store: EpisodeStore, number: int) -> int:
        """That of rows which agree with their statistics, as far as those are there; else 0."""
        of = store[number].rows
        rows = {name: store.array(name).slice(of.start, of.stop) for name in store.layout.row_arrays}
        for name in store.layout.statistics_shapes:
            with suppress(StoreError):
                stored = store.array(f"{STATISTICS}{name}").slice(number, number + 1)[0]
                if not _are_statistics(store, name, stored, rows):
                    return 0
        return checksum(rows)

    def _chunk_sizes(self, layout: Layout) -> None:
        for name, kind in layout.arrays.items():
            for file, size in _wrong_sizes(self.path / name, kind):
                if size < kind.chunk_bytes:
                    self.disk.create(file, kind.chunk_bytes)
                    self.disk.sync(file)
                    self._did(file, "was cut short, given its full size again")
                else:
                    self._keep(file, kind.chunk_bytes)
                    self.disk.truncate(file, kind.chunk_bytes)
                    self._did(file, f"cut to its full size; the {size - kind.chunk_bytes} bytes behind are kept")

    def _journal(self) -> None:
        file = self.path / FACTS
        known = journal.Journal(file)
        known.refresh()
        if not file.is_file() or known.bad_lines or journal.torn_tail(file):
            lines = journal.complete_lines(file.read_bytes()) if file.is_file() else []
            kept = [line for number, line in enumerate(lines, 1) if number not in known.bad_lines]
            self._replace(file, b"".join(line + b"\n" for line in kept), "freed of lines that are no records")

    def _statistics(self, layout: Layout, findings: Sequence[Finding]) -> bool:
        """Rebuild those of episodes of which nothing else is damaged; whether there were any."""
        others = {finding.episode for finding in findings if not finding.where.startswith(STATISTICS)}
        lost: dict[tuple[str, int], list[int]] = {}
        for finding in findings:
            if finding.episode is not None and finding.episode not in others:
                chunk = finding.episode // layout.arrays[finding.where].chunk_rows
                lost.setdefault((finding.where, chunk), []).append(finding.episode)
        store = EpisodeStore(self.path)
        for (path, chunk), numbers in lost.items():
            kind, name = layout.arrays[path], path.removeprefix(STATISTICS)
            data = f"data/{name}"
            file = store.array(path).chunk_path(chunk)
            kept = file.read_bytes() if file.is_file() else bytes(kind.chunk_bytes)
            rows = np.frombuffer(bytearray(kept), kind.dtype).reshape(kind.chunk_rows, *kind.row_shape)
            for number in numbers:
                of = store[number].rows
                found = {data: store.array(data).slice(of.start, of.stop)}
                rows[number % kind.chunk_rows] = layout.statistics_of(name, found)
            self._replace(file, rows.tobytes(), f"made of the rows again for {len(numbers)} episodes")
        return bool(lost)

    def _mark(self, findings: Sequence[Finding]) -> None:
        """Say in the journal which episodes are damaged, and which are no more."""
        causes: dict[int, str] = {}
        for finding in findings:
            if finding.episode is not None and finding.where != FACTS:
                causes.setdefault(finding.episode, f"{finding.where}: {finding.cause}")
        store = EpisodeStore(self.path)
        for number in range(len(store)):
            if (store.facts(number).get("damaged") is not None) != (number in causes):
                journal.append(self.path / FACTS, number, {"damaged": causes.get(number)}, self.disk)
                self.done.append(f"episode {number}: marked as {'damaged' if number in causes else 'whole again'}")

    def _replace(self, file: Path, content: bytes, what: str) -> None:
        if file.is_file():
            self._keep(file)
        self.disk.replace(file, content)
        self.disk.sync_folder(file.parent)
        self._did(file, what)

    def _keep(self, file: Path, start: int = 0) -> None:
        """Put what a file holds from a byte on aside."""
        kept = self._aside / file.relative_to(self.path)
        while kept.exists():  # it is mended twice
            kept = kept.with_name(f"{kept.name}.then")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as source, kept.open("wb") as copy:
            source.seek(start)
            shutil.copyfileobj(source, copy)
            os.fsync(copy.fileno())

    def _did(self, file: Path, what: str) -> None:
        self.done.append(f"{file.relative_to(self.path)}: {what}")
