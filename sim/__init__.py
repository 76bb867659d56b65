"""Simulation: arm tasks, vectorisation, randomisation, scripted experts, and the Servo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robot_rl.sim.arm import ArmEnv
    from robot_rl.sim.vector import VectorEnv

__all__ = ["make", "make_vector"]


def make(spec: str | Mapping[str, Any]) -> ArmEnv:
    """An environment of one task, see `robot_rl.sim.spec.resolve` for the specification."""
    from robot_rl.sim.arm import ArmEnv

    return ArmEnv(spec)


def make_vector(spec: str | Mapping[str, Any], num_envs: int, processes: int | None = None) -> VectorEnv:
    """Several environments of one specification side by side, see `robot_rl.sim.vector.VectorEnv`."""
    from robot_rl.sim.vector import VectorEnv

    return VectorEnv(spec, num_envs, processes)
