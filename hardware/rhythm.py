"""Rhythm: which samples have to be waited for at a control tick, by how the streams came so far.

A sample that was measured at the tick arrives a little later. That it must come is known by the interval of the two
before, so it is awaited, rather than to act on one that is a period of its stream older.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_EPSILON = 1e-6  # clocks are floats
_SILENT = 3.0  # periods without a sample after which a stream is no longer taken to keep its rhythm


class Samples(Protocol):
    """What is needed of an `Alignment`."""

    @property
    def health(self) -> Mapping[str, Any]: ...
    def newest(self, feature: str) -> tuple[float, NDArray[Any]] | None: ...


class Rhythm:
    """Follows the samples of an alignment."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._newest = dict.fromkeys(samples.health, -np.inf)
        self._interval: dict[str, float] = {}

    def listen(self) -> None:
        """Something was taken into the alignment."""
        for name, last in self._newest.items():
            sample = self._samples.newest(name)
            if sample is not None and sample[0] != last:
                # A clock that went back gives no interval, and nothing is awaited.
                self._interval[name] = sample[0] - last if sample[0] > last else np.inf
                self._newest[name] = sample[0]

    def awaited(self, tick: float) -> list[str]:
        """Features whose next sample, by the rhythm so far, belongs to this tick [s] and has not come."""
        overdue = {name: tick - self._newest[name] - interval for name, interval in self._interval.items()}
        return [name for name, by in overdue.items() if -_EPSILON <= by <= _SILENT * self._interval[name]]
