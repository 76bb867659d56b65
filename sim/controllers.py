"""What executes an action for one control period: the Servo with absolute targets, or robosuite's OSC with deltas."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import mujoco
import numpy as np

from robot_rl.datasets.contract import Feature
from robot_rl.sim.arm_model import PHYSICS_PERIOD, Arm, ArmModel
from robot_rl.sim.kinematics import Kinematics
from robot_rl.sim.osc import Osc, follow_goals
from robot_rl.sim.rotation import matrix_from_6d, quaternion_from_matrix
from robot_rl.sim.servo import Gripper as GripperServo
from robot_rl.sim.servo import JointLimits, References, Servo
from robot_rl.sim.spec import SpecError
from robot_rl.sim.stepper import Chains, Physics, chains_of, follow_joints, physics_of, refresh


class Controller(Protocol):
    """Executes actions on the arms of one scene."""

    features: list[Feature]
    """Of the action, in its order."""

    def reset(self) -> None:
        """Begin at the present state of the scene."""

    def step(self, action: np.ndarray) -> None:
        """Execute an action, float64 [A], for one control period."""

    def get_state(self) -> np.ndarray:
        """What it remembers from one period to the next, float64."""

    def set_state(self, state: np.ndarray) -> None:
        """Continue from what `get_state` returned."""


def make_controller(arm_model: ArmModel, config: Mapping[str, Any], rate_hz: float, stepper: str) -> Controller:
    """The controller of a configuration file in `sim/controller`.

    Raises:
        SpecError: the file's `id` or the combination with the stepper is unknown.
    """
    kinds: dict[str, Callable[..., Controller]] = {
        "servo_joint_position": ServoController,
        "servo_ee_pose": ServoController,
        "osc_pose": OscController,
    }
    if config["id"] not in kinds:
        raise SpecError(f"controller {config['name']!r}: no id {config['id']!r}; there are: {', '.join(kinds)}")
    if stepper == "robosuite":
        if config["id"] != "osc_pose":
            raise SpecError(
                f"stepper 'robosuite' runs only controller ee_delta, not {config['name']!r}; use stepper 'fast'"
            )
        return RobosuiteController(arm_model)
    return kinds[config["id"]](arm_model, config, rate_hz)


class ServoController:
    """Absolute joint or end-effector targets through the Servo, and the torque loop below it.

    Attributes:
        natural_frequency, damping_ratio: of the torque loop; may be changed between steps.
    """

    def __init__(self, arm_model: ArmModel, config: Mapping[str, Any], rate_hz: float) -> None:
        self.natural_frequency = float(config["natural_frequency"])
        self.damping_ratio = float(config["damping_ratio"])
        self.poses = config["id"] == "servo_ee_pose"
        self._arms = arm_model.arms
        self._physics, self._chains = _compiled_view(arm_model)
        self._substeps = substeps(rate_hz)
        self._servos = [
            Servo(JointLimits.from_mapping(arm.limits), PHYSICS_PERIOD, 1.0 / rate_hz, self._kinematics(arm_model, arm))
            for arm in self._arms
        ]
        self._grippers = [
            GripperServo(arm.gripper.max_opening, arm.gripper.speed, PHYSICS_PERIOD) for arm in self._arms
        ]
        self.features = [feature for arm in self._arms for feature in self._features_of(arm)]

    def reset(self) -> None:
        for arm, servo, gripper, part in zip(self._arms, self._servos, self._grippers, self._parts(), strict=True):
            qpos = self._physics.qpos
            servo.reset(qpos[self._chains.qpos[part]], self._physics.qvel[self._chains.dof[part]])
            gripper.reset(arm.gripper.opening_of(qpos))

    def step(self, action: np.ndarray) -> None:
        first = 0
        references, openings = [], []
        for arm, servo, gripper in zip(self._arms, self._servos, self._grippers, strict=True):
            last = first + (9 if self.poses else arm.dof)
            target = action[first:last]
            if self.poses:
                servo.set_pose_target(np.concatenate([target[:3], quaternion_from_matrix(matrix_from_6d(target[3:]))]))
            else:
                servo.set_target(target)
            gripper.set_target(action[last])
            references.append(servo.trajectory(self._substeps))
            openings.append(gripper.trajectory(self._substeps))
            first = last + 1
        self.follow(
            references[0] if len(references) == 1 else References(*map(np.hstack, zip(*references, strict=True))),
            openings[0][:, None] if len(openings) == 1 else np.stack(openings, 1),
        )

    def follow(self, references: References, openings: np.ndarray) -> None:
        """Run the torque loop alone for n physics steps: what drives the arms when the Servo runs elsewhere.

        Args:
            references: of the joints of all arms at the end of each step, each array [n, D].
            openings: of all grippers there, [n, arms] m.
        """
        fingers = [arm.gripper.commands_of(openings[:, index]) for index, arm in enumerate(self._arms)]
        follow_joints(
            self._physics, self._chains, *references,
            fingers[0] if len(fingers) == 1 else np.hstack(fingers), self.natural_frequency, self.damping_ratio,
        )  # fmt: skip

    def get_state(self) -> np.ndarray:
        return np.concatenate([
            *(servo.get_state() for servo in self._servos),
            *(g.get_state() for g in self._grippers),
        ])

    def set_state(self, state: np.ndarray) -> None:
        first = 0
        parts: list[Servo | GripperServo] = [*self._servos, *self._grippers]
        for part in parts:
            last = first + len(part.get_state())
            part.set_state(state[first:last])
            first = last

    def _parts(self) -> list[slice]:
        start = self._chains.start
        return [slice(int(first), int(last)) for first, last in itertools.pairwise(start)]

    def _kinematics(self, arm_model: ArmModel, arm: Arm) -> Kinematics | None:
        return arm_kinematics(arm_model.model, arm) if self.poses else None

    def _features_of(self, arm: Arm) -> list[Feature]:
        opening = Feature(
            f"{arm.prefix}gripper_opening",
            (1,),
            kind="action",
            unit="m",
            lower=(0.0,),
            upper=(arm.gripper.max_opening,),
        )
        if self.poses:
            pose = Feature(
                f"{arm.prefix}ee_pose", (9,), kind="action", frame=arm.base_frame, representation="position_rotation_6d"
            )
            return [pose, opening]
        lower, upper = (tuple(arm.limits[key]) for key in ("lower", "upper"))
        joints = Feature(
            f"{arm.prefix}joint_position", (arm.dof,), kind="action", names=arm.joint_names, unit="rad",
            lower=lower, upper=upper,
        )  # fmt: skip
        return [joints, opening]


def arm_kinematics(model: mujoco.MjModel, arm: Arm) -> Kinematics:
    """Kinematics of an arm of a scene, from its base to its end-effector, within its limits."""
    names = [model.joint(joint).name for joint in arm.joints]
    lower, upper = (np.asarray(arm.limits[key], float) for key in ("lower", "upper"))
    return Kinematics(model, names, model.site(arm.site).name, model.body(arm.base).name, arm.home, lower, upper)


class OscController:
    """robosuite's OSC_POSE and gripper, compiled.

    Attributes:
        stiffness, damping: of the end-effector [1/s²] and [1/s]; may be changed between steps.
    """

    def __init__(self, arm_model: ArmModel, config: Mapping[str, Any], rate_hz: float) -> None:
        self._physics, self._chains = _compiled_view(arm_model)
        self._substeps = substeps(rate_hz)
        grippers = [arm.gripper for arm in arm_model.arms]
        self._finger_qpos = np.concatenate([gripper.all_qpos for gripper in grippers])
        self._finger_qpos0 = arm_model.model.qpos0[self._finger_qpos]
        low, high = arm_model.model.actuator_ctrlrange[self._chains.fingers].T
        stiffness = float(config["stiffness"])
        self._osc = Osc(
            gains=np.array([stiffness, 2 * config["damping_ratio"] * stiffness**0.5, config["posture_stiffness"]]),
            scale=np.repeat([float(config["translation"]), float(config["rotation"])], 3),
            middle=0.5 * (high + low),
            half=0.5 * (high - low),
            direction=np.concatenate([gripper.direction for gripper in grippers]),
            closing=np.zeros(len(low)),
            finger_arm=np.repeat(np.arange(len(grippers)), [len(gripper.actuators) for gripper in grippers]),
            posture=np.zeros(len(self._chains.qpos)),
            first_mass=np.zeros(self._chains.mass.shape),
            first=np.ones(1, np.int64),
        )
        self.features = osc_features(arm_model)

    def reset(self) -> None:
        self._osc.posture[:] = self._physics.qpos[self._chains.qpos]
        self._osc.closing[:] = 0.0
        self._prepare_first_torque()

    def step(self, action: np.ndarray) -> None:
        follow_goals(self._physics, self._chains, self._osc, action.reshape(-1, 7), self._substeps)

    def get_state(self) -> np.ndarray:
        return np.concatenate([self._osc.first, self._osc.posture, self._osc.closing])

    def set_state(self, state: np.ndarray) -> None:
        first, self._osc.posture[:], self._osc.closing[:] = np.split(state, [1, 1 + len(self._osc.posture)])
        if first[0]:
            self._prepare_first_torque()
        self._osc.first[:] = first

    @property
    def stiffness(self) -> float:
        return float(self._osc.gains[0])

    @stiffness.setter
    def stiffness(self, value: float) -> None:
        self._osc.gains[0] = value

    @property
    def damping(self) -> float:
        return float(self._osc.gains[1])

    @damping.setter
    def damping(self, value: float) -> None:
        self._osc.gains[1] = value

    def _prepare_first_torque(self) -> None:
        """robosuite reads the inertia before it places the fingers, and uses that in the first torque of an episode."""
        qpos = self._physics.qpos
        fingers = qpos[self._finger_qpos]
        qpos[self._finger_qpos] = self._finger_qpos0
        refresh(self._physics)
        self._osc.first_mass[:] = np.where(self._chains.mass >= 0, self._physics.mass[self._chains.mass], 0.0)
        self._osc.first[:] = 1
        qpos[self._finger_qpos] = fingers
        refresh(self._physics)


class RobosuiteController:
    """robosuite's own `env.step`, for comparison: slow, and what its controllers remember is not part of the state."""

    def __init__(self, arm_model: ArmModel) -> None:
        self._environment = arm_model.environment
        self._physics = physics_of(arm_model.model, arm_model.data)
        self.features = osc_features(arm_model)

    def reset(self) -> None:
        pass

    def step(self, action: np.ndarray) -> None:
        self._environment.step(action)
        # robosuite leaves poses and contacts one physics step behind.
        refresh(self._physics)

    def get_state(self) -> np.ndarray:
        return np.zeros(0)

    def set_state(self, state: np.ndarray) -> None:
        raise NotImplementedError("stepper 'robosuite' cannot go back to a state; use stepper 'fast'")


