"""Pushing a T to a goal pose with a round finger, in the plane (Chi et al. 2023; Florence et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_rl.datasets.contract import Feature
from robot_rl.sim.lean.coverage import coverage
from robot_rl.sim.lean.push_t_expert import RADIUS, distance, push
from robot_rl.sim.lean.world import LeanWorld

CENTRES, HALVES = (
    np.array([[0.0, -0.18 / 7], [0.0, 0.24 / 7]]),
    np.array([[0.06, 0.015], [0.015, 0.045]]),
)
"""Of bar and stem, in the frame of the T, whose origin is the centre of mass [m]."""
GOAL = np.array([0.0, 0.0, np.pi / 4])
"""Where the T belongs: x, y [m] and yaw."""
COVERED = 0.95
"""Share of the goal's area that counts as success."""
REACH, STEP = 0.3, 0.04
"""How far from the middle, and from where it is, the finger may be sent [m]."""


class PushT(LeanWorld):
    """See the module. Memory: the greatest coverage of the episode."""

    RATE_HZ, HORIZON, MEMORY = 10, 300, 1
    CONTROLLER = "push_t_position"
    ACTION = (
        Feature("target", (2,), kind="action", names=("x", "y"), unit="m", frame="world", lower=(-REACH,) * 2,
                upper=(REACH,) * 2),
    )  # fmt: skip
    OBSERVATION = (
        Feature("finger_position", (2,), names=("x", "y"), unit="m", frame="world"),
        Feature("finger_velocity", (2,), names=("x", "y"), unit="m/s", frame="world"),
        Feature("t_position", (2,), names=("x", "y"), unit="m", frame="world"),
        Feature("t_heading", (2,), names=("cos", "sin"), frame="world"),
    )

    def place(self, rows: np.ndarray, generators: Sequence[np.random.Generator]) -> None:
        """T and finger anywhere, apart from each other."""
        for row, generator in zip(rows, generators, strict=True):
            pose = np.append(generator.uniform(-0.15, 0.15, 2), generator.uniform(-np.pi, np.pi))
            finger = generator.uniform(-0.2, 0.2, 2)
            while distance(pose[None], finger[None], CENTRES, HALVES)[0] < RADIUS + 0.005:
                finger = generator.uniform(-0.2, 0.2, 2)
            self.physics.qpos[row] = [*pose, *finger]
        self.memory[rows, 0] = self.coverage[rows]

    def command(self, actions: np.ndarray) -> np.ndarray:
        """Targets of the finger's servos, not further than a step."""
        away = actions - self.physics.qpos[:, 3:]
        length = np.linalg.norm(away, axis=1, keepdims=True)
        targets: np.ndarray = self.physics.qpos[:, 3:] + away * np.minimum(1.0, STEP / np.maximum(length, 1e-9))
        return targets

    def judge(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reward is the coverage, 1 from success on."""
        covered = self.coverage
        self.memory[:, 0] = np.maximum(self.memory[:, 0], covered)
        success = covered >= COVERED
        return np.minimum(covered / COVERED, 1.0), success, success

    def metrics(self, row: int) -> dict[str, Any]:
        """Coverage now and at its best."""
        return {"coverage": float(self.coverage[row]), "best_coverage": float(self.memory[row, 0])}

    def expert(self) -> np.ndarray:
        """See `push_t_expert.push`."""
        targets = push(self.physics.qpos[:, :3], self.physics.qpos[:, 3:], GOAL, CENTRES, HALVES, REACH)
        actions: np.ndarray = np.clip(targets, -REACH, REACH).astype(np.float32)
        return actions

    def rest_action(self, row: int) -> np.ndarray:
        """Where the finger is."""
        return self.physics.qpos[row, 3:].astype(np.float32)

    @property
    def coverage(self) -> np.ndarray:
        """Share of the goal that is covered now [N]."""
        return coverage(self.physics.qpos[:, :3], GOAL, CENTRES, HALVES)

    def see_finger_position(self) -> np.ndarray:
        """[N, 2]."""
        return self.physics.qpos[:, 3:]

    def see_finger_velocity(self) -> np.ndarray:
        """[N, 2]."""
        return self.physics.qvel[:, 3:]

    def see_t_position(self) -> np.ndarray:
        """[N, 2]."""
        return self.physics.qpos[:, :2]

    def see_t_heading(self) -> np.ndarray:
        """[N, 2]."""
        return np.column_stack([np.cos(self.physics.qpos[:, 2]), np.sin(self.physics.qpos[:, 2])])
