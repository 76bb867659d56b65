"""LeRobot's statistics: min, max, mean, std, count and five quantiles of each feature, of an episode and of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
KEYS = ("min", "max", "mean", "std", "count", *QUANTILES)
PICTURES = 100
"""Of an episode that are looked at, evenly spaced."""


def of_rows(rows: np.ndarray) -> dict[str, Any]:
    """Of one episode's values [T, ...], over the first axis; NaN (no proposed action) counts as nothing."""
    values = np.asarray(rows, np.float64)
    known = np.where(np.isnan(values).all(axis=0), 0.0, values) if np.isnan(values).any() else values
    return _summary(known, len(rows))


def of_pictures(pictures: np.ndarray) -> dict[str, Any]:
    """Of one episode's pictures [T, H, W, C], for each channel, in [0, 1] for colours; shape [C, 1, 1]."""
    chosen = pictures[np.unique(np.linspace(0, len(pictures) - 1, PICTURES).astype(int))]
    scale = 255.0 if chosen.dtype == np.uint8 else 1.0
    summary = _summary(chosen.reshape(-1, chosen.shape[-1]) / scale, len(chosen))
    shaped = {key: np.reshape(value, (-1, 1, 1)).tolist() for key, value in summary.items() if key != "count"}
    return {**shaped, "count": summary["count"]}


def merge(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of all episodes. Quantiles are averages weighted by the count, as LeRobot's are."""
    count = np.array([part["count"][0] for part in parts], np.float64)
    arrays = {key: np.array([part[key] for part in parts], np.float64) for key in KEYS if key != "count"}
    weight = (count / count.sum()).reshape(-1, *(1,) * (arrays["mean"].ndim - 1))
    mean = (weight * arrays["mean"]).sum(axis=0)
    variance = (weight * (arrays["std"] ** 2 + (arrays["mean"] - mean) ** 2)).sum(axis=0)
    merged = {"min": arrays["min"].min(axis=0), "max": arrays["max"].max(axis=0), "mean": mean}
    merged |= {"std": np.sqrt(variance)}
    merged |= {key: (weight * arrays[key]).sum(axis=0) for key in QUANTILES}
    return {**{key: value.tolist() for key, value in merged.items()}, "count": [int(count.sum())]}


def _summary(values: np.ndarray, count: int) -> dict[str, Any]:
    found = {
        "min": np.nanmin(values, axis=0),
        "max": np.nanmax(values, axis=0),
        "mean": np.nanmean(values, axis=0),
        "std": np.nanstd(values, axis=0),
        **dict(zip(QUANTILES, np.nanquantile(values, [*QUANTILES.values()], axis=0), strict=True)),
    }
    return {**{key: value.tolist() for key, value in found.items()}, "count": [count]}
