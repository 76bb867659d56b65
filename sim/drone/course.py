"""Gates and poles: where they stand, how close a flight came to them, and what it hit."""

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


def crossings(
    centers: np.ndarray, yaws: np.ndarray, before: np.ndarray, after: np.ndarray, opening: float, frame: float,
    radius: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """What straight steps of drones do to gates.

    Args:
        centers: [..., 3] and yaws [...] of the gates; before, after: [..., 3], positions around the step.
        radius: of the drone [m].

    Returns:
        passed: went through the opening the right way, not touching. hit: touched the frame. margin: distance that was
        left between drone and frame in the plane of the gate [m], NaN where the plane was not crossed.
    """
    cosine, sine = np.cos(yaws), np.sin(yaws)
    first, last = before - centers, after - centers
    depth_before = first[..., 0] * cosine + first[..., 1] * sine
    depth_after = last[..., 0] * cosine + last[..., 1] * sine
    through = (depth_before < 0) != (depth_after < 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(through, depth_before / (depth_before - depth_after), 0.0)
    point = first + part[..., None] * (last - first)
    side = np.abs(-point[..., 0] * sine + point[..., 1] * cosine)
    off = np.maximum(side, np.abs(point[..., 2]))
    half = opening / 2
    margin = np.where(through, half - radius - off, np.nan)
    passed = through & (depth_after >= 0) & (margin >= 0)
    hit = through & (off > half - radius) & (off < half + frame + radius)
    return passed, hit, margin


def pole_hits(poles: np.ndarray, pole_radius: float, position: np.ndarray, radius: float) -> np.ndarray:
    """Whether drones at [N, 3] touch one of the poles [P, 2], bool [N]."""
    distance = np.linalg.norm(position[:, None, :2] - poles, axis=-1)
    return (distance < pole_radius + radius).any(axis=1)
