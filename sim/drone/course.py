"""Gates and poles: where they stand. What a flight does to them is found in `robot_rl.sim.drone.episode`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Course:
    """The gates of one episode, in their order, and its poles.

    Attributes:
        centers: [G, 3] [m]. yaws: [G], heading of the way through [rad].
        opening: side of the square opening [m]. frame: width of the frame around it [m].
        poles: [P, 2] [m], from the ground up. pole_radius: [m].
    """

    centers: np.ndarray
    yaws: np.ndarray
    opening: float
    frame: float
    poles: np.ndarray
    pole_radius: float

    @property
    def normals(self) -> np.ndarray:
        """Unit vectors of the way through, [G, 3]."""
        return np.stack([np.cos(self.yaws), np.sin(self.yaws), np.zeros_like(self.yaws)], axis=1)


def make_course(task: Mapping[str, Any], moved: Sequence[Mapping[str, Any]] | None = None) -> Course | None:
    """The course of a task, its gates moved by a record of `variation`; None for a task without gates."""
    if "gates" not in task:
        return None
    centers = np.array([gate["position"] for gate in task["gates"]], float)
    yaws = np.array([gate["yaw"] for gate in task["gates"]], float)
    if moved:
        centers = centers + [gate["shift"] for gate in moved]
        yaws = yaws + [gate["yaw"] for gate in moved]
    poles = np.asarray(task["poles"], float).reshape(-1, 2)
    return Course(centers, yaws, float(task["opening"]), float(task["frame"]), poles, float(task["pole_radius"]))
