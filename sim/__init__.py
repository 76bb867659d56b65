"""Simulation: arm, drone, lean and Gymnasium's tasks, vectorisation, randomisation, experts, and the Servo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robot_rl.sim.arm import ArmEnv
    from robot_rl.sim.gym_env import GymEnv
    from robot_rl.sim.vector import VectorEnv
    from robot_rl.sim.world_env import WorldEnv, WorldVectorEnv

__all__ = ["is_world", "knows_success", "make", "make_vector"]


def make(spec: str | Mapping[str, Any]) -> ArmEnv | WorldEnv | GymEnv:
    """An environment of one task, see `robot_rl.sim.spec.resolve` for the specification: a drone's for `drone/...`."""
    family = _family(spec)
    if family == "drone":
        from robot_rl.sim.drone.env import DroneEnv

        return DroneEnv(spec)
    if family == "lean":
        from robot_rl.sim.lean.env import LeanEnv

        return LeanEnv(spec)
    if family == "gym":
        from robot_rl.sim.gym_env import GymEnv

        return GymEnv(spec)
    from robot_rl.sim.arm import ArmEnv

    return ArmEnv(spec)


def make_vector(
    spec: str | Mapping[str, Any], num_envs: int, processes: int | None = None
) -> VectorEnv | WorldVectorEnv:
    """Several environments of one specification side by side, see `robot_rl.sim.vector.VectorEnv`.

    Drones and lean tasks are many in one process as they are: `processes` is left aside.
    """
    family = _family(spec)
    if family == "drone":
        from robot_rl.sim.drone.env import DroneVectorEnv

        return DroneVectorEnv(spec, num_envs)
    if family == "lean":
        from robot_rl.sim.lean.env import LeanVectorEnv

        return LeanVectorEnv(spec, num_envs)
    from robot_rl.sim.vector import VectorEnv

    return VectorEnv(spec, num_envs, processes)


def is_world(spec: str | Mapping[str, Any]) -> bool:
    """Whether many copies of a task are stepped in one process, see `robot_rl.sim.world_env`."""
    return _family(spec) in ("drone", "lean")


def knows_success(spec: str | Mapping[str, Any]) -> bool:
    """Whether a task says when it is achieved; Gymnasium's are judged by their return alone."""
    return _family(spec) != "gym"


def _family(spec: str | Mapping[str, Any]) -> str:
    from robot_rl.sim.spec import family_of

    return family_of(spec)
