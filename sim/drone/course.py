"""Gates and poles, or the arches of a corridor: where they stand.

What a flight does to them is found in `robot_rl.sim.drone.episode`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_rl.sim.drone.generators import Generators


@dataclass(frozen=True)
class Course:
    """The gates of an episode, in their order, and its poles; or those of many episodes [..., ] at once.

    Attributes:
        centers: [..., G, 3] [m]. yaws: [..., G], heading of the way through [rad].
        opening: side of the square opening [m]. frame: width of the frame around it [m].
        poles: [P, 2] [m], from the ground up. pole_radius: [m].
        start: [3], finish: [..., 3] [m].
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
        """Unit vectors of the way through, [..., G, 3]."""
        return np.stack([np.cos(self.yaws), np.sin(self.yaws), np.zeros_like(self.yaws)], axis=-1)


def make_course(
    task: Mapping[str, Any], moved: Sequence[Sequence[Mapping[str, Any]]] = (),
    generator: Generators | np.random.Generator | None = None,
) -> Course | None:  # fmt: skip
    """The course of a task; None for a task without gates.

    Args:
        moved: how the gates are moved in each of n episodes, see `gates` of `variation`. None: as the task has them.
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
        centers = centers + np.array([[gate["shift"] for gate in gates] for gates in moved])
        yaws = yaws + np.array([[gate["yaw"] for gate in gates] for gates in moved])
    start, width = np.asarray(task["start_at"], float), 0.0
    if "corridor" in task:
        width = float(task["corridor"]["width"])
        last = yaws[..., -1]
        finish = centers[..., -1, :] + np.stack([np.cos(last), np.sin(last), np.zeros_like(last)], axis=-1)
    else:
        finish = np.asarray(task["finish_at"], float)
    poles = np.asarray(task["poles"], float).reshape(-1, 2)
    return Course(
        centers, yaws, float(task["opening"]), float(task["frame"]), poles, float(task["pole_radius"]), start, finish,
        width,
    )  # fmt: skip


def _draw_arches(
    task: Mapping[str, Any], generator: Generators | np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """Centres [..., G, 3] of a corridor's arches and the headings through them [..., G], each between those to its
    neighbours."""
    config, start = task["corridor"], np.asarray(task["start_at"], float)
    count, (low, high) = int(config["arches"]), config["heights"]
    bends = np.zeros(count) if generator is None else generator.uniform(-config["bend"], config["bend"], count)
    points = np.tile(start, (*bends.shape[:-1], count + 1, 1))
    points[..., 0] += config["spacing"] * np.arange(count + 1)
    points[..., 1:, 1] += np.cumsum(bends, axis=-1)
    if generator is not None:
        for arch in range(1, count + 1):
            reach, before = (high - low) / 2, points[..., arch - 1, 2]
            points[..., arch, 2] = generator.uniform(np.maximum(low, before - reach), np.minimum(high, before + reach))
    steps = np.diff(points, axis=-2)
    ways = np.concatenate([steps[..., :-1, :] + steps[..., 1:, :], steps[..., -1:, :]], axis=-2)
    return points[..., 1:, :], np.arctan2(ways[..., 1], ways[..., 0])
