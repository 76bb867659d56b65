"""The scene that the page shows: shapes of a MuJoCo model, sent once, and where its bodies are at every moment.

Meshes are cut into slices along their longest axis, and each slice is replaced by its convex hull: near the true
shape, at a hundredth of the triangles, which software rendering still shows at full rate. Everything is in the base
frame of the robot. Where no model knows an object, its pose is all there is to show, and the page draws a small cube.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import mujoco
import numpy as np
from scipy.spatial import ConvexHull, QhullError

from robot_rl.hardware.robot_file import RobotFile, Stream

SLICE = 0.05
"""Thickness of the slices of a mesh [m]."""

OVERLAP = 0.15
"""Of neighbouring slices, as a part of one, so that no gap is seen between them."""

DIRECTIONS = 96
"""A hull keeps the vertices that reach farthest in so many directions."""

SMALLEST = 0.006
"""Half the size of the smallest shape that is shown [m]; there are screws and letters among them."""

LARGEST = 3.0
"""Half the size of the largest shape that is shown [m]: walls and floors stay out."""

_MANY = 1000  # vertices from which on a mesh is worth slicing
_UNKNOWN = 0.04  # m; size of the cube for an object whose shape is not known


class Part(NamedTuple):
    """A shape of one colour on a body: vertices [n, 3] m in the body's frame, triangles [m, 3], colour [4] 0…1."""

    body: int
    colour: tuple[float, float, float, float]
    vertices: np.ndarray
    triangles: np.ndarray


def pack(
    robot: str, bodies: Sequence[str], parts: Sequence[Part], workspace: tuple[list[float], list[float]] | None
) -> bytes:
    """What frames of kind `wire.GEOMETRY` hold after their head.

    Args:
        robot: its name.
        bodies: names, in the order of the poses.
        parts: their `body` is a place in `bodies`.
        workspace: lower and upper corner of the box that is drawn around everything [m].
    """
    described: list[dict[str, Any]] = []
    first, corner = 0, 0
    for part in parts:
        described.append({
            "body": part.body, "colour": [round(value, 3) for value in part.colour],
            "vertices": [first, len(part.vertices)], "triangles": [corner, len(part.triangles)],
        })  # fmt: skip
        first, corner = first + len(part.vertices), corner + len(part.triangles)
    header = json.dumps({
        "robot": robot, "bodies": list(bodies), "parts": described, "workspace": workspace,
        "vertices": first, "triangles": corner,
    }).encode()  # fmt: skip
    header += b" " * (-len(header) % 4)
    return b"".join([
        struct.pack("<I", len(header)), header,
        np.concatenate([part.vertices for part in parts]).astype("<f4").tobytes(),
        np.concatenate([part.triangles for part in parts]).astype("<u4").tobytes(),
    ])  # fmt: skip


