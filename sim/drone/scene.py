"""What stands around a flight: ground, gates, poles or corridor, and the vehicle as a free body: a MuJoCo scene.

Cameras see it, and `robot_rl.sim.drone.contact` finds in it what is touched: the hull, a flat cylinder around the
rotors, meets gates, poles, walls, and the ground.

Cameras: `onboard` looks along the body's x axis, tilted up by `TILT` (a fast drone leans forward); `agentview`, as the
view from outside is called in every task, chases the drone from behind and above, without leaning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from robot_rl.datasets.contract import Feature
from robot_rl.sim.camera_feature import camera_feature
from robot_rl.sim.drone.course import Course
from robot_rl.sim.drone.vehicle_model import Vehicle
from robot_rl.sim.spec import SpecError

if TYPE_CHECKING:
    from robot_rl.sim.render import Renderer

CAMERAS = ("onboard", "agentview")
FIELD_OF_VIEW = 75.0
"""Vertical [degrees]."""
TILT = math.radians(10)
CHASE = np.array([-1.5, 0.0, 0.6])
"""Place of the chase camera from the drone, along its heading [m]."""
POLE_HEIGHT = 3.0
HULL_HEIGHT = 0.25
"""Of half the hull, parts of its radius."""
WALL_HEIGHT = 0.3
"""Of a corridor's walls, which only mark it: above them it is left, too [m]."""
NOMINAL: dict[str, Any] = {
    "light": 0.7, "tiles": 1.0, "gates": [0.85, 0.35, 0.1], "ground": [0.45, 0.5, 0.45], "exposure": 0.0,
    "camera": [0.0] * 6,
}  # fmt: skip
"""Brightness of the light, tiles of the ground in a metre, colours; how long the camera on board gathers light [s], and
how far it is from where it should be [m], turned by a vector in its own axes [rad]."""
SHARP = 8
"""Sharp pictures of which one with an exposure is the mean."""
_ALONG_X = np.array([0.5, 0.5, -0.5, -0.5])
"""Quaternion of a camera (which looks along -z, y up) that looks along x, z up."""


