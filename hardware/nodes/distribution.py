"""What measured numbers look like, for diagnostics: their number, median, 99th percentile and largest."""

from __future__ import annotations

import numpy as np


class Distribution:
    """Collects numbers between two reports.

    Args:
        unit: for people.
    """

    def __init__(self, unit: str) -> None:
        self._unit = f" [{unit}]" if unit else ""
        self._values: list[float] = []

    def add(self, value: float) -> None:
        """Count a number."""
        self._values.append(value)

    def take(self, name: str) -> dict[str, str]:
        """`<name> median [unit]` and so on of what was added since the last call; nothing if that was nothing."""
        values, self._values = self._values, []
        if not values:
            return {}
        numbers = {"median": np.median(values), "p99": np.percentile(values, 99), "max": max(values)}
        return {f"{name} {key}{self._unit}": f"{number:.3f}" for key, number in numbers.items()}
