"""Training windows: shuffled batches of observation histories and action chunks, straight from the files of a store.

The window at step t of an episode holds the observations t - obs_horizon + 1 .. t and the actions
t + action_offset .. t + action_offset + action_horizon - 1, for every step t at which an action was taken. Before the
start and after the end the nearest row of the episode is repeated and marked invalid; no window crosses an episode.

A batch is a pure function of the seed and the number of samples consumed before it. So the order does not depend on the
number of workers, the sampling position is one number, and shuffling needs no memory.

Decoding is most of the work where there are cameras. Windows of several observations are therefore drawn in random runs
of up to `RUN`, spread over many batches (see `order`), and frames are remembered until the next window of their run: at
two observations 33 frames are decoded for 32 windows instead of 64. There are always enough runs for `APART` batches of
windows from different ones. With frames too large to be remembered in `REMEMBERED` bytes, every window is drawn, and
its frames decoded, on its own.

Everything else is found for `AHEAD` samples at once, or as many as fit into `AHEAD_BYTES`, or into `EPOCHS` of the
smallest store, as each epoch is shuffled by itself: batches are cut from that.
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
from robot_rl.datasets.source import ACTIONS, Samples, Source, choose_episodes
from robot_rl.datasets.split import split
from robot_rl.datasets.statistics import Statistics, combine

if TYPE_CHECKING:
    from torch import Tensor

    from robot_rl.datasets.contract import Feature
    from robot_rl.datasets.store import EpisodeStore

Batch: TypeAlias = "dict[str, Any]"
"""`observation` {name: [B, To, *shape] float32, images uint8 HWC, depth uint16}, `action` [B, H, A] float32,
`observation_valid` [B, To] and `action_valid` [B, H] bool, `weight` [B] float32, and the origin of each window:
`episode`, `step` and `source` (which store of a mixture) [B] int64. All are torch tensors on the CPU."""


RUN, APART = 32, 4
REMEMBERED = 128 * 2**20
AHEAD, AHEAD_BYTES, EPOCHS = 12288, 8 * 2**20, 4
_KEPT = 2  # blocks

_COPIED = ("action", "observation_valid", "action_valid", "weight", "episode", "step", "source")
_LOCATIONS = ("row", "offset/", "size/")


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
            Source(store, chosen, weight, labels)
            for store, chosen, weight in zip(
                stores, episodes or [None] * len(stores), weights or [None] * len(stores), strict=True
            )
        ]
        sizes = [source.num_windows for source in self._sources]
        self.num_windows = sum(sizes)
        self._shares = _fractions(sizes if shares is None else shares)
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
        epoch = min(size / share for size, share in zip(sizes, self._shares, strict=True))
        longest = int(epoch / (batch_size * APART))
        self._draw_in_runs(max(1, min(RUN, longest)) if shuffle and 0 < shared <= REMEMBERED else 1)
        if self._run > 1:
            for source, spread in zip(self._sources, self._order.spread, strict=True):
                source.recent = {name: RecentFrames(held * spread) for name in packed}
        self._observed = np.arange(1 - obs_horizon, 1)
        self._acted = np.arange(action_offset, action_offset + action_horizon)
        states = sum(math.prod(f.shape) for f in self.contract.observation.values() if not f.is_frame)
        numbers = obs_horizon * states + action_horizon * self.contract.action_dim
        ahead = min(AHEAD, AHEAD_BYTES // (4 * numbers), int(EPOCHS * epoch))
        self._batches = max(1, ahead // (batch_size // count))
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
        own["run"] = state["run"]  # drawn as they were, however long they would be here
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
        if state["run"] != self._run:
            self._draw_in_runs(int(state["run"]))
        self.position = int(state["position"])

    def _draw_in_runs(self, run: int) -> None:
        self._run = run
        sizes = [source.num_windows for source in self._sources]
        self._order = Order(sizes, self._shares, self.seed, self._shuffle, run)
        self._blocks: dict[tuple[int, int], Samples] = {}

    def _endless_batch(self, position: int) -> Batch:
        number, phase = divmod(position, self.batch_size)
        block, place = divmod(number, self._batches)
        samples, size = self._block(block, phase), self.batch_size // self._shard[1]
        return self._batch({key: value[place * size : (place + 1) * size] for key, value in samples.items()})

    def _ordered_batch(self, start: int) -> Batch:
        samples = np.arange(*self._own_part(start, min(start + self.batch_size, self.num_windows)), dtype=np.int64)
        ends = np.cumsum([source.num_windows for source in self._sources])
        sources = np.searchsorted(ends, samples, side="right")
        return self._batch(self._find(sources, samples - np.concatenate([[0], ends])[sources]))

    def _own_part(self, start: int, stop: int) -> tuple[int, int]:
        """This shard's part of a batch; the first ones get what is left over."""
        rank, count = self._shard
        size, over = divmod(stop - start, count)
        first = start + rank * size + min(rank, over)
        return first, first + size + (rank < over)

    def _block(self, number: int, phase: int) -> Samples:
        """This shard's parts of `_batches` batches that follow each other, the first of all at a position `phase`."""
        found = self._blocks.get((number, phase))
        if found is None:
            starts = phase + (number * self._batches + np.arange(self._batches)) * self.batch_size
            own = np.arange(*self._own_part(0, self.batch_size))
            found = self._find(*self._order.draw((starts[:, None] + own).reshape(-1)))
            self._blocks = dict([*self._blocks.items(), ((number, phase), found)][-_KEPT:])
        return found

    def _find(self, sources: np.ndarray, windows: np.ndarray) -> Samples:
        slots = [np.flatnonzero(sources == number) for number in range(len(self._sources))]
        parts = [
            (some, source.samples(windows[some], self.contract, self._observed, self._acted))
            for some, source in zip(slots, self._sources, strict=True)
            if len(some)
        ]
        if len(parts) == 1:
            return {"source": sources, **parts[0][1]}
        samples = {name: np.empty((len(windows), *value.shape[1:]), value.dtype) for name, value in parts[0][1].items()}
        for some, part in parts:
            for name, value in part.items():
                samples[name][some] = value
        return {"source": sources, **samples}

    def _batch(self, samples: Samples) -> Batch:
        import torch

        sources = samples["source"]
        pinned = self._pin_memory and torch.cuda.is_available()

        def copied(name: str) -> Tensor:
            shared = torch.from_numpy(samples[name])
            return shared.pin_memory() if pinned else shared.clone()

        def frames(feature: Feature) -> Tensor:
            shape = (len(sources), self.obs_horizon, *feature.shape)
            dtype = torch.uint16 if feature.kind == "depth" else torch.uint8
            # PyTorch keeps page-locked memory for later by itself.
            return torch.empty(shape, dtype=dtype, pin_memory=True) if pinned else self._memory.empty(shape, dtype)

        observation = {
            name: frames(feature) if feature.is_frame else copied(f"observation/{name}")
            for name, feature in self.contract.observation.items()
        }
        if self.contract.cameras:
            images = {name: observation[name].numpy() for name in self.contract.cameras}
            for number in np.unique(sources).tolist():
                slots = np.flatnonzero(sources == number)
                mine = {name: value[slots] for name, value in samples.items() if name.startswith(_LOCATIONS)}
                self._sources[number].read_frames(images, mine, slots)
        return {"observation": observation, **{name: copied(name) for name in _COPIED}}


