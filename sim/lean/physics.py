"""Many copies of one MuJoCo model, stepped in turn by one compiled call.

A copy is a few numbers: positions, velocities, controls, mocap poses and the solver's warm start. They pass through a
single `mjData`, which stays in the cache; the sequence of states of a copy is the same, bit by bit, whatever the others
do.
"""

from __future__ import annotations

import mujoco
import numpy as np

from robot_rl.sim.compiled import compiled
from robot_rl.sim.mujoco_native import mj_step


class Physics:
    """N copies of a model. Rows of arrays are copies; write into the arrays to set a state.

    Args:
        model: without actuator activations and plugins, whose states are not kept.

    Attributes:
        qpos [N, nq], qvel [N, nv]: of the joints.
        ctrl [N, nu]: of the actuators, in force for all steps of a call.
        mocap [N, nmocap, 7]: position [m] and quaternion wxyz of the mocap bodies.
        warmstart [N, nv]: accelerations with which the solver begins.
    """

    def __init__(self, model: mujoco.MjModel, num: int) -> None:
        if model.na or model.nplugin:
            raise ValueError(f"expected a model without activations and plugins, got {model.na} and {model.nplugin}")
        self.model, self.data = model, mujoco.MjData(model)
        self.qpos = np.tile(model.qpos0, (num, 1))
        self.qvel, self.warmstart = np.zeros((num, model.nv)), np.zeros((num, model.nv))
        self.ctrl = np.zeros((num, model.nu))
        rest = np.concatenate([self.data.mocap_pos, self.data.mocap_quat], axis=1)
        self.mocap = np.tile(rest, (num, 1, 1))

    def step(self, substeps: int) -> None:
        """Move all copies on by a number of time steps of the model."""
        data = self.data
        _advance(
            self.model._address, data._address, data.qpos, data.qvel, data.ctrl, data.qacc_warmstart, data.mocap_pos,
            data.mocap_quat, self.qpos, self.qvel, self.ctrl, self.warmstart, self.mocap, substeps,
        )  # fmt: skip

    def show(self, row: int) -> mujoco.MjData:
        """The data of a copy, with poses and contacts up to date. Valid until the next call."""
        data = self.data
        data.qpos, data.qvel, data.ctrl = self.qpos[row], self.qvel[row], self.ctrl[row]
        data.qacc_warmstart = self.warmstart[row]
        data.mocap_pos, data.mocap_quat = self.mocap[row, :, :3], self.mocap[row, :, 3:]
        mujoco.mj_forward(self.model, data)
        return data

    @property
    def state_size(self) -> int:
        """S of `get_states`."""
        size: int = self.model.nq + 2 * self.model.nv + 7 * self.model.nmocap
        return size

    def get_states(self) -> np.ndarray:
        """All that decides the future but the controls, float64 [N, S]."""
        mocap = self.mocap.reshape(len(self.mocap), -1)
        return np.concatenate([self.qpos, self.qvel, self.warmstart, mocap], axis=1)

    def set_states(self, states: np.ndarray, rows: np.ndarray) -> None:
        """Return to states of `get_states`, [n, S], in the copies given."""
        nq, nv = self.model.nq, self.model.nv
        qpos, qvel, warmstart, mocap = np.split(states, [nq, nq + nv, nq + 2 * nv], axis=1)
        self.qpos[rows], self.qvel[rows], self.warmstart[rows] = qpos, qvel, warmstart
        self.mocap[rows] = mocap.reshape(len(rows), -1, 7)


@compiled
def _advance(
    model: int, data: int, qpos: np.ndarray, qvel: np.ndarray, ctrl: np.ndarray, warmstart: np.ndarray,
    mocap_pos: np.ndarray, mocap_quat: np.ndarray, all_qpos: np.ndarray, all_qvel: np.ndarray, all_ctrl: np.ndarray,
    all_warmstart: np.ndarray, all_mocap: np.ndarray, substeps: int,
) -> None:  # fmt: skip
    for row in range(len(all_qpos)):
        qpos[:], qvel[:], ctrl[:] = all_qpos[row], all_qvel[row], all_ctrl[row]
        warmstart[:] = all_warmstart[row]
        for body in range(all_mocap.shape[1]):
            mocap_pos[body] = all_mocap[row, body, :3]
            mocap_quat[body] = all_mocap[row, body, 3:]
        for _ in range(substeps):
            mj_step(model, data)
        all_qpos[row], all_qvel[row], all_warmstart[row] = qpos, qvel, warmstart
