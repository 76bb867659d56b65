"""Experts: scripted ones for arms, one file per task (`decide(scene) -> goal`); the geometric one for drones."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from robot_rl.sim.arm import ArmEnv
    from robot_rl.sim.drone.env import DroneEnv
    from robot_rl.sim.drone.expert import DroneExpert
    from robot_rl.sim.expert.scripted_expert import ScriptedExpert

__all__ = ["make_expert"]


def make_expert(
    env: ArmEnv | DroneEnv, noise: float = 0.0, generator: np.random.Generator | None = None
) -> ScriptedExpert | DroneExpert:
    """The expert of an environment's task, see `ScriptedExpert` and `robot_rl.sim.drone.expert.DroneExpert`.

    Raises:
        ValueError: there is none for this task.
    """
    from robot_rl.sim.arm import ArmEnv
    from robot_rl.sim.expert.scripted_expert import ScriptedExpert

    if not isinstance(env, ArmEnv):
        from robot_rl.sim.drone.expert import DroneExpert

        return DroneExpert(env, noise, generator)
    task = env.task["name"]
    if find_spec(f"{__name__}.{task}") is None:
        known = sorted(path.stem for path in (Path(__file__).parents[1] / "task").glob("*.yaml"))
        known = [name for name in known if find_spec(f"{__name__}.{name}")]
        raise ValueError(f"no expert for task {task!r}; there are experts for: {', '.join(known)}")
    return ScriptedExpert(env, import_module(f"{__name__}.{task}").decide, noise, generator)
