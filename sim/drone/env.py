"""Drone tasks as Gymnasium environments that carry a contract, one drone or many; the interface of arms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_rl.sim.drone.world import DroneWorld
from robot_rl.sim.spec import resolve
from robot_rl.sim.world_env import WorldEnv, WorldVectorEnv

_FIRST = np.zeros(1, np.int64)


class DroneEnv(WorldEnv):
    """One drone at a task, observed and commanded under a contract.

    `terminated`: crashed, too far, too fast, or through all gates.

    Args:
        spec: task name (`drone/hover` ...) or mapping, see `robot_rl.sim.spec.resolve`.

    Raises:
        SpecError: a key or a name is unknown; the message lists what exists.
    """

    world: DroneWorld

    def __init__(self, spec: str | Mapping[str, Any]) -> None:
        resolved = resolve(spec)
        super().__init__(resolved, DroneWorld(resolved, 1))

    def observe(self) -> dict[str, np.ndarray]:
        """The observation of the present state, with the delay and noise of the episode."""
        seen = self.world.see(_FIRST)
        found = {name: seen[columns] for name, columns in self.world.parts.items()}
        for camera, size in self.world.cameras.items():
            found[camera] = self.world.image(0, camera, *size)
        return found


class DroneVectorEnv(WorldVectorEnv):
    """N drones, all stepped at once in one process."""

    world: DroneWorld

    def __init__(self, spec: str | Mapping[str, Any], num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs: expected at least 1, got {num_envs}")
        resolved = resolve(spec)
        super().__init__(resolved, DroneWorld(resolved, num_envs))
