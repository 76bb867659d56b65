"""Lift: grasp the cube from above and raise it."""

from __future__ import annotations

import numpy as np

from robot_rl.sim.expert.grasping import holds, pick
from robot_rl.sim.expert.scene import Goal, Scene, downwards, nearest_yaw, raised

WIDTH = 0.0425
HEIGHT = 0.1


def decide(scene: Scene) -> Goal:
    """The next goal."""
    cube = scene.object_position("cube")
    yaw = nearest_yaw(scene.object_yaw("cube"), np.pi / 2, scene.home_yaw)
    if holds(scene, cube, WIDTH):
        return Goal(raised(scene.position, HEIGHT), downwards(yaw), 0.0)
    return pick(scene, cube, yaw, WIDTH)
