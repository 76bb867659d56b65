"""What a scripted expert sees and wants: the present state of one arm and its objects, and a goal for the gripper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import mujoco
import numpy as np


@dataclass(frozen=True)
class Scene:
    """Privileged state of a scene with one arm; positions [m] and rotations in the robot's base frame, z up.

    The gripper's frame lies between its fingertips: z points out of the hand, x from one finger to the other.

    Attributes:
        position, rotation: of the gripper, [3] and [3, 3].
        velocity, turning: of the gripper, [3] m/s and [3] rad/s.
        opening: between the fingers [m].
        max_opening: the largest [m].
        home_yaw: direction of the finger axis in the robot's home posture, which grasps should keep near to [rad].
        objects: pose [7] of every object and landmark, quaternion wxyz.
        object_velocities: of every object and landmark, [3] m/s.
    """

    position: np.ndarray
    rotation: np.ndarray
    velocity: np.ndarray
    turning: np.ndarray
    opening: float
    max_opening: float
    home_yaw: float
    objects: Mapping[str, np.ndarray]
    object_velocities: Mapping[str, np.ndarray]

    @property
    def yaw(self) -> float:
        """Direction of the finger axis, seen from above [rad]."""
        return float(np.arctan2(self.rotation[1, 0], self.rotation[0, 0]))

    def object_position(self, name: str) -> np.ndarray:
        """Position [3] of an object."""
        return self.objects[name][:3]

    def object_yaw(self, name: str) -> float:
        """Direction of an object's x axis, seen from above [rad]."""
        w, x, y, z = self.objects[name][3:]
        return float(np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z)))


@dataclass(frozen=True)
class Goal:
    """Where the gripper shall be, and how fast it may go there.

    Attributes:
        position, rotation: of the gripper, [3] and [3, 3].
        opening: of the gripper [m]; 0 grasps.
        speed: [m/s], relative to a goal that moves.
        velocity: of the goal itself, [3] m/s.
        push: added to every displacement [3] m, into what the gripper leans on: a force, as the arm is stiff.
    """

    position: np.ndarray
    rotation: np.ndarray
    opening: float
    speed: float = 0.6
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(3))
    push: np.ndarray = field(default_factory=lambda: np.zeros(3))


def raised(position: np.ndarray, height: float) -> np.ndarray:
    """The point [3] above a position [m]."""
    point: np.ndarray = position + np.array([0.0, 0.0, height])
    return point


def rotation_of(pose: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of a pose [7]."""
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, pose[3:])
    return matrix.reshape(3, 3)


def downwards(yaw: float) -> np.ndarray:
    """Rotation [3, 3] of a gripper that points down, with its finger axis in the direction `yaw` [rad]."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])


def nearest_yaw(yaw: float, period: float, reference: float) -> float:
    """Of the equivalent directions `yaw + k period`, the one nearest to `reference` [rad]."""
    return yaw + period * round((reference - yaw) / period)
