"""Checks of a motion beyond the joints' own limits: workspace of the end-effector, self-collision.

A check is a callable from joint positions along a motion [n, dof] rad to None, or to the name of what forbids it.

Distances are measured rarely: one radian of a joint moves no point of the arm further than its lever, so a distance
that was measured in one position proves every position free that is nearer to it, in the sum over joints of lever times
angle. That holds for whole balls of positions, not only for the samples of a motion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from robot_rl.sim.compiled import compiled
from robot_rl.sim.kinematics import Kinematics, levers
from robot_rl.sim.mujoco_native import mj_geomDistance, mj_kinematics

Check = Callable[[np.ndarray], str | None]

MEMORY = 4
"""Positions for which a distance is remembered: a motion is planned again and again along nearly the same path."""

_NUDGES = (1e-4, -1e-4, 2e-4, -2e-4)
"""mj_geomDistance of MuJoCo 3.3.5 to 3.10 says exactly zero for one in a hundred pairs of meshes far from each other
(google-deepmind/mujoco#3383); it is asked again a hair beside, in every joint [rad]."""

_FAR = 10.0
"""Distances are measured up to here [m]."""


class WorkspaceBox:
    """Keeps the end-effector inside a box.

    Args:
        kinematics: of the arm.
        lower, upper: corners of the box [3] m, in the base frame.
    """

    def __init__(self, kinematics: Kinematics, lower: Sequence[float], upper: Sequence[float]) -> None:
        self.lower, self.upper = np.array(lower, float), np.array(upper, float)
        if self.lower.shape != (3,) or self.upper.shape != (3,) or not (self.lower < self.upper).all():
            raise ValueError(f"workspace box: expected lower < upper, three numbers each, got {lower} and {upper}")
        self._model, self._data = kinematics.chain, mujoco.MjData(kinematics.chain)
        self._arm = _arm(self._model, self._data, kinematics.joints)
        self._known = _nothing_known(kinematics.levers[None])

    def __call__(self, path: np.ndarray) -> str | None:
        inside = _stays_inside(np.array(path, float), self._known, self._arm, self.lower, self.upper)
        return None if inside else "workspace"


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

    Attributes:
        pairs: ids of the geoms that are kept apart [p, 2].
    """

    def __init__(
        self, model: mujoco.MjModel, joints: Sequence[str], base: str, home: np.ndarray, margin: float = 0.005
    ) -> None:
        self._model, self._data, self._margin = model, mujoco.MjData(model), margin
        self._arm = _arm(self._model, self._data, joints)
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
        candidates = np.array(pairs, np.int64).reshape(-1, 2)
        far = _gaps(np.array(home, float), np.arange(len(pairs)), self._arm, candidates, margin) >= 0
        self.pairs = candidates[far]
        self._known = _nothing_known(np.reshape(moves, (-1, len(joints)))[far])

    def __call__(self, path: np.ndarray) -> str | None:
        apart = _stay_apart(np.array(path, float), self._known, self._arm, self.pairs, self._margin)
        return None if apart else "self_collision"


class _Arm(NamedTuple):
    """A model and its data for compiled code, which must both outlive it: addresses, views, places of the joints."""

    model: int
    data: int
    qpos: np.ndarray
    site_xpos: np.ndarray
    joints: np.ndarray


class _Known(NamedTuple):
    """What is known about distances.

    Attributes:
        lever: by how much a distance changes at most with each joint [distances, dof] m/rad.
        places: where it was measured [distances, MEMORY, dof].
        gaps: and what it was there [distances, MEMORY] m.
        oldest: which measurement the next one replaces [distances].
    """

    lever: np.ndarray
    places: np.ndarray
    gaps: np.ndarray
    oldest: np.ndarray


def _arm(model: mujoco.MjModel, data: mujoco.MjData, joints: Sequence[str]) -> _Arm:
    addresses = np.array([model.joint(name).qposadr[0] for name in joints], np.int64)
    return _Arm(model._address, data._address, data.qpos, data.site_xpos, addresses)


def _nothing_known(lever: np.ndarray) -> _Known:
    count, dof = lever.shape
    places, gaps = np.zeros((count, MEMORY, dof)), np.full((count, MEMORY), -np.inf)
    return _Known(np.array(lever, float), places, gaps, np.zeros(count, np.int64))


@compiled
def _stays_inside(path: np.ndarray, known: _Known, arm: _Arm, lower: np.ndarray, upper: np.ndarray) -> bool:
    """Whether the end-effector, the only site, is inside the box at all positions [n, dof]."""
    doubtful = _doubtful(path, known)
    for position in path:
        wanted = _unknown(position, doubtful, known)
        if len(wanted) > 0:
            _place(arm, position, 0.0)
            room = np.inf
            for axis in range(3):
                room = min(room, arm.site_xpos[0, axis] - lower[axis], upper[axis] - arm.site_xpos[0, axis])
            if not _remember(position, wanted, np.full(len(wanted), room), known):
                return False
    return True


@compiled
def _stay_apart(path: np.ndarray, known: _Known, arm: _Arm, pairs: np.ndarray, margin: float) -> bool:
    """Whether the geoms of all pairs [p, 2] are at least the margin apart at all positions [n, dof]."""
    doubtful = _doubtful(path, known)
    for position in path:
        wanted = _unknown(position, doubtful, known)
        if len(wanted) > 0 and not _remember(position, wanted, _gaps(position, wanted, arm, pairs, margin), known):
            return False
    return True


@compiled
def _gaps(position: np.ndarray, wanted: np.ndarray, arm: _Arm, pairs: np.ndarray, margin: float) -> np.ndarray:
    """Distances beyond the margin [k] m of the wanted [k] pairs at a position [dof]."""
    gaps = np.zeros(len(wanted))
    for nudge in (0.0, *_NUDGES):
        if (gaps == 0.0).any():
            _place(arm, position, nudge)
            for index, row in enumerate(wanted):
                if gaps[index] == 0.0:
                    one, other = pairs[row]
                    gaps[index] = mj_geomDistance(arm.model, arm.data, one, other, _FAR, 0)
    return gaps - margin


@compiled
def _place(arm: _Arm, position: np.ndarray, offset: float) -> None:
    for joint in range(len(position)):
        arm.qpos[arm.joints[joint]] = position[joint] + offset
    mj_kinematics(arm.model, arm.data)


@compiled
def _remember(place: np.ndarray, wanted: np.ndarray, gaps: np.ndarray, known: _Known) -> bool:
    """Keep what was measured, unless something is too near."""
    if not (gaps >= 0.0).all():
        return False
    for index, row in enumerate(wanted):
        slot = known.oldest[row]
        known.places[row, slot] = place
        known.gaps[row, slot] = gaps[index]
        known.oldest[row] = (slot + 1) % MEMORY
    return True


@compiled
def _doubtful(path: np.ndarray, known: _Known) -> np.ndarray:
    """Which distances are not known at once to be positive wherever joints are between their extremes on the path."""
    low, high = np.full(path.shape[1], np.inf), np.full(path.shape[1], -np.inf)
    for position in path:
        low, high = np.minimum(low, position), np.maximum(high, position)
    rows = np.empty(len(known.lever), np.int64)
    count = 0
    for row in range(len(rows)):
        if not _is_known(row, low, high, known):
            rows[count] = row
            count += 1
    return rows[:count]


@compiled
def _unknown(position: np.ndarray, rows: np.ndarray, known: _Known) -> np.ndarray:
    """Which of these distances are not known to be positive at a position [dof]."""
    wanted = np.empty(len(rows), np.int64)
    count = 0
    for row in rows:
        if not _is_known(row, position, position, known):
            wanted[count] = row
            count += 1
    return wanted[:count]


@compiled
def _is_known(row: int, low: np.ndarray, high: np.ndarray, known: _Known) -> bool:
    """Whether a distance was measured so near to all positions between two [dof] that it is positive there."""
    for age in range(1, MEMORY + 1):
        slot = (known.oldest[row] - age) % MEMORY
        left = known.gaps[row, slot]
        for joint in range(len(low)):
            if left <= 0.0:
                break
            place = known.places[row, slot, joint]
            left -= known.lever[row, joint] * max(abs(low[joint] - place), abs(high[joint] - place))
        if left > 0.0:
            return True
    return False


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
