"""The robot's file: one YAML that says what a robot offers, where that lives on the ROS graph, and what it may do.

Teleoperation, recorder, importer, policy node, twin and Supervisor all read this one description, so that what was
recorded is what is trained and what is commanded. `hardware/robots/template.yaml` explains every key.

    robot = RobotFile.load("panda").for_policy(policy.contract)
    robot.contract                    # of the features the policy observes, and the action it gives
    robot.streams["joint_position"]   # topic, type, elements by name, clock, alignment
    robot.commands["joint_position"]  # where the Supervisor's commands go
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from robot_rl.datasets import Contract
from robot_rl.datasets.contract import Feature, satisfies
from robot_rl.hardware.ros2.qos import RELIABLE, Qos

if TYPE_CHECKING:
    from robot_rl.hardware.safety.supervisor import Supervisor
    from robot_rl.hardware.safety.supervisor_state import Watchdog
    from robot_rl.sim.kinematics import Kinematics
    from robot_rl.sim.servo import JointLimits

FOLDER = Path(__file__).parent / "robots"

Clock = Literal["header", "receive"]
Align = Literal["latest", "interpolate"]

OBSERVED = {
    "sensor_msgs/msg/JointState": ("position", "velocity", "effort"),
    "sensor_msgs/msg/Image": ("",),
    "sensor_msgs/msg/CompressedImage": ("",),
    "sensor_msgs/msg/Imu": ("orientation", "angular_velocity", "linear_acceleration"),
    "geometry_msgs/msg/PoseStamped": ("", "position", "orientation"),
    "geometry_msgs/msg/TwistStamped": ("", "linear", "angular"),
    "geometry_msgs/msg/WrenchStamped": ("", "force", "torque"),
}
"""Message types that observations come in, and the fields of each; "" is the whole message."""

JOINT_STATE = "sensor_msgs/msg/JointState"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
ARRAY = "std_msgs/msg/Float64MultiArray"
CONTROLLERS = ("servo_joint_position", "servo_ee_pose")


class RobotFileError(ValueError):
    """A robot's file is malformed. `problems` holds one line for each."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([f"robot file {source}:", *(f"  - {problem}" for problem in self.problems)]))


@dataclass(frozen=True)
class Scale:
    """Piecewise linear map between a number on the graph and its value in the contract, for example a gripper's.

    Attributes:
        graph: ascending or descending [n]; beyond the ends the end's value holds.
        value: in the contract's unit [n], strictly monotonic too, so that commands can be mapped back.
    """

    graph: tuple[float, ...]
    value: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("graph", "value"):
            object.__setattr__(self, name, tuple(float(number) for number in getattr(self, name)))
            numbers = getattr(self, name)
            steps = np.diff(numbers)
            if len(numbers) < 2 or not ((steps > 0).all() or (steps < 0).all()):
                raise ValueError(f"scale.{name}: expected two or more rising or falling numbers, got {list(numbers)}")
        if len(self.graph) != len(self.value):
            raise ValueError(f"scale: {len(self.graph)} numbers in graph, {len(self.value)} in value")

    def to_value(self, numbers: ArrayLike) -> np.ndarray:
        """From the graph to the contract, each element."""
        return _interpolate(numbers, self.graph, self.value)

    def to_graph(self, values: ArrayLike) -> np.ndarray:
        """From the contract to the graph, each element."""
        return _interpolate(values, self.value, self.graph)


@dataclass(frozen=True)
class Stream:
    """Where an observation comes from, and how it is brought onto the control clock.

    Attributes:
        feature: what it fills.
        topic: absolute, or relative to the namespace.
        type: message type, one of `OBSERVED`.
        field: of the message; empty for the whole message.
        elements: of a JointState: the joint names that make up the feature, in the feature's order.
        weights: sum the elements with these weights into one number (two fingers: [1, 1]); empty: one each.
        scale: of each number.
        frame_id: that the header must carry; empty: any.
        qos: as subscribed.
        clock: whose stamp counts: the message's `header`, or when it is received (`receive`).
        align: the newest sample before the tick (`latest`), or between the two around it (`interpolate`).
        delay: of `interpolate`: how far behind the tick the value is taken, so that the next sample is there [s].
        max_age: beyond which there is no observation [s].
        latency: from measurement to stamp, as measured; subtracted from every stamp [s].
        rate_hz: at which the topic is published; `robots check` compares, and the twin publishes at it.
        camera_info: topic of a camera's calibration.
    """

    feature: Feature
    topic: str
    type: str
    field: str = ""
    elements: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    scale: Scale | None = None
    frame_id: str = ""
    qos: Qos = RELIABLE
    clock: Clock = "header"
    align: Align = "latest"
    delay: float = 0.0
    max_age: float = 0.1
    latency: float = 0.0
    rate_hz: float | None = None
    camera_info: str = ""


