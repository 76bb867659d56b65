"""Gymnasium spaces of a contract, and the refusal of what lies outside."""

from __future__ import annotations

import gymnasium
import numpy as np

from robot_rl.datasets.contract import Contract, Feature


class ActionError(ValueError):
    """An action has the wrong shape or is not finite. Nothing has moved."""


def observation_space(contract: Contract) -> gymnasium.spaces.Dict:
    """One box for each observation feature; integers within their type's range, numbers unbounded."""
    return gymnasium.spaces.Dict({name: _box(feature) for name, feature in contract.observation.items()})


def action_space(contract: Contract) -> gymnasium.spaces.Box:
    """The action vector [A] within the contract's bounds."""
    low, high = contract.action_bounds
    return gymnasium.spaces.Box(low, high, dtype=np.float32)


def _box(feature: Feature) -> gymnasium.spaces.Box:
    dtype = np.dtype(feature.dtype)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return gymnasium.spaces.Box(limits.min, limits.max, feature.shape, dtype)
    return gymnasium.spaces.Box(-np.inf, np.inf, feature.shape, dtype)
