"""Forward and differential inverse kinematics of one arm, from base to end-effector.

The chain between two bodies is cut out of any MuJoCo model, so that the same class serves a simulated scene with
objects and the bare model of a real robot. The inverse is differential: each iteration solves a quadratic program with
joint limits, a displacement limit (velocity limit times the time at hand), a home posture for the redundant joint, and
damping that grows near singularities. That is the program of `mink`, but for errors of position and rotation apart
instead of one screw; here the iterations are one call of compiled code, which `daqp` interrupts where a limit is in the
way.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_int
from typing import NamedTuple

import daqp
import mujoco
import numpy as np

from robot_rl.sim.compiled import compiled
from robot_rl.sim.mujoco_native import mj_kinematics

POSTURE_COST = 3e-3
"""Pull of each joint towards home, against 1 per metre and radian of pose error: holds the elbow, costs < 0.05 mm."""

POSTURE_GAIN = 0.1
"""Part of the way home that the redundant joint goes in one iteration, so that the elbow does not jump."""

ITERATIONS = 8
CONVERGED = 1e-5
"""Pose error (m and rad together) at which the iteration stops."""

DAMPING = 0.05
SINGULAR = 0.05
"""Damping factor at a singularity, and the smallest singular value of the Jacobian below which it sets in: λ² =
DAMPING² (1 - (σ / SINGULAR)²), Nakamura and Hanafusa, Inverse kinematic solutions with singularity robustness, 1986."""


ERROR_DAMPING = 1.0
"""Damping per squared pose error: keeps the joints quiet when a pose is out of reach, and vanishes on arrival."""


_ENDLESS = (-2 * np.pi, 2 * np.pi)
"""Range of a joint that turns without stops, unless limits are given."""


class KinematicsError(ValueError):
    """The model has no such chain, or a pose or joint vector is malformed."""


class _Chain(NamedTuple):
    """Addresses of the chain's model and data, and views of the data's arrays, joints in the model's order."""

    model: int
    data: int
    qpos: np.ndarray
    anchor: np.ndarray
    axis: np.ndarray
    position: np.ndarray
    """[3] of the end-effector in the base frame, as all vectors here."""
    quaternion: np.ndarray
    """[4]"""
    order: np.ndarray
    """[dof]: where each joint of a joint vector stands in the model."""
    slides: np.ndarray
    """[dof]: whether it is a slide joint."""


