"""How much of a T lies on another: the exact area of overlap of two T's, each of two rectangles that touch."""

from __future__ import annotations

import math

import numpy as np

from robot_rl.sim.compiled import compiled


@compiled
def coverage(poses: np.ndarray, goal: np.ndarray, centres: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Share of a T's area that lies within the goal, [N].

    Args:
        poses: x, y [m] and yaw of the T's [N, 3]. goal: of the goal [3].
        centres, halves: of the rectangles in the frame of the T [R, 2] [m]. They must not overlap.
    """
    shares = np.zeros(len(poses))
    total = 0.0
    for part in range(len(centres)):
        total += 4.0 * halves[part, 0] * halves[part, 1]
    for row in range(len(poses)):
        # The goal's frame, seen from which its rectangles are upright.
        cosine, sine = math.cos(goal[2]), math.sin(goal[2])
        dx, dy = poses[row, 0] - goal[0], poses[row, 1] - goal[1]
        x, y = cosine * dx + sine * dy, cosine * dy - sine * dx
        turn = poses[row, 2] - goal[2]
        cosine, sine = math.cos(turn), math.sin(turn)
        for mine in range(len(centres)):
            corners = np.empty((4, 2))
            for corner in range(4):
                u = centres[mine, 0] + halves[mine, 0] * (1.0 if corner in (0, 3) else -1.0)
                v = centres[mine, 1] + halves[mine, 1] * (1.0 if corner in (0, 1) else -1.0)
                corners[corner, 0] = x + cosine * u - sine * v
                corners[corner, 1] = y + sine * u + cosine * v
            for other in range(len(centres)):
                shares[row] += _clipped_area(corners, centres[other], halves[other])
        shares[row] /= total
    return shares


@compiled
def _clipped_area(corners: np.ndarray, centre: np.ndarray, half: np.ndarray) -> float:
    """Area of a convex polygon within an upright rectangle (Sutherland and Hodgman 1974, and the shoelace formula)."""
    points, count = np.empty((12, 2)), len(corners)
    points[:count] = corners
    for side in range(4):
        axis, sign = side // 2, 1.0 - 2.0 * (side % 2)
        limit = sign * centre[axis] + half[axis]
        kept, number = np.empty((12, 2)), 0
        for index in range(count):
            here, there = points[index], points[(index + 1) % count]
            inside, beyond = limit - sign * here[axis], limit - sign * there[axis]
            if inside >= 0.0:
                kept[number] = here
                number += 1
            if (inside > 0.0 and beyond < 0.0) or (inside < 0.0 and beyond > 0.0):
                part = inside / (inside - beyond)
                kept[number] = here + part * (there - here)
                number += 1
        points, count = kept, number
    area = 0.0
    for index in range(count):
        here, there = points[index], points[(index + 1) % count]
        area += 0.5 * (here[0] * there[1] - here[1] * there[0])
    return area
