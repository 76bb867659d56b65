"""Reaching the far side past three rows of posts, by any way: many modes, all as good (Jia et al. 2024, Avoiding).

A way is named by the gap that was taken in each row, counted from the left: two gaps beside the first post, three among
the next two, four among the last three, 24 ways in all. Touching a post ends the episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_rl.datasets.contract import Feature
from robot_rl.sim.lean.world import LeanWorld

ROWS = (-0.12, 0.0, 0.12)
"""y of the rows of posts [m]."""
POSTS = ((0.0,), (-0.075, 0.075), (-0.15, 0.0, 0.15))
"""x of the posts of each row [m]."""
TOUCH = 0.0352
"""Distance from the middle of a post at which the finger touches it [m]."""
GOAL_Y = 0.25
"""Where the far side begins [m]."""
REACH_X, REACH_Y, STEP = 0.28, 0.3, 0.02
"""Where, and how far from where it is, the finger may be sent [m]."""
GAPS = ((-0.075, 0.075), (-0.15, 0.0, 0.15), (-0.225, -0.075, 0.075, 0.225))
"""x of the middle of each gap of each row [m]."""
CLEAR, ALIGNED = 0.045, 0.012
"""Distance before a row at which the expert has to be within its gap, and how near to its middle [m]."""


class Avoid(LeanWorld):
    """See the module. Memory: the gap taken in each row, from 1, and the way that the expert prefers, below 1."""

    HORIZON, MEMORY = 100, 4
    CONTROLLER = "avoid_position"
    ACTION = (
        Feature("target", (2,), kind="action", names=("x", "y"), unit="m", frame="world", lower=(-REACH_X, -REACH_Y),
                upper=(REACH_X, REACH_Y)),
    )  # fmt: skip
    OBSERVATION = (
        Feature("finger_position", (2,), names=("x", "y"), unit="m", frame="world"),
        Feature("finger_velocity", (2,), names=("x", "y"), unit="m/s", frame="world"),
    )

    def place(self, rows: np.ndarray, generators: Sequence[np.random.Generator]) -> None:
        """The finger near the middle of the near side, and the expert's preference."""
        for row, generator in zip(rows, generators, strict=True):
            self.physics.qpos[row] = [generator.uniform(-0.02, 0.02), -0.25]
            self.memory[row, 3] = generator.random()

    def command(self, actions: np.ndarray) -> np.ndarray:
        """Targets of the finger's servos, not further than a step."""
        away = actions - self.physics.qpos
        length = np.linalg.norm(away, axis=1, keepdims=True)
        targets: np.ndarray = self.physics.qpos + away * np.minimum(1.0, STEP / np.maximum(length, 1e-9))
        return targets

    def judge(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reward 1 on the far side; the end there or at a post."""
        x, y = self.physics.qpos.T
        touched = np.zeros(self.num, bool)
        for row, (line, posts) in enumerate(zip(ROWS, POSTS, strict=True)):
            touched |= (np.hypot(x[:, None] - np.array(posts), (y - line)[:, None]) < TOUCH).any(1)
            gap = 1.0 + np.searchsorted(posts, x)
            self.memory[:, row] = np.where((y > line) & (self.memory[:, row] == 0), gap, self.memory[:, row])
        success = (y >= GOAL_Y) & ~touched
        return success.astype(float), success | touched, success

    def metrics(self, row: int) -> dict[str, Any]:
        """The way taken: the gaps of the rows as digits, 0 for a row that was not passed."""
        return {"way": "".join(str(int(gap)) for gap in self.memory[row, :3])}

    def expert(self) -> np.ndarray:
        """To the left or to the right of the post before it, as the episode prefers: eight ways, each as often."""
        x, y = self.physics.qpos.T
        bits = (self.memory[:, 3:] * 8).astype(int) >> np.arange(3) & 1
        target = np.column_stack([x, np.full(self.num, GOAL_Y + 0.02)])
        place, waiting = np.zeros(self.num, int), np.ones(self.num, bool)
        for row, line in enumerate(ROWS):
            place = place + bits[:, row]
            gap = np.asarray(GAPS[row])[place]
            here = waiting & (y < line + TOUCH)
            ahead = np.where(abs(x - gap) < ALIGNED, line + CLEAR, line - CLEAR)
            target[here] = np.column_stack([gap, ahead])[here]
            waiting &= ~here
        actions: np.ndarray = np.clip(target, [-REACH_X, -REACH_Y], [REACH_X, REACH_Y]).astype(np.float32)
        return actions

    def rest_action(self, row: int) -> np.ndarray:
        """Where the finger is."""
        action: np.ndarray = self.physics.qpos[row].astype(np.float32)
        return action

    def see_finger_position(self) -> np.ndarray:
        """[N, 2]."""
        return self.physics.qpos

    def see_finger_velocity(self) -> np.ndarray:
        """[N, 2]."""
        return self.physics.qvel
