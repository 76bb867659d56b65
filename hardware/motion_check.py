"""Checks of a joint position beyond the joints' own limits: workspace of the end-effector, self-collision.

A check is a callable from a joint position [dof] rad to None, or to the name of what forbids the position.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from robot_rl.sim.kinematics import Kinematics

Check = Callable[[np.ndarray], str | None]


class WorkspaceBox:
    """Keeps the end-effector inside a box.

    Args:
        kinematics: of the arm.
        lower, upper: corners of the box [3] m, in the base frame.
    """

    def __init__(self, kinematics: Kinematics, lower: Sequence[float], upper: Sequence[float]) -> None:
        self._kinematics = kinematics
        self.lower, self.upper = np.array(lower, float), np.array(upper, float)
        if self.lower.shape != (3,) or self.upper.shape != (3,) or not (self.lower < self.upper).all():
            raise ValueError(f"workspace box: expected lower < upper, three numbers each, got {lower} and {upper}")

    def __call__(self, position: np.ndarray) -> str | None:
        point = self._kinematics.forward(position)[:3]
        return None if (point >= self.lower).all() and (point <= self.upper).all() else "workspace"


class SelfCollision:
    """Keeps the arm from touching itself, by the collision geometry of a MuJoCo model.

    Pairs of geoms that are near each other in the home pose (neighbours, mostly) never count.

    Args:
        model: any model that holds the arm; it is copied.
        joints: names of the arm's joints, in the order of every joint vector.
        base: name of the body that everything belonging to the arm hangs from.
        home: a joint position [dof] rad without collision.
        margin: distance between two parts that counts as a touch [m].
    """

    def __init__(
        self, model: mujoco.MjModel, joints: Sequence[str], base: str, home: np.ndarray, margin: float = 0.005
    ) -> None:
        self._model = copy.copy(model)
        self._data = mujoco.MjData(self._model)
        self._addresses = np.array([self._model.joint(name).qposadr[0] for name in joints])
        root = self._model.body(base).id
        arm = np.array([_hangs_from(self._model, body, root) for body in self._model.geom_bodyid])
        self._model.geom_contype[~arm] = 0
        self._model.geom_conaffinity[~arm] = 0
        self._model.geom_margin[arm] = margin
        self._margin = margin
        self._allowed: set[tuple[int, int]] = set()
        self._allowed = set(self._touching(np.asarray(home, float)))

    def __call__(self, position: np.ndarray) -> str | None:
        return "self_collision" if any(pair not in self._allowed for pair in self._touching(position)) else None

    def _touching(self, position: np.ndarray) -> list[tuple[int, int]]:
        self._data.qpos[self._addresses] = position
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_collision(self._model, self._data)
        if self._data.ncon == 0:
            return []
        contacts = self._data.contact
        near = contacts.dist < self._margin
        return [(int(one), int(other)) for one, other in contacts.geom[near]]


def _hangs_from(model: mujoco.MjModel, body: int, root: int) -> bool:
    while body not in (0, root):
        body = model.body_parentid[body]
    return bool(body == root)
