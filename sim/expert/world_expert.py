"""Experts of the tasks whose copies are stepped together, drones and lean ones, and the noise on what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from robot_rl.sim.spec import SpecError
from robot_rl.sim.world_env import World, WorldEnv

NOISE_TIME = 0.3
"""Correlation time of the noise [s]."""


def start(world: World, name: str | None = None) -> Callable[[], np.ndarray]:
    """Begin to act in a world as the expert of its task: gives actions [N, A] of all copies at each call.

    Args:
        name: of a drone's, `geometric` (default), `mpc` or `mpc_aiming`; a lean task has one.

    Raises:
        SpecError: there is no such expert for this world.
    """
    from robot_rl.sim.drone.world import DroneWorld

    if isinstance(world, DroneWorld):
        from robot_rl.sim.drone.expert import start as start_drone

        return start_drone(world, name)
    from robot_rl.sim.lean.world import LeanWorld

    assert isinstance(world, LeanWorld)
    if name is not None:
        raise SpecError(f"expert: the task {world.task['name']} has one alone; leave it out, got {name!r}")
    return world.expert


class Deviations:
    """Noise that drifts, on the actions of each copy its own: demonstrations then show the way back.

    Args:
        strength: standard deviation, in the units of the action.
        generators: of the first copies; the others act without.
    """

    def __init__(self, world: World, strength: float, generators: Sequence[np.random.Generator]) -> None:
        if strength < 0:
            raise ValueError(f"noise: expected a number >= 0, got {strength}")
        self._generators, self._offsets = generators, np.zeros_like(world.last_action)
        self._keep = np.float32(np.exp(-world.period / NOISE_TIME))
        self._fresh = strength * float(np.sqrt(1 - self._keep**2))

    def add(self, actions: np.ndarray) -> np.ndarray:
        """Actions [N, A] with the noise of the next step."""
        if not self._fresh:
            return actions
        self._offsets *= self._keep
        for offset, generator in zip(self._offsets, self._generators, strict=False):
            offset += generator.normal(0, self._fresh, offset.shape)
        noisy: np.ndarray = actions + self._offsets
        return noisy


class WorldExpert:
    """Acts in an environment of one copy, with the interface of `ScriptedExpert`.

    Args:
        noise, generator: see `Deviations`; a generator is needed when there is any.
        name: see `start`.

    Attributes:
        intended: the last action without the noise [A].
        failed: never; episodes that are lost end by themselves.
    """

    failed = False

    def __init__(
        self, env: WorldEnv, noise: float = 0.0, generator: np.random.Generator | None = None, name: str | None = None
    ) -> None:
        if noise and generator is None:
            raise ValueError("a noisy expert needs a generator")
        self._act = start(env.world, name)
        self._deviations = Deviations(env.world, noise, [] if generator is None else [generator])
        self.intended = env.rest_action()

    def act(self) -> np.ndarray:
        """The action to execute now [A]."""
        intended = self._act()
        self.intended = intended[0]
        action: np.ndarray = self._deviations.add(intended)[0]
        return action
