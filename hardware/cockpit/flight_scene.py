"""The scene of a vehicle: where it flies within its fence, its nose, its shadow on the ground, and the home place.

In the world (ENU), as the limits of the vehicle's file are. A small vehicle is drawn larger than it is: at the size of
its fence it would be a dot.
"""

from __future__ import annotations

import mujoco
import numpy as np

from robot_rl.hardware.cockpit.scene import pack, parts_of
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.sim.drone.vehicle_model import load_vehicle

SMALLEST = 0.025
"""Least part of the fence's diagonal that lies between the middle of the vehicle and a rotor."""

BODIES = ("vehicle", "shadow", "home")

_FLAT = np.array([1.0, 0.0, 0.0, 0.0])


class FlightScene:
    """A vehicle within its fence."""

    def __init__(self, robot: VehicleFile) -> None:
        self._robot = robot
        lower, upper = np.array(robot.plan.limits.fence, float)
        self._lower, self._upper = lower, upper
        arm = float(np.hypot(*load_vehicle(robot.vehicle).arm))
        self._model = mujoco.MjModel.from_xml_string(_xml(max(arm, SMALLEST * float(np.linalg.norm(upper - lower)))))

    def geometry(self) -> bytes:
        """What frames of kind `wire.GEOMETRY` hold after their head."""
        parts = [
            part._replace(body=index)
            for index, name in enumerate(BODIES)
            for part in parts_of(self._model, self._model.body(name).id)
        ]
        return pack(self._robot.name, BODIES, parts, (self._lower.tolist(), self._upper.tolist()))

    def poses(self, position: np.ndarray, attitude: np.ndarray, ground: float = 0.0) -> np.ndarray:
        """Pose of every body of `BODIES`, and last that of the vehicle again: [4, 7] float32.

        Args:
            position: of the vehicle [3] m.
            attitude: its orientation, wxyz.
            ground: height on which the shadow lies [m].
        """
        vehicle = np.concatenate([position, attitude])
        shadow = np.concatenate([position[:2], [ground + 0.005], _FLAT])
        home = np.concatenate([self._robot.plan.home, _FLAT])
        return np.array([vehicle, shadow, home, vehicle], np.float32)


def _xml(arm: float) -> str:
    """Shapes of the bodies; `arm` is from the middle to a rotor [m]."""
    half, leg = arm * np.sqrt(0.5), f"{arm} {0.07 * arm} {0.05 * arm}"
    rotors = "".join(
        f'<geom type="cylinder" size="{0.42 * arm} {0.03 * arm}" pos="{x * half} {y * half} {0.13 * arm}" '
        f'rgba="{colour}"/>'
        for x, y, colour in (
            (1, 1, ".95 .45 .1 .9"), (1, -1, ".95 .45 .1 .9"), (-1, 1, ".3 .35 .4 .9"), (-1, -1, ".3 .35 .4 .9"),
        )
    )  # fmt: skip
    return f"""<mujoco><worldbody>
      <body name="vehicle">
        <geom type="box" size="{leg}" euler="0 0 45" rgba=".25 .28 .32 1"/>
        <geom type="box" size="{leg}" euler="0 0 -45" rgba=".25 .28 .32 1"/>
        <geom type="box" size="{0.3 * arm} {0.2 * arm} {0.12 * arm}" rgba=".2 .22 .26 1"/>
        <geom type="box" size="{0.12 * arm} {0.08 * arm} {0.06 * arm}" pos="{0.42 * arm} 0 0" rgba=".95 .45 .1 1"/>
        {rotors}
      </body>
      <body name="shadow"><geom type="cylinder" size="{0.9 * arm} 0.003" rgba=".1 .1 .1 .35"/></body>
      <body name="home"><geom type="sphere" size="{0.15 * arm}" rgba=".15 .4 .9 .6"/></body>
    </worldbody></mujoco>"""
