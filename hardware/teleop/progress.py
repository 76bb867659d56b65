"""Whether a robot that somebody else moves makes the way that a person would make: what tells a person to take over.

At each look the person knows which way to go from here: a step of position, rotation and gripper. Progress is the
share of these steps that the robot has made, over the last seconds: 1 for a robot that does as the person would, about
0 for one that stands still or wanders, negative for one that goes astray. Pure, without clock or graph.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from robot_rl.sim.rotation import vector_from_matrix

LEVER = 0.1
"""Way of a fingertip for each radian that the gripper turns [m]."""

LEAST = 0.03
"""A way shorter than this for each second is no way: the robot is where it should be [m/s]."""


class Progress:
    """Of a gripper over the last `seconds`.

    Args:
        seconds: that are looked back on.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = np.inf
        self._before: tuple[float, np.ndarray, np.ndarray, float, np.ndarray] | None = None
        self._steps: deque[tuple[float, float, float]] = deque()

    def reset(self) -> None:
        """Look back on nothing that was before."""
        self._before, self._began = None, np.inf
        self._steps.clear()

    def look(self, now: float, position: np.ndarray, rotation: np.ndarray, opening: float, wanted: np.ndarray) -> float:
        """The share [-∞, 1] of the wanted way that was made; 1 as long as too little is known.

        Args:
            position, rotation, opening: of the gripper, [3] m, [3, 3] and m.
            wanted: what the person would do now: velocity [3] m/s, angular velocity [3] rad/s, and of the opening m/s.
        """
        if self._before is not None and now > self._before[0]:
            then, where, turned, open_, way = self._before
            turn = vector_from_matrix(rotation @ turned.T)
            made = np.concatenate([position - where, LEVER * turn, [opening - open_]])
            length = float(np.linalg.norm(way))
            along = float(made @ way) / length if length > 0 else 0.0
            # To be faster than the person makes up for nothing.
            self._steps.append((now, min(along, length * (now - then)), length * (now - then)))
            self._began = min(self._began, then)
        scaled = np.concatenate([wanted[:3], LEVER * wanted[3:6], wanted[6:]])
        self._before = now, position.copy(), rotation.copy(), opening, scaled
        while self._steps and self._steps[0][0] <= now - self._seconds:
            self._steps.popleft()
        progress, wished = (sum(step[part] for step in self._steps) for part in (1, 2))
        known = now - self._began >= self._seconds
        return progress / wished if known and wished > LEAST * self._seconds else 1.0
