"""PickPlaceCan: move the can into its compartment of the right bin."""

from __future__ import annotations

import numpy as np

from robot_rl.sim.expert.grasping import carry, holds, pick, release
from robot_rl.sim.expert.scene import Goal, Scene, raised

WIDTH = 0.05
GRIP = 0.015
"""Height of the grasp over the can's centre [m]."""
NEAR_CORNER = np.array([-0.052, -0.078, 0.052])
"""From the middle of the compartment to where the can is let go [m]: the far side is out of a Panda's reach, and from
below the rim it may fall."""
HALF_COMPARTMENT = np.array([0.09, 0.115])
RIM = 0.09
"""Height above that place at which the can passes the walls [m]."""


def decide(scene: Scene) -> Goal:
    """The next goal."""
    can, middle = scene.object_position("can"), scene.object_position("can_target")
    grasp, place = raised(can, GRIP), raised(middle + NEAR_CORNER, GRIP)
    inside = (np.abs(can[:2] - middle[:2]) < HALF_COMPARTMENT).all() and grasp[2] < place[2] + 0.006
    if inside:
        return release(scene, grasp, WIDTH)
    if holds(scene, grasp, WIDTH):
        return carry(scene, grasp, place, scene.home_yaw, RIM)
    return pick(scene, grasp, scene.home_yaw, WIDTH)
