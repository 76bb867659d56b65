"""The model-predictive expert as a teacher of those who do not see the reference: it aims at the next gate from where
the drone is, instead of going back to a line between gates. What it does follows from the gates ahead."""

from __future__ import annotations

import numpy as np

from robot_rl.sim.drone.mpc import Mpc, along
from robot_rl.sim.drone.world import DroneWorld
from robot_rl.sim.spec import SpecError

WEIGHTS, INPUT_WEIGHTS = np.array([30.0, 10.0, 5.0, 1.0, 1.0]), np.array([2.0, 1.0, 1.0, 1.0])
"""As `mpc.WEIGHTS`, for softer commands: a student that sees an error badly can give them too."""
SOONEST = 0.5
"""In which an offset from the reference is taken back at the earliest [s]."""
SLOWEST = 0.3
"""Of the reference, below which a drone is not taken to be before or behind it [m/s]."""


class AimingMpc(Mpc):
    """Follows the reference from beside the drone, with the offset shrinking evenly until the next gate.

    Raises:
        SpecError: there are no gates, or actions are not throttle and body rates.
    """

    def __init__(self, world: DroneWorld) -> None:
        if not world.gates.shape[1]:
            raise SpecError("expert mpc_aiming: it aims at gates, and the task has none; choose mpc")
        super().__init__(world, WEIGHTS, INPUT_WEIGHTS)

    def _path(self, ahead: np.ndarray) -> np.ndarray:
        world = self._world
        place = world.batch.read("position").astype(float)
        now = along(world, world.moment[:, None].astype(float))[:, 0]
        speed = np.linalg.norm(now[:, 3:6], axis=1)
        before = np.einsum("nk,nk->n", place - now[:, :3], now[:, 3:6]) / np.maximum(speed, SLOWEST) ** 2
        beside = world.moment + before / world.period
        offset = place - along(world, beside[:, None])[:, 0, :3]

        rows = np.arange(world.num)
        gates = world.gates[rows, np.minimum(world.passed, world.gates.shape[1] - 1), :3]
        reached = np.linalg.norm(world.table[:, :, :3] - gates[:, None], axis=2).argmin(axis=1)
        time = np.maximum((reached - beside) * world.period, SOONEST)[:, None]
        path = along(world, beside[:, None] + ahead / world.period)
        path[..., :3] += np.maximum(1 - ahead / time, 0.0)[..., None] * offset[:, None]
        path[..., 3:6] -= np.where(ahead < time, 1 / time, 0.0)[..., None] * offset[:, None]
        return path
