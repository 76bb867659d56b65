"""Operational space control, the mathematics of robosuite's OSC_POSE, compiled.

Khatib, A unified approach for motion and force control of robot manipulators, 1987, with decoupled position and
orientation and a posture task in the null space:

    Λp = (Jp M⁻¹ Jpᵀ)⁻¹,  Λr = (Jr M⁻¹ Jrᵀ)⁻¹,  Λ = (J M⁻¹ Jᵀ)⁻¹
    τ = Jᵀ [Λp (kp ep - kd ẋ); Λr (kp er - kd ω)] + Nᵀ M q̈₀ + h,   N = I - M⁻¹ Jᵀ Λ J,   q̈₀ = k₀ (q₀ - q) - 2 √k₀ q̇

With Nᵀ M q̈₀ = M q̈₀ - Jᵀ Λ J q̈₀, three Cholesky factors do the work of robosuite's inverse and three pseudo-inverses.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from robot_rl.sim.compiled import compiled
from robot_rl.sim.mujoco_native import mj_step1, mj_step2
from robot_rl.sim.stepper import Chains, Physics

_SINGULAR = 1e-14
"""Relative pivot below which a direction cannot be moved; it then gets no force, as with a pseudo-inverse."""


class Osc(NamedTuple):
    """Settings of the controller and what it remembers (`posture`, `closing`, `first`), for arms with D joints in all.

    The G gripper actuators are commanded `middle + half * closing`, where each control period adds `direction` times
    the sign of the arm's gripper action to `closing`, within [-1, 1].
    """

    gains: np.ndarray
    """[3]: stiffness kp [1/s²], damping kd [1/s] and posture stiffness k₀ [1/s²]."""
    scale: np.ndarray
    """[6]: translation [m] and rotation [rad] of an action of 1."""
    middle: np.ndarray
    half: np.ndarray
    direction: np.ndarray
    closing: np.ndarray
    finger_arm: np.ndarray
    """[G]: the arm of each gripper actuator."""
    posture: np.ndarray
    """[D]: joint position q₀ of the null space [rad]."""
    first_mass: np.ndarray
    """[D, n]: inertia of each arm for the first torque."""
    first: np.ndarray
    """[1]: 1 while that torque is due, else 0."""


@compiled
def follow_goals(physics: Physics, chains: Chains, osc: Osc, action: np.ndarray, substeps: int) -> None:
    """Draw each end-effector to a goal relative to its present pose for a number of physics steps (`osc_torque`).

    Args:
        action: [arms, 7] in [-1, 1]: translation and rotation vector in the base frame, and closing of the gripper.
    """
    arms = len(chains.start) - 1
    for k in range(len(chains.fingers)):
        step = osc.direction[k] * np.sign(action[osc.finger_arm[k], 6])
        osc.closing[k] = min(max(osc.closing[k] + step, -1.0), 1.0)
        physics.ctrl[chains.fingers[k]] = osc.middle[k] + osc.half[k] * osc.closing[k]
    goal = np.empty((arms, 3))
    goal_matrix = np.empty((arms, 3, 3))
    for arm in range(arms):
        base = chains.base_rotation[arm]
        delta = np.empty(6)
        for i in range(6):
            delta[i] = min(max(action[arm, i], -1.0), 1.0) * osc.scale[i]
        for i in range(3):
            goal[arm, i] = physics.site_position[chains.site[arm], i]
            for j in range(3):
                goal[arm, i] += base[i, j] * delta[j]
        goal_matrix[arm] = goal_rotation(delta[3:], physics.site_rotation[chains.site[arm]], base)
    for _ in range(substeps):
        for arm in range(arms):
            first, last = chains.start[arm], chains.start[arm + 1]
            n = last - first
            mass = np.zeros((n, n))
            jacobian = np.empty((6, n))
            bias, position, velocity = np.empty(n), np.empty(n), np.empty(n)
            here = physics.site_position[chains.site[arm]]
            lever = here - physics.center_of_mass[chains.root[arm]]
            for k in range(n):
                dof = chains.dof[first + k]
                axis = physics.cdof[dof]
                jacobian[0, k] = axis[3] + axis[1] * lever[2] - axis[2] * lever[1]
                jacobian[1, k] = axis[4] + axis[2] * lever[0] - axis[0] * lever[2]
                jacobian[2, k] = axis[5] + axis[0] * lever[1] - axis[1] * lever[0]
                jacobian[3:, k] = axis[:3]
                bias[k] = physics.bias[dof]
                velocity[k] = physics.qvel[dof]
                position[k] = physics.qpos[chains.qpos[first + k]]
                for j in range(n):
                    if osc.first[0]:
                        mass[k, j] = osc.first_mass[first + k, j]
                    elif chains.mass[first + k, j] >= 0:
                        mass[k, j] = physics.mass[chains.mass[first + k, j]]
            torque = osc_torque(
                mass, jacobian, bias, position, velocity, osc.posture[first:last],
                goal[arm] - here, rotation_error(goal_matrix[arm], physics.site_rotation[chains.site[arm]]), osc.gains,
            )  # fmt: skip
            for k in range(n):
                limited = min(max(torque[k], chains.torque_low[first + k]), chains.torque_high[first + k])
                physics.ctrl[chains.actuator[first + k]] = limited
        osc.first[0] = 0
        mj_step2(physics.model, physics.data)
        mj_step1(physics.model, physics.data)


@compiled
def goal_rotation(vector: np.ndarray, rotation: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Turn `rotation` [3, 3] by a rotation vector [3] rad given in the frame `base` [3, 3]; all in the world frame.

    robosuite passes through a single-precision quaternion here, and so does this.
    """
    angle = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    q = np.zeros(4, np.float32)
    q[0] = 1.0
    if angle > 0.0:
        q[0] = math.cos(angle / 2.0)
        q[1:] = vector / angle * math.sin(angle / 2.0)
    q *= math.sqrt(2.0 / np.dot(q, q))
    turn = np.empty((3, 3))
    turn[0, 0] = 1.0 - q[2] * q[2] - q[3] * q[3]
    turn[0, 1] = q[1] * q[2] - q[3] * q[0]
    turn[0, 2] = q[1] * q[3] + q[2] * q[0]
    turn[1, 0] = q[1] * q[2] + q[3] * q[0]
    turn[1, 1] = 1.0 - q[1] * q[1] - q[3] * q[3]
    turn[1, 2] = q[2] * q[3] - q[1] * q[0]
    turn[2, 0] = q[1] * q[3] - q[2] * q[0]
    turn[2, 1] = q[2] * q[3] + q[1] * q[0]
    turn[2, 2] = 1.0 - q[1] * q[1] - q[2] * q[2]
    return _product(base, _product(turn, _product(base.T, rotation)))


