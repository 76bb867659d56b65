"""The normaliser that every policy carries: an affine map per element, kept in the checkpoint.

Elements that hold a rotation keep their value. Elements that hardly vary are only centred, because dividing by their
spread would blow up noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from robot_rl.datasets.contract import Contract, Feature
from robot_rl.policies.configuration import PolicyError

Mode = Literal["min_max", "mean_std", "quantile", "none"]

CONSTANT = 1e-4
"""A range or deviation below this counts as constant, in the feature's unit (diffusion_policy uses the same)."""

LOW_QUANTILE, HIGH_QUANTILE = 0.01, 0.99


class Normalizer(nn.Module):
    """normalised = (raw - center) / spread, over the last dimension; float32 buffers."""

    center: Tensor
    spread: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))

    def normalize(self, raw: Tensor) -> Tensor:
        """[..., size], raw units to normalised."""
        return (raw - self.center) / self.spread

    def unnormalize(self, normalised: Tensor) -> Tensor:
        """[..., size], normalised to raw units."""
        return normalised * self.spread + self.center

    def fit(self, features: Sequence[Feature], statistics: Sequence[Any], mode: Mode) -> None:
        """Set the buffers from the statistics of the features, whose concatenation is the last dimension.

        Args:
            statistics: objects with `mean`, `std`, `min`, `max` and `quantile(q)`, one for each feature.
            mode: `min_max` and `quantile` (1 % and 99 %) map to [-1, 1], `mean_std` to zero mean and unit deviation.
        """
        parts = [_affine(item, mode) for item in statistics]
        for feature, (center, spread) in zip(features, parts, strict=True):
            if center.shape != (feature.size,):
                raise PolicyError(
                    f"statistics of {feature.name!r}: expected {feature.size} elements, got {center.size}; "
                    "they belong to other data, take those of the store that is trained on"
                )
            if not (np.isfinite(center).all() and np.isfinite(spread).all()):
                raise PolicyError(
                    f"statistics of {feature.name!r} are not finite; run `robot-rl data check` on the store"
                )
            if feature.rotation is not None:
                center[feature.rotation], spread[feature.rotation] = 0.0, 1.0
        self.center.copy_(torch.from_numpy(np.concatenate([center for center, _ in parts])))
        self.spread.copy_(torch.from_numpy(np.concatenate([spread for _, spread in parts])))


def fit_normalizers(
    contract: Contract,
    states: Sequence[str],
    statistics: Mapping[str, Any],
    observation: Normalizer,
    action: Normalizer,
    modes: Mapping[str, Mode],
) -> None:
    """Fit the normalisers of the named observation features and of the action vector (statistics key `action`)."""
    for key, mode in modes.items():
        if mode not in get_args(Mode):
            raise PolicyError(f"normalizer.{key}: expected one of {', '.join(get_args(Mode))}, got {mode!r}")
    missing = [name for name in (*states, "action") if name not in statistics]
    if missing:
        raise PolicyError(
            f"no statistics for {', '.join(missing)}: the policy needs {', '.join((*states, 'action'))}, "
            f"the data offer {', '.join(statistics) or 'none'}; train on a store with these features or name others "
            "under `observation`"
        )
    if states:
        observation.fit(
            [contract.observation[name] for name in states], [statistics[name] for name in states], modes["observation"]
        )
    whole = statistics["action"]
    if np.size(whole.mean) != contract.action_dim:
        raise PolicyError(
            f"statistics of 'action': expected {contract.action_dim} elements ({', '.join(contract.action)}), "
            f"got {np.size(whole.mean)}"
        )
    parts = [_Slice(whole, part) for part in contract.action_slices.values()]
    action.fit(list(contract.action.values()), parts, modes["action"])


class _Slice:
    """Some elements of the statistics of a vector."""

    def __init__(self, whole: Any, part: slice) -> None:
        self.mean, self.std = np.ravel(whole.mean)[part], np.ravel(whole.std)[part]
        self.min, self.max = np.ravel(whole.min)[part], np.ravel(whole.max)[part]
        self._whole, self._part = whole, part

    def quantile(self, q: float) -> np.ndarray:
        return np.ravel(self._whole.quantile(q))[self._part]


def _affine(statistics: Any, mode: Mode) -> tuple[np.ndarray, np.ndarray]:
    size = np.size(statistics.mean)
    if mode == "none":
        return np.zeros(size), np.ones(size)
    if mode == "mean_std":
        center, spread = np.array(statistics.mean, float).ravel(), np.array(statistics.std, float).ravel()
        return center, np.where(spread < CONSTANT, 1.0, spread)
    bounds = (statistics.min, statistics.max) if mode == "min_max" else (
        statistics.quantile(LOW_QUANTILE), statistics.quantile(HIGH_QUANTILE)
    )  # fmt: skip
    low, high = (np.asarray(bound, float).ravel() for bound in bounds)
    return (low + high) / 2, np.where(high - low < CONSTANT, 1.0, (high - low) / 2)
