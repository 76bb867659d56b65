"""What distinguishes two stores: contracts, episodes that only one has, and facts of those that both have.

An episode is recognised by its content: rows, and the checksums of its encoded frames. Where it stands does not count.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from robot_rl.datasets.chunks import checksum
from robot_rl.datasets.contract import ContractError, equal
from robot_rl.datasets.store import EpisodeStore


@dataclass(frozen=True)
class Difference:
    """Of a first and a second store.

    Attributes:
        contract: differences between the contracts, a line for each.
        only_first, only_second: numbers of the episodes that the other does not have.
        both: pairs of numbers of equal episodes.
        facts: for pairs whose facts differ: (first number, second number, key, first value, second value).
    """

    contract: tuple[str, ...]
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]
    both: tuple[tuple[int, int], ...]
    facts: tuple[tuple[int, int, str, object, object], ...]

    @property
    def is_empty(self) -> bool:
        """Whether both hold the same."""
        return not (self.contract or self.only_first or self.only_second or self.facts)


def difference(
    first: EpisodeStore, second: EpisodeStore, progress: Callable[[int, int], None] | None = None
) -> Difference:
    """Compare two stores by their content.

    Args:
        progress: called with the number of episodes read, and of all.
    """
    total = len(first) + len(second)

    def content(store: EpisodeStore, number: int, before: int) -> tuple[int, int]:
        if progress is not None:
            progress(before + number + 1, total)
        return _content(store, number)

    try:
        equal(first.contract, second.contract)
        contract: tuple[str, ...] = ()
    except ContractError as error:
        contract = error.differences
    known: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number in range(len(first)):
        known[content(first, number, 0)].append(number)
    both, only_second = [], []
    for number in range(len(second)):
        if same := known[content(second, number, len(first))]:
            both.append((same.pop(0), number))
        else:
            only_second.append(number)
    only_first = sorted(number for numbers in known.values() for number in numbers)
    facts = tuple(line for ours, theirs in both for line in _facts(first, ours, second, theirs))
    return Difference(contract, tuple(only_first), tuple(only_second), tuple(both), facts)


def _content(store: EpisodeStore, number: int) -> tuple[int, int]:
    rows = store[number].rows
    arrays = {
        name: store.array(name).slice(rows.start, rows.stop)
        for name in store.layout.row_arrays
        if not (name.startswith("frames/") and name.endswith("/offset"))
    }
    names = zlib.crc32(" ".join(sorted(arrays)).encode())
    return checksum(arrays), names ^ zlib.crc32(np.ascontiguousarray(arrays["data/action"]).data)


def _facts(
    first: EpisodeStore, ours: int, second: EpisodeStore, theirs: int
) -> Iterator[tuple[int, int, str, object, object]]:
    one, other = first.facts(ours), second.facts(theirs)
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            yield ours, theirs, key, one.get(key), other.get(key)
