"""From readings of a device to small steps of something that is told how far to move from where it is. Pure.

    mapping = DeltaMapping(contract)
    action = mapping.action(reading)          # in each control period

The counterpart of `mapping` for contracts whose action is a difference: `translation` along some of x, y and z, and
`turn` about z, as the lean task peg has them. Full deflection of the device is the largest difference that the contract
allows, rest is none. Directions are the world's: the person looks along its x. Roll and pitch are left out.
"""

from __future__ import annotations

import numpy as np

from robot_rl.datasets import Contract
from robot_rl.datasets.contract import Feature
from robot_rl.hardware.teleop.device import Reading
from robot_rl.hardware.teleop.mapping import MappingError, deflection

DEAD_BAND = 0.05
"""Of each axis, as a part of full deflection."""

SLOW = 0.25
"""Factor of the button of that name."""

_AXES = {"x": 0, "y": 1, "z": 2}
_YAW = 5


class DeltaMapping:
    """Turns readings into actions under a contract.

    Args:
        contract: of `translation` and `turn`, or one of them, with bounds.

    Raises:
        MappingError: it has another action.
    """

    def __init__(self, contract: Contract) -> None:
        axes = [axis for feature in contract.action.values() for axis in _axes(feature)]
        if len(axes) != contract.action_dim or len(set(axes)) != len(axes):
            raise MappingError(
                f"{contract.name}: a device gives differences, translation along x, y, z and turn about z; the action "
                f"is {', '.join(f'{name} ({feature.mode})' for name, feature in contract.action.items())}"
            )
        self._axes = axes
        self._low, self._high = contract.action_bounds
        if not (np.isfinite(self._low).all() and np.isfinite(self._high).all()):
            raise MappingError(f"{contract.name}: full deflection is the largest difference; its action has no bounds")

    def is_deflected(self, reading: Reading) -> bool:
        """Whether the device is held away from its rest, or takes over without moving."""
        return "takeover" in reading.buttons or bool(self._parts(reading).any())

    def action(self, reading: Reading) -> np.ndarray:
        """The action [A] for the control period that begins now, float32."""
        parts = self._parts(reading) * (SLOW if "slow" in reading.buttons else 1.0)
        action: np.ndarray = np.where(parts < 0, -parts * self._low, parts * self._high).astype(np.float32)
        return action

    def _parts(self, reading: Reading) -> np.ndarray:
        """Deflection along the axes of the action, as a part of full deflection, [A]."""
        parts: np.ndarray = np.clip(deflection(reading, DEAD_BAND)[self._axes], -1.0, 1.0)
        return parts


def _axes(feature: Feature) -> list[int]:
    """Of a twist, those that an action feature follows; of a feature that no device gives, none."""
    if feature.mode != "delta":
        return []
    if feature.name == "turn" and feature.size == 1:
        return [_YAW]
    named = feature.name == "translation" and len(feature.names) == feature.size
    return [_AXES[name] for name in feature.names] if named and set(feature.names) <= set(_AXES) else []
