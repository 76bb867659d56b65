"""From readings of a device to absolute targets of the robot: frames, gains, dead band, clutch, filter. Pure.

    mapping.begin(joint_position, opening)                              # when the lease is granted
    action = mapping.step(reading, joint_position, opening, period)     # in each control period

A target starts where the arm is and moves on from the last target, never from the measurement, so that neither noise
nor sag pull it along; it runs ahead of the arm by no more than `lead`, so that an arm that is blocked does not spring
when it comes free. Nothing here is a limit of safety: those are the Supervisor's.

Frames, each turning the device's FLU (x away from the person, y left, z up) into directions of the base frame:

- `base`: the person looks along the base's x; `yaw` turns the person, pi: sits opposite the robot;
- `camera`: the person looks at the picture of a camera with the orientation `camera` (FLU: x into the picture);
- `tool`: x along the fingers, y from finger to finger, z across; turns with the hand.

`heading` is of vehicles, see `flight_mapping`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from robot_rl.datasets import Contract
from robot_rl.hardware.teleop.device import ANGULAR_SPEED, LINEAR_SPEED, Reading
from robot_rl.sim.kinematics import Kinematics
from robot_rl.sim.rotation import (
    matrix_from_quaternion,
    matrix_from_vector,
    quaternion_from_matrix,
    vector_from_matrix,
)

Frame = Literal["base", "tool", "camera", "heading"]

TOOL = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
"""The device's axes in the end-effector's frame, whose z points out of the hand and whose x from finger to finger."""

CAUGHT_UP = 0.05
"""A leader arm is followed at its own speed once every joint is this near [rad]; until then, at `joint_speed`."""

MOVED = 0.05
"""A leader arm asks for the robot when a joint has moved so far [rad]."""

GRIPPER_MOVED = 0.1
"""The gripper of a device asks for the robot when it has moved so far, of its whole range."""

FEW_JOINTS_TURN = 0.03
"""Metres that a radian counts as for an arm with fewer than six joints, which cannot hold both: position is first."""


class MappingError(ValueError):
    """The settings, or a reading, do not fit this robot; the message says what was expected."""


@dataclass(frozen=True)
class Settings:
    """How a device moves the robot.

    Attributes:
        frame: see above.
        yaw: of the person, for `base` [rad].
        camera: orientation of the camera in the base frame, for `camera`, wxyz.
        linear_gain, angular_gain: of twists, and of the motion of poses.
        linear_speed, angular_speed: the fastest that the target moves [m/s], [rad/s].
        joint_speed: at which the robot catches up with a leader arm [rad/s].
        dead_band: of each axis of a twist, as a part of full deflection; beyond it the motion begins at zero.
        smoothing: time constant of the low-pass filter of twists [s].
        slow: factor of the button of that name.
        lead: how far the target may be ahead of the arm [m]; for rotations `lead_angle` [rad].
        gripper: the button `gripper` toggles, or closes while it is held.
    """

    frame: Frame = "base"
    yaw: float = 0.0
    camera: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    linear_gain: float = 1.0
    angular_gain: float = 1.0
    linear_speed: float = 0.5
    angular_speed: float = 2.0
    joint_speed: float = 0.8
    dead_band: float = 0.05
    smoothing: float = 0.05
    slow: float = 0.25
    lead: float = 0.12
    lead_angle: float = 0.6
    gripper: Literal["toggle", "hold"] = "toggle"

    def __post_init__(self) -> None:
        if self.frame not in get_args(Frame):
            raise MappingError(f"frame: expected one of {', '.join(get_args(Frame))}, got {self.frame!r}")
        if self.gripper not in ("toggle", "hold"):
            raise MappingError(f"gripper: expected toggle or hold, got {self.gripper!r}")
        if not 0.0 <= self.dead_band < 1.0 or not self.smoothing >= 0.0 or not 0.0 < self.slow <= 1.0:
            raise MappingError(f"expected 0 <= dead_band < 1, smoothing >= 0 and 0 < slow <= 1, got {self}")
        speeds = ("linear_speed", "angular_speed", "joint_speed", "lead", "lead_angle")
        if wrong := [name for name in speeds if not getattr(self, name) > 0.0]:
            raise MappingError(f"{', '.join(wrong)}: expected more than zero")
        if len(self.camera) != 4 or not np.linalg.norm(self.camera) > 0.1:
            raise MappingError(f"camera: expected a quaternion w x y z, got {list(self.camera)}")


class Pose(NamedTuple):
    """Position [3] m and rotation matrix [3, 3]."""

    position: np.ndarray
    rotation: np.ndarray


class Mapping:
    """Turns readings into actions under a robot's contract.

    Args:
        contract: whose action is `joint_position` or `ee_pose`, absolute, and `gripper_opening` where there is one.
        kinematics: of the arm; a leader arm that moves a robot by its joints needs none.
        settings: see there.
        max_opening: of the gripper [m].

    Raises:
        MappingError: the contract has another action, or the frame is of vehicles.
    """

    feature = "joint_position"
    """What it has to know of the arm."""

    def __init__(
        self, contract: Contract, kinematics: Kinematics | None, settings: Settings, max_opening: float = 0.0
    ) -> None:
        if settings.frame == "heading":
            raise MappingError("frame: heading is of a vehicle; expected base, tool or camera")
        arm = set(contract.action) - {"gripper_opening"}
        if arm not in ({"joint_position"}, {"ee_pose"}):
            raise MappingError(f"{contract.name}: expected the action joint_position or ee_pose, got {sorted(arm)}")
        if arm == {"ee_pose"} and kinematics is None:
            raise MappingError(f"{contract.name}: poses need the arm's model; name one in the robot's file")
        self._contract, self._kinematics, self.settings = contract, kinematics, settings
        self._pose_actions, self._max_opening = arm == {"ee_pose"}, max_opening
        self._view = _view(settings)
        self._joints = np.zeros(0)
        self._pose: Pose | None = None
        self._twist = np.zeros(6)
        self._anchor: tuple[Pose, Pose, np.ndarray] | None = None
        self._caught_up = False
        self._opening, self._pressed = max_opening, False
        self._seen: Reading | None = None

    def begin(self, joint_position: np.ndarray, opening: float = 0.0) -> None:
        """Start from where the arm is: joints [dof] rad, opening [m]."""
        self._joints = np.array(joint_position, float)
        self._pose = None if self._kinematics is None else _pose(self._kinematics.forward(self._joints))
        self._twist = np.zeros(6)
        self._anchor, self._caught_up = None, False
        self._opening = opening

    def toggle_gripper(self) -> None:
        """The word `gripper`: open when it is more closed than open, else close."""
        self._opening = 0.0 if self._opening > 0.5 * self._max_opening else self._max_opening

    def is_deflected(self, reading: Reading) -> bool:
        """Whether the device is held away from its rest: a reading tells that by itself."""
        if reading.buttons & {"clutch", "takeover", "gripper"} or reading.target is not None:
            return True
        return bool(self._deflection(reading).any())

    def is_moved(self, reading: Reading) -> bool:
        """Whether the person moves the device since the last call, or holds it away from its rest."""
        if self.is_deflected(reading):
            return True
        seen = self._seen
        self._seen = reading if seen is None else seen
        if seen is None:
            return False
        moved = False
        if reading.joint_position is not None and seen.joint_position is not None:
            moved = bool(np.abs(reading.joint_position - seen.joint_position).max() > MOVED)
        if reading.gripper is not None and seen.gripper is not None:
            moved = moved or abs(reading.gripper - seen.gripper) > GRIPPER_MOVED
        if moved:
            self._seen = reading
        return moved

    def step(self, reading: Reading, joint_position: np.ndarray, opening: float, period: float) -> np.ndarray:
        """The action [A] for the control period that begins now.

        Args:
            reading: of the device.
            joint_position: measured [dof] rad.
            opening: measured [m]; a gripper that holds something never reaches its target.
            period: since the last step [s].

        Raises:
            MappingError: the reading does not fit this robot.
        """
        if not len(self._joints):
            self.begin(joint_position, opening)
        if reading.joint_position is not None:
            self._follow_joints(reading.joint_position, period)
        elif self._pose is not None:
            self._follow(reading, joint_position, period)
        elif reading.twist is not None or reading.pose is not None or reading.target is not None:
            raise MappingError(f"{self._contract.name}: poses need the arm's model; name one in the robot's file")
        self._move_gripper(reading)
        parts = {"gripper_opening": np.array([self._opening])}
        if self._pose_actions:
            pose = self._pose
            assert pose is not None
            parts["ee_pose"] = np.concatenate([pose.position, pose.rotation[:, :2].T.ravel()])
        else:
            parts["joint_position"] = self._joints
        return self._contract.join_action({name: parts[name] for name in self._contract.action})

    def _follow_joints(self, wanted: np.ndarray, period: float) -> None:
        if wanted.shape != self._joints.shape:
            raise MappingError(f"the leader arm has {len(wanted)} joints, the robot {len(self._joints)}")
        way = wanted - self._joints
        self._caught_up = self._caught_up or bool(np.abs(way).max() < CAUGHT_UP)
        if not self._caught_up:
            way *= min(1.0, self.settings.joint_speed * period / float(np.abs(way).max()))
        self._joints = self._joints + way
        if self._kinematics is not None:
            limits = self._kinematics.lower, self._kinematics.upper
            self._joints = np.clip(self._joints, *limits)
            self._pose = _pose(self._kinematics.forward(self._joints))

    def _follow(self, reading: Reading, joint_position: np.ndarray, period: float) -> None:
        before, kinematics = self._pose, self._kinematics
        assert before is not None
        assert kinematics is not None
        wanted = self._by_twist(reading, before, period)
        if reading.pose is not None:
            wanted = self._by_pose(reading, wanted)
        if reading.target is not None:
            wanted = _pose(reading.target)
        settings, arm = self.settings, _pose(kinematics.forward(joint_position))
        wanted = _towards(before, wanted, settings.linear_speed * period, settings.angular_speed * period)
        wanted = _towards(arm, wanted, settings.lead, settings.lead_angle)
        if np.array_equal(wanted.position, before.position) and np.array_equal(wanted.rotation, before.rotation):
            return
        seed = self._joints
        if len(seed) < 6:
            self._joints = _nearest(kinematics, wanted, seed)
            # What such an arm cannot hold is given up, or else it would be made up for later.
            self._pose = Pose(wanted.position, _pose(kinematics.forward(self._joints)).rotation)
        else:
            self._pose = wanted
            if not self._pose_actions:
                pose = np.concatenate([wanted.position, quaternion_from_matrix(wanted.rotation)])
                self._joints = kinematics.inverse(pose, seed)
        reached = _pose(kinematics.forward(self._joints))
        if not self._pose_actions and np.linalg.norm(reached.position - wanted.position) > 0.02:
            # Out of reach: the target waits there, so that the way back begins at once.
            self._pose = Pose(reached.position, self._pose.rotation)

    def _by_twist(self, reading: Reading, before: Pose, period: float) -> Pose:
        settings = self.settings
        raw = self._deflection(reading) * (settings.slow if "slow" in reading.buttons else 1.0)
        wanted = raw * np.repeat([LINEAR_SPEED * settings.linear_gain, ANGULAR_SPEED * settings.angular_gain], 3)
        self._twist += (wanted - self._twist) * (1.0 - np.exp(-period / max(settings.smoothing, 1e-9)))
        if not raw.any() and np.abs(self._twist).max() < 1e-3:
            self._twist[:] = 0.0
        if not self._twist.any():
            return before
        view = self._view_from(before)
        linear, angular = view @ self._twist[:3] * period, view @ self._twist[3:] * period
        return Pose(before.position + linear, matrix_from_vector(angular) @ before.rotation)

    def _by_pose(self, reading: Reading, before: Pose) -> Pose:
        assert reading.pose is not None
        if "clutch" not in reading.buttons:
            self._anchor = None
            return before
        here = _pose(reading.pose)
        if self._anchor is None:
            self._anchor = here, before, self._view_from(before)
        start, target, view = self._anchor
        settings = self.settings
        shift = view @ (here.position - start.position) * settings.linear_gain
        turn = view @ vector_from_matrix(here.rotation @ start.rotation.T) * settings.angular_gain
        return Pose(target.position + shift, matrix_from_vector(turn) @ target.rotation)

    def _deflection(self, reading: Reading) -> np.ndarray:
        return deflection(reading, self.settings.dead_band)

    def _view_from(self, pose: Pose) -> np.ndarray:
        return pose.rotation @ TOOL if self.settings.frame == "tool" else self._view

    def _move_gripper(self, reading: Reading) -> None:
        held = "gripper" in reading.buttons
        if reading.gripper is not None:
            self._opening = reading.gripper * self._max_opening
        elif self.settings.gripper == "hold" and (held or self._pressed):
            self._opening = 0.0 if held else self._max_opening
        elif held and not self._pressed:
            self.toggle_gripper()
        self._pressed = held


def deflection(reading: Reading, dead_band: float) -> np.ndarray:
    """Twist of a reading as a part of full deflection, without its dead band, [6]."""
    if reading.twist is None:
        return np.zeros(6)
    part = reading.twist / np.repeat([LINEAR_SPEED, ANGULAR_SPEED], 3)
    share: np.ndarray = np.sign(part) * np.maximum(np.abs(part) - dead_band, 0.0) / (1.0 - dead_band)
    return share


def _view(settings: Settings) -> np.ndarray:
    """The device's axes in the base frame, [3, 3]."""
    if settings.frame == "camera":
        return matrix_from_quaternion(np.array(settings.camera, float))
    return matrix_from_vector(np.array([0.0, 0.0, settings.yaw]))


