"""The scripted expert: a task's goal for the present scene becomes a smooth, reachable action of the environment.

What to do is decided anew in every step from the geometry of the scene (`decide` in the task's file), how fast to go
from the measured motion of the gripper. The expert remembers nothing, so its actions are a function of what can be
observed, which is what a policy can learn; and after a disturbance, a slipped or a missed grasp, it goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

from robot_rl.sim.arm import ArmEnv
from robot_rl.sim.controllers import arm_kinematics
from robot_rl.sim.expert.scene import Goal, Scene, rotation_of
from robot_rl.sim.rotation import quaternion_from_matrix
from robot_rl.sim.spec import load

ACCELERATION = 1.0
"""Of the gripper [m/s²]."""
TURN_SPEED, TURN_ACCELERATION = 2.0, 4.0
"""Of the gripper [rad/s] and [rad/s²]."""
BRAKING = 0.6
"""Part of the acceleration that braking counts on; the rest corrects."""
NOISE_FULL_STEP = 0.01
"""Steps shorter than this are disturbed in proportion to their length, so that a grasp still succeeds [m]."""
OSC_LAG = 24.5 / 150.0
"""Of robosuite's OSC behind its goal in steady motion: damping over stiffness [s]."""
OSC_COMPLIANCE = 2500.0 / 150.0
"""How much further than the Servo's stiffer loop OSC must be led for the same force."""
GRASPING = 0.01
"""Below this, an opening means to close, for a gripper that only opens and closes [m]."""
REACH = 0.95
"""Objects further than this from the base are given up [m]."""