def osc_features(arm_model: ArmModel) -> list[Feature]:
    """Action of OSC_POSE: for each arm a pose delta [6] and the gripper [1], all in [-1, 1]."""
    features = []
    for arm in arm_model.arms:
        names = ("x", "y", "z", "rx", "ry", "rz")
        features += [
            Feature(
                f"{arm.prefix}ee_delta", (6,), kind="action", names=names, frame=arm.base_frame, mode="delta",
                relative_to="measured", lower=(-1.0,) * 6, upper=(1.0,) * 6,
            ),
            Feature(f"{arm.prefix}gripper", (1,), kind="action", lower=(-1.0,), upper=(1.0,)),
        ]  # fmt: skip
    return features


def substeps(rate_hz: float) -> int:
    """Physics steps in one control period.

    Raises:
        SpecError: they are not a whole number.
    """
    count = 1.0 / (rate_hz * PHYSICS_PERIOD) if rate_hz > 0 else 0.0
    if count < 1 or abs(count - round(count)) > 1e-9:
        raise SpecError(f"rate_hz: expected a divisor of the physics rate {1 / PHYSICS_PERIOD:g} Hz, got {rate_hz}")
    return round(count)


def _compiled_view(arm_model: ArmModel) -> tuple[Physics, Chains]:
    model, data, arms = arm_model.model, arm_model.data, arm_model.arms
    chains = chains_of(
        model, [arm.joints for arm in arms], [arm.motors for arm in arms], [arm.gripper.actuators for arm in arms],
        [arm.site for arm in arms], np.stack([data.xmat[arm.base].reshape(3, 3) for arm in arms]),
    )  # fmt: skip
    return physics_of(model, data), chains
