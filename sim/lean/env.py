"""Lean tasks as Gymnasium environments that carry a contract, one copy or many; the interface of arms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robot_rl.sim.lean.spec import task_class
from robot_rl.sim.lean.world import LeanWorld
from robot_rl.sim.spec import resolve
from robot_rl.sim.world_env import WorldEnv, WorldVectorEnv


class LeanEnv(WorldEnv):
    """One copy of a lean task.

    Args:
        spec: task name or mapping, see `robot_rl.sim.spec.resolve`.

    Raises:
        SpecError: a key or a name is unknown; the message lists what exists.
    """

    world: LeanWorld

    def __init__(self, spec: str | Mapping[str, Any]) -> None:
        resolved = resolve(spec)
        super().__init__(resolved, task_class(resolved["task"])(resolved, 1))


class LeanVectorEnv(WorldVectorEnv):
    """N copies of a lean task, all stepped at once in one process."""

    world: LeanWorld

    def __init__(self, spec: str | Mapping[str, Any], num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs: expected at least 1, got {num_envs}")
        resolved = resolve(spec)
        super().__init__(resolved, task_class(resolved["task"])(resolved, num_envs))
