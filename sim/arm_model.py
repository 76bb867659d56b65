"""A robosuite scene with its arms: the MuJoCo model, and where joints, motors, grippers and objects stand in it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import mujoco
import numpy as np

from robot_rl.sim.spec import SpecError, load

PHYSICS_PERIOD = 0.002
"""robosuite's physics step [s]."""

MODEL_SEED = 0
"""Sizes that robosuite draws when a model is built (Lift's cube) are the same in every process."""


@dataclass(frozen=True)
class Gripper:
    """A gripper as its opening between the pads [m], after the `gripper` section of a robot's file.

    Attributes:
        qpos, weights: joints whose weighted sum is the drive, as addresses into qpos.
        all_qpos: addresses of all its joints.
        actuators, shares: ids of its actuators, and the share of the drive that each is commanded.
        opening, measured, command: the same states as opening [m] (ascending), drive when unloaded, drive to command.
        direction: what one closing action of robosuite adds to its normalised actuator commands, per actuator.
        speed: of the opening [m/s].
    """

    qpos: np.ndarray
    weights: np.ndarray
    all_qpos: np.ndarray
    actuators: np.ndarray
    shares: np.ndarray
    opening: np.ndarray
    measured: np.ndarray
    command: np.ndarray
    direction: np.ndarray
    speed: float

    @property
    def max_opening(self) -> float:
        """Opening between the pads when fully open [m]."""
        return float(self.opening[-1])

    def opening_of(self, qpos: np.ndarray) -> float:
        """Opening [m] at the joint positions of a scene."""
        drive = float(qpos[self.qpos] @ self.weights)
        rising = self.measured[-1] > self.measured[0]
        order = slice(None) if rising else slice(None, None, -1)
        return float(np.interp(drive, self.measured[order], self.opening[order]))

    def commands_of(self, opening: np.ndarray) -> np.ndarray:
        """Actuator commands [n, actuators] for openings [n] m."""
        commands: np.ndarray = np.interp(opening, self.opening, self.command)[:, None] * self.shares
        return commands


@dataclass(frozen=True)
class Arm:
    """One arm of a scene.

    Attributes:
        prefix: of its features: empty for a single arm, `robot0_` and `robot1_` for two.
        joint_names: as in the robot's own description, without the scene's prefix.
        joints, motors: ids in the model.
        base, site: id of the base body, and of the end-effector site between the fingertips.
        limits: the `limits` section of the robot's file.
        home: robosuite's initial joint position, without its noise [rad].
        grasps_as: the robot to take where something is to be grasped; empty: this one.
    """

    prefix: str
    robot: str
    joint_names: tuple[str, ...]
    joints: np.ndarray
    motors: np.ndarray
    base: int
    site: int
    limits: Mapping[str, Sequence[float]]
    home: np.ndarray
    gripper: Gripper
    grasps_as: str = ""

    @property
    def dof(self) -> int:
        """Number of joints."""
        return len(self.joints)

    @property
    def base_frame(self) -> str:
        """Name of the frame of its base in a contract."""
        return f"{self.prefix}base"


@dataclass(frozen=True)
class ArmModel:
    """A robosuite environment without observations and rendering, its model, data and arms.

    Attributes:
        objects: name to (is it a site, id), observed by default; landmarks are the same, but not observed.
        moving_objects: names of those whose velocity is observed, too.
        moved_bodies: ids of bodies without joint that a reset moves in the model.
    """

    environment: Any
    model: mujoco.MjModel
    data: mujoco.MjData
    arms: tuple[Arm, ...]
    objects: Mapping[str, tuple[bool, int]]
    landmarks: Mapping[str, tuple[bool, int]]
    moving_objects: tuple[str, ...]
    moved_bodies: np.ndarray

    @property
    def cameras(self) -> list[str]:
        """Names of the model's cameras."""
        return [self.model.camera(index).name for index in range(self.model.ncam)]

    @property
    def object_bodies(self) -> list[int]:
        """Ids of the bodies that the observed objects belong to."""
        return [int(self.model.site_bodyid[index]) if is_site else index for is_site, index in self.objects.values()]

    def reset(self, seed: int) -> None:
        """Place robots and objects anew, as drawn from the seed alone."""
        generator = np.random.default_rng(seed)
        self.environment.rng.bit_generator.state = generator.bit_generator.state
        self.environment.sim.reset()
        self.environment._reset_internal()
        mujoco.mj_forward(self.model, self.data)

    def success(self) -> bool:
        """Whether robosuite holds the task to be done in the present state."""
        return bool(self.environment._check_success())


