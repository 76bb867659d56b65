"""What drones touch: the compiled flight tells how each would move on, MuJoCo what ground, gates, poles and walls make
of it. They stop it, it bounces off, slides along, or tips over.

A substep that touches nothing is the compiled flight's own, bit by bit. In any other MuJoCo moves the body, by the
accelerations that the compiled flight found (rotors, drag, wind, gravity, gyroscopic torque) and by the contacts.
Nothing is kept from one substep to the next, so that a state decides the future.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from robot_rl.sim.drone.batch import DroneBatch
from robot_rl.sim.drone.course import Course
from robot_rl.sim.drone.flight import SUBSTEP
from robot_rl.sim.drone.scene import DroneScene
from robot_rl.sim.drone.vehicle_model import Vehicle
from robot_rl.sim.spec import SpecError

DEFAULTS = {"friction": 0.6, "bounce": 0.3}
"""Coulomb's coefficient, and Newton's of restitution."""
SLOW = 0.1
"""Approach without a bounce [m/s]."""
WAY_OUT = 0.05
"""Time in which a depth is left again [s]."""
NO_FLOOR = -1e6
"""Parameter `floor` of flights whose ground MuJoCo is [m]."""


def resolve(given: Any) -> dict[str, float] | None:
    """The entry `contact` of an environment with its defaults: None, `mujoco`, or a mapping of some of `DEFAULTS`.

    Raises:
        SpecError: it is something else.
    """
    if given is None:
        return None
    options = {} if given == "mujoco" else given
    if not isinstance(options, Mapping) or set(options) - set(DEFAULTS):
        raise SpecError(f"contact: expected null, mujoco, or a mapping of {', '.join(DEFAULTS)}; got {given!r}")
    found = {**DEFAULTS, **options}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in found.values())
    if not numbers or not math.isfinite(found["friction"]) or found["friction"] <= 0 or not 0 <= found["bounce"] < 1:
        raise SpecError(f"contact: expected a finite friction above 0 and a bounce of 0 to below 1, got {found}")
    return {name: float(value) for name, value in found.items()}


class Contact:
    """What one drone touches.

    Args:
        course: nominal, None where there is none. friction, bounce: see `DEFAULTS`.
    """

    def __init__(self, course: Course | None, vehicle: Vehicle, friction: float, bounce: float) -> None:
        self._scene, self._vehicle = DroneScene(course, vehicle), vehicle
        model = self._scene.model
        self._body, self._ground = model.body("vehicle").id, model.geom("ground").id
        option = model.opt
        option.timestep, option.cone, option.impratio = SUBSTEP, mujoco.mjtCone.mjCONE_ELLIPTIC, 10
        option.gravity[:] = 0
        option.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
        self._bounce = bounce
        model.geom_solimp[:, :2] = 0.99
        model.geom_friction[:, 0] = friction

    def begin(self, gates: np.ndarray, mass: float) -> None:
        """Begin an episode with the gates [G, 4] (centre, yaw), and a factor of mass and inertia."""
        model = self._scene.model
        moments, axes = np.linalg.eigh(self._vehicle.inertia_matrix * mass)
        if np.linalg.det(axes) < 0:
            axes[:, 0] *= -1
        model.body_mass[self._body] = self._vehicle.mass * mass
        model.body_inertia[self._body], model.body_ipos[self._body] = moments, 0.0
        mujoco.mju_mat2Quat(model.body_iquat[self._body], axes.ravel())
        mujoco.mj_setConst(model, self._scene.data)
        self._scene.lay(gates)

    def move(self, before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, bool] | None:
        """Move on by a substep.

        Args:
            before, after: odometry of the compiled flight [13].

        Returns:
            Odometry after the substep, and whether the ground is touched. None: nothing is, `after` holds.
        """
        model, data = self._scene.model, self._scene.data
        data.qpos[:3], data.qpos[3:] = before[:3], before[6:10]
        data.qvel[:3], data.qvel[3:] = before[3:6], before[10:]
        mujoco.mj_step1(model, data)
        if not data.nefc:
            return None
        change = (after - before) / SUBSTEP
        free = np.concatenate([change[3:6], change[10:]])
        mujoco.mj_mulM(model, data, data.qfrc_applied, free)
        data.qfrc_applied += data.qfrc_bias
        self._ask(free)
        grounded = bool((data.contact.geom[data.contact.efc_address >= 0] == self._ground).any())
        mujoco.mj_step2(model, data)
        return np.concatenate([data.qpos[:3], data.qvel[:3], data.qpos[3:], data.qvel[3:]]), grounded

    def _ask(self, free: np.ndarray) -> None:
        """Tell MuJoCo what contacts should do to a body that would move on with accelerations `free` [6].

        Along the normal: Newton's law of restitution, and a way out of what is already inside. Across: no slip, as far
        as Coulomb's friction carries; MuJoCo would take the nearest force of the cone, which lifts what slides.
        """
        model, data = self._scene.model, self._scene.data
        moving = np.zeros(data.nefc)
        mujoco.mj_mulJacVec(model, data, moving, free)
        for normal, friction in zip(data.contact.efc_address, data.contact.friction[:, 0], strict=True):
            if normal < 0:
                continue
            approach, across = -data.efc_vel[normal], slice(normal + 1, normal + 3)
            leave = max(self._bounce * approach if approach > SLOW else 0.0, -data.efc_pos[normal] / WAY_OUT)
            data.efc_aref[normal] = (leave + approach) / SUBSTEP
            asked = -data.efc_vel[across] / SUBSTEP - moving[across]
            most, slip = friction * max(data.efc_aref[normal] - moving[normal], 0.0), math.hypot(*asked)
            data.efc_aref[across] = moving[across] + asked * min(most / max(slip, 1e-9), 1.0)


def fly(batch: DroneBatch, contacts: list[Contact], touched: np.ndarray) -> None:
    """Fly one step of drones that touch things. Their `impact` is that of the hardest touch-down.

    Args:
        contacts: of each drone. touched: time in contact [N], kept up [s].
    """
    for substep in range(batch.substeps):
        before = batch.read("odometry").astype(float)
        batch.step_part(substep)
        after = batch.read("odometry").astype(float)
        for row, contact in enumerate(contacts):
            found = contact.move(before[row], after[row])
            if found is None:
                continue
            odometry, grounded = found
            touched[row] += SUBSTEP
            batch.write("odometry", odometry, [row])
            batch.write("accelerations", (odometry - before[row])[[3, 4, 5, 10, 11, 12]] / SUBSTEP, [row])
            if grounded:
                batch.write("impact", np.maximum(batch.read("impact")[row], -before[row, 5]), [row])
    batch.step_part(batch.substeps)
