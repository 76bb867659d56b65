"""Peg in hole: a square peg, a hole that is 2 mm wider and stands elsewhere in each episode, success when it is in.

Edges meet like chamfers of half a millimetre: time steps are 5 ms, in which the peg comes down by as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_rl.datasets.contract import Feature
from robot_rl.sim.lean.world import LeanWorld

GAP = 0.001
"""Between peg and hole on each side when the peg is in the middle [m]."""
DEPTH = 0.03
"""In the hole, of 40 mm, that counts as success [m]."""
SLACK = 0.0005
"""By which contacts may yield [m]."""
SCALE = np.array([0.005, 0.005, 0.005, 0.05])
"""Of an action of 1 [m, m, m, rad]."""
LOW, HIGH = np.array([-0.12, -0.12, -0.05, -1.2]), np.array([0.12, 0.12, 0.12, 1.2])
"""Where the peg may be sent [m, m, m, rad]."""
HOLE_SPREAD, HOLE_TURN = 0.05, 0.35
"""Of the hole's position [m] and yaw [rad] about the middle; less than an eighth of a turn with that of the peg."""
START_LOW, START_HIGH = np.array([-0.05, -0.05, 0.05, -0.35]), np.array([0.05, 0.05, 0.09, 0.35])

HOVER = 0.008
"""Height at which the expert moves until it is above the hole [m]."""
NEAR, NEARLY = 0.0007, 0.03
"""Deviations from the hole at which it goes down [m], [rad]."""


class Peg(LeanWorld):
    """See the module. Memory: none."""

    CONTROLLER = "peg_delta"
    ACTION = (
        Feature("translation", (3,), kind="action", names=("x", "y", "z"), frame="world", mode="delta",
                relative_to="measured", lower=(-1.0,) * 3, upper=(1.0,) * 3),
        Feature("turn", (1,), kind="action", frame="world", mode="delta", relative_to="measured",
                lower=(-1.0,), upper=(1.0,)),
    )  # fmt: skip
    OBSERVATION = (
        Feature("peg_position", (3,), names=("x", "y", "z"), unit="m", frame="world", representation="position"),
        Feature("peg_yaw", (1,), unit="rad", frame="world"),
        Feature("peg_velocity", (3,), names=("x", "y", "z"), unit="m/s", frame="world"),
        Feature("peg_yaw_rate", (1,), unit="rad/s", frame="world"),
        Feature("hole_position", (3,), names=("x", "y", "z"), unit="m", frame="world", representation="position"),
        Feature("hole_yaw", (1,), unit="rad", frame="world"),
        Feature("peg_in_hole", (4,), names=("x", "y", "z", "yaw"), frame="hole"),
    )

    def place(self, rows: np.ndarray, generators: Sequence[np.random.Generator]) -> None:
        """The peg above the plate, the hole in the plate, both turned."""
        for row, generator in zip(rows, generators, strict=True):
            x, y = generator.uniform(-HOLE_SPREAD, HOLE_SPREAD, 2)
            half = generator.uniform(-HOLE_TURN, HOLE_TURN) / 2
            self.physics.mocap[row, 0] = [x, y, 0.0, np.cos(half), 0.0, 0.0, np.sin(half)]
            self.physics.qpos[row] = generator.uniform(START_LOW, START_HIGH)

    def command(self, actions: np.ndarray) -> np.ndarray:
        """Targets of the servos: so far from where the peg is."""
        targets: np.ndarray = np.clip(self.physics.qpos + SCALE * actions, LOW, HIGH)
        return targets

    def judge(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reward 1 and the end when the peg is in the hole."""
        x, y, z, _ = self.see_peg_in_hole().T
        success = (-z >= DEPTH) & (np.maximum(abs(x), abs(y)) <= GAP + SLACK)
        return success.astype(float), success, success

    def metrics(self, row: int) -> dict[str, Any]:
        """Depth of the peg's lower face below the plate's upper one [m]."""
        return {"depth": float(-self.physics.qpos[row, 2])}

    def expert(self) -> np.ndarray:
        """Above the hole, then down; up again where it missed."""
        away = self.see_peg_in_hole()
        inside = away[:, 2] < -2 * GAP
        above = (np.linalg.norm(away[:, :2], axis=1) < NEAR) & (abs(away[:, 3]) < NEARLY)
        down = np.where(inside | above, -SCALE[2], HOVER - away[:, 2])
        wanted = np.column_stack([self._hole_xy - self.physics.qpos[:, :2], down, -away[:, 3]])
        actions: np.ndarray = np.clip(wanted / SCALE, -1.0, 1.0).astype(np.float32)
        return actions

    def see_peg_position(self) -> np.ndarray:
        """[N, 3]."""
        return self.physics.qpos[:, :3]

    def see_peg_yaw(self) -> np.ndarray:
        """[N, 1]."""
        return self.physics.qpos[:, 3:]

    def see_peg_velocity(self) -> np.ndarray:
        """[N, 3]."""
        return self.physics.qvel[:, :3]

    def see_peg_yaw_rate(self) -> np.ndarray:
        """[N, 1]."""
        return self.physics.qvel[:, 3:]

    def see_hole_position(self) -> np.ndarray:
        """[N, 3]."""
        return self.physics.mocap[:, 0, :3]

    def see_hole_yaw(self) -> np.ndarray:
        """[N, 1]."""
        yaw: np.ndarray = 2 * np.arctan2(self.physics.mocap[:, 0, 6:], self.physics.mocap[:, 0, 3:4])
        return yaw

    def see_peg_in_hole(self) -> np.ndarray:
        """[N, 4]: position in the frame of the hole, and yaw against it."""
        yaw = self.see_hole_yaw()[:, 0]
        x, y = (self.physics.qpos[:, :2] - self._hole_xy).T
        cosine, sine = np.cos(yaw), np.sin(yaw)
        return np.column_stack([
            cosine * x + sine * y, cosine * y - sine * x, self.physics.qpos[:, 2], self.physics.qpos[:, 3] - yaw
        ])  # fmt: skip

    @property
    def _hole_xy(self) -> np.ndarray:
        return self.physics.mocap[:, 0, :2]
