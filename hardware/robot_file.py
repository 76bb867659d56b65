"""The robot's file: one YAML that says what a robot offers, where that lives on the ROS graph, and what it may do.

Teleoperation, recorder, importer, policy node, twin and Supervisor all read this one description, so that what was
recorded is what is trained and what is commanded. `hardware/robots/template.yaml` explains every key.

    robot = RobotFile.load("panda").for_policy(policy.contract)
    robot.contract                    # of the features the policy observes, and the action it gives
    robot.streams["joint_position"]   # topic, type, elements by name, clock, alignment
    robot.commands["joint_position"]  # where the Supervisor's commands go
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import yaml
from numpy.typing import ArrayLike

from robot_rl.datasets import Contract, ContractError
from robot_rl.datasets.contract import Feature, satisfies
from robot_rl.hardware.ros2.qos import RELIABLE, Qos

if TYPE_CHECKING:
    from robot_rl.hardware.supervisor import Supervisor
    from robot_rl.hardware.supervisor_state import Watchdog
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
        home_action: a control_msgs/action/FollowJointTrajectory server that may be asked to go home (rclpy).
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
    task_features: Mapping[str, tuple[Mapping[str, Any], Stream]]
    path: Path

    @staticmethod
    def available() -> list[str]:
        """Names of the robots that ship with the package."""
        return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "template")

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
            raise RobotFileError(str(source), [f"no such file; shipped are {', '.join(RobotFile.available())}"])
        try:
            plain = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise RobotFileError(str(source), [f"not valid YAML: {error}"]) from error
        if not isinstance(plain, Mapping):
            raise RobotFileError(str(source), [f"expected a mapping, got {type(plain).__name__}"])
        return _Reader(plain, path).robot()

    @property
    def limits(self) -> JointLimits:
        """Limits of the joints, in their order."""
        from robot_rl.sim.servo import JointLimits

        return JointLimits.from_mapping(self.limits_by_key)

    @property
    def watchdog(self) -> Watchdog:
        """The time-outs of the Supervisor."""
        from robot_rl.hardware.supervisor_state import Watchdog

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
        action = _actions(self.joints, self.limits_by_key, self.gripper, chosen)
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
        from robot_rl.hardware.motion_check import Check, SelfCollision, WorkspaceBox
        from robot_rl.hardware.supervisor import Supervisor
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


def _actions(
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
        bounds = {"lower": (0.0,), "upper": (gripper.opening,)}
        features["gripper_opening"] = Feature("gripper_opening", (1,), kind="action", unit="m", **bounds)
    return features


class _Reader:
    """Reads a file into a `RobotFile`, collecting every problem before it complains."""

    def __init__(self, plain: Mapping[str, Any], path: Path) -> None:
        self.plain, self.path = plain, path
        self.problems: list[str] = []

    def robot(self) -> RobotFile:
        known = {
            "name", "rate_hz", "command_rate_hz", "tick_rate_hz", "controllers", "joints", "limits", "home", "gripper",
            "homing_speed", "safe_state", "watchdog", "workspace", "model", "observation", "task_features", "commands",
        }  # fmt: skip
        required = known - {"gripper", "homing_speed", "safe_state", "watchdog", "workspace", "model", "task_features"}
        self._keys("", self.plain, known, required)
        if self.problems:
            raise RobotFileError(str(self.path), self.problems)
        plain = self.plain
        joints = tuple(str(name) for name in self._list("joints"))
        gripper = self._build("gripper", GripperSpec, plain.get("gripper")) if plain.get("gripper") else None
        limits, home = self._limits(joints)
        observation, streams, computed = self._observation(len(joints))
        robot_fields = {
            "name": str(plain["name"]),
            "streams": streams,
            "computed": computed,
            "commands": self._commands(joints, gripper),
            "controllers": self._controllers(),
            "joints": joints,
            "limits_by_key": limits,
            "home": home,
            "gripper": gripper,
            **self._rates(),
            "homing_speed": self._positive("homing_speed", plain.get("homing_speed", 0.5)),
            "safe_state": self._choice("safe_state", plain.get("safe_state", "brake"), ("brake",)),
            "watchdog_times": self._watchdog(),
            "workspace": self._box(),
            "model": self._model(len(joints)),
            "task_features": self._task_features(),
            "path": self.path,
        }
        if self.problems:
            raise RobotFileError(str(self.path), self.problems)
        action = _actions(joints, limits, gripper, robot_fields["controllers"][0])
        rate = float(plain["rate_hz"])
        contract = Contract(str(plain["name"]), rate, observation, action, robot_fields["controllers"][0])
        return RobotFile(contract=contract, **robot_fields)

    def _limits(self, joints: Sequence[str]) -> tuple[dict[str, list[float]], tuple[float, ...]]:
        from robot_rl.sim.servo import JointLimits, ServoError

        limits = self.plain["limits"] if isinstance(self.plain["limits"], Mapping) else {}
        home = self._numbers("home", self.plain["home"], len(joints))
        try:
            checked = JointLimits.from_mapping(limits)
        except (ServoError, TypeError, ValueError) as error:
            self.problems.append(f"limits: {error}")
            return {}, home
        if checked.dof != len(joints):
            self.problems.append(f"limits: for {checked.dof} joints, but there are {len(joints)} under joints")
        elif len(home) == len(joints):
            for name, low, at, high in zip(joints, checked.lower, home, checked.upper, strict=True):
                if not low <= at <= high:
                    self.problems.append(f"home: {name} at {at:g} is outside its limits {low:g} to {high:g}")
        return {key: [float(number) for number in values] for key, values in limits.items()}, home

    def _observation(self, dof: int) -> tuple[dict[str, Feature], dict[str, Stream], dict[str, str]]:
        features: dict[str, Feature] = {}
        streams: dict[str, Stream] = {}
        computed: dict[str, str] = {}
        for name, values in self._mapping("observation").items():
            where = f"observation.{name}"
            if not isinstance(values, Mapping):
                self.problems.append(f"{where}: expected a mapping, got {values!r}")
                continue
            rest = {key: value for key, value in values.items() if key not in ("stream", "computed")}
            feature = self._feature(where, name, rest)
            if feature is None:
                continue
            features[name] = feature
            if "computed" in values:
                computed[name] = self._choice(f"{where}.computed", values["computed"], ("forward_kinematics",))
                if not self.plain.get("model"):
                    self.problems.append(f"{where}: forward_kinematics needs a model")
                if feature.representation != "position_quaternion":
                    self.problems.append(f"{where}: forward_kinematics gives a position_quaternion")
            else:
                stream = self._stream(f"{where}.stream", values.get("stream"), feature)
                if stream is not None:
                    streams[name] = stream
        if "joint_position" not in streams and "joint_position" not in computed:
            self.problems.append("observation.joint_position: missing; the Supervisor watches the arm through it")
        elif "joint_position" in features and features["joint_position"].shape != (dof,):
            shape = list(features["joint_position"].shape)
            self.problems.append(f"observation.joint_position.shape: {shape}, but there are {dof} joints")
        return features, streams, computed

    def _task_features(self) -> dict[str, tuple[Mapping[str, Any], Stream]]:
        found = {}
        for pattern, values in self._mapping("task_features").items():
            where = f"task_features.{pattern}"
            if not isinstance(values, Mapping):
                self.problems.append(f"{where}: expected a mapping, got {values!r}")
                continue
            plain = {key: value for key, value in values.items() if key != "stream"}
            sized = {"shape": [8, 8, 1 if plain.get("kind") == "depth" else 3], **plain}
            feature = self._feature(where, pattern, sized)
            stream = self._stream(f"{where}.stream", values.get("stream"), feature) if feature else None
            if stream is not None:
                found[str(pattern)] = (plain, stream)
        return found

    def _stream(self, where: str, plain: Any, feature: Feature) -> Stream | None:
        stream = self._build(where, Stream, plain, feature=feature)
        if stream is None:
            return None
        if stream.type not in OBSERVED:
            self.problems.append(f"{where}.type: expected one of {', '.join(OBSERVED)}; got {stream.type!r}")
            return None
        if stream.field not in OBSERVED[stream.type]:
            fields_known = ", ".join(repr(name) for name in OBSERVED[stream.type])
            self.problems.append(f"{where}.field: {stream.type} has {fields_known}; got {stream.field!r}")
        self._choice(f"{where}.clock", stream.clock, get_args(Clock))
        self._choice(f"{where}.align", stream.align, get_args(Align))
        for key in ("max_age", "rate_hz"):
            if getattr(stream, key) is not None:
                self._positive(f"{where}.{key}", getattr(stream, key))
        if stream.delay < 0 or stream.latency < 0:
            self.problems.append(f"{where}: delay and latency are times >= 0 s")
        if stream.delay >= stream.max_age:
            self.problems.append(f"{where}.delay: {stream.delay:g} s is not below max_age {stream.max_age:g} s")
        for problem in _fit(stream, feature):
            self.problems.append(f"{where}: {problem}")
        return stream

    def _commands(self, joints: Sequence[str], gripper: GripperSpec | None) -> dict[str, CommandTopic]:
        wanted = {"joint_position"} | ({"gripper_opening"} if gripper else set())
        plain = self._mapping("commands")
        self._keys("commands.", plain, wanted, wanted)
        found = {}
        for name in sorted(wanted & set(plain)):
            where = f"commands.{name}"
            command = self._build(where, CommandTopic, plain[name])
            if command is None:
                continue
            self._choice(f"{where}.type", command.type, (TRAJECTORY, ARRAY))
            self._choice(f"{where}.stamp", command.stamp, ("tick", "zero"))
            count = len(joints) if name == "joint_position" else max(1, len(command.elements))
            if len(command.elements) != count and not (name == "gripper_opening" and command.type == ARRAY):
                self.problems.append(f"{where}.elements: expected {count} joint names, got {len(command.elements)}")
            if command.type == TRAJECTORY and not command.elements:
                self.problems.append(f"{where}.elements: a JointTrajectory names its joints")
            if len(set(command.elements)) != len(command.elements):
                self.problems.append(f"{where}.elements: a joint is named twice: {list(command.elements)}")
            found[name] = command
        return found

    def _controllers(self) -> tuple[str, ...]:
        named = tuple(str(name) for name in self._list("controllers"))
        for name in named:
            self._choice("controllers", name, CONTROLLERS)
        if "servo_ee_pose" in named and not self.plain.get("model"):
            self.problems.append("controllers: servo_ee_pose needs a model")
        if not named:
            self.problems.append(f"controllers: expected one or more of {', '.join(CONTROLLERS)}")
        return named

    def _rates(self) -> dict[str, float]:
        rate, tick, command = (
            self._positive(key, self.plain[key]) for key in ("rate_hz", "tick_rate_hz", "command_rate_hz")
        )
        if not 100 <= command <= 1000:
            self.problems.append(f"command_rate_hz: expected 100 to 1000, got {command:g}")
        for slow, fast, names in (
            (tick, command, "command_rate_hz / tick_rate_hz"),
            (rate, tick, "tick_rate_hz / rate_hz"),
        ):
            if not math.isclose(fast / slow, round(fast / slow)) or fast < slow:
                self.problems.append(f"{names}: expected a whole number, got {fast:g} / {slow:g}")
        arm = self._mapping("commands").get("joint_position")
        if isinstance(arm, Mapping) and arm.get("type") == ARRAY and tick != command:
            self.problems.append(
                "tick_rate_hz: a forward controller takes one point per message; make it command_rate_hz"
            )
        return {"tick_rate_hz": tick, "command_rate_hz": command}

    def _watchdog(self) -> dict[str, float]:
        from robot_rl.hardware.supervisor_state import Watchdog

        plain = self._mapping("watchdog")
        self._keys("watchdog.", plain, {item.name for item in fields(Watchdog)}, set())
        return {str(key): self._positive(f"watchdog.{key}", value) for key, value in plain.items()}

    def _box(self) -> Box | None:
        if self.plain.get("workspace") is None:
            return None
        box = self._build("workspace", Box, self.plain["workspace"])
        if box is None:
            return None
        lower, upper = (self._numbers(f"workspace.{key}", getattr(box, key), 3) for key in ("lower", "upper"))
        if len(lower) == len(upper) == 3 and not all(low < high for low, high in zip(lower, upper, strict=True)):
            self.problems.append(f"workspace: lower {list(lower)} must be below upper {list(upper)}")
        if not self.plain.get("model"):
            self.problems.append("workspace: needs a model, whose end-effector it bounds")
        return box

    def _model(self, dof: int) -> Model | None:
        if self.plain.get("model") is None:
            return None
        model = self._build("model", Model, self.plain["model"])
        if model is None:
            return None
        if bool(model.sim) == bool(model.file):
            self.problems.append("model: give either sim (a name) or file (with joints, base and site)")
        if model.sim:
            from robot_rl.sim.spec import available

            self._choice("model.sim", model.sim, available("robot"))
        if model.file:
            if not (self.path.parent / model.file).is_file():
                self.problems.append(f"model.file: no file {model.file} beside {self.path.name}")
            if len(model.joints) != dof or not model.base or not model.site:
                self.problems.append(f"model: name {dof} joints, the base body and the end-effector site of the file")
        return model

    def _feature(self, where: str, name: str, plain: Mapping[str, Any]) -> Feature | None:
        unknown = set(plain) - {item.name for item in fields(Feature)} | (set(plain) & {"name"})
        if unknown or "shape" not in plain:
            self.problems.append(f"{where}: no such key: {sorted(unknown)}" if unknown else f"{where}.shape: missing")
            return None
        try:
            return Feature(name, **plain)
        except ContractError as error:
            self.problems += [f"{where}.{difference}" for difference in error.differences]
        return None

    def _build(self, where: str, kind: type, plain: Any, **given: Any) -> Any:
        """An instance of a dataclass from a mapping and `given` fields; nested dataclasses are built, too."""
        nested: dict[str, type] = {"qos": Qos, "scale": Scale, "action": GripperAction}
        if not isinstance(plain, Mapping):
            self.problems.append(f"{where}: expected a mapping, got {plain!r}")
            return None
        before = len(self.problems)
        known = {item.name: item for item in fields(kind) if item.name not in given}
        needed = {
            name for name, item in known.items() if item.default is MISSING and item.default_factory is MISSING
        }  # fmt: skip
        self._keys(f"{where}.", plain, set(known), needed)
        values: dict[str, Any] = {}
        for key, value in plain.items():
            if key not in known:
                continue
            if key in nested:
                values[key] = self._build(f"{where}.{key}", nested[key], value)
                continue
            values[key] = tuple(value) if isinstance(value, list) else value
            expected = _types(known[key].type)
            if not isinstance(values[key], expected) or isinstance(value, bool):
                self.problems.append(f"{where}.{key}: expected {_words(expected)}, got {value!r}")
        if len(self.problems) > before:
            return None
        try:
            return kind(**given, **values)
        except (TypeError, ValueError) as error:
            self.problems.append(f"{where}: {error}")
        return None

    def _keys(self, where: str, plain: Mapping[str, Any], known: set[str], required: set[str]) -> None:
        for key in plain:
            if key not in known:
                self.problems.append(f"{where}{key}: no such key; known are {', '.join(sorted(known))}")
        self.problems += [f"{where}{key}: missing" for key in sorted(required) if key not in plain]

    def _mapping(self, key: str) -> Mapping[str, Any]:
        value = self.plain.get(key) or {}
        if isinstance(value, Mapping):
            return value
        self.problems.append(f"{key}: expected a mapping, got {value!r}")
        return {}

    def _list(self, key: str) -> list[Any]:
        if isinstance(self.plain[key], list):
            return list(self.plain[key])
        self.problems.append(f"{key}: expected a list, got {self.plain[key]!r}")
        return []

    def _numbers(self, where: str, values: Any, count: int) -> tuple[float, ...]:
        if isinstance(values, (list, tuple)) and len(values) == count and all(_finite(value) for value in values):
            return tuple(float(value) for value in values)
        self.problems.append(f"{where}: expected {count} finite numbers, got {values!r}")
        return ()

    def _positive(self, where: str, value: Any) -> float:
        if _finite(value) and value > 0:
            return float(value)
        self.problems.append(f"{where}: expected a positive number, got {value!r}")
        return 1.0

    def _choice(self, where: str, value: Any, choices: Sequence[str]) -> str:
        if value not in choices:
            self.problems.append(f"{where}: expected one of {', '.join(choices)}; got {value!r}")
        return str(value)


def _fit(stream: Stream, feature: Feature) -> Iterator[str]:
    """Why a message of this stream cannot fill the feature."""
    if stream.type == "sensor_msgs/msg/JointState":
        size = 1 if stream.weights else len(stream.elements)
        if size != feature.size:
            yield f"elements: feature {feature.name!r} has {feature.size} numbers, the stream gives {size}"
        if stream.weights and len(stream.weights) != len(stream.elements):
            yield f"weights: expected {len(stream.elements)}, one for each element; got {len(stream.weights)}"
        if len(set(stream.elements)) != len(stream.elements):
            yield f"elements: a joint is named twice: {list(stream.elements)}"
    elif stream.elements or stream.weights:
        yield f"elements and weights belong to a JointState, not to {stream.type}"
    elif "Image" in stream.type and not feature.is_frame:
        yield f"{stream.type} fills images and depth, {feature.name!r} is a {feature.kind}"
    else:
        sizes = {"": {"geometry_msgs/msg/PoseStamped": 7}.get(stream.type, 6), "orientation": 4}
        size = sizes.get(stream.field, 3)
        if not feature.is_frame and feature.size != size:
            yield f"{stream.type} {stream.field} has {size} numbers, feature {feature.name!r} has {feature.size}"
        rotated = feature.representation in ("quaternion", "position_quaternion")
        if not feature.is_frame and (size in (4, 7)) != rotated:
            yield f"{stream.type} {stream.field} and representation {feature.representation!r} do not go together"
    if stream.align == "interpolate" and feature.is_frame:
        yield "images cannot be interpolated; use align: latest"


def _types(annotation: Any) -> tuple[type, ...]:
    text = str(annotation)
    if text.startswith("tuple"):
        return (tuple,)
    return (str,) if text in ("str", "Clock", "Align") or text.startswith("Literal") else (int, float)


def _words(expected: tuple[type, ...]) -> str:
    return {(tuple,): "a list", (str,): "a text"}.get(expected, "a number")


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _interpolate(numbers: ArrayLike, inputs: Sequence[float], outputs: Sequence[float]) -> np.ndarray:
    order = 1 if inputs[0] < inputs[-1] else -1
    return np.asarray(np.interp(numbers, inputs[::order], outputs[::order]))
