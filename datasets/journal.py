"""The journal `meta/facts.jsonl`: what can change about an episode, or is text.

One JSON object a line, appended and synced in one call, never rewritten:

    {"episode": 3, "begin": {"success": true, "task": "lift", ...}}     written before the episode is committed
    {"episode": 3, "set": {"tags": ["slow"], "success": false}}         later: the last value of a key wins

`begin` drops what the journal said of that number before: an episode that was recorded but never committed leaves its
line behind, and the next one takes its number. A last line without line end was cut off by a crash and does not count.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import NoneType
from typing import Any

from robot_rl.datasets.disk import Disk, explain_write_errors
from robot_rl.datasets.errors import StoreError

_FACTS: dict[str, tuple[tuple[type, ...], str]] = {
    "success": ((bool, NoneType), "true, false or null"),
    "task": ((str,), "text"),
    "source": ((str,), "text"),
    "operator": ((str,), "text"),
    "text": ((str,), "text"),
    "seed": ((int, NoneType), "a whole number or null"),
    "tags": ((list,), 'a list of texts, for example ["slow"]'),
    "origin": ((dict,), "a mapping with store, id and episode"),
    "damaged": ((str, bool, NoneType), "what is damaged, or null"),
}
"""The facts that the package itself reads: of which type they are, and how that is called."""


class Journal:
    """Reads the facts of all episodes, and what was appended since at each `refresh`.

    Attributes:
        bad_lines: line numbers, from 1, that are no record of the journal; they are skipped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bad_lines: list[int] = []
        self._facts: dict[int, dict[str, Any]] = {}
        self._read = 0
        self._lines = 0

    def refresh(self) -> None:
        """Read complete lines that were appended since the last time."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._read:
                    self._read, self._lines = 0, 0
                    self._facts.clear()
                    self.bad_lines.clear()
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return
        for line in complete_lines(data):
            self._read += len(line) + 1
            self._lines += 1
            if not self._apply(line):
                self.bad_lines.append(self._lines)

    def facts(self, episode: int) -> dict[str, Any]:
        """The facts of one episode; empty when nothing was written."""
        return dict(self._facts.get(episode, {}))

    def _apply(self, line: bytes) -> bool:
        try:
            record = json.loads(line)
            episode = record["episode"]
            if not isinstance(episode, int):
                return False
            if "begin" in record:
                self._facts[episode] = dict(record["begin"])
            else:
                self._facts.setdefault(episode, {}).update(record["set"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        return True


def append(
    path: Path, episodes: int | Sequence[int], facts: Mapping[str, Any], disk: Disk, *, begin: bool = False
) -> None:
    """Append one record of each episode and sync them. Several processes may do so at once.

    Args:
        episodes: of all of them or, when it fails, of none.
        facts: JSON types and NumPy scalars and arrays (written as numbers and lists).
        begin: whether the episode is new, and earlier records of its number do not count.

    Raises:
        StoreError: a fact is not JSON.
        StoreWriteError: the journal cannot be written.
    """
    numbers = [episodes] if isinstance(episodes, int) else episodes
    lines = b"".join(encode(number, facts, begin=begin) for number in numbers)
    with explain_write_errors(path, "writing facts"), _exclusive(path):
        _cut_torn_line(path, disk)
        size = path.stat().st_size
        try:
            disk.append(path, lines)
        except OSError:
            with suppress(OSError):
                os.truncate(path, size)
            raise


def encode(episode: int, facts: Mapping[str, Any], *, begin: bool = False) -> bytes:
    """One line of the journal."""
    try:
        record = {"episode": episode, "begin" if begin else "set": dict(facts)}
        return json.dumps(record, default=_plain, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"facts of episode {episode} are not JSON: {error}. Facts are texts, finite numbers, booleans, None, lists "
            f"and mappings; got {dict(facts)!r}"
        ) from error


def wrong_facts(facts: Mapping[str, Any]) -> list[str]:
    """Those, as JSON, that are of another type than the package reads them as, a line for each."""
    found = []
    for key in facts.keys() & _FACTS.keys():
        types, expected = _FACTS[key]
        # A boolean is an int for Python, and not for anybody else.
        if not isinstance(facts[key], types) or (isinstance(facts[key], bool) and bool not in types):
            found.append(f"{key}={facts[key]!r}: expected {expected}")
    return sorted(found)


def complete_lines(data: bytes) -> list[bytes]:
    """The lines of a journal that have an end, which is `\\n` alone."""
    return data.split(b"\n")[:-1]


def torn_tail(path: Path) -> int:
    """Bytes of a last line that has no end."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    return len(data) - (data.rfind(b"\n") + 1)


def _cut_torn_line(path: Path, disk: Disk) -> None:
    if not path.exists():
        return
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if not size or (file.seek(size - 1), file.read(1))[1] == b"\n":
            return
    disk.truncate(path, size - torn_tail(path))


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _plain(value: object) -> object:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} {value!r}")