@compiled
def osc_torque(
    mass: np.ndarray,
    jacobian: np.ndarray,
    bias: np.ndarray,
    position: np.ndarray,
    velocity: np.ndarray,
    posture: np.ndarray,
    translation_error: np.ndarray,
    rotation_error: np.ndarray,
    gains: np.ndarray,
) -> np.ndarray:
    """Joint torques [n] N m that draw an end-effector to its goal.

    Args:
        mass: joint-space inertia [n, n].
        jacobian: of the end-effector [6, n], linear over angular, world frame.
        bias: gravity, Coriolis and centrifugal torques h [n].
        position, velocity: of the joints [n].
        posture: joint position q₀ [n] that the null space tends to.
        translation_error, rotation_error: ep [3] m and er [3] rad, goal minus current, world frame.
        gains: [3], kp [1/s²], kd [1/s] and k₀ [1/s²].
    """
    stiffness, damping, posture_stiffness = gains
    n = mass.shape[0]
    factor = mass.copy()
    _cholesky(factor)
    half = np.empty((n, 6))
    for k in range(6):
        half[:, k] = jacobian[k]
        _solve_lower(factor, half[:, k])
    mobility = np.zeros((6, 6))
    for i in range(6):
        for j in range(i + 1):
            total = 0.0
            for k in range(n):
                total += half[k, i] * half[k, j]
            mobility[i, j] = mobility[j, i] = total

    damping_posture = 2.0 * math.sqrt(posture_stiffness)
    wrench = np.zeros(6)
    drift = np.zeros(6)
    recall = posture_stiffness * (posture - position) - damping_posture * velocity
    for i in range(6):
        twist = 0.0
        for k in range(n):
            twist += jacobian[i, k] * velocity[k]
            drift[i] += jacobian[i, k] * recall[k]
        error = translation_error[i] if i < 3 else rotation_error[i - 3]
        wrench[i] = stiffness * error - damping * twist

    factor_translation, factor_rotation = mobility[:3, :3].copy(), mobility[3:, 3:].copy()
    _cholesky(factor_translation)
    _cholesky(factor_rotation)
    _cholesky(mobility)
    _solve(factor_translation, wrench[:3])
    _solve(factor_rotation, wrench[3:])
    _solve(mobility, drift)

    torque = bias.copy()
    for k in range(n):
        for i in range(6):
            torque[k] += jacobian[i, k] * (wrench[i] - drift[i])
        for i in range(n):
            torque[k] += mass[k, i] * recall[i]
    return torque


@compiled
def rotation_error(goal: np.ndarray, current: np.ndarray) -> np.ndarray:
    """½ Σ cᵢ × gᵢ over the columns of two rotation matrices [3, 3]: sin(angle) times the axis from current to goal."""
    error = np.zeros(3)
    for i in range(3):
        error[0] += 0.5 * (current[1, i] * goal[2, i] - current[2, i] * goal[1, i])
        error[1] += 0.5 * (current[2, i] * goal[0, i] - current[0, i] * goal[2, i])
        error[2] += 0.5 * (current[0, i] * goal[1, i] - current[1, i] * goal[0, i])
    return error


@compiled
def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            for k in range(3):
                product[i, j] += a[i, k] * b[k, j]
    return product


@compiled
def _cholesky(a: np.ndarray) -> None:
    """Replace the lower triangle of `a` by its Cholesky factor; the diagonal becomes its inverse, 0 where singular."""
    n = a.shape[0]
    scale = 0.0
    for i in range(n):
        scale = max(scale, a[i, i])
    for j in range(n):
        for i in range(j, n):
            total = a[i, j]
            for k in range(j):
                total -= a[i, k] * a[j, k]
            if i > j:
                a[i, j] = total * a[j, j]
            elif total > _SINGULAR * scale:
                a[j, j] = 1.0 / math.sqrt(total)
            else:
                a[j, j] = 0.0


@compiled
def _solve_lower(factor: np.ndarray, x: np.ndarray) -> None:
    """Solve L y = x in place, with a factor of `_cholesky`."""
    for i in range(x.shape[0]):
        total = x[i]
        for k in range(i):
            total -= factor[i, k] * x[k]
        x[i] = total * factor[i, i]


@compiled
def _solve(factor: np.ndarray, x: np.ndarray) -> None:
    """Solve L Lᵀ y = x in place, with a factor of `_cholesky`."""
    _solve_lower(factor, x)
    for i in range(x.shape[0] - 1, -1, -1):
        total = x[i]
        for k in range(i + 1, x.shape[0]):
            total -= factor[k, i] * x[k]
        x[i] = total * factor[i, i]