class Scene:
    """A robot, and the objects and furniture of its task where there is a simulation of it.

    Args:
        robot: whose model is shown.
        task: of `sim`, whose furniture and objects are shown around the robot; empty: the robot alone.

    Attributes:
        objects: names of the objects that the model knows.

    Raises:
        RobotFileError: the robot's file names no model.
        SpecError: there is no such task.
    """

    def __init__(self, robot: RobotFile, task: str = "") -> None:
        self._gripper: tuple[np.ndarray, Any] | None = None
        self._objects: dict[str, _Object] = {}
        if task and robot.model is not None and robot.model.sim:
            self._load_task(robot, task)
        else:
            self._load_robot(robot)
        model, data = self._model, self._data
        mujoco.mj_kinematics(model, data)
        kept = [body for body in range(1, model.nbody) if self._shown(body, bool(task))]
        parts = [part for body in kept for part in parts_of(model, body)]
        self._bodies = np.array(sorted({part.body for part in parts}), int)
        self._parts = parts
        turned = data.xquat[self._base] * [1, -1, -1, -1]
        self._from_base = data.xmat[self._base].reshape(3, 3).copy()
        self._origin = data.xpos[self._base].copy()
        w, x, y, z = turned
        self._turn = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
        self._further: list[str] = []
        self._robot = robot

    @property
    def objects(self) -> list[str]:
        """Names of the objects that the model knows."""
        return list(self._objects)

    def know(self, objects: Sequence[str]) -> bool:
        """Objects that are seen; those that the model does not know are added. Whether the geometry has changed."""
        new = [name for name in objects if name not in self._objects and name not in self._further]
        self._further += new
        return bool(new)

    def geometry(self) -> bytes:
        """What frames of kind `wire.GEOMETRY` hold after their head."""
        place = {int(body): index for index, body in enumerate(self._bodies)}
        bodies = [self._model.body(int(body)).name for body in self._bodies]
        cube = 0.5 * _UNKNOWN * _CUBE
        sides = _outward(ConvexHull(cube))
        shown = [part._replace(body=place[part.body]) for part in self._parts]
        shown += [
            Part(len(bodies) + number, (0.9, 0.6, 0.2, 0.6), cube, sides) for number, _ in enumerate(self._further)
        ]
        box = self._robot.workspace
        space = (list(box.lower), list(box.upper)) if box else None
        return pack(self._robot.name, bodies + self._further, shown, space)

    def poses(
        self, joint_position: np.ndarray, opening: float | None = None, objects: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Pose of every body in the base frame, and last that of the end-effector: [bodies + 1, 7] float32.

        Args:
            joint_position: of the arm [dof] rad.
            opening: of the gripper [m]; None leaves it as it was.
            objects: poses [7] in the base frame by name; the others stay where they were.
        """
        model, data = self._model, self._data
        data.qpos[self._joints] = joint_position
        if self._gripper is not None and opening is not None:
            addresses, positions = self._gripper
            data.qpos[addresses] = positions(opening)
        given = objects or {}
        for name, pose in given.items():
            if name in self._objects:
                self._objects[name].place(model, data, self._origin, data.xquat[self._base], pose)
        mujoco.mj_kinematics(model, data)
        position = np.vstack([data.xpos[self._bodies], data.site_xpos[self._site]])
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, data.site_xmat[self._site])
        rotation = np.vstack([data.xquat[self._bodies], quaternion]) @ self._turn.T
        known = np.hstack([(position - self._origin) @ self._from_base, rotation])
        further = [given.get(name, _HIDDEN) for name in self._further]
        return np.vstack([known[:-1], *further, known[-1:]]).astype(np.float32)

    def _load_task(self, robot: RobotFile, task: str) -> None:
        from robot_rl.sim.arm_model import load_arm_model

        assert robot.model is not None
        built = load_arm_model(task, robot.model.sim, robot.contract.rate_hz)
        built.reset(0)
        arm, self._model = built.arms[0], built.model
        self._data = data = mujoco.MjData(self._model)
        data.qpos[:] = built.data.qpos
        mujoco.mj_kinematics(self._model, data)
        self._joints = self._model.jnt_qposadr[arm.joints]
        self._base, self._site = arm.base, arm.site
        hand = arm.gripper

        def fingers(opening: float) -> np.ndarray:
            drive = np.interp(opening, hand.opening, hand.measured)
            return np.asarray(drive * hand.weights / (hand.weights @ hand.weights))

        self._gripper = hand.qpos, fingers
        for name, (is_site, index) in built.objects.items():
            self._objects[name] = _Object(self._model, data, is_site, index)

    def _load_robot(self, robot: RobotFile) -> None:
        parts = robot.parts
        self._model = model = parts.model
        self._data = data = mujoco.MjData(model)
        self._joints = np.array([model.joint(name).qposadr[0] for name in parts.joints])
        self._base, self._site = model.body(parts.base).id, model.site(parts.site).id
        data.qpos[self._joints] = robot.home
        stream = robot.streams.get("gripper_opening")
        if stream is not None:
            self._gripper = _finger(model, stream)

    def _shown(self, body: int, furniture: bool) -> bool:
        model = self._model
        if model.body_mocapid[model.body_rootid[body]] >= 0:
            return False
        if furniture:
            # Markers that robosuite places in every scene.
            return "eef_target" not in model.body(body).name
        while body > 0 and body != self._base:
            body = int(model.body_parentid[body])
        return body == self._base


class _Object:
    """An object of the model, which is moved as a whole to where its observed frame shall be."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, is_site: bool, index: int) -> None:
        body = int(model.site_bodyid[index]) if is_site else index
        self.root = int(model.body_rootid[body])
        joint = int(model.body_jntadr[self.root])
        free = joint >= 0 and model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE
        self.address = int(model.jnt_qposadr[joint]) if free else None
        position, quaternion = data.xpos[body], data.xquat[body]
        if is_site:
            position, quaternion = data.site_xpos[index], np.empty(4)
            mujoco.mju_mat2Quat(quaternion, data.site_xmat[index])
        inverse = np.empty(3), np.empty(4)
        mujoco.mju_negPose(*inverse, position, quaternion)
        # The root body, seen from the frame that is observed.
        self.within = np.empty(3), np.empty(4)
        mujoco.mju_mulPose(*self.within, *inverse, data.xpos[self.root], data.xquat[self.root])

    def place(
        self, model: mujoco.MjModel, data: mujoco.MjData, origin: np.ndarray, turn: np.ndarray, pose: np.ndarray
    ) -> None:
        frame, world = (np.empty(3), np.empty(4)), (np.empty(3), np.empty(4))
        mujoco.mju_mulPose(*frame, origin, turn, np.asarray(pose[:3], float), np.asarray(pose[3:], float))
        mujoco.mju_mulPose(*world, *frame, *self.within)
        if self.address is None:
            model.body_pos[self.root], model.body_quat[self.root] = world
        else:
            data.qpos[self.address : self.address + 3] = world[0]
            data.qpos[self.address + 3 : self.address + 7] = world[1]


_CUBE = np.array(np.meshgrid([-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0])).reshape(3, -1).T
_ANGLE = np.arange(DIRECTIONS) * np.pi * (3.0 - 5.0**0.5)  # the golden angle: a spiral of equal density
_HEIGHT = 1.0 - (2.0 * np.arange(DIRECTIONS) + 1.0) / DIRECTIONS
_AROUND = np.stack([
    np.sqrt(1.0 - _HEIGHT**2) * np.cos(_ANGLE), np.sqrt(1.0 - _HEIGHT**2) * np.sin(_ANGLE), _HEIGHT,
])  # fmt: skip
_HIDDEN = np.array([0.0, 0.0, -100.0, 1.0, 0.0, 0.0, 0.0])


def _finger(model: mujoco.MjModel, stream: Stream) -> tuple[np.ndarray, Any] | None:
    """The gripper's joints, if the model has those of the graph, and their positions at an opening."""
    found = {name: mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name) for name in stream.elements}
    if not found or min(found.values()) < 0:
        return None
    addresses = np.array([model.jnt_qposadr[index] for index in found.values()])
    weights = np.array(stream.weights or [1.0] * len(found))

    def positions(opening: float) -> np.ndarray:
        sum_ = float(stream.scale.to_graph(opening)) if stream.scale else opening
        return np.asarray(sum_ * weights / (weights @ weights))

    return addresses, positions