class Mixture:
    """Several stores that are sampled together, each with its share.

    Args:
        parts: (store, share) pairs; shares are normalised to sum to one.
        observation: features that they are sampled for; default: all that are no text.

    Raises:
        ContractError: the stores do not agree on observations and action.
    """

    def __init__(self, parts: Sequence[tuple[EpisodeStore, float]], observation: Iterable[str] | None = None) -> None:
        self.stores = [store for store, _ in parts]
        self.shares = _fractions([share for _, share in parts])
        self.contract = _common_contract(self.stores, observation)

    def windows(self, obs_horizon: int, action_horizon: int, **options: Any) -> Windows:
        """As `EpisodeStore.windows`, with `episodes` and `weights` as lists, one entry for each store."""
        return Windows(self.stores, obs_horizon, action_horizon, shares=self.shares, **options)

    def split(self, held_out: float = 0.1, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Episode indices of each store to train on, and those held out, see `split.split`."""
        parts = split(self.stores, held_out, seed)
        return [train for train, _ in parts], [held for _, held in parts]

    def statistics(self, episodes: Sequence[Iterable[int] | None] | None = None) -> dict[str, Statistics]:
        """Of each low-dimensional feature and `action`, as sampled: every store counts by its share."""
        chosen = episodes or [None] * len(self.stores)
        parts = [
            store.statistics(choose_episodes(store, some)) for store, some in zip(self.stores, chosen, strict=True)
        ]
        common = [name for name in parts[0] if all(name in part for part in parts)]
        return {name: combine([part[name] for part in parts], self.shares) for name in common}


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
