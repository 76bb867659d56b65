"""Which episodes are trained on, and which are held out: all takes of one recording are on the same side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from robot_rl.datasets.origin import origin

if TYPE_CHECKING:
    from robot_rl.datasets.store import EpisodeStore


def split(
    stores: Sequence[EpisodeStore],
    held_out: float = 0.1,
    seed: int = 0,
    episodes: Sequence[Sequence[int] | np.ndarray | None] | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide the episodes of each store at random in two sets, for training and held out, int64 and in order.

    Takes are copies of a recording, and what was edited, resampled, replayed or rendered of it (see `origin`). Those of
    a recording that is in an earlier store, too, follow the ones there.

    Args:
        held_out: share in [0, 1) of each store's recordings; at least one of two or more when positive.
        episodes: of each store, to divide; by default the successful ones.
    """
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out is a share between 0 and 1, got {held_out}")
    held: dict[tuple[str, int], bool] = {}
    parts = []
    for store, some in zip(stores, episodes or [None] * len(stores), strict=True):
        chosen = store.select(success=True) if some is None else np.unique(np.asarray(some, np.int64))
        takes = [_recording(store, number) for number in chosen.tolist()]
        recordings = [each for each in dict.fromkeys(takes) if each not in held]
        count = len(recordings)
        number = min(max(round(held_out * count), 1), count - 1) if held_out and count > 1 else 0
        order = np.random.default_rng(seed).permutation(count).tolist()
        held |= {recordings[place]: rank < number for rank, place in enumerate(order)}
        out = np.array([held[take] for take in takes], bool)
        parts.append((chosen[~out], chosen[out]))
    return parts


def _recording(store: EpisodeStore, number: int) -> tuple[str, int]:
    first = origin(store, number)
    return first["id"] or first["store"], first["episode"]
