"""NutAssemblySquare: put the square nut over the square peg."""

from __future__ import annotations

import numpy as np

from robot_rl.sim.expert.grasping import carry, holds, pick, release
from robot_rl.sim.expert.scene import Goal, Scene, raised

WIDTH = 0.0318
"""Of the handle [m]."""
HALF_PEG = 0.1
"""Height of the peg's top over its middle [m]."""
OVER = 0.025
"""Height of the nut over the peg's top at which it comes along [m]."""
ENTERED = 0.02
"""Depth of the nut below the peg's top from which it can be let go [m]."""
FAR = 0.8
"""Distance from the base up to which the handle can be held over the peg [m]."""
WRIST = (-2.0, 3.0)
"""Directions of the finger axis that the wrist reaches, against the home posture [rad]."""


def decide(scene: Scene) -> Goal:
    """The next goal."""
    nut, handle, peg = (scene.object_position(name) for name in ("nut", "nut_handle", "peg"))
    heading = scene.object_yaw("nut")
    depth = float(peg[2] + HALF_PEG - nut[2])
    if np.linalg.norm(nut[:2] - peg[:2]) < 0.012 and depth > ENTERED:
        return release(scene, handle, WIDTH)
    held = holds(scene, handle, WIDTH)
    grasp_yaw, turn = choose_turn(scene, heading, held)
    if not held:
        return pick(scene, handle, grasp_yaw, WIDTH)
    c, s = np.cos(turn), np.sin(turn)
    place = raised(peg, HALF_PEG - ENTERED - 0.01)
    place[:2] += np.array([[c, -s], [s, c]]) @ (handle - nut)[:2]
    yaw = scene.yaw + turn
    return carry(scene, handle, place, yaw, OVER + ENTERED + 0.01, misfit=(abs(turn) - 0.02) / 0.1)


def choose_turn(scene: Scene, heading: float, held: bool) -> tuple[float, float]:
    """Direction of the finger axis to grasp with, and how far the held nut turns to fit the peg [rad].

    Of the two ways to grasp the handle and the four ways to fit the peg, the one with the least turning that keeps the
    wrist and the reach within their range; a nut in the hand has its grasp already.
    """
    peg = scene.object_position("peg")
    reach = float(np.linalg.norm((scene.object_position("nut_handle") - scene.object_position("nut"))[:2]))
    best, choice = np.inf, (0.0, 0.0)
    now = _wrapped(scene.yaw - scene.home_yaw)
    for side in (0.5 * np.pi, -0.5 * np.pi):
        grasp = _wrapped(heading + side - scene.home_yaw)
        if held and abs(_wrapped(grasp - now)) > 0.5 * np.pi:
            continue
        for quarter in range(4):
            final = scene.object_yaw("peg") + quarter * 0.5 * np.pi
            end = _wrapped(final + side - scene.home_yaw)
            distance = np.linalg.norm(peg[:2] + reach * np.array([np.cos(final), np.sin(final)]))
            cost = abs(end - grasp) + abs(grasp - now) + 10.0 * max(0.0, float(distance) - 0.76)
            fits = distance < FAR and all(WRIST[0] < angle < WRIST[1] for angle in (grasp, end))
            if fits and cost < best:
                best, choice = cost, (scene.home_yaw + grasp, end - grasp)
    return choice


def _wrapped(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)
