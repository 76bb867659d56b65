"""Which window comes when: a stream that is known at any point without the samples before it.

Sample n belongs to a store and to a window of it, both a pure function of n and the seed. Any stretch of samples holds
every store's exact share to within one sample, and every epoch of a store is a permutation of its windows.

Windows that follow each other share observations, and may be drawn some batches apart: in random runs of a few windows,
`SPREAD` runs under way at a time, first the first window of each, then the second of each, and so on. So what a window
shares with the next can be remembered for that long.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robot_rl.datasets.permutation import permute

SPREAD = 1024
"""Runs under way in all stores together: far more than a batch holds, and as many windows apart are those of a run."""


class Order:
    """The endless stream over the windows of some stores. Safe from several threads.

    Args:
        sizes: windows of each store.
        shares: of each store among the samples; positive, with the sum 1.
        seed: selects the order.
        shuffle: without, every epoch goes through a store from its first window to its last.
        run: windows of a run; 1 shuffles them all independently.

    Attributes:
        spread: runs of each store under way at a time, at most.
    """

    def __init__(self, sizes: Sequence[int], shares: Sequence[float], seed: int, shuffle: bool, run: int = 1) -> None:
        self._sizes, self._shares, self._seed, self._shuffle = tuple(sizes), tuple(shares), seed, shuffle
        self._run = run
        self.spread = [max(1, round(SPREAD * share)) for share in self._shares]

    def draw(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Store and window, int64 [n] each, of samples [n]. Some 250 calls of NumPy find one, or as well thousands."""
        stores, windows = np.empty_like(samples), np.empty_like(samples)
        slots, numbers, left = np.arange(len(samples)), samples, 1.0
        for store, share in enumerate(self._shares):
            # A store has given floor(n * share + 1/2) of the first n samples left to it and those after it: its exact
            # share at any time, known for any sample without the ones before.
            last = store == len(self._shares) - 1
            before = numbers if last else _rounded(numbers, share / left)
            mine = np.ones(len(numbers), bool) if last else _rounded(numbers + 1, share / left) > before
            stores[slots[mine]] = store
            windows[slots[mine]] = self._shuffled(store, before[mine])
            slots, numbers, left = slots[~mine], (numbers - before)[~mine], left - share
        return stores, windows

    def _shuffled(self, store: int, numbers: np.ndarray) -> np.ndarray:
        epochs, cursors = np.divmod(numbers, self._sizes[store])
        if self._shuffle:
            for epoch in np.unique(epochs):
                now = epochs == epoch
                cursors[now] = self._in_runs(cursors[now], store, (self._seed, store, int(epoch)))
        return cursors

    def _in_runs(self, cursors: np.ndarray, store: int, key: tuple[int, ...]) -> np.ndarray:
        """Windows at some places of an epoch; what does not fill a run comes last."""
        size = self._sizes[store]
        runs = size // self._run
        if self._run == 1 or not runs:
            return permute(cursors, size, key)
        windows = cursors.copy()
        within = cursors < runs * self._run
        blocks = -(-runs // self.spread[store])
        width = -(-runs // blocks)  # about the same for all, so that the last is none of a few runs
        block, place = np.divmod(cursors[within], width * self._run)
        column, place = np.divmod(place, np.minimum(width, runs - block * width))
        windows[within] = permute(block * width + place, runs, key) * self._run + column
        # Runs begin elsewhere in each epoch.
        turned: np.ndarray = (windows + permute(np.zeros(1, np.int64), size, (*key, 1))) % size
        return turned


def _rounded(numbers: np.ndarray, share: float) -> np.ndarray:
    return np.floor(numbers * share + 0.5).astype(np.int64)
