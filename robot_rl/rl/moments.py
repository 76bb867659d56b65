"""Running mean and deviation, for observations and for the scale of the reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class RunningMoments:
    """Mean and variance of all rows seen, merged batch by batch (Chan et al. 1979); float64 [size]."""

    def __init__(self, size: int) -> None:
        self.count, self.mean, self._squares = 0, np.zeros(size), np.zeros(size)

    def update(self, rows: ArrayLike) -> None:
        """Add rows [n, size]."""
        new = np.asarray(rows, np.float64)
        count, mean = len(new), new.mean(axis=0)
        total, shift = self.count + count, mean - self.mean
        self._squares = self._squares + ((new - mean) ** 2).sum(axis=0) + shift**2 * self.count * count / total
        self.mean = self.mean + shift * count / total
        self.count = total

    @property
    def std(self) -> NDArray[np.float64]:
        """[size]; 1 before anything was seen."""
        return np.sqrt(self._squares / self.count) if self.count else np.ones_like(self.mean)

    def state(self) -> dict[str, Any]:
        """Plain JSON types, from which `load` restores it exactly."""
        return {"count": self.count, "mean": self.mean.tolist(), "squares": self._squares.tolist()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave."""
        self.count = int(state["count"])
        self.mean, self._squares = np.array(state["mean"], np.float64), np.array(state["squares"], np.float64)


class RewardScale:
    """Divides rewards by the running deviation of the discounted return, without centring (Engstrom et al. 2020).

    Args:
        num_envs: N.
        discount: gamma, per step.
    """

    def __init__(self, num_envs: int, discount: float) -> None:
        self.discount = discount
        self._moments = RunningMoments(1)
        self._returns = np.zeros(num_envs)

    def update(self, reward: NDArray[np.float64], ended: NDArray[np.bool_]) -> None:
        """Take the rewards [N] of one step."""
        self._returns = self._returns * self.discount + reward
        self._moments.update(self._returns[:, None])
        self._returns[ended] = 0.0

    @property
    def scale(self) -> float:
        """What to multiply rewards with; 1 while every return has been the same."""
        std = float(self._moments.std[0])
        return 1.0 / std if std > 1e-8 else 1.0

    @property
    def moments(self) -> dict[str, Any]:
        """Of the returns seen so far, plain JSON types."""
        return self._moments.state()

    def take_over(self, moments: Mapping[str, Any]) -> None:
        """Begin with the `moments` of another training, of however many environments."""
        self._moments.load(moments)

    def state(self) -> dict[str, Any]:
        """Plain JSON types, from which `load` restores it exactly."""
        return {"moments": self._moments.state(), "returns": self._returns.tolist()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave."""
        self._moments.load(state["moments"])
        self._returns = np.array(state["returns"], np.float64)
