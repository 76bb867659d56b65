"""Which recorded observations show success and which do not, as a classifier of success learns it.

An episode that is marked as a success shows it in its last rows. The rows just before are left out: nobody said at
which of them it was reached. All others, and those of failures, do not show it. Whole stores can be given besides, of
which every row does, or none does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_rl.datasets import Contract, ContractError, EpisodeStore
from robot_rl.datasets.contract import united

Rows = NDArray[np.int64]
Observation = dict[str, NDArray[np.generic]]


class LabelError(ValueError):
    """There is nothing to tell success from failure by; the message says what to do."""


@dataclass(frozen=True)
class LabelledEpisode:
    """Rows of one episode of a store that show success, and rows that do not."""

    store: EpisodeStore
    positive: Rows
    negative: Rows


@dataclass(frozen=True)
class LabelledRows:
    """Rows of several stores.

    Attributes:
        stores: each once.
        source: int64 [n], the store of each row.
        row: int64 [n], its number there.
    """

    stores: tuple[EpisodeStore, ...]
    source: Rows
    row: Rows

    def __len__(self) -> int:
        return len(self.row)

    def read(self, names: Sequence[str], numbers: Rows) -> Observation:
        """Features {name: [B, 1, *shape]} of some of the rows, counted here; frames are decoded."""
        contract, found = self.stores[0].contract, {}
        for name in names:
            feature = contract.observation[name]
            values = np.empty((len(numbers), *feature.shape), feature.dtype)
            for index, store in enumerate(self.stores):
                places = np.flatnonzero(self.source[numbers] == index)
                rows = self.row[numbers[places]]
                if feature.is_frame:
                    store.frames(name).decode(rows, [values[place] for place in places.tolist()])
                else:
                    values[places] = store.array(f"data/{name}").gather(rows)
            found[name] = values[:, None]
        return found

    def batches(self, names: Sequence[str], size: int) -> Iterator[Observation]:
        """All rows in order, some at a time."""
        for start in range(0, len(self), size):
            yield self.read(names, np.arange(start, min(start + size, len(self))))


def label(path: str | Path, positives: int, margin: int) -> list[LabelledEpisode]:
    """The episodes of a store by their mark; those without one are left out.

    Args:
        positives: last rows of a success that show it.
        margin: rows before these that are left out.

    Raises:
        LabelError: the store is missing or empty, or no episode is marked.
    """
    if positives < 1 or margin < 0:
        raise LabelError(f"positives={positives}, margin={margin}: expected at least 1 and at least 0")
    store = _open(path)
    found, nothing = [], np.zeros(0, np.int64)
    for episode in store:
        rows = np.arange(episode.rows.start, episode.rows.stop)
        if episode.success is False:
            found.append(LabelledEpisode(store, nothing, rows))
        elif episode.success:
            first = max(0, len(rows) - positives)
            found.append(LabelledEpisode(store, rows[first:], rows[: max(0, first - margin)]))
    if not found:
        raise LabelError(f"{path}: no episode is marked as success or failure; mark them with `robot-rl data tag`")
    return found


def label_all(path: str | Path, success: bool) -> list[LabelledEpisode]:
    """The episodes of a store of which every row shows success, or none does.

    Raises:
        LabelError: the store is missing or empty.
    """
    store, nothing = _open(path), np.zeros(0, np.int64)
    spans = [np.arange(episode.rows.start, episode.rows.stop) for episode in store]
    return [LabelledEpisode(store, *((rows, nothing) if success else (nothing, rows))) for rows in spans]


def divide(episodes: Sequence[LabelledEpisode], shares: Sequence[float], seed: int) -> list[list[LabelledEpisode]]:
    """Parts of about these shares, and the rest. Episodes are never divided; each part has some that show success.

    Raises:
        LabelError: there are too few.
    """
    shown = [episode for episode in episodes if len(episode.positive)]
    others = [episode for episode in episodes if not len(episode.positive)]
    if len(shown) <= len(shares):
        raise LabelError(
            f"{len(shown)} episodes show success, at least {len(shares) + 1} are needed to learn from some and to "
            "measure on others; record more"
        )
    generator, parts = np.random.default_rng(seed), [[] for _ in range(len(shares) + 1)]  # type: ignore[var-annotated]
    for group, least in ((shown, 1), (others, 0)):
        order, start = generator.permutation(len(group)).tolist(), 0
        for part, share in zip(parts, shares, strict=False):
            count = max(least, round(share * len(group)))
            part += [group[index] for index in order[start : start + count]]
            start += count
        parts[-1] += [group[index] for index in order[start:]]
    return parts


def rows_of(episodes: Sequence[LabelledEpisode], positive: bool) -> LabelledRows:
    """All rows of the episodes that show success, or all that do not."""
    stores = tuple(dict.fromkeys(episode.store for episode in episodes))
    chosen = [episode.positive if positive else episode.negative for episode in episodes]
    sources = [stores.index(episode.store) for episode in episodes]
    source = np.repeat(np.array(sources, np.int64), [len(rows) for rows in chosen])
    return LabelledRows(stores, source, np.concatenate([np.zeros(0, np.int64), *chosen]))


def common_contract(episodes: Sequence[LabelledEpisode]) -> Contract:
    """The contract of all stores, with the widest bounds.

    Raises:
        ContractError: they differ.
    """
    first, *others = dict.fromkeys(episode.store for episode in episodes)
    contract = first.contract
    for store in others:
        try:
            contract = united(contract, store.contract)
        except ContractError as error:
            raise ContractError(
                f"{first.path} and {store.path} cannot be learned from together:", error.differences,
                "Convert one of them, or leave it out.",
            ) from error  # fmt: skip
    return contract


def _open(path: str | Path) -> EpisodeStore:
    if not Path(path).exists():
        raise LabelError(f"{path}: no such episode store; record one with `robot-rl collect`")
    store = EpisodeStore.open(path)
    if not len(store):
        raise LabelError(f"{path} holds no episode; record some with `robot-rl collect`")
    return store
