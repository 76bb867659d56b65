"""Lift from a belt: as Lift, in the frame that moves with the cube."""

from __future__ import annotations

from dataclasses import replace

from robot_rl.sim.expert import lift
from robot_rl.sim.expert.scene import Goal, Scene


def decide(scene: Scene) -> Goal:
    """The next goal."""
    return replace(lift.decide(scene), velocity=scene.object_velocities["cube"])
