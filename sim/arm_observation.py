"""What an arm scene shows of itself: joints, grippers, end-effectors, objects and cameras."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import mujoco
import numpy as np

from robot_rl.datasets.contract import Feature
from robot_rl.sim.arm_model import Arm, ArmModel
from robot_rl.sim.camera_feature import camera_feature
from robot_rl.sim.compiled import compiled
from robot_rl.sim.spec import SpecError

if TYPE_CHECKING:
    from robot_rl.sim.render import Renderer


class ArmObservation:
    """Reads observations off MuJoCo's data.

    Args:
        cameras: name to [height, width].
        quality: of rendering, `fast` or `full`.

    Attributes:
        features: all that can be observed, by name, in the contract's order.
    """

    def __init__(self, arm_model: ArmModel, cameras: Mapping[str, Sequence[int]], quality: str) -> None:
        self._model, self._data, self._arms = arm_model.model, arm_model.data, arm_model.arms
        self._known_cameras = arm_model.cameras
        self._quality = quality
        self._renderer: Renderer | None = None
        self._sizes = {camera: (int(size[0]), int(size[1])) for camera, size in cameras.items()}
        for camera in self._sizes:
            self._camera_id(camera)
        self._objects, self._moving = list(arm_model.objects), list(arm_model.moving_objects)
        self._object_names = [*arm_model.objects, *arm_model.landmarks]
        places = [*((True, arm.site) for arm in self._arms), *arm_model.objects.values(), *arm_model.landmarks.values()]
        frames = [*(arm.base for arm in self._arms), *[self._arms[0].base] * len(self._object_names)]
        moving = [arm_model.objects[name] for name in self._moving]
        self._sources = _sources(self._model, self._data, self._arms, places, frames, moving)
        self._pictures: dict[str, np.ndarray] = {}
        self.features = {feature.name: feature for feature in self._all_features()}
        self._slices = _slices(self._arms, self._object_names, self._moving)
        self.select(self.features)

    def select(self, names: Iterable[str]) -> None:
        """Read only these features from now on, in this order."""
        self._order = list(names)

    def read(self, look: bool = True) -> dict[str, np.ndarray]:
        """The observation of the present state, in new arrays; without a look, the pictures are those of the last."""
        state = read_state(self._sources).astype(np.float32)
        if look:
            self._pictures = {name: self.image(name, *self._sizes[name]) for name in self._order if name in self._sizes}
        return {
            name: self._pictures[name].copy() if name in self._sizes else state[self._slices[name]]
            for name in self._order
        }

    def state(self) -> dict[str, np.ndarray]:
        """All low-dimensional features of the present state, selected or not, float64."""
        state = read_state(self._sources)
        return {name: state[part] for name, part in self._slices.items()}

    def object_poses(self) -> dict[str, np.ndarray]:
        """Pose [7] of each object and landmark in the first robot's base frame, float64."""
        state = read_state(self._sources)
        return {name: state[self._slices[f"{name}_pose"]] for name in self._object_names}

    def image(self, camera: str, height: int, width: int) -> np.ndarray:
        """Picture of a camera, uint8 [height, width, 3]."""
        index = self._camera_id(camera)
        if self._renderer is None:
            from robot_rl.sim.render import Renderer

            self._renderer = Renderer(self._model, self._quality)  # type: ignore[arg-type]
        return self._renderer.render(self._data, index, np.empty((height, width, 3), np.uint8))

    def show_textures(self, textures: Iterable[int]) -> None:
        """Use the changed texels of textures for all pictures to come."""
        if self._renderer is not None:
            for texture in textures:
                self._renderer.upload_texture(texture)

    def set_camera_pose(self, camera: str, pose: np.ndarray) -> int:
        """See `ArmEnv.set_camera_pose`; returns the camera's number in the model."""
        if pose.shape != (7,) or not np.isfinite(pose).all() or not pose[3:].any():
            raise ValueError(f"expected a finite pose [7] (position, quaternion wxyz), got {pose.tolist()}")
        index = self._camera_id(camera)
        model, data = self._model, self._data
        position, quaternion = pose[:3].copy(), pose[3:] / np.linalg.norm(pose[3:])
        if model.cam_bodyid[index] == 0:
            base = self._arms[0].base
            position = data.xpos[base] + data.xmat[base].reshape(3, 3) @ position
            turned = np.empty(4)
            mujoco.mju_mulQuat(turned, data.xquat[base], quaternion)
            quaternion = turned
        model.cam_pos[index], model.cam_quat[index] = position, quaternion
        return index

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _camera_id(self, camera: str) -> int:
        if camera not in self._known_cameras:
            raise SpecError(f"no camera {camera!r}; there are: {', '.join(self._known_cameras)}")
        return self._known_cameras.index(camera)

    def _all_features(self) -> Iterable[Feature]:
        for arm in self._arms:
            names = arm.joint_names
            yield Feature(f"{arm.prefix}joint_position", (arm.dof,), names=names, unit="rad")
            yield Feature(f"{arm.prefix}joint_velocity", (arm.dof,), names=names, unit="rad/s")
            yield Feature(f"{arm.prefix}gripper_opening", (1,), unit="m")
            yield Feature(f"{arm.prefix}ee_pose", (7,), frame=arm.base_frame, representation="position_quaternion")
        for name in self._objects:
            frame = self._arms[0].base_frame
            yield Feature(f"{name}_pose", (7,), frame=frame, representation="position_quaternion")
        for name in self._moving:
            yield Feature(f"{name}_velocity", (3,), frame=self._arms[0].base_frame, unit="m/s")
        for camera, size in self._sizes.items():
            yield camera_feature(camera, *size, self._model.cam_fovy[self._camera_id(camera)])


