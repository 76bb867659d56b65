"""The fast stepper: one control period of MuJoCo and controllers as one call of compiled code.

robosuite runs, for each physics step, `mj_step1`, its controllers in Python and `mj_step2`. Here the order is turned by
half a step: `mj_step2` with the torques for the present state, then `mj_step1`. The sequence of states is the same; but
after the last one poses and contacts belong to the present state, where robosuite's lag one physics step behind. Hence
`mj_step1` must have run whenever a state is set from outside.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from robot_rl.sim.arm_model import PHYSICS_PERIOD
from robot_rl.sim.compiled import compiled
from robot_rl.sim.mujoco_native import mj_step1, mj_step2


class Physics(NamedTuple):
    """Addresses of model and data, and views of the data's arrays, which must outlive it."""

    model: int
    data: int
    qpos: np.ndarray
    qvel: np.ndarray
    ctrl: np.ndarray
    mass: np.ndarray
    bias: np.ndarray
    cdof: np.ndarray
    center_of_mass: np.ndarray
    site_position: np.ndarray
    site_rotation: np.ndarray


class Chains(NamedTuple):
    """Where the arms stand in MuJoCo's arrays: D joints of all arms in a row, those of arm i from `start[i]` on."""

    start: np.ndarray
    qpos: np.ndarray
    dof: np.ndarray
    actuator: np.ndarray
    torque_low: np.ndarray
    torque_high: np.ndarray
    fingers: np.ndarray
    """[G]: actuators of all grippers."""
    mass: np.ndarray
    """[D, n]: index into the sparse inertia of this joint's row within its arm, -1 for none."""
    site: np.ndarray
    root: np.ndarray
    base_rotation: np.ndarray
    """[arms, 3, 3], world frame."""


def physics_of(model: mujoco.MjModel, data: mujoco.MjData) -> Physics:
    """Views of a model and its data."""
    return Physics(
        model._address, data._address, data.qpos, data.qvel, data.ctrl, data.qM, data.qfrc_bias, data.cdof,
        data.subtree_com, data.site_xpos, data.site_xmat.reshape(-1, 3, 3),
    )  # fmt: skip


def chains_of(
    model: mujoco.MjModel,
    joints: Sequence[np.ndarray],
    actuators: Sequence[np.ndarray],
    fingers: Sequence[np.ndarray],
    sites: Sequence[int],
    base_rotation: np.ndarray,
) -> Chains:
    """Indices of arms, from the ids of each one's joints, motors, gripper actuators and end-effector site."""
    start = np.cumsum([0, *(len(ids) for ids in joints)])
    flat = np.concatenate([np.asarray(ids, np.int64) for ids in joints])
    motors = np.concatenate([np.asarray(ids, np.int64) for ids in actuators])
    dofs = model.jnt_dofadr[flat].astype(np.int64)
    mass = np.full((len(flat), max(len(ids) for ids in joints)), -1, np.int64)
    for first, last in itertools.pairwise(start):
        columns = {int(dof): column for column, dof in enumerate(dofs[first:last])}
        for row, dof in enumerate(dofs[first:last]):
            ancestor, address = int(dof), int(model.dof_Madr[dof])
            while ancestor >= 0:
                if ancestor in columns:
                    mass[first + row, columns[ancestor]] = address
                    mass[first + columns[ancestor], row] = address
                ancestor, address = int(model.dof_parentid[ancestor]), address + 1
    sites_ = np.asarray(sites, np.int64)
    low, high = model.actuator_ctrlrange[motors].T.copy()
    return Chains(
        start.astype(np.int64), model.jnt_qposadr[flat].astype(np.int64), dofs, motors, low, high,
        np.concatenate([np.asarray(ids, np.int64) for ids in fingers]), mass, sites_,
        model.body_rootid[model.site_bodyid[sites_]].astype(np.int64), np.ascontiguousarray(base_rotation, dtype=float),
    )  # fmt: skip


@compiled
def refresh(physics: Physics) -> None:
    """Bring everything that follows from positions and velocities up to date."""
    mj_step1(physics.model, physics.data)


@compiled
def follow_joints(
    physics: Physics,
    chains: Chains,
    position: np.ndarray,
    velocity: np.ndarray,
    acceleration: np.ndarray,
    fingers: np.ndarray,
    natural_frequency: float,
    damping_ratio: float,
) -> None:
    """Follow references: τ = M (q̈ᵣ + 2 ζ ω (q̇ᵣ - q̇) + ω² (qᵣ - q - Δt q̇)) + h in each step, within motor limits.

    So each joint behaves like a spring and damper of the same natural frequency in every posture, as the position
    controllers inside industrial arms do.

    Args:
        position, velocity, acceleration: references at the end of each physics step, [n, D] in rad and s.
        fingers: commands of all gripper actuators, [n, G].
        natural_frequency, damping_ratio: of the spring [rad/s] and the damper.
    """
    stiffness, damping = natural_frequency**2, 2.0 * damping_ratio * natural_frequency
    # The references are those of a step's end: compared with the position at its beginning, the arm would run ahead.
    lead = PHYSICS_PERIOD
    demand = np.empty(len(chains.dof))
    for step in range(position.shape[0]):
        for k in range(len(chains.dof)):
            demand[k] = (
                acceleration[step, k]
                + damping * (velocity[step, k] - physics.qvel[chains.dof[k]])
                + stiffness * (position[step, k] - physics.qpos[chains.qpos[k]] - lead * physics.qvel[chains.dof[k]])
            )
        for arm in range(len(chains.start) - 1):
            first = chains.start[arm]
            for k in range(first, chains.start[arm + 1]):
                torque = physics.bias[chains.dof[k]]
                for j in range(chains.mass.shape[1]):
                    if chains.mass[k, j] >= 0:
                        torque += physics.mass[chains.mass[k, j]] * demand[first + j]
                physics.ctrl[chains.actuator[k]] = min(max(torque, chains.torque_low[k]), chains.torque_high[k])
        for k in range(len(chains.fingers)):
            physics.ctrl[chains.fingers[k]] = fingers[step, k]
        mj_step2(physics.model, physics.data)
        mj_step1(physics.model, physics.data)
