"""How far the observations of a data set lie from those that a policy was trained on.

Low-dimensional features only. Element by element: the difference of the means and the ratio of the deviations in units
of the training deviation, and the Kolmogorov-Smirnov distance from the quantiles. All elements together: the
Mahalanobis distance of each row; without a shift 1 % of the rows lie beyond the training rows' own 99 % quantile.

What is needed of the training data travels in the checkpoint as `observations.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.datasets.contract import Feature, element_names
from robot_rl.datasets.statistics import levels

if TYPE_CHECKING:
    from robot_rl.datasets import EpisodeStore

FILE = "observations.json"
SMALLEST_DEVIATION = 1e-4
"""Elements that vary less in training count as varying by this much, in their unit: a moved constant is a shift."""
RIDGE = 1e-3
"""Added to the diagonal of the correlations, where elements that follow from others make directions of no width."""
LEVELS = 65
ROWS = 50_000


@dataclass(frozen=True)
class Reference:
    """The training observations in brief; D elements, float64.

    Attributes:
        features: names of the features, in the order of the elements.
        elements: [D] names.
        mean, deviation: [D].
        quantiles: [L, D] at `levels(L)`.
        correlation: [D, D].
        distances: [L], quantiles of the training rows' own Mahalanobis distances.
    """

    features: tuple[str, ...]
    elements: tuple[str, ...]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    quantiles: NDArray[np.float64]
    correlation: NDArray[np.float64]
    distances: NDArray[np.float64]

    @staticmethod
    def of(features: Sequence[Feature], rows: NDArray[np.float64]) -> Reference:
        """Summarise training rows [n, D], the concatenation of the features."""
        names = tuple(name for feature in features for name in element_names(feature))
        mean, deviation = rows.mean(axis=0), np.maximum(rows.std(axis=0), SMALLEST_DEVIATION)
        scaled = (rows - mean) / deviation
        unmeasured = Reference(
            tuple(feature.name for feature in features), names, mean, deviation,
            np.quantile(rows, levels(LEVELS), axis=0), scaled.T @ scaled / len(rows), np.zeros(LEVELS),
        )  # fmt: skip
        return replace(unmeasured, distances=np.quantile(unmeasured.distance(rows), levels(LEVELS)))

    def distance(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mahalanobis distance of each row [n, D], divided by the square root of D: about 1 in training, [n]."""
        scaled = (rows - self.mean) / self.deviation
        factor = np.linalg.cholesky(self.correlation + RIDGE * np.eye(len(self.mean)))
        white = np.linalg.solve(factor, scaled.T)
        return np.asarray(np.sqrt(np.square(white).mean(axis=0)))

    def write(self, folder: Path) -> None:
        """Write `observations.json` into a checkpoint folder."""
        plain = {item.name: np.asarray(getattr(self, item.name)).tolist() for item in fields(self)}
        (folder / FILE).write_text(json.dumps(plain) + "\n")

    @staticmethod
    def read(folder: Path) -> Reference | None:
        """From a checkpoint folder; None where there is none."""
        path = folder / FILE
        if not path.exists():
            return None
        plain = json.loads(path.read_text())
        arrays = {name: np.asarray(plain.pop(name), np.float64) for name in _ARRAYS}
        return Reference(tuple(plain["features"]), tuple(plain["elements"]), **arrays)


_ARRAYS = ("mean", "deviation", "quantiles", "correlation", "distances")


def reference(parts: Sequence[tuple[EpisodeStore, NDArray[np.int64]]], features: Sequence[str]) -> Reference | None:
    """Summarise the low-dimensional training observations; None when the policy sees none.

    Args:
        parts: stores and the indices of the episodes trained on.
        features: those that the policy observes, of kind `state`.
    """
    if not features:
        return None
    contract = parts[0][0].contract
    total = sum(int((store.lengths[episodes] + 1).sum()) for store, episodes in parts)
    rows = [read_rows(store, episodes, features, stride=-(-total // ROWS)) for store, episodes in parts]
    return Reference.of([contract.observation[name] for name in features], np.concatenate(rows))


def read_rows(
    store: EpisodeStore, episodes: Sequence[int] | NDArray[np.int64], features: Sequence[str], stride: int = 1
) -> NDArray[np.float64]:
    """Every `stride`-th row of the episodes, features concatenated, float64 [n, D]."""
    parts, skip = [], 0
    for index in episodes:
        observation = store[int(index)].observation
        columns = [np.asarray(observation[name], np.float64) for name in features]
        joined = np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)
        parts.append(joined[skip::stride])
        # The stride runs on across episodes, or long ones would lose their ends and short ones count too much.
        skip = (skip - len(joined)) % stride
    return np.concatenate(parts)


def shift(trained: Reference, rows: NDArray[np.float64]) -> dict[str, Any]:
    """Scores of rows [n, D] against the training observations, plain JSON types.

    Returns:
        `elements`: for each `mean_shift`, `spread_ratio` and `ks` (in [0, 1]); `mahalanobis`: the `median` distance,
        that of the training rows, and the share `beyond_training` of rows beyond the training rows' 99 % quantile.
    """
    center, spread = rows.mean(axis=0), rows.std(axis=0)
    distance = trained.distance(rows)
    known = levels(len(trained.distances))
    limit, median = np.interp([0.99, 0.5], known, trained.distances)
    return {
        "rows": len(rows),
        "elements": {
            name: {
                "mean_shift": float((center[d] - trained.mean[d]) / trained.deviation[d]),
                "spread_ratio": float(spread[d] / trained.deviation[d]),
                "ks": _ks(np.sort(rows[:, d]), trained.quantiles[:, d]),
            }
            for d, name in enumerate(trained.elements)
        },
        "mahalanobis": {
            "median": float(np.median(distance)),
            "training_median": float(median),
            "beyond_training": float((distance > limit).mean()),
        },
    }


def _ks(ordered: NDArray[np.float64], quantiles: NDArray[np.float64]) -> float:
    """Largest difference of the distribution functions, looked at where the training quantiles stand."""
    known = levels(len(quantiles))
    slack = 1e-6 * max(
        float(quantiles[-1] - quantiles[0]), SMALLEST_DEVIATION
    )  # values equal up to rounding are one atom
    below = np.searchsorted(ordered, quantiles - slack, side="left") / len(ordered)
    upto = np.searchsorted(ordered, quantiles + slack, side="right") / len(ordered)
    trained_below = known[np.searchsorted(quantiles, quantiles - slack, side="left")]
    trained_upto = known[np.searchsorted(quantiles, quantiles + slack, side="right") - 1]
    return float(max(np.abs(below - trained_below).max(), np.abs(upto - trained_upto).max()))
