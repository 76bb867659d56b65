"""A drawer to open and one to close: two tasks of one scene, each of which begins where the other ends.

To open it a finger hooks behind the bar of the handle and pulls; to close it, it pushes at the bar or at the front. The
state at the end of an episode of one task, with its first number (the steps) set to 0, begins one of the other: so
both can be learned without resets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from robot_rl.datasets.contract import Feature
from robot_rl.sim.lean.world import LeanWorld

SCALE = 0.01
"""Motion of an action of 1 [m]."""
LOW, HIGH = np.array([-0.2, -0.35, 0.0]), np.array([0.2, 0.1, 0.2])
"""Where the finger may be sent [m]."""
OPEN, CLOSED = 0.12, 0.004
"""Extension of the drawer from which it is open, and up to which it is closed [m]."""
FARTHEST = 0.16
"""Of the drawer [m]."""
SPREAD = np.array([0.05, 0.03])
"""Of the cabinet's x and y about the middle [m]."""
START_LOW, START_HIGH = np.array([-0.08, -0.2, 0.1]), np.array([0.08, -0.06, 0.15])
HANDLE = np.array([0.0, -0.046, 0.05])
"""Middle of the bar against the cabinet, when the drawer is closed [m]."""

BEHIND, BEFORE = 0.017, -0.03
"""y, against the bar, at which the expert's finger goes down to hook and to push [m]."""
HOVER, DOWN = 0.05, -0.025
"""z, against the bar, of the tip that moves over it, and of the one that has gone down [m]."""
CLEAR, LOWERED = 0.043, -0.01
"""z above which the tip passes bar and front, and below which it holds the bar [m]."""


class Drawer(LeanWorld):
    """What both tasks share. Memory: none."""

    HORIZON = 100
    CONTROLLER = "finger_delta"
    ACTION = (
        Feature("translation", (3,), kind="action", names=("x", "y", "z"), frame="world", mode="delta",
                relative_to="measured", lower=(-1.0,) * 3, upper=(1.0,) * 3),
    )  # fmt: skip
    OBSERVATION = (
        Feature("finger_position", (3,), names=("x", "y", "z"), unit="m", frame="world", representation="position"),
        Feature("finger_velocity", (3,), names=("x", "y", "z"), unit="m/s", frame="world"),
        Feature("handle_position", (3,), names=("x", "y", "z"), unit="m", frame="world", representation="position"),
        Feature("finger_from_handle", (3,), names=("x", "y", "z"), unit="m", frame="world"),
        Feature("extension", (1,), unit="m"),
        Feature("extension_speed", (1,), unit="m/s"),
    )
    START: ClassVar[tuple[float, float]]
    """Extensions at which episodes begin [m]."""

    def place(self, rows: np.ndarray, generators: Sequence[np.random.Generator]) -> None:
        """The cabinet somewhere, the drawer as the task wants it, the finger above and before it."""
        for row, generator in zip(rows, generators, strict=True):
            x, y = generator.uniform(-SPREAD, SPREAD)
            self.physics.mocap[row, 0] = [x, y, 0.0, 1.0, 0.0, 0.0, 0.0]
            self.physics.qpos[row, 0] = generator.uniform(*self.START)
            self.physics.qpos[row, 1:] = generator.uniform(START_LOW, START_HIGH)

    def command(self, actions: np.ndarray) -> np.ndarray:
        """Targets of the servos: so far from where the finger is."""
        return np.clip(self.physics.qpos[:, 1:] + SCALE * actions, LOW, HIGH)

    def judge(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reward 1 and the end when the drawer is as it should be."""
        success = self.reached()
        return success.astype(float), success, success

    def reached(self) -> np.ndarray:
        """Whether the drawer is as the task wants it, [N]."""
        raise NotImplementedError

    def metrics(self, row: int) -> dict[str, Any]:
        """Extension of the drawer [m]."""
        return {"extension": float(self.physics.qpos[row, 0])}

    def over_the_bar(self, y: float) -> tuple[np.ndarray, np.ndarray]:
        """Motions [N, 3] that bring the tip down at `y` against the bar, and where it has arrived there, [N]."""
        away = self.see_finger_from_handle()
        held = (abs(away[:, 0]) < 0.03) & (away[:, 2] < LOWERED) & (np.sign(away[:, 1]) == np.sign(y))
        held &= abs(away[:, 1]) < 0.04
        above = (abs(away[:, 0]) < 0.01) & (abs(away[:, 1] - y) < 0.004)
        passing = above | (away[:, 2] > CLEAR)
        height = np.where(above, DOWN, HOVER) - away[:, 2]
        motion = np.column_stack([-away[:, 0], y - away[:, 1], height])
        motion[~passing, :2] = 0.0  # up first
        return motion, held

    def along(self, direction: float, held: np.ndarray, motion: np.ndarray) -> np.ndarray:
        """Actions [N, A] of some motions, and with all speed along y where the bar is held."""
        away = self.see_finger_from_handle()
        pushing = np.column_stack([-away[:, 0], np.full(self.num, direction * SCALE), DOWN - away[:, 2]])
        wanted = np.where(held[:, None], pushing, motion)
        return np.clip(wanted / SCALE, -1.0, 1.0).astype(np.float32)

    def see_finger_position(self) -> np.ndarray:
        """[N, 3]."""
        return self.physics.qpos[:, 1:]

    def see_finger_velocity(self) -> np.ndarray:
        """[N, 3]."""
        return self.physics.qvel[:, 1:]

    def see_handle_position(self) -> np.ndarray:
        """[N, 3]: the middle of its bar."""
        handle: np.ndarray = self.physics.mocap[:, 0, :3] + HANDLE
        handle[:, 1] -= self.physics.qpos[:, 0]
        return handle

    def see_finger_from_handle(self) -> np.ndarray:
        """[N, 3]: the tip against the middle of the bar."""
        away: np.ndarray = self.physics.qpos[:, 1:] - self.see_handle_position()
        return away

    def see_extension(self) -> np.ndarray:
        """[N, 1]."""
        return self.physics.qpos[:, :1]

    def see_extension_speed(self) -> np.ndarray:
        """[N, 1]."""
        return self.physics.qvel[:, :1]


class DrawerOpen(Drawer):
    """See the module."""

    START = (0.0, CLOSED)

    def reached(self) -> np.ndarray:
        """Open, [N]."""
        return self.physics.qpos[:, 0] >= OPEN

    def expert(self) -> np.ndarray:
        """Over the bar, down behind it, and back."""
        motion, hooked = self.over_the_bar(BEHIND)
        return self.along(-1.0, hooked, motion)


class DrawerClose(Drawer):
    """See the module."""

    START = (OPEN, FARTHEST)

    def reached(self) -> np.ndarray:
        """Closed, [N]."""
        return self.physics.qpos[:, 0] <= CLOSED

    def expert(self) -> np.ndarray:
        """Down before the bar, and on; from behind it, on at once."""
        motion, before = self.over_the_bar(BEFORE)
        _, behind = self.over_the_bar(BEHIND)
        return self.along(1.0, before | behind, motion)
