"""NutAssemblySquare: put the square nut over the square peg."""

from __future__ import annotations

import numpy as np

from robot_rl.sim.expert.grasping import carry, holds, pick, release
from robot_rl.sim.expert.scene import Goal, Scene, nearest_yaw, raised

WIDTH = 0.0318
"""Of the handle [m]."""
PEG = 0.1
"""Half the peg's height: its top over its middle [m]."""
OVER = 0.02
"""Height of the nut over the peg's top at which it comes along [m]."""
ENTERED = 0.02
"""Depth of the nut's middle below the peg's top from which it can be let go [m]."""


def decide(scene: Scene) -> Goal:
    """The next goal."""
    nut, handle, peg = (scene.object_position(name) for name in ("nut", "nut_handle", "peg"))
    heading = scene.object_yaw("nut")
    aside = float(np.linalg.norm(nut[:2] - peg[:2]))
    depth = float(peg[2] + PEG - nut[2])
    if aside < 0.012 and depth > ENTERED:
        return release(scene, handle, WIDTH)
    if holds(scene, handle, WIDTH):
        # Turn the nut to the nearest of the four directions in which it fits.
        turn = nearest_yaw(0.0, np.pi / 2, heading) - heading
        turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ (handle - nut)[:2]
        place = raised(peg, PEG - ENTERED - 0.01)
        place[:2] += turned
        return carry(scene, handle, place, scene.yaw + turn, OVER + ENTERED + 0.01, misfit=(abs(turn) - 0.02) / 0.1)
    across = nearest_yaw(heading + np.pi / 2, np.pi, scene.home_yaw)
    return pick(scene, handle, across, WIDTH)
