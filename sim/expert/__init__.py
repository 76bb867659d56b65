"""Experts: scripted ones for arms, one file per task (`decide(scene) -> goal`); those of drones and lean tasks."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from robot_rl.sim.arm import ArmEnv
    from robot_rl.sim.expert.scripted_expert import ScriptedExpert
    from robot_rl.sim.expert.world_expert import WorldExpert
    from robot_rl.sim.gym_env import GymEnv
    from robot_rl.sim.world_env import WorldEnv

__all__ = ["make_expert"]


def make_expert(
    env: ArmEnv | WorldEnv | GymEnv, noise: float = 0.0, generator: np.random.Generator | None = None,
    name: str | None = None,
) -> ScriptedExpert | WorldExpert:  # fmt: skip
    """The expert of an environment's task, see `ScriptedExpert` and `robot_rl.sim.expert.world_expert.WorldExpert`.

    Args:
        name: which, where a task has several: a drone's `geometric` or `mpc`.

    Raises:
        ValueError: there is none for this task, or none of that name, or it grasps and the robot cannot.
    """
    from robot_rl.sim.arm import ArmEnv
    from robot_rl.sim.expert.scripted_expert import ScriptedExpert
    from robot_rl.sim.world_env import WorldEnv

    if isinstance(env, WorldEnv):
        from robot_rl.sim.expert.world_expert import WorldExpert

        return WorldExpert(env, noise, generator, name)
    if name is not None:
        raise ValueError(f"expert: the task {env.task['name']!r} leaves no choice; leave it out, got {name!r}")
    if not isinstance(env, ArmEnv):
        raise ValueError(f"no expert for task {env.task['name']!r}; record a policy's episodes: source=policy")
    task = env.task["name"]
    if find_spec(f"{__name__}.{task}") is None:
        known = sorted(path.stem for path in (Path(__file__).parents[1] / "task").glob("*.yaml"))
        known = [name for name in known if find_spec(f"{__name__}.{name}")]
        raise ValueError(f"no expert for task {task!r}; there are experts for: {', '.join(known)}")
    expert = import_module(f"{__name__}.{task}")
    for arm in env.arm_model.arms:
        if arm.grasps_as and getattr(expert, "GRASPS", True):
            raise ValueError(f"the expert of {task!r} grasps, and {arm.robot} cannot; take robot={arm.grasps_as}")
    return ScriptedExpert(env, expert.decide, noise, generator)
