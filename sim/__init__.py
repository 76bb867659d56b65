"""Simulation: arm and drone tasks, vectorisation, randomisation, experts, and the Servo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robot_rl.sim.arm import ArmEnv
    from robot_rl.sim.drone.env import DroneEnv, DroneVectorEnv
    from robot_rl.sim.vector import VectorEnv

__all__ = ["make", "make_vector"]


def make(spec: str | Mapping[str, Any]) -> ArmEnv | DroneEnv:
    """An environment of one task, see `robot_rl.sim.spec.resolve` for the specification: a drone's for `drone/...`."""
    if _is_drone(spec):
        from robot_rl.sim.drone.env import DroneEnv

        return DroneEnv(spec)
    from robot_rl.sim.arm import ArmEnv

    return ArmEnv(spec)


def make_vector(
    spec: str | Mapping[str, Any], num_envs: int, processes: int | None = None
) -> VectorEnv | DroneVectorEnv:
    """Several environments of one specification side by side, see `robot_rl.sim.vector.VectorEnv`.

    Drones are many in one process as they are: `processes` is left aside.
    """
    if _is_drone(spec):
        from robot_rl.sim.drone.env import DroneVectorEnv

        return DroneVectorEnv(spec, num_envs)
    from robot_rl.sim.vector import VectorEnv

    return VectorEnv(spec, num_envs, processes)


def _is_drone(spec: str | Mapping[str, Any]) -> bool:
    task = spec if isinstance(spec, str) else spec.get("task")
    return isinstance(task, str) and task.startswith("drone/")