def parts_of(model: mujoco.MjModel, body: int) -> list[Part]:
    """The visible shapes of a body, one part for each colour."""
    geoms = range(model.body_geomadr[body], model.body_geomadr[body] + model.body_geomnum[body])
    # By convention, shapes that are for contacts alone are of group 3; in robosuite's models, which use 1, of group 0.
    hidden = (0, 3) if (model.geom_group == 1).any() else (3,)
    hulls: dict[tuple[float, float, float, float], list[tuple[np.ndarray, np.ndarray]]] = {}
    for geom in (geom for geom in geoms if model.geom_group[geom] not in hidden):
        points, sliced = _points(model, geom)
        if not len(points) or not SMALLEST <= 0.5 * np.ptp(points, axis=0).max() <= LARGEST:
            continue
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
        for piece in _slices(points) if sliced else [points]:
            hull = _hull(piece)
            if hull is not None:
                placed = hull[0] @ rotation.reshape(3, 3).T + model.geom_pos[geom]
                hulls.setdefault(_colour(model, geom), []).append((placed, hull[1]))
    parts = []
    for colour, pieces in hulls.items():
        if colour[3] < 0.05:
            continue
        starts = np.cumsum([0, *(len(vertices) for vertices, _ in pieces)])
        triangles = [corners + start for (_, corners), start in zip(pieces, starts[:-1], strict=True)]
        parts.append(
            Part(body, colour, np.concatenate([vertices for vertices, _ in pieces]), np.concatenate(triangles))
        )
    return parts