@dataclass(frozen=True)
class GripperAction:
    """A control_msgs/action/GripperCommand server that is sent goals, where the graph has actions (rclpy).

    Attributes:
        name: of the action.
        max_effort: of a goal [N].
        deadband: smallest change of the opening that is worth a new goal [m].
        period: shortest time between two goals [s].
    """

    name: str
    max_effort: float = 0.0
    deadband: float = 0.002
    period: float = 0.1


@dataclass(frozen=True)
class CommandTopic:
    """Where a part of the Supervisor's commands goes.

    Attributes:
        topic: absolute, or relative to the namespace.
        type: `trajectory_msgs/msg/JointTrajectory` (joint_trajectory_controller; all points of a tick) or
            `std_msgs/msg/Float64MultiArray` (forward controllers; the last point).
        elements: joint names on the graph, in the order of the robot's joints.
        scale: of each number.
        qos: as published.
        stamp: of a trajectory: `tick` is the time its motion begins, `zero` lets the controller begin on arrival.
        home_action: a control_msgs/action/FollowJointTrajectory server that goes home with `homing=action`.
        action: of a gripper that is commanded by action; the topic is published all the same.
    """

    topic: str
    type: str
    elements: tuple[str, ...] = ()
    scale: Scale | None = None
    qos: Qos = RELIABLE
    stamp: Literal["tick", "zero"] = "tick"
    home_action: str = ""
    action: GripperAction | None = None


@dataclass(frozen=True)
class GripperSpec:
    """A parallel gripper: largest opening [m], and how fast the commanded opening may change [m/s]."""

    opening: float
    speed: float


@dataclass(frozen=True)
class Box:
    """Where the end-effector may be: corners [3] m in the base frame."""

    lower: tuple[float, float, float]
    upper: tuple[float, float, float]


@dataclass(frozen=True)
class Model:
    """The MuJoCo model for kinematics, workspace and self-collision: of `sim/robot/<sim>.yaml`, or a file of its own.

    Attributes:
        sim: name of the simulated robot, which the twin simulates, too.
        file: MJCF, relative to the robot's file; then `joints`, `base` (body) and `site` (end-effector) name its parts.
        margin: distance of two parts that counts as a collision [m].
    """

    sim: str = ""
    file: str = ""
    joints: tuple[str, ...] = ()
    base: str = ""
    site: str = ""
    margin: float = 0.005


@dataclass(frozen=True)
class Motor:
    """A servo of a robot that is driven over its own bus.

    Attributes:
        id: on the bus.
        range: of its joint, `measured` by the calibration, or `full` for one that turns without end: its zero is where
            it stood when the middle was set.
        lower: where the lower end of the range lies [rad]; None: the middle of the range is zero.
        settings: registers by name, see `feetech.registers.SETTINGS`.
    """

    id: int
    range: Literal["measured", "full"] = "measured"
    lower: float | None = None
    settings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Driver:
    """How the robot is driven by a node of this package, which then offers the file's topics.

    Attributes:
        kind: `feetech`: servos on a serial bus.
        motors: by their joints' names on the graph.
        timeout: without commands, after which the arm holds and the next command has to begin where it stands [s].
        at_exit: the torque is taken away slowly (`release`), or stays (`hold`).
        middle: how the arm stands when every joint is in the middle of its range, for people.
    """

    kind: Literal["feetech"]
    motors: Mapping[str, Motor]
    timeout: float = 0.5
    at_exit: Literal["release", "hold"] = "release"
    middle: str = ""


@dataclass(frozen=True)
class Parts:
    """The arm in its MuJoCo model: names of joints, base body and end-effector site."""

    model: Any
    joints: tuple[str, ...]
    base: str
    site: str


