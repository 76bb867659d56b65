"""To pick something up from above, told by geometry alone: nothing is remembered from one step to the next."""

from __future__ import annotations

import numpy as np

from robot_rl.sim.expert.scene import Goal, Scene, downwards, raised

CLEARANCE = 0.06
"""Height above the grasp at which the gripper comes along before it goes down [m]."""
MARGIN = 0.022
"""How much wider than the object the gripper opens [m]."""
EMPTY = 0.005
"""An opening below this means that the gripper closed on nothing [m]."""


def holds(scene: Scene, grasp: np.ndarray, width: float, reach: float = 0.015) -> bool:
    """Whether the fingers are closed on an object of this width [m] whose grasp point [3] lies between them."""
    return bool(EMPTY < scene.opening < width + 0.0015 and np.linalg.norm(grasp - scene.position) < reach)


def pick(scene: Scene, grasp: np.ndarray, yaw: float, width: float) -> Goal:
    """Go over the grasp point, down a funnel onto it, and close. A missed or lost object is approached anew.

    Args:
        grasp: point between the fingertips [3] m.
        yaw: direction of the finger axis [rad].
        width: of the object along the finger axis [m].
    """
    rotation = downwards(yaw)
    aside = float(np.linalg.norm(grasp[:2] - scene.position[:2]))
    above = float(scene.position[2] - grasp[2])
    twist = abs((scene.yaw - yaw + np.pi) % (2 * np.pi) - np.pi)
    open_ = min(width + MARGIN, scene.max_opening)
    inside = aside < 0.006 and abs(above) < 0.008 and twist < 0.1
    if inside and scene.opening > EMPTY:
        return Goal(grasp, rotation, 0.0)
    # Down as far as position, direction and opening fit: a funnel, so that motion goes on while they still settle.
    misfit = max((aside - 0.004) / 0.04, (twist - 0.05) / 0.4, (width + 0.3 * MARGIN - scene.opening) / 0.01)
    height = CLEARANCE * float(np.clip(misfit, 0.0, 1.0))
    return Goal(raised(grasp, height), rotation, open_)


def carry(
    scene: Scene, grasp: np.ndarray, place: np.ndarray, yaw: float, clearance: float, misfit: float = 0.0
) -> Goal:
    """Bring a held object over its place, then down: up first, along, and down a funnel.

    Args:
        grasp: where the object is held now, [3] m.
        place: where this point shall be, [3] m.
        yaw: direction of the finger axis [rad].
        clearance: height over the place at which the object comes along [m].
        misfit: of the direction; from 1 on the object stays at this height.
    """
    aside = float(np.linalg.norm(place[:2] - grasp[:2]))
    height = clearance * float(np.clip(max((aside - 0.003) / 0.03, misfit), 0.0, 1.0))
    # Along only as far as the height allows, so that nothing in between is hit.
    low = float(np.clip((place[2] + height - grasp[2]) / clearance - 0.2, 0.0, 1.0))
    target = raised(place, height)
    target[:2] = low * grasp[:2] + (1.0 - low) * place[:2]
    return Goal(scene.position + target - grasp, downwards(yaw), 0.0)


def release(scene: Scene, grasp: np.ndarray, width: float) -> Goal:
    """Open, and go up once the fingers are clear of the object."""
    open_ = min(width + MARGIN, scene.max_opening)
    clear = scene.opening > width + 0.3 * MARGIN
    up = CLEARANCE + 0.04 if clear else 0.0
    return Goal(raised(np.where(clear, grasp, scene.position), up), downwards(scene.yaw), open_)
