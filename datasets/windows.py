"""Training windows: shuffled batches of observation histories and action chunks, straight from the files of a store.

The window at step t of an episode holds the observations t - obs_horizon + 1 .. t and the actions
t + action_offset .. t + action_offset + action_horizon - 1, for every step t at which an action was taken. Before the
start and after the end the nearest row of the episode is repeated and marked invalid; no window crosses an episode.

A batch is a pure function of the seed and the number of samples consumed before it. So the order does not depend on the
number of workers, the sampling position is one number, and shuffling needs no memory.

Decoding is most of the work where there are cameras. Windows of several observations are therefore drawn in random runs
of `RUN`, spread over many batches (see `order`), and frames are remembered until the next window of their run: at two
observations nine frames are decoded for eight windows instead of sixteen. With frames too large to be remembered in
`REMEMBERED` bytes, every window is drawn, and its frames decoded, on its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from robot_rl.datasets.contract import Contract, ContractError, satisfies
from robot_rl.datasets.order import SPREAD, Order
from robot_rl.datasets.prefetch import BATCHES_AHEAD, Prefetch
from robot_rl.datasets.recent import RecentFrames
from robot_rl.datasets.recycled import RecycledMemory
from robot_rl.datasets.statistics import Statistics, combine

if TYPE_CHECKING:
    from torch import Tensor

    from robot_rl.datasets.store import EpisodeStore

Batch: TypeAlias = "dict[str, Any]"
"""`observation` {name: [B, To, *shape] float32, images uint8 HWC, depth uint16}, `action` [B, H, A] float32,
`observation_valid` [B, To] and `action_valid` [B, H] bool, `weight` [B] float32, and the origin of each window:
`episode`, `step` and `source` (which store of a mixture) [B] int64. All are torch tensors on the CPU."""


ACTIONS = ("executed", "intended")
"""Labels that are actions."""

RUN = 8
REMEMBERED = 128 * 2**20


class Windows:
    """An endless stream of shuffled batches over the windows of one or more stores.

    Every window comes once in each epoch of its store; batches run on across epochs, so that all have the same size.
    Iterating goes on from the current position, also after a `break`.

    Args:
        stores: whose contracts must agree on the observation features used and on the action.
        obs_horizon: To, observations per window.
        action_horizon: H, actions per window.
        action_offset: of the first action against the last observation; 0 is the action that was taken at it.
        episodes: for each store the indices of the episodes to use; None takes those marked successful.
        shares: for each store its share among the samples; by default their numbers of windows. Each run of samples
            holds its exact share, to within one sample.
        weights: for each store a weight for every episode [E] or for every row [R], handed out as `weight`; None is 1.
            The action of a row that weighs nothing is not valid in any window.
        batch_size: B, windows per batch, over all shards together.
        seed: selects the order.
        shuffle: without, windows come in the order of the stores, episodes and steps.
        workers: threads that prepare batches ahead; with 0 a batch is prepared when it is asked for.
        pin_memory: place batches in page-locked memory for fast copies to a GPU; without CUDA it has no effect.
        observation: names of the observation features to read; by default all but text.
        labels: `executed` for the actions that were taken, or `intended` for what was proposed in their place: by a
            policy, or by an expert whose actions were disturbed; the executed one where a person intervened. Or the
            name of a recorded feature, which then stands in place of the action: see `estimated`.
        shard: (rank, count) for training in several processes: this one gets its part of every batch.

    Attributes:
        contract: of the first store, with only the observation features that are read.
        num_windows: windows of all stores together.
        position: samples consumed so far, over all shards together.
    """

    def __init__(
        self,
        stores: Sequence[EpisodeStore],
        obs_horizon: int,
        action_horizon: int,
        *,
        action_offset: int = 0,
        episodes: Sequence[Iterable[int] | None] | None = None,
        shares: Sequence[float] | None = None,
        weights: Sequence[np.ndarray | None] | None = None,
        batch_size: int = 64,
        seed: int = 0,
        shuffle: bool = True,
        workers: int = 0,
        pin_memory: bool = False,
        observation: Iterable[str] | None = None,
        labels: str = "executed",
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        for name, value, least in (
            ("obs_horizon", obs_horizon, 1), ("action_horizon", action_horizon, 1), ("batch_size", batch_size, 1),
            ("seed", seed, 0), ("workers", workers, 0),
        ):  # fmt: skip
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        rank, count = shard
        if not 0 <= rank < count or batch_size % count:
            raise ValueError(
                f"shard {shard}: expected (rank, count) with rank < count, and count dividing {batch_size}"
            )
        for key, values in (("episodes", episodes), ("shares", shares), ("weights", weights)):
            if values is not None and len(values) != len(stores):
                raise ValueError(f"{key}: expected one entry for each of {len(stores)} stores, got {len(values)}")
        self.contract = _common_contract(stores, observation)
        if labels not in ACTIONS:
            self.contract = replace(self.contract, action=estimated(stores[0].contract, labels).action)
        self.obs_horizon = obs_horizon
        self.action_horizon = action_horizon
        self.action_offset = action_offset
        self.batch_size = batch_size
        self.seed = seed
        self.position = 0
        self._sources = [
            _Source(store, chosen, weight)
            for store, chosen, weight in zip(
                stores, episodes or [None] * len(stores), weights or [None] * len(stores), strict=True
            )
        ]
        sizes = [source.num_windows for source in self._sources]
        self.num_windows = sum(sizes)
        self._shares = _fractions(sizes if shares is None else shares)
        self._labels = labels
        self._shuffle = shuffle
        # A quarter more than is under way, for batches that are prepared at the same time.
        held = (obs_horizon - 1) * 5 // 4
        packed = {
            name: feature
            for name, feature in self.contract.cameras.items()
            if any(store.layout.encoding[name] != "raw" for store in stores)
        }
        frame_bytes = sum(math.prod(frame.shape) * np.dtype(frame.dtype).itemsize for frame in packed.values())
        shared = held * SPREAD * frame_bytes
        self._run = RUN if shuffle and 0 < shared <= REMEMBERED else 1
        self._order = Order(sizes, self._shares, seed, shuffle, self._run)
        if self._run > 1:
            for source, spread in zip(self._sources, self._order.spread, strict=True):
                source.recent = {name: RecentFrames(held * spread) for name in packed}
        self._workers = workers
        self._pin_memory = pin_memory
        self._memory = RecycledMemory(len(self.contract.cameras) * (BATCHES_AHEAD * workers + 2))
        self._shard = shard

    def __len__(self) -> int:
        """Batches in one pass over all windows; the last one may be smaller in `epoch`."""
        return -(-self.num_windows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        ahead = Prefetch(self._endless_batch, self.batch_size, self._workers)
        try:
            while True:
                batch = ahead.take(self.position)
                self.position += self.batch_size
                yield batch
        finally:
            ahead.close()

    def epoch(self) -> Iterator[Batch]:
        """One pass over every window in order, for validation; the position of the endless stream stays where it is."""
        ahead = Prefetch(self._ordered_batch, self.batch_size, self._workers)
        try:
            for start in range(0, self.num_windows, self.batch_size):
                yield ahead.take(start)
        finally:
            ahead.close()

    def state_dict(self) -> dict[str, Any]:
        """The sampling position as plain JSON types: what was consumed, whatever workers have prepared ahead."""
        return {
            "position": self.position,
            "seed": self.seed,
            "shuffle": self._shuffle,
            "run": self._run,
            "windows": [source.num_windows for source in self._sources],
            "shares": self._shares,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken, with any number of workers, shards or windows per batch.

        Raises:
            ValueError: the state belongs to other windows; every difference is listed.
        """
        own, state = self.state_dict(), {"run": 1, **state}  # states from before there were runs
        differences = [
            f"{key}: {state.get(key)!r} in the state, {value!r} here"
            for key, value in own.items()
            if key != "position" and state.get(key) != value
        ]
        if differences:
            raise ValueError(
                "\n  - ".join(["the sampling position belongs to other data:", *differences])
                + "\nResume with the same stores, episodes and seed, or start a new run."
            )
        self.position = int(state["position"])

    def _endless_batch(self, position: int) -> Batch:
        return self._read(*self._order.draw(*self._own_part(position, position + self.batch_size)))

    def _ordered_batch(self, start: int) -> Batch:
        samples = np.arange(*self._own_part(start, min(start + self.batch_size, self.num_windows)), dtype=np.int64)
        ends = np.cumsum([source.num_windows for source in self._sources])
        sources = np.searchsorted(ends, samples, side="right")
        return self._read(sources, samples - np.concatenate([[0], ends])[sources])

    def _own_part(self, start: int, stop: int) -> tuple[int, int]:
        """This shard's part of a batch; the first ones get what is left over."""
        rank, count = self._shard
        size, over = divmod(stop - start, count)
        first = start + rank * size + min(rank, over)
        return first, first + size + (rank < over)

    def _read(self, sources: np.ndarray, windows: np.ndarray) -> Batch:
        import torch

        size = len(windows)
        pinned = self._pin_memory and torch.cuda.is_available()

        def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, pin_memory=pinned)

        # PyTorch keeps page-locked memory for later by itself.
        allocate = dict.fromkeys(("image", "depth"), empty if pinned else self._memory.empty)
        dtypes = {"image": torch.uint8, "depth": torch.uint16}
        batch: Batch = {
            "observation": {
                name: allocate.get(feature.kind, empty)(
                    (size, self.obs_horizon, *feature.shape), dtypes.get(feature.kind, torch.float32)
                )
                for name, feature in self.contract.observation.items()
            },
            "action": empty((size, self.action_horizon, self.contract.action_dim), torch.float32),
            "observation_valid": empty((size, self.obs_horizon), torch.bool),
            "action_valid": empty((size, self.action_horizon), torch.bool),
            "weight": empty((size,), torch.float32),
            **{name: empty((size,), torch.int64) for name in ("episode", "step", "source")},
        }
        batch["source"].numpy()[:] = sources
        for number, source in enumerate(self._sources):
            slots = np.flatnonzero(sources == number)
            if len(slots):
                self._fill(batch, source, slots, windows[slots])
        return batch

    def _fill(self, batch: Batch, source: _Source, slots: np.ndarray, windows: np.ndarray) -> None:
        episodes, steps = source.locate(windows)
        first, last = source.first[episodes, None], source.steps[episodes, None] - 1
        observed = steps[:, None] + np.arange(1 - self.obs_horizon, 1)
        acted = steps[:, None] + np.arange(self.action_offset, self.action_offset + self.action_horizon)
        rows = first + np.maximum(observed, 0)
        batch["episode"].numpy()[slots] = source.episodes[episodes]
        batch["step"].numpy()[slots] = steps
        batch["weight"].numpy()[slots] = source.weight(episodes, first[:, 0] + steps)
        batch["observation_valid"].numpy()[slots] = observed >= 0
        chunk = first + np.clip(acted, 0, last)
        batch["action_valid"].numpy()[slots] = (acted >= 0) & (acted <= last) & (source.weight(episodes, chunk) > 0)
        # Smallest rows first: arrays are mapped in the order of their first use, as long as there is room.
        images = {name: batch["observation"][name].numpy() for name in self.contract.cameras}
        if images:
            source.read_frames(images, rows, slots)
        for name, feature in self.contract.observation.items():
            if not feature.is_frame:
                batch["observation"][name].numpy()[slots] = source.store.array(f"data/{name}").gather(rows)
        batch["action"].numpy()[slots] = source.actions(chunk, self._labels)