class DroneScene:
    """Surroundings of a vehicle at one course.

    Args:
        course: nominal, None where there is none.

    Attributes:
        model, data: of MuJoCo; the vehicle is the body of the only joint.
    """

    def __init__(self, course: Course | None, vehicle: Vehicle) -> None:
        self.model = mujoco.MjModel.from_xml_string(_xml(course, vehicle))
        self.data = mujoco.MjData(self.model)
        self._gates = 0 if course is None else len(course.centers)
        self._start = None if course is None or not course.width else course.start
        self._mounted = self.model.cam_quat[self.model.camera("onboard").id].copy()
        self._renderers: dict[str, Renderer] = {}

    def feature(self, camera: str, height: int, width: int) -> Feature:
        """The picture of a camera in a contract.

        Raises:
            SpecError: there is no such camera.
        """
        check(camera)
        return camera_feature(camera, height, width, FIELD_OF_VIEW)

    def lay(self, gates: np.ndarray) -> None:
        """Put the gates where they stand in an episode, [G, 4], centre and yaw."""
        self.data.mocap_pos[: self._gates] = gates[:, :3]
        self.data.mocap_quat[: self._gates] = _turns(gates[:, 3])
        if self._start is not None:
            self._lay_corridor(gates)

    def image(
        self, camera: str, odometry: np.ndarray, gates: np.ndarray, seen: Mapping[str, Any], out: np.ndarray
    ) -> np.ndarray:
        """Fill `out`, uint8 [height, width, 3] RGB, with what a camera sees of a drone. Returns it.

        Args:
            odometry: true, [13]. gates: [G, 4], centre and yaw. seen: colours and light, as `NOMINAL`.

        Raises:
            SpecError, RenderError: there is no such camera, or nothing can be rendered here.
        """
        check(camera)
        model = self.model
        self.lay(gates)
        model.light_diffuse[:] = seen["light"]
        for name in ("gates", "ground"):
            model.mat_rgba[model.material(name).id, :3] = seen[name]
        model.mat_texrepeat[model.material("ground").id] = seen["tiles"] / 2
        onboard = model.camera("onboard").id
        model.cam_pos[onboard], turned = seen["camera"][:3], self._mounted.copy()
        mujoco.mju_quatIntegrate(turned, np.array(seen["camera"][3:]), 1.0)
        model.cam_quat[onboard] = turned
        exposure = seen["exposure"] if camera == "onboard" else 0.0
        if not exposure:
            return self._shoot(camera, odometry, out)
        gathered = np.zeros(out.shape)
        for moment in range(SHARP):
            gathered += self._shoot(camera, earlier(odometry, exposure * moment / (SHARP - 1)), out)
        out[:] = np.rint(gathered / SHARP)
        return out

    def _shoot(self, camera: str, odometry: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Fill `out` with what is seen of a drone at a place, as everything else stands. Returns it."""
        model, data = self.model, self.data
        data.qpos[:3], data.qpos[3:] = odometry[:3], odometry[6:10]
        w, z = odometry[6], odometry[9]
        data.mocap_pos[self._gates] = odometry[:3]
        data.mocap_quat[self._gates] = _turns(np.array([2 * math.atan2(z, w)]))[0]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        if camera not in self._renderers:
            from robot_rl.sim.render import Renderer

            # The camera on board does not see the vehicle itself, group 2.
            self._renderers[camera] = Renderer(model, "fast", (1,) if camera == "onboard" else (1, 2))
        return self._renderers[camera].render(data, camera, out)

    def _lay_corridor(self, gates: np.ndarray) -> None:
        """Stretch a piece of stripe and walls along the ground from each arch to the next."""
        assert self._start is not None
        points = np.concatenate([self._start[None, :2], gates[:, :2]])
        way = np.diff(points, axis=0)
        pieces = slice(1 + self._gates, None)
        self.data.mocap_pos[pieces, :2] = (points[:-1] + points[1:]) / 2
        self.data.mocap_quat[pieces] = _turns(np.arctan2(way[:, 1], way[:, 0]))
        first = self.model.geom("stripe0").id
        long = slice(first, first + 3 * len(way))
        self.model.geom_size[long, 0] = np.repeat(np.hypot(way[:, 0], way[:, 1]) / 2, 3)
        # Where MuJoCo looks for contact.
        self.model.geom_aabb[long, 3:] = self.model.geom_size[long]
        self.model.geom_rbound[long] = np.linalg.norm(self.model.geom_size[long], axis=1)


def check(camera: str) -> None:
    """Raise `SpecError` where there is no such camera."""
    if camera not in CAMERAS:
        raise SpecError(f"no camera {camera!r} of a drone; there are: {', '.join(CAMERAS)}")


def earlier(odometry: np.ndarray, time: float) -> np.ndarray:
    """Odometry [13] a short time before, at the same velocity and rates."""
    before = np.array(odometry, float)
    before[:3] -= time * before[3:6]
    mujoco.mju_quatIntegrate(before[6:10], before[10:13], -time)
    return before


def camera_pose(odometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place [3] of the onboard camera in the world, and its axes [3, 3] in columns: right, down, forward."""
    w, x, y, z = odometry[6:10]
    body = np.empty(9)
    mujoco.mju_quat2Mat(body, np.array([w, x, y, z], float))
    c, s = math.cos(TILT), math.sin(TILT)
    axes = np.array([[0.0, -1.0, 0.0], [s, 0.0, -c], [c, 0.0, s]]).T
    return np.asarray(odometry[:3], float), body.reshape(3, 3) @ axes


def _turns(yaw: np.ndarray) -> np.ndarray:
    zero = np.zeros_like(yaw)
    return np.stack([np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)], 1)


