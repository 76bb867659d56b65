"""Stack: put the red cube (A) on the green cube (B)."""

from __future__ import annotations

import numpy as np

from robot_rl.sim.expert.grasping import carry, holds, pick, release
from robot_rl.sim.expert.scene import Goal, Scene, nearest_yaw, raised

WIDTH = 0.04
STACKED = 0.045
"""Height of A's centre over B's [m]."""


def decide(scene: Scene) -> Goal:
    """The next goal."""
    cube, base = scene.object_position("cube_a"), scene.object_position("cube_b")
    yaw = nearest_yaw(scene.object_yaw("cube_a"), np.pi / 2, scene.home_yaw)
    place = raised(base, STACKED)
    if np.linalg.norm(cube[:2] - place[:2]) < 0.012 and abs(cube[2] - place[2]) < 0.004:
        return release(scene, cube, WIDTH)
    if holds(scene, cube, WIDTH):
        return carry(scene, cube, place, yaw, clearance=0.03)
    return pick(scene, cube, yaw, WIDTH)