def _slices(arms: Sequence[Arm], objects: Sequence[str], moving: Sequence[str]) -> dict[str, slice]:
    """Where each feature stands in the vector of `read_state`."""
    sizes = {
        **{f"{arm.prefix}joint_position": arm.dof for arm in arms},
        **{f"{arm.prefix}joint_velocity": arm.dof for arm in arms},
        **{f"{arm.prefix}gripper_opening": 1 for arm in arms},
        **{f"{arm.prefix}ee_pose": 7 for arm in arms},
        **{f"{name}_pose": 7 for name in objects},
        **{f"{name}_velocity": 3 for name in moving},
    }
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


class Sources(NamedTuple):
    """Where the state is read: addresses, and views of MuJoCo's data."""

    qpos: np.ndarray
    qvel: np.ndarray
    joints: np.ndarray
    dofs: np.ndarray
    drive: np.ndarray
    """[arms, nq]: weights of the joint positions in the drive of each gripper."""
    gripper_start: np.ndarray
    measured: np.ndarray
    opening: np.ndarray
    is_site: np.ndarray
    ids: np.ndarray
    frames: np.ndarray
    body_position: np.ndarray
    body_rotation: np.ndarray
    site_position: np.ndarray
    site_rotation: np.ndarray
    moving_is_site: np.ndarray
    moving_ids: np.ndarray
    moving_bodies: np.ndarray
    """[M]: the body that each moving object is part of."""
    moving_roots: np.ndarray
    """[M]: the root of its kinematic tree, about whose centre of mass MuJoCo states velocities."""
    base: int
    body_velocity: np.ndarray
    center_of_mass: np.ndarray


def _sources(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    arms: Sequence[Arm],
    places: Sequence[tuple[bool, int]],
    frames: Sequence[int],
    moving: Sequence[tuple[bool, int]],
) -> Sources:
    joints = np.concatenate([arm.joints for arm in arms])
    drive = np.zeros((len(arms), model.nq))
    tables = []
    for row, arm in zip(drive, arms, strict=True):
        gripper = arm.gripper
        row[gripper.qpos] = gripper.weights
        order = np.argsort(gripper.measured)
        tables.append((gripper.measured[order], gripper.opening[order]))
    bodies = np.array([model.site_bodyid[index] if is_site else index for is_site, index in moving], np.int64)
    return Sources(
        data.qpos, data.qvel, model.jnt_qposadr[joints].astype(np.int64), model.jnt_dofadr[joints].astype(np.int64),
        drive, np.cumsum([0, *(len(measured) for measured, _ in tables)]),
        np.concatenate([measured for measured, _ in tables]), np.concatenate([opening for _, opening in tables]),
        np.array([is_site for is_site, _ in places]), np.array([index for _, index in places], np.int64),
        np.array(frames, np.int64), data.xpos, data.xmat.reshape(-1, 3, 3),
        data.site_xpos, data.site_xmat.reshape(-1, 3, 3),
        np.array([is_site for is_site, _ in moving], np.bool_), np.array([index for _, index in moving], np.int64),
        bodies, model.body_rootid[bodies].astype(np.int64), arms[0].base, data.cvel, data.subtree_com,
    )  # fmt: skip


