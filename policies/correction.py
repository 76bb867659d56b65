"""What a residual adds to an action of a chunk at the moment when it is executed, without torch.

A chunk is executed for some steps without a look at what comes of it; the residual looks at every step. It is computed
by whoever executes, a robot's control loop, too, which does not wait for the process of the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.datasets.contract import Contract, Feature

Array = NDArray[np.float32]

BASE_ACTION, RESIDUAL = "base_action", "residual"


@dataclass(frozen=True)
class Correction:
    """action + scale · residual(states, action), in normalised units.

    Attributes:
        names: of the states that are seen.
        center, spread: [S], of the states, one after the other.
        action_center, action_spread, low, high: [A].
        weights, biases: of the layers, [in, out] and [out], with ReLU between them; they see the normalised states and
            action, [S + A].
    """

    names: list[str]
    center: Array
    spread: Array
    action_center: Array
    action_spread: Array
    low: Array
    high: Array
    weights: list[Array]
    biases: list[Array]
    scale: float

    def __call__(self, observation: Mapping[str, NDArray[Any]], action: Array) -> Array:
        """The actions [n, A] to execute, from the newest observations {name: [n, ...]} and those of the chunk."""
        states = [np.asarray(observation[name], np.float32).reshape(len(action), -1) for name in self.names]
        x = np.concatenate([(np.concatenate(states, axis=1) - self.center) / self.spread, self.normalize(action)], 1)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ weight + bias, 0)
        return self.add(action, x @ self.weights[-1] + self.biases[-1])

    def normalize(self, action: Array) -> Array:
        """[..., A], raw units to normalised."""
        return np.asarray((action - self.action_center) / self.action_spread, np.float32)

    def add(self, action: Array, residual: Array) -> Array:
        """A normalised residual [..., A] to actions in raw units, which stay within their bounds."""
        return np.clip(action + self.scale * residual * self.action_spread, self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        """Lists of names and arrays, from which `from_dict` makes it again."""
        return asdict(self)

    @staticmethod
    def from_dict(found: Mapping[str, Any]) -> Correction:
        """What `to_dict` gave; arrays may be nested lists."""
        arrays = {
            name: np.array(found[name], np.float32)
            for name in ("center", "spread", "action_center", "action_spread", "low", "high")
        }
        weights, biases = ([np.array(part, np.float32) for part in found[name]] for name in ("weights", "biases"))
        return Correction(
            names=list(found["names"]), weights=weights, biases=biases, scale=float(found["scale"]), **arrays
        )  # fmt: skip


def residual_contract(contract: Contract) -> Contract:
    """What a residual sees and gives: the states and the normalised action of the chunk; a normalised addition."""
    states = {name: feature for name, feature in contract.observation.items() if not feature.is_frame}
    size = (contract.action_dim,)
    return Contract(
        contract.name, contract.rate_hz, {**states, BASE_ACTION: Feature(BASE_ACTION, size)},
        {RESIDUAL: Feature(RESIDUAL, size, kind="action")}, contract.controller,
    )  # fmt: skip