class Kinematics:
    """Kinematics of the joints between a base body and an end-effector site.

    Args:
        model: any model that holds the arm; it is read once and not kept.
        joints: names of the hinge or slide joints, in the order of every joint vector.
        site: name of the end-effector frame.
        base: name of the body in whose frame poses are given.
        home: posture [dof] that redundant joints tend to; default: the middle of the range.
        lower, upper: joint limits [dof] rad; default: the model's.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        joints: Sequence[str],
        site: str,
        base: str,
        home: np.ndarray | None = None,
        lower: np.ndarray | None = None,
        upper: np.ndarray | None = None,
    ) -> None:
        self.joints = tuple(joints)
        self._model = _cut_out(model, self.joints, site, base)
        self._data, dof = mujoco.MjData(self._model), self.dof
        order = np.array([self._model.joint(name).id for name in self.joints])
        self._chain = _Chain(
            self._model._address, self._data._address, self._data.qpos, self._data.xanchor, self._data.xaxis,
            self._data.xpos[-1], self._data.xquat[-1], order,
            self._model.jnt_type[order] == mujoco.mjtJoint.mjJNT_SLIDE,
        )  # fmt: skip
        for column, limit in enumerate((lower, upper)):
            if limit is not None:
                self._model.jnt_range[order, column] = _vector(limit, dof, "limits")
        self.lower, self.upper = self._model.jnt_range[order].T.copy()
        self.home = 0.5 * (self.lower + self.upper) if home is None else _vector(home, dof, "home")
        self._general, self._bounded = np.empty((0, dof)), np.zeros(dof, c_int)
        # Compiles, before a robot waits for the first pose.
        self.inverse(self.forward(self.home), self.home)

    @property
    def dof(self) -> int:
        """Number of joints."""
        return len(self.joints)

    @property
    def chain(self) -> mujoco.MjModel:
        """A model of nothing but the joints and their bodies from the base on, with one site, the end-effector."""
        return self._model

    @property
    def levers(self) -> np.ndarray:
        """How far a change of each joint by one can move the end-effector at most [dof], as `levers` says."""
        site = self._model.site("end_effector")
        return levers(self._model, self.joints, int(site.bodyid[0]), float(np.linalg.norm(site.pos)))

    def forward(self, position: np.ndarray) -> np.ndarray:
        """End-effector pose [7] (x y z m, unit quaternion wxyz) in the base frame, at a joint position [dof]."""
        return _place(self._chain, _vector(position, self.dof, "joint position"))

    def jacobian(self, position: np.ndarray) -> np.ndarray:
        """Jacobian [6, dof]: linear over angular velocity of the end-effector, in the base frame."""
        _place(self._chain, _vector(position, self.dof, "joint position"))
        return _jacobian(self._chain)

    def inverse(self, pose: np.ndarray, seed: np.ndarray, reach: np.ndarray | None = None) -> np.ndarray:
        """The joint position [dof] near `seed` whose end-effector is as near to `pose` [7] as limits and reach allow.

        Args:
            pose: x y z m and quaternion wxyz, in the base frame.
            seed: joint position [dof] rad to start from.
            reach: largest displacement of each joint from the seed [dof] rad; default: up to the joint limits.
        """
        seed = np.minimum(np.maximum(_vector(seed, self.dof, "seed"), self.lower), self.upper)
        pose = np.array(pose, float, order="C")
        low, high = self.lower, self.upper
        if reach is not None:
            low, high = np.maximum(low, seed - reach), np.minimum(high, seed + reach)
        joints, left = seed, ITERATIONS
        hessian, gradient = np.empty((self.dof, self.dof)), np.empty(self.dof)
        while left := _descend(self._chain, pose, self.home, low, high, left, joints, hessian, gradient):
            step, _, flag, _ = daqp.solve(hessian, gradient, self._general, high - joints, low - joints, self._bounded)
            if flag > 0:
                joints += step
            left -= 1
        found: np.ndarray = np.minimum(np.maximum(joints, low), high)
        return found


def levers(model: mujoco.MjModel, joints: Sequence[str], body: int, radius: float) -> np.ndarray:
    """How far a change of each joint by one can move a point of a body at most [dof]: m/rad, or 1 for slide joints.

    An upper bound for all positions of all joints, from the lengths of the links; zero for joints that do not move it.

    Args:
        joints: names, in the order of the result.
        body: id of the body.
        radius: distance of the point from the body's origin [m].
    """
    wanted = {model.joint(name).id: index for index, name in enumerate(joints)}
    found = np.zeros(len(joints))
    while body:
        first = model.body_jntadr[body]
        for joint in reversed(range(first, first + model.body_jntnum[body])):
            slides = model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE
            anchor = float(np.linalg.norm(model.jnt_pos[joint]))
            if joint in wanted:
                found[wanted[joint]] = 1.0 if slides else radius + anchor
            way = np.abs(model.jnt_range[joint] - model.qpos0[model.jnt_qposadr[joint]]).max()
            radius += way if slides else 2 * anchor
        radius += float(np.linalg.norm(model.body_pos[body]))
        body = int(model.body_parentid[body])
    return found


@compiled
def _place(chain: _Chain, joints: np.ndarray) -> np.ndarray:
    """Put the joints there; the pose [7] of the end-effector then."""
    for index in range(len(joints)):
        chain.qpos[chain.order[index]] = joints[index]
    mj_kinematics(chain.model, chain.data)
    pose = np.empty(7)
    pose[:3], pose[3:] = chain.position, chain.quaternion
    return pose


@compiled
def _jacobian(chain: _Chain) -> np.ndarray:
    """Of the end-effector [6, dof], where the joints were put last."""
    jacobian = np.zeros((6, len(chain.order)))
    for column in range(len(chain.order)):
        axis = chain.axis[chain.order[column]]
        if chain.slides[column]:
            jacobian[:3, column] = axis
        else:
            jacobian[:3, column] = np.cross(axis, chain.position - chain.anchor[chain.order[column]])
            jacobian[3:, column] = axis
    return jacobian


@compiled
def _error(target: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """The way from a pose [7] to a target [7] (a quaternion of any length): translation and rotation vector [6]."""
    error = np.empty(6)
    error[:3] = target[:3] - pose[:3]
    # Scalar and vector part of target * conjugate(pose); the negative quaternion is the same rotation.
    scalar = target[3:] @ pose[3:]
    vector = pose[3] * target[4:] - target[3] * pose[4:] + np.cross(pose[4:], target[4:])
    if scalar < 0:
        scalar, vector = -scalar, -vector
    sine = np.sqrt(vector @ vector)
    error[3:] = vector * (2 * np.arctan2(sine, scalar) / sine if sine > 0 else 0.0)
    return error


@compiled
def _descend(
    chain: _Chain, target: np.ndarray, home: np.ndarray, low: np.ndarray, high: np.ndarray, iterations: int,
    joints: np.ndarray, hessian: np.ndarray, gradient: np.ndarray,
) -> int:  # fmt: skip
    """Move `joints` [dof] towards the target until it is reached or a bound is in the way of an iteration.

    Returns:
        how many iterations are left; unless that is zero, `hessian` and `gradient` are the program of the next one.
    """
    error = _error(target, _place(chain, joints))
    while iterations > 0:
        _program(_jacobian(chain), error, joints - home, hessian, gradient)
        step = np.linalg.solve(hessian, -gradient)
        for joint in range(len(joints)):
            if not low[joint] <= joints[joint] + step[joint] <= high[joint]:
                return iterations
        joints += step
        iterations -= 1
        error = _error(target, _place(chain, joints))
        if error @ error < CONVERGED**2:
            return 0
    return 0


@compiled
def _program(
    jacobian: np.ndarray, error: np.ndarray, posture: np.ndarray, hessian: np.ndarray, gradient: np.ndarray
) -> None:
    """Hessian [dof, dof] and gradient [dof] of the quadratic program.

    Args:
        jacobian: of the end-effector [6, dof]; its smallest singular value decides on the damping.
        error: of the pose [6].
        posture: distance from home [dof].
        hessian, gradient: written.
    """
    rows, dof = jacobian.shape
    hessian[:] = jacobian.T @ jacobian
    smallest = np.sqrt(max(np.linalg.eigvalsh(jacobian @ jacobian.T if dof >= rows else hessian)[0], 0.0))
    damping = DAMPING**2 * max(0.0, 1.0 - (smallest / SINGULAR) ** 2)
    for joint in range(dof):
        hessian[joint, joint] += POSTURE_COST**2 + ERROR_DAMPING * (error @ error) + damping
    gradient[:] = POSTURE_COST**2 * POSTURE_GAIN * posture - error @ jacobian


def _vector(values: np.ndarray, size: int, name: str) -> np.ndarray:
    # A copy has one layout of memory, for which the code here is compiled once, whatever is given.
    array = np.array(values, float, order="C")
    if array.shape != (size,) or not np.isfinite(array).all():
        raise KinematicsError(f"{name}: expected {size} finite numbers, got {array.tolist()}")
    return array


def _cut_out(model: mujoco.MjModel, joints: Sequence[str], site: str, base: str) -> mujoco.MjModel:
    """A model of nothing but the bodies, joints and end-effector frame between `base` and `site`."""
    named = (("joint", joints, model.njnt), ("site", [site], model.nsite), ("body", [base], model.nbody))
    for kind, names, count in named:
        known = [getattr(model, kind)(index).name for index in range(count)]
        if missing := [name for name in names if name not in known]:
            raise KinematicsError(f"the model has no {kind} {', '.join(missing)}; it has {', '.join(known)}")
    base_id, body_id = model.body(base).id, int(model.site(site).bodyid[0])
    path = []
    while body_id != base_id:
        if body_id == 0:
            raise KinematicsError(f"site {site!r} does not hang on body {base!r}")
        path.append(body_id)
        body_id = int(model.body_parentid[body_id])
    wanted = {model.joint(name).id for name in joints}
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    parent = spec.worldbody
    for body_id in reversed(path):
        parent = parent.add_body(pos=model.body_pos[body_id], quat=model.body_quat[body_id])
        parent.mass, parent.inertia, parent.explicitinertial = 1.0, [1.0, 1.0, 1.0], True
        first = model.body_jntadr[body_id]
        for joint_id in range(first, first + model.body_jntnum[body_id]):
            if joint_id in wanted:
                span = model.jnt_range[joint_id] if model.jnt_limited[joint_id] else _ENDLESS
                parent.add_joint(
                    name=model.joint(joint_id).name, type=mujoco.mjtJoint(int(model.jnt_type[joint_id])),
                    pos=model.jnt_pos[joint_id], axis=model.jnt_axis[joint_id], range=span,
                    ref=model.qpos0[model.jnt_qposadr[joint_id]], limited=True,
                )  # fmt: skip
                wanted.discard(joint_id)
    if wanted:
        raise KinematicsError(f"not between {base!r} and {site!r}: {[model.joint(index).name for index in wanted]}")
    # A body of its own, so that MuJoCo gives the quaternion, too.
    parent = parent.add_body(pos=model.site(site).pos, quat=model.site(site).quat)
    parent.mass, parent.inertia, parent.explicitinertial = 1.0, [1.0, 1.0, 1.0], True
    parent.add_site(name="end_effector")
    return spec.compile()