def _xml(course: Course | None, vehicle: Vehicle) -> str:
    arm, hull = vehicle.arm, HULL_HEIGHT * vehicle.radius
    bodies, poles = "", ""
    if course is not None:
        half, width = course.opening / 2, course.frame / 2
        bars = [(0, half + width), (0, -half - width), (half + width, 0), (-half - width, 0)]
        frame = "".join(
            f'<geom type="box" pos="0 {y} {z}" size="0.02 {width if y else half + course.frame} '
            f'{width if z else half}" material="gates"/>'
            for y, z in bars
        )
        bodies = "".join(f'<body mocap="true">{frame}</body>' for _ in course.centers)
        poles = "".join(
            f'<geom type="cylinder" pos="{x} {y} {POLE_HEIGHT / 2}" size="{course.pole_radius} {POLE_HEIGHT / 2}" '
            'rgba="0.2 0.3 0.8 1"/>'
            for x, y in course.poles
        )
    pieces = (
        "" if course is None or not course.width else "".join(_piece(course, i) for i in range(len(course.centers)))
    )
    turn = np.empty(4)
    mujoco.mju_mulQuat(turn, np.array([math.cos(TILT / 2), 0, -math.sin(TILT / 2), 0]), _ALONG_X)
    look = np.empty(4)
    down = math.atan2(CHASE[2], -CHASE[0])
    mujoco.mju_mulQuat(look, np.array([math.cos(down / 2), 0, math.sin(down / 2), 0]), _ALONG_X)
    rotors = "".join(
        f'<geom type="cylinder" group="2" pos="{x} {y} 0.01" size="{0.6 * min(arm)} 0.004" rgba="0.1 0.1 0.1 1"/>'
        for x in (-arm[0], arm[0])
        for y in (-arm[1], arm[1])
    )
    return f"""
<mujoco>
  <visual><headlight ambient="0.4 0.4 0.4" diffuse="0 0 0" specular="0 0 0"/><map znear="0.01" zfar="30"/></visual>
  <statistic extent="2" center="0 0 1"/>
  <default><geom group="1" contype="0"/></default>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1="0.7 0.8 0.9" rgb2="0.3 0.4 0.6" width="64" height="64"/>
    <texture name="tiles" type="2d" builtin="checker" rgb1="1 1 1" rgb2="0.6 0.6 0.6" width="64" height="64"/>
    <material name="ground" texture="tiles" texrepeat="1 1" texuniform="true"/>
    <material name="gates"/>
  </asset>
  <worldbody>
    <light pos="0 0 8" dir="0.2 0.1 -1" directional="true"/>
    <geom type="plane" size="30 30 1" material="ground" conaffinity="0"/>{poles}
    <geom name="ground" type="plane" size="30 30 1" pos="0 0 {vehicle.floor - hull}" group="3"/>
    <body name="vehicle">
      <freejoint/>
      <geom name="hull" type="cylinder" group="3" size="{vehicle.radius} {hull}" contype="1" conaffinity="0"/>
      <geom type="box" group="2" size="{0.5 * arm[0]} {0.5 * arm[1]} 0.01" rgba="0.8 0.1 0.1 1"/>{rotors}
      <camera name="onboard" fovy="{FIELD_OF_VIEW}" quat="{" ".join(map(str, turn))}"/>
    </body>
    {bodies}
    <body mocap="true">
      <camera name="agentview" fovy="{FIELD_OF_VIEW}" pos="{" ".join(map(str, CHASE))}"
        quat="{" ".join(map(str, look))}"/>
    </body>
    {pieces}
  </worldbody>
</mujoco>"""


def _piece(course: Course, index: int) -> str:
    """Stripe and walls of one piece of a corridor. Their length, along x, is set for each episode."""
    half = 0.5
    walls = "".join(
        f'<geom type="box" pos="0 {y} {WALL_HEIGHT / 2}" size="{half} 0.02 {WALL_HEIGHT / 2}" rgba="0.2 0.3 0.8 1"/>'
        for y in (-course.width / 2, course.width / 2)
    )
    stripe = (
        f'<geom name="stripe{index}" type="box" pos="0 0 0.005" size="{half} 0.08 0.005" material="gates" '
        'conaffinity="0"/>'
    )
    return f'<body mocap="true">{stripe}{walls}</body>'