class Mixture:
    """Several stores that are sampled together, each with its share.

    Args:
        parts: (store, share) pairs; shares are normalised to sum to one.

    Raises:
        ContractError: the stores do not agree on observations and action.
    """

    def __init__(self, parts: Sequence[tuple[EpisodeStore, float]]) -> None:
        self.stores = [store for store, _ in parts]
        self.shares = _fractions([share for _, share in parts])
        self.contract = _common_contract(self.stores, None)

    def windows(self, obs_horizon: int, action_horizon: int, **options: Any) -> Windows:
        """As `EpisodeStore.windows`, with `episodes` and `weights` as lists, one entry for each store."""
        return Windows(self.stores, obs_horizon, action_horizon, shares=self.shares, **options)

    def split(self, held_out: float = 0.1, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Episode indices of each store to train on, and those held out."""
        parts = [store.split(held_out, seed) for store in self.stores]
        return [train for train, _ in parts], [held for _, held in parts]

    def statistics(self, episodes: Sequence[Iterable[int] | None] | None = None) -> dict[str, Statistics]:
        """Of each low-dimensional feature and `action`, as sampled: every store counts by its share."""
        chosen = episodes or [None] * len(self.stores)
        parts = [store.statistics(_episodes(store, some)) for store, some in zip(self.stores, chosen, strict=True)]
        return {name: combine([part[name] for part in parts], self.shares) for name in parts[0]}


class _Source:
    """The windows of some episodes of one store, numbered from 0."""

    def __init__(self, store: EpisodeStore, episodes: Iterable[int] | None, weights: np.ndarray | None) -> None:
        self.store = store
        self.episodes = _episodes(store, episodes)
        self.first = store.episode_starts[self.episodes]
        self.steps = store.lengths[self.episodes]
        self.ends = np.cumsum(self.steps)
        self.num_windows = int(self.ends[-1])
        self.recent: dict[str, RecentFrames] = {}
        self._weights = None if weights is None else np.asarray(weights, np.float32)
        self._by_row = self._weights is not None and len(self._weights) != len(store)
        if self._weights is not None and len(self._weights) not in (len(store), store.num_rows):
            raise ValueError(
                f"weights: expected one for each of {len(store)} episodes or of {store.num_rows} rows of {store.path}, "
                f"got {len(self._weights)}"
            )

    def locate(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place among `episodes`, and step within the episode, of each window."""
        places = np.searchsorted(self.ends, windows, side="right")
        return places, windows - self.ends[places] + self.steps[places]

    def weight(self, places: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """[*rows.shape] of rows [n] or [n, H] in the episodes at `places` [n]."""
        if self._weights is None:
            return np.ones(rows.shape, np.float32)
        if self._by_row:
            return self._weights[rows]
        return np.broadcast_to(self._weights[self.episodes[places]].reshape(-1, *[1] * (rows.ndim - 1)), rows.shape)

    def actions(self, rows: np.ndarray, labels: str) -> np.ndarray:
        """[*rows.shape, A]"""
        executed = self.store.array(f"data/{'action' if labels in ACTIONS else labels}").gather(rows)
        if labels != "intended":
            return executed
        intended = self.store.array("data/policy_action").gather(rows)
        intervened = self.store.array("data/intervened").gather(rows)[..., None]
        return np.where(intervened | np.isnan(intended), executed, intended)

    def read_frames(self, targets: Mapping[str, np.ndarray], rows: np.ndarray, slots: np.ndarray) -> None:
        """Decode each camera's frames of `rows` [n, To] into `target[slots]` [B, To, *shape], different ones once."""
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
            reader, out = self.store.frames(camera), [flat[place] for place in decoded]
            if camera in self.recent:
                self.recent[camera].decode(reader, unique, out, shared)
            else:
                reader.decode(unique, out)
            for place, origin in repeated:
                flat[place] = flat[origin]


def estimated(contract: Contract, feature: str) -> Contract:
    """The contract of what estimates an observed feature: it observes the others, and the feature is its action.

    Raises:
        ValueError: there is no such feature, or it is no vector of numbers.
    """
    vectors = {n: other for n, other in contract.observation.items() if other.kind == "state" and len(other.shape) == 1}
    if feature not in vectors:
        raise ValueError(
            f"labels: expected executed or intended, or a recorded feature of {', '.join(vectors)}; got {feature!r}"
        )
    observed = {name: other for name, other in contract.observation.items() if name != feature}
    return replace(
        contract, observation=observed, action={feature: replace(vectors[feature], kind="action", role="policy")}
    )


def _episodes(store: EpisodeStore, episodes: Iterable[int] | None) -> np.ndarray:
    chosen = store.select(success=True) if episodes is None else np.asarray(list(episodes), np.int64)
    if not len(chosen):
        raise ValueError(
            f"{store.path}: no episode to read. It holds {len(store)}, of which {len(store.select(success=True))} are "
            "marked successful, which is the default choice; `episodes` names others."
        )
    if chosen.min() < 0 or chosen.max() >= len(store):
        raise IndexError(f"{store.path} holds episodes 0..{len(store) - 1}, asked for {chosen.min()}..{chosen.max()}")
    return chosen


def _common_contract(stores: Sequence[EpisodeStore], observation: Iterable[str] | None) -> Contract:
    if not stores:
        raise ValueError("windows need at least one store")
    whole = stores[0].contract
    if observation is None:
        observation = [name for name, feature in whole.observation.items() if feature.kind != "text"]
    contract = whole.select(observation)
    if text := [name for name, feature in contract.observation.items() if feature.kind == "text"]:
        raise ContractError("windows hold numbers and images, not text:", text, "Name other observation features.")
    for store in stores[1:]:
        satisfies(contract, store.contract)
    return contract


def _fractions(shares: Sequence[float]) -> list[float]:
    if not all(share > 0 and np.isfinite(share) for share in shares):
        raise ValueError(f"shares: expected positive numbers, got {list(shares)}")
    total = float(sum(shares))
    return [float(share) / total for share in shares]