def load_arm_model(
    task: str | Mapping[str, Any], robot: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]], rate_hz: float
) -> ArmModel:
    """Build the scene of a task with its robots.

    Args:
        robot: one for all arms of the task, or a list with one for each.

    Raises:
        SpecError: no such task or robot, or the number of robots does not fit.
    """
    task = load("task", task)
    if isinstance(robot, (str, Mapping)):
        robot = [robot] * task["robots"]
    robots = [load("robot", entry) for entry in robot]
    if len(robots) != task["robots"]:
        names = [entry["name"] for entry in robots]
        raise SpecError(f"task {task['name']!r} takes {task['robots']} robots, got {len(robots)}: {', '.join(names)}")
    robosuite = import_robosuite()
    with _quiet():
        environment = robosuite.make(
            _environment_name(task["environment"]),
            robots=[entry["model"] for entry in robots],
            gripper_types=[entry["gripper"].get("model", "default") for entry in robots],
            control_freq=rate_hz,
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            use_object_obs=False,
            hard_reset=False,
            ignore_done=True,
            renderer="mujoco",
            seed=MODEL_SEED,
            **task.get("arguments", {}),
        )
        environment.reset()
    model, data = environment.sim.model._model, environment.sim.data._data
    for entry in environment.robots:
        # A second model of the robot alone, 45 MB of meshes that nothing reads again.
        entry.robot_model.mujoco_model = None
    # Sensors change nothing but cost a twentieth of the time; nothing here reads them.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_SENSOR
    arms = tuple(
        _arm(model, entry, plain, f"robot{index}_" if len(robots) > 1 else "")
        for index, (entry, plain) in enumerate(zip(environment.robots, robots, strict=True))
    )
    moved = np.array([model.body(name).id for name in task.get("moved_bodies", [])], np.int64)
    moving = tuple(name for name, where in task["objects"].items() if where.get("velocity"))
    objects, landmarks = _places(model, task["objects"]), _places(model, task["landmarks"])
    return ArmModel(environment, model, data, arms, objects, landmarks, moving, moved)


def import_robosuite() -> Any:
    """robosuite, imported without its messages; the environment variable MUJOCO_GL keeps its value.

    Raises `SpecError` where it is not installed: it is no dependency that pip could resolve, see README.md.
    """
    gl = os.environ.get("MUJOCO_GL")
    try:
        with _quiet():
            import robosuite
    except ModuleNotFoundError as error:
        if error.name != "robosuite":
            raise
        raise SpecError(
            "robosuite is not installed, which has the models of the robots and tasks: "
            "pip install --no-deps robosuite==1.5.2"
        ) from error
    if gl is None:
        os.environ.pop("MUJOCO_GL", None)
    else:
        os.environ["MUJOCO_GL"] = gl
    return robosuite


def _environment_name(where: str) -> str:
    """The name that robosuite knows an environment by; of `module:Class`, after the import that makes it known."""
    module, _, name = where.rpartition(":")
    if module:
        import_module(module)
    return name


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _places(model: mujoco.MjModel, places: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[bool, int]]:
    found = {}
    for name, where in places.items():
        is_site = "site" in where
        found[name] = (is_site, (model.site(where["site"]) if is_site else model.body(where["body"])).id)
    return found


def _arm(model: mujoco.MjModel, entry: Any, plain: Mapping[str, Any], prefix: str) -> Arm:
    naming = entry.robot_model.naming_prefix
    site = model.site(entry.gripper["right"].important_sites["grip_site"]).id
    return Arm(
        prefix,
        plain["name"],
        tuple(name.removeprefix(naming) for name in entry.robot_model.arm_joints),
        np.array([model.joint(name).id for name in entry.robot_model.arm_joints]),
        np.array([model.actuator(name).id for name in entry.robot_model.arm_actuators]),
        model.body(entry.robot_model.root_body).id,
        site,
        plain["limits"],
        np.array(entry.init_qpos, float),
        _gripper(model, entry.gripper["right"], plain["gripper"]),
        plain.get("grasps_as", ""),
    )


def _gripper(model: mujoco.MjModel, gripper: Any, plain: Mapping[str, Any]) -> Gripper:
    joints = [model.joint(gripper.naming_prefix + name) for name in plain["joints"]]
    gripper.current_action = np.zeros(len(gripper.actuators))
    direction = np.array(gripper.format_action(np.ones(gripper.dof)), float)
    gripper.current_action = np.zeros(gripper.dof)
    return Gripper(
        np.array([joint.qposadr[0] for joint in joints]),
        np.array(list(plain["joints"].values()), float),
        np.array([model.joint(name).qposadr[0] for name in gripper.joints]),
        np.array([model.actuator(name).id for name in gripper.actuators]),
        np.array(plain["actuators"], float),
        np.array(plain["opening"], float),
        np.array(plain["measured"], float),
        np.array(plain["command"], float),
        direction,
        float(plain["speed"]),
    )
