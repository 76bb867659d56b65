"""Checks of a motion beyond the joints' own limits: workspace of the end-effector, self-collision.

A check is a callable from joint positions along a motion [n, dof] rad to None, or to the name of what forbids it.

Distances are measured rarely: one radian of a joint moves no point of the arm further than its lever, so a distance
that was measured in one position proves every position free that is nearer to it, in the sum over joints of lever times
angle. That holds for whole balls of positions, not only for the samples of a motion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import mujoco
import numpy as np

from robot_rl.sim.compiled import compiled
from robot_rl.sim.kinematics import Kinematics, levers

Check = Callable[[np.ndarray], str | None]

MEMORY = 4
"""Positions for which a distance is remembered: a motion is planned again and again along nearly the same path."""

_NUDGES = (1e-4, -1e-4, 2e-4, -2e-4)
"""mj_geomDistance of MuJoCo 3.3.5 to 3.10 says exactly zero for one in a hundred pairs of meshes far from each other
(google-deepmind/mujoco#3383); it is asked again a hair beside, in every joint [rad]."""


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
        self._clearance = _Clearance(kinematics.levers[None], self._measure)

    def __call__(self, path: np.ndarray) -> str | None:
        return None if self._clearance.stays(path) else "workspace"

    def _measure(self, position: np.ndarray, _: np.ndarray) -> np.ndarray:
        point = self._kinematics.forward(position)[:3]
        return np.array([min((point - self.lower).min(), (self.upper - point).min())])


class SelfCollision:
    """Keeps the arm from touching itself, by the collision geometry of a MuJoCo model.

    The pairs of geoms are those that MuJoCo would collide. Those that are near each other in the home pose (neighbours,
    mostly) never count.

    Args:
        model: any model that holds the arm; it is read, never changed.
        joints: names of the arm's joints, in the order of every joint vector.
        base: name of the body that everything belonging to the arm hangs from.
        home: a joint position [dof] rad without collision.
        margin: distance between two parts that counts as a touch [m].
    """

    def __init__(
        self, model: mujoco.MjModel, joints: Sequence[str], base: str, home: np.ndarray, margin: float = 0.005
    ) -> None:
        self._model, self._margin = model, margin
        self._data = mujoco.MjData(model)
        self._addresses = np.array([model.joint(name).qposadr[0] for name in joints])
        reach = {
            geom: levers(model, joints, model.geom_bodyid[geom], _radius(model, geom))
            for geom in range(model.ngeom)
            if model.body(base).id in _ancestors(model, model.geom_bodyid[geom])
        }
        pairs, moves = [], []
        for one, other in _colliding(model, list(reach)):
            # A joint below both parts moves them together.
            apart = np.where((reach[one] > 0) & (reach[other] > 0), 0.0, np.maximum(reach[one], reach[other]))
            if apart.any():
                pairs.append((one, other))
                moves.append(apart)
        self._pairs = pairs
        far = self._measure(np.asarray(home, float), np.arange(len(pairs))) >= 0
        self._pairs = [pair for pair, counts in zip(pairs, far, strict=True) if counts]
        self._clearance = _Clearance(np.reshape(moves, (-1, len(joints)))[far], self._measure)

    def __call__(self, path: np.ndarray) -> str | None:
        return None if self._clearance.stays(path) else "self_collision"

    def _measure(self, position: np.ndarray, indices: np.ndarray) -> np.ndarray:
        distances = self._distances(position, indices)
        for nudge in _NUDGES:
            failed = distances == 0.0
            if not failed.any():
                break
            distances[failed] = self._distances(position + nudge, indices[failed])
        return distances - self._margin

    def _distances(self, position: np.ndarray, indices: np.ndarray) -> np.ndarray:
        self._data.qpos[self._addresses] = position
        mujoco.mj_kinematics(self._model, self._data)
        distance, model, data, pairs = mujoco.mj_geomDistance, self._model, self._data, self._pairs
        return np.array([distance(model, data, *pairs[index], 10.0, None) for index in indices])


class _Clearance:
    """Tells whether distances stay positive along a motion, from as few measurements as possible.

    Args:
        lever: by how much a distance changes at most with each joint [distances, dof] m/rad.
        measure: from a position [dof] and indices [k] of distances to those distances [k] m.
    """

    def __init__(self, lever: np.ndarray, measure: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        count, dof = lever.shape
        self._lever, self._measure = lever, measure
        self._places = np.zeros((count, MEMORY, dof))
        self._distances = np.full((count, MEMORY), -np.inf)
        self._oldest = np.zeros(count, np.int64)

    def stays(self, path: np.ndarray) -> bool:
        """Whether all distances are positive, or zero, at all positions [n, dof]."""
        path, begin = np.ascontiguousarray(path), 0  # one layout, compiled once
        while True:
            begin, wanted = _unproven(path, begin, self._lever, self._places, self._distances, self._oldest)
            if begin == len(path):
                return True
            measured = self._measure(path[begin], wanted)
            if not (measured >= 0).all():
                return False
            slot = self._oldest[wanted]
            self._places[wanted, slot] = path[begin]
            self._distances[wanted, slot] = measured
            self._oldest[wanted] = (slot + 1) % MEMORY
            # What was measured here is known here, even where it is exactly zero.
            begin += 1


@compiled
def _unproven(
    path: np.ndarray, begin: int, lever: np.ndarray, places: np.ndarray, distances: np.ndarray, oldest: np.ndarray
) -> tuple[int, np.ndarray]:
    """The first position from `begin` on for which some distances are not known to be positive, and what to measure.

    That is those distances, and along with them all that are known to be positive by less than half of what they were.
    """
    count, memory, dof = places.shape
    wanted = np.empty(count, np.int64)
    for index in range(begin, len(path)):
        found, unknown = 0, False
        for row in range(count):
            room, known = 0.0, False
            for age in range(1, memory + 1):
                slot = (oldest[row] - age) % memory
                left = distances[row, slot]
                if left > room:
                    for joint in range(dof):
                        left -= lever[row, joint] * abs(path[index, joint] - places[row, slot, joint])
                    room = max(room, left)
                    known = room > 0.5 * distances[row, slot]
                    if known:
                        break
            if not known:
                wanted[found] = row
                found += 1
                unknown |= room <= 0.0
        if unknown:
            return index, wanted[:found]
    return len(path), wanted[:0]


def _colliding(model: mujoco.MjModel, geoms: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The pairs that MuJoCo would collide: by their bits, unless of one body, of parent and child, or excluded."""
    parent = model.body_weldid[model.body_parentid[model.body_weldid]]
    for position, one in enumerate(geoms):
        for other in geoms[position + 1 :]:
            bodies = sorted((int(model.geom_bodyid[one]), int(model.geom_bodyid[other])))
            first, second = (int(model.body_weldid[body]) for body in bodies)
            bits = (model.geom_contype[one] & model.geom_conaffinity[other]) | (
                model.geom_contype[other] & model.geom_conaffinity[one]
            )
            fixed = 0 in (first, second)
            related = first == second or (not fixed and (parent[first] == second or parent[second] == first))
            if bits and not related and (bodies[0] << 16) + bodies[1] not in model.exclude_signature:
                yield one, other


def _radius(model: mujoco.MjModel, geom: int) -> float:
    """Radius of a sphere around the origin of its body that holds a geom [m]."""
    return float(np.linalg.norm(model.geom_pos[geom]) + model.geom_rbound[geom])


def _ancestors(model: mujoco.MjModel, body: int) -> list[int]:
    """A body and all that it hangs from."""
    found = [int(body)]
    while found[-1]:
        found.append(int(model.body_parentid[found[-1]]))
    return found
