"""Door: press the lever down with the closed fingertips until the latch is free, and drag the door open by it.

Between lever and door there is no room for a hand that would grasp the lever. Pressed, friction is enough to pull.
"""

from __future__ import annotations

import numpy as np

from robot_rl.sim.expert.scene import Goal, Scene, raised, rotation_of

GRASPS = False
"""Told of the only expert that does not."""
PIVOT = np.array([-0.175, -0.1, -0.025])
"""Where the middle line of the lever meets its axis, in the door's frame [m]."""
HINGE = np.array([0.255, 0.0, 0.0])
"""In the door's frame [m]."""
ALONG, OUT, ON_TOP = 0.1, 0.012, 0.034
"""Where the gripper presses: from the pivot along the lever, away from the door, and over its middle line [m]."""
TILT, PITCH = 0.3, 0.45
"""Of the hand away from the door, and at most forwards as the lever goes down: else palm or wrist would touch [rad]."""
CLEARANCE = 0.03
"""Height over that point at which the gripper comes along [m]."""
FREE, STOP = 1.2, 1.6
"""Angles of the lever at which the latch begins to be free, and beyond its stop [rad]."""
PUSH = 0.0015
"""Into the lever, against its spring [m]."""
PRESS_LEAD, PULL_LEAD = 0.25, 0.2
"""How far the goal runs ahead of lever and door [rad]."""


def decide(scene: Scene) -> Goal:
    """The next goal."""
    door, lever = rotation_of(scene.objects["door"]), rotation_of(scene.objects["handle"])
    along, outwards = door[:, 0], -door[:, 1]
    pressed = float(np.arctan2(-lever[2, 0], lever[:, 0] @ along))
    pivot, hinge = (scene.object_position("door") + door @ point for point in (PIVOT, HINGE))

    def touch(angle: float) -> tuple[np.ndarray, np.ndarray]:
        """Position and rotation of the gripper when the lever is pressed to an angle [rad]."""
        direction, normal = _turned(along, angle)
        approach = -np.cos(TILT) * _turned(along, min(0.5 * angle, PITCH))[1] - np.sin(TILT) * outwards
        across = np.cross(approach, along)
        across /= np.linalg.norm(across)
        position = pivot + ALONG * direction + OUT * outwards + ON_TOP * normal
        return position, np.stack([across, np.cross(approach, across), approach], axis=1)

    here, rotation = touch(pressed)
    direction, normal = _turned(along, pressed)
    off = scene.position - here
    if abs(off @ direction) > 0.04 or abs(off @ outwards) > 0.02 or not -0.03 < off @ normal < 0.02:
        aside = float(np.linalg.norm(off[:2]))
        height = CLEARANCE * float(np.clip((aside - 0.003) / 0.02, 0.0, 1.0))
        return Goal(raised(here, height), rotation, 0.0)
    position, rotation = touch(min(pressed + PRESS_LEAD, STOP))
    pull = PULL_LEAD * float(np.clip((pressed - FREE) / 0.1, 0.0, 1.0))
    c, s = np.cos(pull), np.sin(pull)
    swing = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return Goal(hinge + swing @ (position - hinge), swing @ rotation, 0.0, speed=0.25, push=-PUSH * normal)


def _turned(along: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Direction of the lever and normal of its upper face, each [3], pressed to an angle [rad]."""
    up = np.array([0.0, 0.0, 1.0])
    return np.cos(angle) * along - np.sin(angle) * up, np.cos(angle) * up + np.sin(angle) * along