@dataclass(frozen=True)
class RobotFile:
    """A robot, as its file describes it; built by `load`.

    Attributes:
        name: of the robot.
        contract: everything that it observes, and the action of its first controller; after `for_policy` just what the
            policy needs.
        streams: by observation feature; features that are computed from others have none.
        computed: observation feature to the rule that computes it (`forward_kinematics` of joint_position).
        commands: by action feature (`joint_position`, `gripper_opening`), whatever the policy's action is.
        controllers: ids that the robot can be run under.
        joints: as policies call them, in the order of every joint vector.
        home: joint position [dof] rad.
        command_rate_hz: points of the command stream per second.
        tick_rate_hz: ticks of the Supervisor per second; each sends command_rate_hz / tick_rate_hz points.
        homing_speed: of the fastest joint [rad/s].
        safe_state: what the Supervisor does when something fails: `brake` to rest and hold.
        driver: how it is driven without drivers of its own; None: its drivers are started elsewhere.
    """

    name: str
    contract: Contract
    streams: Mapping[str, Stream]
    computed: Mapping[str, str]
    commands: Mapping[str, CommandTopic]
    controllers: tuple[str, ...]
    joints: tuple[str, ...]
    limits_by_key: Mapping[str, Sequence[float]]
    home: tuple[float, ...]
    gripper: GripperSpec | None
    command_rate_hz: float
    tick_rate_hz: float
    homing_speed: float
    safe_state: str
    watchdog_times: Mapping[str, float]
    workspace: Box | None
    model: Model | None
    driver: Driver | None
    task_features: Mapping[str, tuple[Mapping[str, Any], Stream]]
    path: Path

    @staticmethod
    def load(source: str | Path) -> RobotFile:
        """Read a robot by name (`panda`) or path (`my_robot.yaml`).

        Raises:
            RobotFileError: there is no such file, or it is malformed; every problem is listed.
        """
        path = Path(source)
        if not path.suffix:
            path = FOLDER / f"{source}.yaml"
        if not path.is_file():
            raise RobotFileError(str(source), [f"no such file; shipped are {', '.join(shipped())}"])
        from robot_rl.hardware.robot_file_reader import read

        return read(path)

    @property
    def limits(self) -> JointLimits:
        """Limits of the joints, in their order."""
        from robot_rl.sim.servo import JointLimits

        return JointLimits.from_mapping(self.limits_by_key)

    @property
    def watchdog(self) -> Watchdog:
        """The time-outs of the Supervisor."""
        from robot_rl.hardware.safety.supervisor_state import Watchdog

        return Watchdog(**self.watchdog_times)

    @property
    def periods(self) -> int:
        """Points of the command stream in one tick of the Supervisor."""
        return round(self.command_rate_hz / self.tick_rate_hz)

    def for_policy(self, contract: Contract) -> RobotFile:
        """The same robot, restricted to what a policy observes, under the controller that the policy was trained for.

        Object poses and cameras that a task adds are taken from `task_features`. Images take the policy's size.

        Raises:
            ContractError: the robot does not offer what the policy needs; every difference is listed.
        """
        observation, streams = dict(self.contract.observation), dict(self.streams)
        for name, wanted in contract.observation.items():
            templates = ((key, *self.task_features[key]) for key in self.task_features)
            match = next(
                (t for t in templates if fnmatchcase(name, t[0]) and t[1].get("kind", "state") == wanted.kind), None
            )
            if name not in observation and match is not None:
                _, plain, stream = match
                observation[name] = Feature(name, **{"shape": wanted.shape, **plain})
                camera_info = stream.camera_info.replace("{feature}", name)
                topic = stream.topic.replace("{feature}", name)
                streams[name] = replace(stream, feature=observation[name], topic=topic, camera_info=camera_info)
            offered = observation.get(name)
            if offered is not None and offered.is_frame and offered.kind == wanted.kind:
                observation[name] = replace(offered, shape=wanted.shape, calibration={})
                streams[name] = replace(streams[name], feature=observation[name])
        chosen = contract.controller if contract.controller in self.controllers else self.contract.controller
        action = action_features(self.joints, self.limits_by_key, self.gripper, chosen)
        offer = Contract(self.name, self.contract.rate_hz, observation, action, chosen)
        satisfies(contract, offer)
        kept = offer.select(contract.observation)
        return replace(
            self,
            contract=kept,
            streams={name: stream for name, stream in streams.items() if name in self._needed(kept.observation)},
            computed={name: rule for name, rule in self.computed.items() if name in kept.observation},
        )

    def kinematics(self) -> Kinematics:
        """Of the arm, by its model. Raises `RobotFileError` when the file names none."""
        from robot_rl.sim.kinematics import Kinematics

        parts, limits = self.parts, self.limits
        return Kinematics(
            parts.model, parts.joints, parts.site, parts.base, np.array(self.home), limits.lower, limits.upper
        )

    @cached_property
    def parts(self) -> Parts:
        """The model and the names of the arm's parts in it. Raises `RobotFileError` when the file names none."""
        if self.model is None:
            raise RobotFileError(self.name, ["model: missing; it is needed for poses, workspace and self-collision"])
        import mujoco

        if self.model.file:
            scene = mujoco.MjModel.from_xml_path(str(self.path.parent / self.model.file))
            return Parts(scene, self.model.joints, self.model.base, self.model.site)
        from robot_rl.sim.arm_model import load_arm_model

        built = load_arm_model("lift", self.model.sim, self.contract.rate_hz)
        arm, scene = built.arms[0], built.model
        if arm.joint_names != self.joints:
            raise RobotFileError(self.name, [f"joints: {list(self.joints)}, but the model's are {arm.joint_names}"])
        names = tuple(scene.joint(joint).name for joint in arm.joints)
        return Parts(scene, names, scene.body(arm.base).name, scene.site(arm.site).name)

    def make_supervisor(self) -> Supervisor:
        """The Supervisor of this robot, with all limits and checks of the file."""
        from robot_rl.hardware.safety.motion_check import Check, SelfCollision, WorkspaceBox
        from robot_rl.hardware.safety.supervisor import Supervisor
        from robot_rl.sim.servo import Gripper, Servo

        period = 1.0 / self.command_rate_hz
        kinematics = self.kinematics() if self.model else None
        checks: list[Check] = []
        if kinematics and self.workspace:
            checks.append(WorkspaceBox(kinematics, self.workspace.lower, self.workspace.upper))
        if self.model:
            parts, home = self.parts, np.array(self.home)
            checks.append(SelfCollision(parts.model, parts.joints, parts.base, home, self.model.margin))
        gripper = Gripper(self.gripper.opening, self.gripper.speed, period) if self.gripper else None
        return Supervisor(
            self.contract, Servo(self.limits, period, 1.0 / self.contract.rate_hz, kinematics), np.array(self.home),
            gripper, checks, self.watchdog, self.homing_speed, self.periods,
        )  # fmt: skip

    def _needed(self, observation: Mapping[str, Feature]) -> set[str]:
        """Streams to subscribe: of these features, and of the joint positions, which the Supervisor always watches."""
        watched = {"joint_position", "gripper_opening"} if self.gripper else {"joint_position"}
        return {*observation, *watched} - set(self.computed)


def shipped() -> list[str]:
    """Names of all robots that ship with the package, arms and vehicles."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "template")


def action_features(
    joints: Sequence[str], limits: Mapping[str, Sequence[float]], gripper: GripperSpec | None, controller: str
) -> dict[str, Feature]:
    """The action features of a controller, named and bounded as those of `sim.controllers`."""
    if controller == "servo_ee_pose":
        arm = Feature("ee_pose", (9,), kind="action", frame="base", representation="position_rotation_6d")
    else:
        lower, upper = (tuple(limits[key]) for key in ("lower", "upper"))
        arm = Feature("joint_position", (len(joints),), kind="action", names=tuple(joints), unit="rad",
                      lower=lower, upper=upper)  # fmt: skip
    features = {arm.name: arm}
    if gripper:
        features["gripper_opening"] = Feature(
            "gripper_opening", (1,), kind="action", unit="m", lower=(0.0,), upper=(gripper.opening,)
        )
    return features


def _interpolate(numbers: ArrayLike, inputs: Sequence[float], outputs: Sequence[float]) -> np.ndarray:
    order = 1 if inputs[0] < inputs[-1] else -1
    return np.asarray(np.interp(np.asarray(numbers, float), inputs[::order], outputs[::order]))
