"""Statistics of low-dimensional features: summarised once per episode when it is written, merged over any choice later.

An episode becomes one fixed-width float64 row for each quantity in `row_shapes`; the store keeps them as arrays
`meta/statistics/<feature>/<quantity>` [E, ...]. `merge` turns the rows of some episodes into `Statistics`, so that
failed and held-out episodes leave no trace and no data are read again.

Squares are taken about the episode's own mean and merged with the update of Chan, Golub and LeVeque (1979): a plain sum
of squares loses all digits of a small spread around a large mean.

Quantiles are kept as the episode's order statistics at `levels(65)`, dense towards both tails (the arcsine scale of the
t-digest, Dunning and Ertl 2019). No value is further than `max_rank_error` from its true rank, also after a merge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

EPISODE_LEVELS = 65
MERGED_LEVELS = 513


@dataclass(frozen=True)
class Statistics:
    """Statistics of one feature over the rows of some episodes; all arrays are float64 of the feature's shape.

    Attributes:
        count: number of rows.
        mean, std, min, max: over the rows, per element; `std` divides by the count.
        quantiles: [L, *shape], the values at `levels(L)`.
    """

    count: int
    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray
    quantiles: np.ndarray

    def quantile(self, q: float) -> np.ndarray:
        """The value below which a share `q` in [0, 1] of the rows lies, per element, float64 of the feature's shape."""
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile lies between 0 and 1, got {q}")
        known = levels(len(self.quantiles))
        above = int(np.clip(np.searchsorted(known, q), 1, len(known) - 1))
        share = (q - known[above - 1]) / (known[above] - known[above - 1])
        value: np.ndarray = self.quantiles[above - 1] * (1.0 - share) + self.quantiles[above] * share
        return value

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `Statistics.from_dict` restores it exactly."""
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "std", "min", "max", "quantiles")}
        return {"count": self.count, **arrays}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Statistics:
        """Read what `to_dict` wrote."""
        arrays = {name: np.asarray(plain[name], np.float64) for name in ("mean", "std", "min", "max", "quantiles")}
        return Statistics(count=int(plain["count"]), **arrays)


def levels(number: int) -> np.ndarray:
    """The quantile levels of a sketch with that many points, float64 [number], from 0 to 1 and dense towards both."""
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.linspace(0.0, 1.0, number)))


def max_rank_error(number: int = EPISODE_LEVELS) -> float:
    """The largest error in rank, as a share of the rows, of a quantile from sketches with that many points."""
    return float(np.diff(levels(number)).max() + np.diff(levels(MERGED_LEVELS)).max())


def row_shapes(shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The quantities kept of one episode for a feature of that shape, and the shape of each (dtype float64)."""
    own = tuple(shape)
    return {"count": (), "sum": own, "squares": own, "min": own, "max": own, "quantiles": (EPISODE_LEVELS, *own)}


def summarise(values: np.ndarray) -> dict[str, np.ndarray]:
    """The row of one episode, as in `row_shapes`.

    Args:
        values: [N, *shape], the rows that count: T + 1 for an observation (with the final one), T for the action.
    """
    if len(values) == 0:
        raise ValueError("statistics need at least one row, got none")
    rows = np.asarray(values, np.float64)
    total = rows.sum(axis=0)
    ranks = levels(EPISODE_LEVELS) * (len(rows) - 1)
    return {
        "count": np.asarray(len(rows), np.float64),
        "sum": total,
        "squares": np.square(rows - total / len(rows)).sum(axis=0),
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "quantiles": _interpolate(np.sort(rows, axis=0), ranks),
    }


def merge(rows: Mapping[str, np.ndarray]) -> Statistics:
    """The statistics of all rows of some episodes together.

    Args:
        rows: each quantity of `row_shapes` for E episodes, [E, ...].
    """
    number = np.asarray(rows["count"], np.float64)
    if len(number) == 0:
        raise ValueError("statistics of no episode: choose at least one (failed episodes are left out by default)")
    total = number.sum()
    shape = np.shape(rows["sum"])[1:]
    weight = number.reshape(-1, *(1 for _ in shape))
    mean = np.asarray(rows["sum"]).sum(axis=0) / total
    between = (weight * np.square(rows["sum"] / weight - mean)).sum(axis=0)
    return Statistics(
        count=round(total),
        mean=mean,
        std=np.sqrt((np.asarray(rows["squares"]).sum(axis=0) + between) / total),
        min=np.asarray(rows["min"]).min(axis=0),
        max=np.asarray(rows["max"]).max(axis=0),
        quantiles=_merge_quantiles(np.asarray(rows["quantiles"]), number).reshape(MERGED_LEVELS, *shape),
    )


def combine(parts: Sequence[Statistics], weights: Sequence[float] | None = None) -> Statistics:
    """The statistics of several stores together.

    Args:
        parts: of the same feature.
        weights: share of each store among the samples, as in a `Mixture`; by default their numbers of rows.
    """
    if len({part.mean.shape for part in parts}) != 1:
        raise ValueError(f"expected parts of one feature, got shapes {[part.mean.shape for part in parts]}")
    count = sum(part.count for part in parts)
    number = np.array([part.count for part in parts], np.float64)
    if weights is not None:
        share = np.asarray(weights, np.float64)
        if share.shape != number.shape or not (share > 0).all():
            raise ValueError(f"expected {len(parts)} positive weights, got {list(weights)}")
        number = share / share.sum() * count
    column = number.reshape(-1, *(1 for _ in parts[0].mean.shape))
    stacked = {name: np.stack([getattr(part, name) for part in parts]) for name in ("min", "max", "quantiles")}
    means, spreads = np.stack([part.mean for part in parts]), np.stack([part.std for part in parts])
    return merge({"count": number, "sum": means * column, "squares": np.square(spreads) * column, **stacked})


def _merge_quantiles(sketches: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Quantiles [MERGED_LEVELS, D] of a mixture of sketches [E, L, ...], weighted by the number [E] of rows of each."""
    episodes, known = sketches.shape[:2]
    mass = np.zeros(known)
    gaps = np.diff(levels(known))
    mass[:-1] += gaps / 2
    mass[1:] += gaps / 2
    weights = np.outer(number / number.sum(), mass).ravel()
    # One element at a time: the sort needs a few copies, and all elements of a large store together would be large.
    columns = sketches.reshape(episodes * known, -1).T
    return np.stack([_weighted_quantiles(column, weights) for column in columns], axis=1)


def _weighted_quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(values)
    ordered = weights[order]
    ranks = np.cumsum(ordered) - ordered / 2
    wanted: np.ndarray = np.interp(levels(MERGED_LEVELS), ranks, values[order])
    wanted[0], wanted[-1] = values[order[0]], values[order[-1]]
    return wanted


def _interpolate(ordered: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    below = np.floor(ranks).astype(np.int64)
    above = np.minimum(below + 1, len(ordered) - 1)
    share = (ranks - below).reshape(-1, *(1 for _ in ordered.shape[1:]))
    values: np.ndarray = ordered[below] * (1.0 - share) + ordered[above] * share
    return values