@compiled
def read_state(sources: Sources) -> np.ndarray:
    """Joint positions and velocities, gripper openings of all arms, poses, then velocities, in one vector, float64."""
    joints, arms, poses, moving = len(sources.joints), len(sources.drive), len(sources.ids), len(sources.moving_ids)
    state = np.empty(2 * joints + arms + 7 * poses + 3 * moving)
    for k in range(joints):
        state[k] = sources.qpos[sources.joints[k]]
        state[joints + k] = sources.qvel[sources.dofs[k]]
    for arm in range(arms):
        drive = 0.0
        for k in range(len(sources.qpos)):
            drive += sources.drive[arm, k] * sources.qpos[k]
        table = slice(sources.gripper_start[arm], sources.gripper_start[arm + 1])
        state[2 * joints + arm] = np.interp(drive, sources.measured[table], sources.opening[table])
    for row in range(poses):
        pose = state[2 * joints + arms + 7 * row :][:7]
        index, frame = sources.ids[row], sources.frames[row]
        if sources.is_site[row]:
            position, rotation = sources.site_position[index], sources.site_rotation[index]
        else:
            position, rotation = sources.body_position[index], sources.body_rotation[index]
        _relative_pose(sources.body_position[frame], sources.body_rotation[frame], position, rotation, pose)
    base = sources.body_rotation[sources.base]
    for row in range(moving):
        index = sources.moving_ids[row]
        position = sources.site_position[index] if sources.moving_is_site[row] else sources.body_position[index]
        motion = sources.body_velocity[sources.moving_bodies[row]]
        arm = position - sources.center_of_mass[sources.moving_roots[row]]
        velocity = motion[3:] + np.cross(motion[:3], arm)
        for i in range(3):
            state[2 * joints + arms + 7 * poses + 3 * row + i] = np.dot(base[:, i].copy(), velocity)
    return state


@compiled
def _relative_pose(
    origin: np.ndarray, frame: np.ndarray, position: np.ndarray, rotation: np.ndarray, pose: np.ndarray
) -> None:
    """Write the pose [7] of a position [3] and rotation [3, 3] in the frame at `origin` [3]; canonical quaternion."""
    m = np.zeros((3, 3))
    for i in range(3):
        pose[i] = 0.0
        for k in range(3):
            pose[i] += frame[k, i] * (position[k] - origin[k])
            for j in range(3):
                m[i, k] += frame[j, i] * rotation[j, k]
    # The four rows are the quaternion times four times one of its components; the longest is the most exact one.
    rows = np.empty((4, 4))
    rows[0] = (1 + m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1])
    rows[1] = (m[2, 1] - m[1, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[0, 2] + m[2, 0])
    rows[2] = (m[0, 2] - m[2, 0], m[1, 0] + m[0, 1], 1 - m[0, 0] + m[1, 1] - m[2, 2], m[2, 1] + m[1, 2])
    rows[3] = (m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[2, 1] + m[1, 2], 1 - m[0, 0] - m[1, 1] + m[2, 2])
    best = 0
    for i in range(1, 4):
        if rows[i, i] > rows[best, best]:
            best = i
    length = np.sqrt(rows[best, 0] ** 2 + rows[best, 1] ** 2 + rows[best, 2] ** 2 + rows[best, 3] ** 2)
    for i in range(4):
        pose[3 + i] = rows[best, i] / length