def _nearest(kinematics: Kinematics, wanted: Pose, seed: np.ndarray) -> np.ndarray:
    """Joints near `seed` whose position is that of a pose, and whose rotation is near it: damped Gauss-Newton."""
    joints, weight = seed, np.repeat([1.0, FEW_JOINTS_TURN], 3)
    for _ in range(4):
        now = _pose(kinematics.forward(joints))
        error = np.concatenate([wanted.position - now.position, vector_from_matrix(wanted.rotation @ now.rotation.T)])
        jacobian = weight[:, None] * kinematics.jacobian(joints)
        gram = jacobian.T @ jacobian + 1e-5 * np.eye(len(joints))
        step = np.linalg.solve(gram, jacobian.T @ (weight * error))
        joints = np.clip(joints + step, kinematics.lower, kinematics.upper)
    return joints


def _towards(start: Pose, end: Pose, distance: float, angle: float) -> Pose:
    """The pose on the way from one to another that is no further than that [m], [rad] from its start."""
    way, turn = end.position - start.position, vector_from_matrix(end.rotation @ start.rotation.T)
    length, turned = float(np.linalg.norm(way)), float(np.linalg.norm(turn))
    position = end.position if length <= distance else start.position + way * (distance / length)
    rotation = end.rotation if turned <= angle else matrix_from_vector(turn * (angle / turned)) @ start.rotation
    return Pose(position, rotation)


def _pose(values: np.ndarray) -> Pose:
    return Pose(np.array(values[:3], float), matrix_from_quaternion(np.asarray(values[3:], float)))
