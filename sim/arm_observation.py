"""What an arm scene shows of itself: joints, grippers, end-effectors, objects and cameras."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from robot_rl.datasets.contract import Feature
from robot_rl.sim.arm_model import ArmModel
from robot_rl.sim.compiled import compiled
from robot_rl.sim.rotation import quaternion_from_matrix
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
        places = [(True, arm.site) for arm in self._arms]
        frames = [arm.base for arm in self._arms]
        self._pose_names = [f"{arm.prefix}ee_pose" for arm in self._arms]
        for name, place in {**arm_model.objects, **arm_model.landmarks}.items():
            places.append(place)
            frames.append(self._arms[0].base)
            self._pose_names.append(f"{name}_pose")
        self._poses = np.empty((len(places), 7))
        self._is_site = np.array([is_site for is_site, _ in places])
        self._ids = np.array([index for _, index in places], np.int64)
        self._frames = np.array(frames, np.int64)
        data = self._data
        self._pose_arguments = (
            self._is_site, self._ids, self._frames, data.xpos, data.xmat.reshape(-1, 3, 3),
            data.site_xpos, data.site_xmat.reshape(-1, 3, 3), self._poses,
        )  # fmt: skip
        self._observed_objects = list(arm_model.objects)
        self._object_names = [*arm_model.objects, *arm_model.landmarks]
        self.features = {feature.name: feature for feature in self._all_features()}
        self._qpos = [self._model.jnt_qposadr[arm.joints] for arm in self._arms]
        self._qvel = [self._model.jnt_dofadr[arm.joints] for arm in self._arms]
        self.select(self.features)

    def select(self, names: Iterable[str]) -> None:
        """Read only these features from now on."""
        names = list(names)
        self._cameras = [name for name in names if name in self._sizes]
        self._wanted = {name for name in names if name not in self._sizes}
        self._order = names
        self._read_poses = [(name, index) for index, name in enumerate(self._pose_names) if name in self._wanted]

    def read(self) -> dict[str, np.ndarray]:
        """The observation of the present state, in the contract's order; new arrays each time."""
        wanted = self._wanted
        found: dict[str, np.ndarray] = {}
        for arm, qpos, qvel in zip(self._arms, self._qpos, self._qvel, strict=True):
            if (name := arm.prefix + "joint_position") in wanted:
                found[name] = self._data.qpos[qpos].astype(np.float32)
            if (name := arm.prefix + "joint_velocity") in wanted:
                found[name] = self._data.qvel[qvel].astype(np.float32)
            if (name := arm.prefix + "gripper_opening") in wanted:
                found[name] = np.array([arm.gripper.opening_of(self._data.qpos)], np.float32)
        if self._read_poses:
            relative_poses(*self._pose_arguments)
            poses = self._poses.astype(np.float32)
            for name, index in self._read_poses:
                found[name] = poses[index]
        for camera in self._cameras:
            found[camera] = self.image(camera, *self._sizes[camera])
        return {name: found[name] for name in self._order}

    def object_poses(self) -> dict[str, np.ndarray]:
        """Pose [7] of each object and landmark in the first robot's base frame, float64."""
        relative_poses(*self._pose_arguments)
        first = len(self._arms)
        return {name: self._poses[first + index].copy() for index, name in enumerate(self._object_names)}

    def image(self, camera: str, height: int, width: int) -> np.ndarray:
        """Picture of a camera, uint8 [height, width, 3]."""
        index = self._camera_id(camera)
        if self._renderer is None:
            from robot_rl.sim.render import Renderer

            self._renderer = Renderer(self._model, self._quality)  # type: ignore[arg-type]
        return self._renderer.render(self._data, index, np.empty((height, width, 3), np.uint8))

    def set_camera_pose(self, camera: str, pose: np.ndarray) -> None:
        """See `ArmEnv.set_camera_pose`."""
        if pose.shape != (7,) or not np.isfinite(pose).all() or not pose[3:].any():
            raise ValueError(f"expected a finite pose [7] (position, quaternion wxyz), got {pose.tolist()}")
        index = self._camera_id(camera)
        model = self._model
        position, quaternion = pose[:3].copy(), pose[3:] / np.linalg.norm(pose[3:])
        if model.cam_bodyid[index] == 0:
            base = self._arms[0].base
            position = self._data.xpos[base] + self._data.xmat[base].reshape(3, 3) @ position
            turned = np.empty(4)
            mujoco.mju_mulQuat(turned, self._data.xquat[base], quaternion)
            quaternion = turned
        model.cam_pos[index], model.cam_quat[index] = position, quaternion

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
        for name in self._observed_objects:
            yield Feature(f"{name}_pose", (7,), frame=self._arms[0].base_frame, representation="position_quaternion")
        for camera, (height, width) in self._sizes.items():
            focal = 0.5 * height / np.tan(0.5 * np.radians(self._model.cam_fovy[self._camera_id(camera)]))
            calibration = {"fx": float(focal), "fy": float(focal), "cx": 0.5 * width, "cy": 0.5 * height}
            yield Feature(camera, (height, width, 3), "uint8", kind="image", calibration=calibration)


@compiled
def relative_poses(
    is_site: np.ndarray,
    ids: np.ndarray,
    frames: np.ndarray,
    body_position: np.ndarray,
    body_rotation: np.ndarray,
    site_position: np.ndarray,
    site_rotation: np.ndarray,
    poses: np.ndarray,
) -> None:
    """Poses [n, 7] of bodies and sites in the frames of other bodies; quaternions are canonical.

    Args:
        is_site, ids: what to read, [n].
        frames: body in whose frame, [n].
        poses: overwritten.
    """
    relative = np.empty((3, 3))
    for row in range(len(ids)):
        frame = body_rotation[frames[row]]
        origin = body_position[frames[row]]
        position = site_position[ids[row]] if is_site[row] else body_position[ids[row]]
        rotation = site_rotation[ids[row]] if is_site[row] else body_rotation[ids[row]]
        for i in range(3):
            poses[row, i] = 0.0
            for k in range(3):
                poses[row, i] += frame[k, i] * (position[k] - origin[k])
                relative[i, k] = 0.0
                for j in range(3):
                    relative[i, k] += frame[j, i] * rotation[j, k]
        poses[row, 3:] = quaternion_from_matrix(relative)