def _points(model: mujoco.MjModel, geom: int) -> tuple[np.ndarray, bool]:
    """Points whose convex hull is the shape of a geom [n, 3] m, and whether it is a mesh that deserves slices."""
    kind, size = mujoco.mjtGeom(model.geom_type[geom]), model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        corner, corners = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        vertices = np.asarray(model.mesh_vert[first : first + count], float)
        if count < _MANY:
            return vertices, False
        # Three corners a triangle: a slice needs those of the triangles that reach into it.
        return vertices[model.mesh_face[corner : corner + corners]].reshape(-1, 3), True
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return _CUBE * size, False
    up = np.array([0.0, 0.0, size[1]])
    angle = np.linspace(0.0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], 1)
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        flat = ring * [size[0], size[0], 0.0]
        return np.vstack([flat + up, flat - up]), False
    heights = np.linspace(-np.pi / 2, np.pi / 2, 13)
    sphere = np.concatenate([ring * np.cos(height) + [0, 0, np.sin(height)] for height in heights])
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return sphere * size[0], False
    if kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
        return sphere * size, False
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        return np.vstack([sphere * size[0] + up, sphere * size[0] - up]), False
    return np.empty((0, 3)), False


def _slices(corners: np.ndarray) -> list[np.ndarray]:
    """Points [n, 3] of each slice of a mesh given by the corners of its triangles [3 m, 3]."""
    axis = int(np.argmax(np.ptp(corners, axis=0)))
    low, high = corners[:, axis].min(), corners[:, axis].max()
    count = max(1, round((high - low) / SLICE))
    triangles = corners.reshape(-1, 3, 3)
    along = (triangles[:, :, axis] - low) / (high - low) * count
    begin, end = along.min(1) - OVERLAP, along.max(1) + OVERLAP
    slices = [triangles[(begin < index + 1) & (end > index)].reshape(-1, 3) for index in range(count)]
    return [points for points in slices if len(points)]


def _hull(points: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Vertices and outward triangles of the convex hull; None for what is flat."""
    farthest = np.unique(np.argmax((points - points.mean(0)) @ _AROUND, axis=0))
    try:
        hull = ConvexHull(points[farthest])
    except QhullError:
        return None
    triangles = _outward(hull)
    used, numbered = np.unique(triangles, return_inverse=True)
    return hull.points[used], numbered.reshape(-1, 3)


def _outward(hull: ConvexHull) -> np.ndarray:
    """Triangles of a hull [n, 3], counter-clockwise seen from outside: Qhull orders them as it likes."""
    triangles = hull.simplices.copy()
    a, b, c = (hull.points[triangles[:, corner]] for corner in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), hull.equations[:, :3]) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return np.asarray(triangles)


def _colour(model: mujoco.MjModel, geom: int) -> tuple[float, float, float, float]:
    """Colour of a geom; of a texture its mean."""
    material = model.geom_matid[geom]
    if material < 0:
        rgba = model.geom_rgba[geom].astype(float)
    else:
        rgba = model.mat_rgba[material].astype(float)
        texture = model.mat_texid[material][mujoco.mjtTextureRole.mjTEXROLE_RGB]
        if texture >= 0:
            channels = model.tex_nchannel[texture]
            first, size = model.tex_adr[texture], model.tex_height[texture] * model.tex_width[texture] * channels
            texels = model.tex_data[first : first + size].reshape(-1, channels)
            rgba[:3] *= np.resize(texels.mean(0), 3) / 255.0
    return tuple(np.round(rgba, 3).tolist())