class ScriptedExpert:
    """Acts in an arm environment, in its own action space.

    Args:
        env: with one arm and any controller.
        decide: goal of the task for a scene.
        noise: strength of the kicks that disturb executed actions: their standard deviation, relative to the largest
            acceleration of the expert, which corrects them. They add up to a random walk of the gripper's velocity.
        generator: of the noise; needed when there is any.

    Attributes:
        intended: the last action without its noise, [A]. As in DART (Laskey et al. 2017) the noisy action is executed
            and the intended one is what to imitate: it leads back from where the noise has led.
        failed: whether the expert has given up, because an object is out of reach. Cleared by `reset`.
    """

    def __init__(
        self,
        env: ArmEnv,
        decide: Callable[[Scene], Goal],
        noise: float = 0.0,
        generator: np.random.Generator | None = None,
    ) -> None:
        if noise < 0:
            raise ValueError(f"noise: expected a number >= 0, got {noise}")
        if noise > 0 and generator is None:
            raise ValueError("noise needs a generator, for example numpy.random.default_rng(seed)")
        if len(env.arm_model.arms) != 1:
            raise ValueError(f"scripted experts move one arm, {env.contract.name} has {len(env.arm_model.arms)}")
        self._env, self._decide, self._noise, self._generator = env, decide, noise, generator
        self._arm = arm = env.arm_model.arms[0]
        self._kinematics = arm_kinematics(env.model, arm)
        self._reach = np.asarray(arm.limits["velocity"], float) / env.contract.rate_hz
        home = rotation_of(self._kinematics.forward(arm.home))
        self._home_yaw = float(np.arctan2(home[1, 0], home[0, 0]))
        self._period = 1.0 / env.contract.rate_hz
        self._osc = load("controller", env.specification["controller"])
        encodings = {
            "servo_joint_position": self._joint_action,
            "servo_ee_pose": self._pose_action,
            "osc_pose": self._delta_action,
        }
        self._encode = encodings[env.contract.controller]
        self.reset()

    def reset(self) -> None:
        """Begin a new episode."""
        self.failed = False
        self.intended = np.zeros(self._env.contract.action_dim, np.float32)

    def scene(self) -> Scene:
        """The present state of the environment."""
        joints = self._joint_position()
        pose = self._kinematics.forward(joints)
        motion = self._kinematics.jacobian(joints) @ self._env.data.qvel[self._env.model.jnt_dofadr[self._arm.joints]]
        gripper = self._arm.gripper
        return Scene(
            pose[:3], rotation_of(pose), motion[:3], motion[3:], gripper.opening_of(self._env.data.qpos),
            gripper.max_opening, self._home_yaw, self._env.object_poses(), self._object_velocities(),
        )  # fmt: skip

    def act(self) -> np.ndarray:
        """The action to execute now, float32 [A]; `intended` is the one to learn."""
        scene = self.scene()
        self.failed = self.failed or any(np.linalg.norm(pose[:2]) > REACH for pose in scene.objects.values())
        goal = self._decide(scene)
        way, turn = goal.position - scene.position, _rotation_vector(goal.rotation @ scene.rotation.T)
        if self._env.contract.controller == "osc_pose":
            shift, turn = self._osc_lead(way, turn, goal.speed)
            shift = shift + OSC_LAG * goal.velocity + (OSC_COMPLIANCE - 1.0) * goal.push
        else:
            # Along and down apart, so that each comes to a stop in time when the other is still far.
            along, down = slice(0, 2), slice(2, 3)
            velocity = scene.velocity - goal.velocity
            shift = self._period * goal.velocity + np.concatenate([
                advance(way[part], velocity[part], goal.speed, ACCELERATION, self._period) for part in (along, down)
            ])
            turn = advance(turn, scene.turning, TURN_SPEED, TURN_ACCELERATION, self._period)
        shift = shift + goal.push
        self.intended = self._encode(scene, goal, shift, turn)
        if self._generator is None or self._noise == 0:
            return self.intended
        calm = np.clip(np.linalg.norm(shift) / NOISE_FULL_STEP, 0.1, 1.0)
        kicks = self._noise * calm * self._period**2 * self._generator.standard_normal((2, 3))
        shift, turn = shift + ACCELERATION * kicks[0], turn + TURN_ACCELERATION * kicks[1]
        return self._encode(scene, goal, shift, turn)

    def _osc_lead(self, way: np.ndarray, turn: np.ndarray, speed: float) -> tuple[np.ndarray, np.ndarray]:
        """OSC approaches a goal like a spring: the way itself, as far as its range and the wanted speed allow."""
        reach = min(self._osc["translation"], speed * OSC_LAG)
        shift = way * min(1.0, reach / max(float(np.linalg.norm(way)), 1e-9))
        return shift, turn * min(1.0, TURN_SPEED * OSC_LAG / max(float(np.linalg.norm(turn)), 1e-9))

    def _object_velocities(self) -> dict[str, np.ndarray]:
        model, data, arm_model = self._env.model, self._env.data, self._env.arm_model
        to_base = data.xmat[self._arm.base].reshape(3, 3).T
        velocities, motion = {}, np.empty(6)
        for name, (is_site, index) in {**arm_model.objects, **arm_model.landmarks}.items():
            kind = mujoco.mjtObj.mjOBJ_SITE if is_site else mujoco.mjtObj.mjOBJ_BODY
            mujoco.mj_objectVelocity(model, data, kind, index, motion, 0)
            velocities[name] = to_base @ motion[3:]
        return velocities

    def _joint_position(self) -> np.ndarray:
        position: np.ndarray = self._env.data.qpos[self._env.model.jnt_qposadr[self._arm.joints]]
        return position

    def _joint_action(self, scene: Scene, goal: Goal, shift: np.ndarray, turn: np.ndarray) -> np.ndarray:
        pose = np.concatenate([scene.position + shift, quaternion_from_matrix(_turned(scene.rotation, turn))])
        joints = self._kinematics.inverse(pose, self._joint_position(), self._reach)
        return np.append(joints, goal.opening).astype(np.float32)

    def _pose_action(self, scene: Scene, goal: Goal, shift: np.ndarray, turn: np.ndarray) -> np.ndarray:
        columns = _turned(scene.rotation, turn)[:, :2].T.ravel()
        return np.concatenate([scene.position + shift, columns, [goal.opening]]).astype(np.float32)

    def _delta_action(self, scene: Scene, goal: Goal, shift: np.ndarray, turn: np.ndarray) -> np.ndarray:
        delta = np.concatenate([shift / self._osc["translation"], turn / self._osc["rotation"]])
        return np.append(np.clip(delta, -1.0, 1.0), 1.0 if goal.opening < GRASPING else -1.0).astype(np.float32)


def advance(error: np.ndarray, velocity: np.ndarray, speed: float, acceleration: float, period: float) -> np.ndarray:
    """Displacement of the next period on the way to a goal, with bounded speed and change of velocity.

    Args:
        error: goal minus position, [n].
        velocity: present one, [n].
    """
    distance = float(np.linalg.norm(error))
    # The speed v from which, after one more period, it can still stop in time: v T + v² / 2b = distance.
    braking = BRAKING * acceleration
    stopping = braking * (np.sqrt(period**2 + 2.0 * distance / braking) - period)
    wanted = error * (min(speed, stopping) / max(distance, 1e-9))
    change = wanted - velocity
    change *= min(1.0, acceleration * period / max(float(np.linalg.norm(change)), 1e-9))
    displacement: np.ndarray = period * (velocity + 0.5 * change)
    return displacement


def _turned(rotation: np.ndarray, turn: np.ndarray) -> np.ndarray:
    quaternion, matrix = np.empty(4), np.empty(9)
    angle = float(np.linalg.norm(turn))
    mujoco.mju_axisAngle2Quat(quaternion, turn / max(angle, 1e-12), angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    turned: np.ndarray = matrix.reshape(3, 3) @ rotation
    return turned


def _rotation_vector(rotation: np.ndarray) -> np.ndarray:
    vector = np.empty(3)
    mujoco.mju_quat2Vel(vector, quaternion_from_matrix(rotation), 1.0)
    return vector
