"""Gates and poles, or the arches of a corridor: where they stand.

What a flight does to them is found in `robot_rl.sim.drone.episode`.
"""

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
        start, finish: [3] [m].
        width: between the walls of a corridor, whose arches the gates are; 0: no corridor [m].
    """

    centers: np.ndarray
    yaws: np.ndarray
    opening: float
    frame: float
    poles: np.ndarray
    pole_radius: float
    start: np.ndarray
    finish: np.ndarray
    width: float = 0.0

    @property
    def normals(self) -> np.ndarray:
        """Unit vectors of the way through, [G, 3]."""
        return np.stack([np.cos(self.yaws), np.sin(self.yaws), np.zeros_like(self.yaws)], axis=1)


def make_course(
    task: Mapping[str, Any], moved: Sequence[Mapping[str, Any]] | None = None,
    generator: np.random.Generator | None = None,
) -> Course | None:  # fmt: skip
    """The course of a task, its gates moved by a record of `variation`; None for a task without gates.

    Args:
        generator: of a corridor's bends and heights; None: straight, at half the height.
    """
    if "corridor" in task:
        centers, yaws = _draw_arches(task, generator)
    elif "gates" in task:
        centers = np.array([gate["position"] for gate in task["gates"]], float)
        yaws = np.array([gate["yaw"] for gate in task["gates"]], float)
    else:
        return None
    if moved:
        centers = centers + [gate["shift"] for gate in moved]
        yaws = yaws + [gate["yaw"] for gate in moved]
    start, width = np.asarray(task["start_at"], float), 0.0
    if "corridor" in task:
        width = float(task["corridor"]["width"])
        finish = centers[-1] + [np.cos(yaws[-1]), np.sin(yaws[-1]), 0.0]
    else:
        finish = np.asarray(task["finish_at"], float)
    poles = np.asarray(task["poles"], float).reshape(-1, 2)
    return Course(
        centers, yaws, float(task["opening"]), float(task["frame"]), poles, float(task["pole_radius"]), start, finish,
        width,
    )  # fmt: skip


def _draw_arches(task: Mapping[str, Any], generator: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """Centres [G, 3] of a corridor's arches and the headings through them [G], each between those to its neighbours."""
    config, start = task["corridor"], np.asarray(task["start_at"], float)
    count, (low, high) = int(config["arches"]), config["heights"]
    points = np.tile(start, (count + 1, 1))
    points[:, 0] += config["spacing"] * np.arange(count + 1)
    if generator is not None:
        points[1:, 1] += np.cumsum(generator.uniform(-config["bend"], config["bend"], count))
        for arch in range(1, count + 1):
            reach, before = (high - low) / 2, points[arch - 1, 2]
            points[arch, 2] = generator.uniform(max(low, before - reach), min(high, before + reach))
    steps = np.diff(points, axis=0)
    ways = np.concatenate([steps[:-1] + steps[1:], steps[-1:]])
    return points[1:], np.arctan2(ways[:, 1], ways[:, 0])
