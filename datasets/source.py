"""The windows of some episodes of one store, and what they read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from robot_rl.datasets.chunks import ChunkedArray
from robot_rl.datasets.recent import RecentFrames

if TYPE_CHECKING:
    from robot_rl.datasets.contract import Contract
    from robot_rl.datasets.store import EpisodeStore

ACTIONS = ("executed", "intended")
"""Labels that are actions."""

Samples: TypeAlias = "dict[str, np.ndarray]"
"""What n samples hold beside pictures: `action`, `observation_valid`, `action_valid`, `weight`, `episode` and `step` as
in a batch, `observation/<name>` of every state [n, To, *shape], and where the pictures are: the `row` of each
observation [n, To], and `offset/<camera>` and `size/<camera>` of its frame [n, To]."""


class Source:
    """The windows of some episodes of one store, numbered from 0.

    Args:
        episodes: their indices; None takes those marked successful.
        weights: for every episode [E] or every row [R]; None is 1.
        labels: see `Windows`.
    """

    def __init__(
        self, store: EpisodeStore, episodes: Iterable[int] | None, weights: np.ndarray | None, labels: str
    ) -> None:
        self.store = store
        self.episodes = choose_episodes(store, episodes)
        self.first = store.episode_starts[self.episodes]
        self.steps = store.lengths[self.episodes]
        self.ends = np.cumsum(self.steps)
        self.num_windows = int(self.ends[-1])
        self.recent: dict[str, RecentFrames] = {}
        self._labels = labels
        self._weights = None if weights is None else np.asarray(weights, np.float32)
        self._by_row = self._weights is not None and len(self._weights) != len(store)
        if self._weights is not None and len(self._weights) not in (len(store), store.num_rows):
            raise ValueError(
                f"weights: expected one for each of {len(store)} episodes or of {store.num_rows} rows of {store.path}, "
                f"got {len(self._weights)}"
            )

    def samples(self, windows: np.ndarray, contract: Contract, observed: np.ndarray, acted: np.ndarray) -> Samples:
        """What windows [n] hold beside pictures.

        Args:
            contract: of what is read.
            observed, acted: steps of the observations [To] and of the actions [H], counted from a window's own.
        """
        places = np.searchsorted(self.ends, windows, side="right")
        steps = windows - self.ends[places] + self.steps[places]
        first, last = self.first[places, None], self.steps[places, None] - 1
        observed, acted = steps[:, None] + observed, steps[:, None] + acted
        rows, chunk = first + np.maximum(observed, 0), first + np.clip(acted, 0, last)
        seen, done = _Neighbours(rows), _Neighbours(chunk)
        samples = {
            "row": rows,
            "episode": self.episodes[places],
            "step": steps,
            "weight": self._weight(places, first[:, 0] + steps).copy(),
            "observation_valid": observed >= 0,
            "action_valid": (acted >= 0) & (acted <= last) & (self._weight(places, chunk) > 0),
            "action": self._actions(done),
        }
        for name, feature in contract.observation.items():
            if feature.is_frame:
                for fact in ("offset", "size"):
                    samples[f"{fact}/{name}"] = seen.of(self.store.array(f"frames/{name}/{fact}"))
            else:
                states = seen.of(self.store.array(f"data/{name}"))
                samples[f"observation/{name}"] = states.astype(np.float32, copy=False)
        return samples

    def read_frames(self, targets: Mapping[str, np.ndarray], samples: Samples, slots: np.ndarray) -> None:
        """Decode each camera's frames of samples [n] into `target[slots]` [B, To, *shape], different ones once."""
        rows = samples["row"]
        unique, chosen, copies = np.unique(rows, return_index=True, return_inverse=True)
        places = (slots[:, None] * rows.shape[1] + np.arange(rows.shape[1])).reshape(-1)
        first = places[chosen]
        origins = first[copies.reshape(-1)]
        again = origins != places
        decoded = first.tolist()
        repeated = list(zip(places[again].tolist(), origins[again].tolist(), strict=True))
        shared = np.zeros(len(unique), bool)
        shared[copies.reshape(rows.shape)[:, 1:]] = True  # the next window has all but the first
        for camera, target in targets.items():
            flat = target.reshape(-1, *target.shape[2:])
            out = [flat[place] for place in decoded]
            reader = self.store.frames(camera)
            offset, size = (samples[f"{fact}/{camera}"].reshape(-1)[chosen] for fact in ("offset", "size"))
            if camera in self.recent:
                self.recent[camera].decode(reader, unique, offset, size, out, shared)
            else:
                reader.decode_at(unique, offset, size, out)
            for place, origin in repeated:
                flat[place] = flat[origin]

    def _weight(self, places: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """[*rows.shape] of rows [n] or [n, H] in the episodes at `places` [n]."""
        if self._weights is None:
            return np.ones(rows.shape, np.float32)
        if self._by_row:
            weights: np.ndarray = self._weights[rows]
            return weights
        return np.broadcast_to(self._weights[self.episodes[places]].reshape(-1, *[1] * (rows.ndim - 1)), rows.shape)

    def _actions(self, rows: _Neighbours) -> np.ndarray:
        """[n, H, A]"""
        executed = rows.of(self.store.array(f"data/{'action' if self._labels in ACTIONS else self._labels}"))
        if self._labels != "intended":
            return executed
        intended = rows.of(self.store.array("data/policy_action"))
        intervened = rows.of(self.store.array("data/intervened"))[..., None]
        return np.where(intervened | np.isnan(intended), executed, intended)


def choose_episodes(store: EpisodeStore, episodes: Iterable[int] | None) -> np.ndarray:
    """Indices of episodes, those marked successful by default.

    Raises:
        ValueError: there are none.
        IndexError: one does not exist.
    """
    chosen = store.select(success=True) if episodes is None else np.asarray(list(episodes), np.int64)
    if not len(chosen):
        raise ValueError(
            f"{store.path}: no episode to read. It holds {len(store)}, of which {len(store.select(success=True))} are "
            "marked successful, which is the default choice; `episodes` names others."
        )
    if chosen.min() < 0 or chosen.max() >= len(store):
        raise IndexError(f"{store.path} holds episodes 0..{len(store) - 1}, asked for {chosen.min()}..{chosen.max()}")
    return chosen


class _Neighbours:
    """Rows [n, k] of a store, those of a window neighbours: each is read once, in the order of the files."""

    def __init__(self, rows: np.ndarray) -> None:
        ordered = np.sort(rows, axis=None)
        self._unique = ordered[np.diff(ordered, prepend=-1) != 0]
        self._places = np.searchsorted(self._unique, rows[:, :1]) + (rows - rows[:, :1])

    def of(self, array: ChunkedArray) -> np.ndarray:
        """[n, k, *row_shape]"""
        values: np.ndarray = array.gather(self._unique)[self._places]
        return values
