"""Reads a robot's file strictly: every key that is unknown, missing or does not fit is told, all at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args

import yaml

from robot_rl.datasets import Contract, ContractError
from robot_rl.datasets.contract import Feature
from robot_rl.hardware.robot_file import (
    ARRAY,
    CONTROLLERS,
    JOINT_STATE,
    OBSERVED,
    TRAJECTORY,
    Align,
    Box,
    Clock,
    CommandTopic,
    Driver,
    GripperAction,
    GripperSpec,
    Model,
    Motor,
    RobotFile,
    RobotFileError,
    Scale,
    Stream,
    action_features,
)
from robot_rl.hardware.ros2.qos import Qos
from robot_rl.sim.spec import is_finite


def read(path: Path) -> RobotFile:
    """See `RobotFile.load`."""
    try:
        plain = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise RobotFileError(str(path), [f"not valid YAML: {error}"]) from error
    if not isinstance(plain, Mapping):
        raise RobotFileError(str(path), [f"expected a mapping, got {type(plain).__name__}"])
    return _Reader(plain, path).robot()


class _Reader:
    """Reads a file into a `RobotFile`, collecting every problem before it complains."""

    def __init__(self, plain: Mapping[str, Any], path: Path) -> None:
        self.plain, self.path = plain, path
        self.problems: list[str] = []

    def robot(self) -> RobotFile:
        known = {
            "name", "rate_hz", "command_rate_hz", "tick_rate_hz", "controllers", "joints", "limits", "home", "gripper",
            "homing_speed", "safe_state", "watchdog", "workspace", "model", "driver", "observation", "task_features",
            "commands",
        }  # fmt: skip
        optional = {
            "gripper",
            "homing_speed",
            "safe_state",
            "watchdog",
            "workspace",
            "model",
            "driver",
            "task_features",
        }
        required = known - optional
        self._keys("", self.plain, known, required)
        if self.problems:
            raise RobotFileError(str(self.path), self.problems)
        plain = self.plain
        joints = tuple(str(name) for name in self._list("joints"))
        gripper = self._build("gripper", GripperSpec, plain.get("gripper")) if plain.get("gripper") else None
        limits, home = self._limits(joints)
        observation, streams, computed = self._observation(len(joints))
        robot_fields: dict[str, Any] = {
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
            "driver": self._driver(streams),
            "task_features": self._task_features(),
            "path": self.path,
        }
        if self.problems:
            raise RobotFileError(str(self.path), self.problems)
        action = action_features(joints, limits, gripper, robot_fields["controllers"][0])
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
        found: dict[str, tuple[Mapping[str, Any], Stream]] = {}
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
        stream: Stream | None = self._build(where, Stream, plain, feature=feature)
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
            if name == "joint_position" and command.scale is not None:
                self.problems.append(f"{where}.scale: joints are commanded in radians; a scale is for a gripper")
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
        from robot_rl.hardware.safety.supervisor_state import Watchdog

        plain = self._mapping("watchdog")
        self._keys("watchdog.", plain, {item.name for item in fields(Watchdog)}, set())
        return {str(key): self._positive(f"watchdog.{key}", value) for key, value in plain.items()}

    def _box(self) -> Box | None:
        if self.plain.get("workspace") is None:
            return None
        box: Box | None = self._build("workspace", Box, self.plain["workspace"])
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
        model: Model | None = self._build("model", Model, self.plain["model"])
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

    def _driver(self, streams: Mapping[str, Stream]) -> Driver | None:
        if self.plain.get("driver") is None:
            return None
        plain = self._mapping("driver")
        self._keys("driver.", plain, {"kind", "motors", "timeout", "at_exit", "middle", "settings"}, {"kind", "motors"})
        self._choice("driver.kind", plain.get("kind"), ("feetech",))
        self._choice("driver.at_exit", plain.get("at_exit", "release"), ("release", "hold"))
        timeout = self._positive("driver.timeout", plain.get("timeout", 0.5))
        shared = self._settings("driver.settings", plain.get("settings"))
        motors = {}
        for name, values in (plain.get("motors") or {}).items():
            where = f"driver.motors.{name}"
            values = {"settings": None, **values} if isinstance(values, Mapping) else {"settings": None}
            own = self._settings(f"{where}.settings", values.pop("settings"))
            motor = self._build(where, Motor, values, settings={**shared, **own})
            if motor is not None:
                self._choice(f"{where}.range", motor.range, ("measured", "full"))
                motors[str(name)] = motor
        ids = [motor.id for motor in motors.values()]
        if len(set(ids)) < len(ids) or not all(isinstance(number, int) and 0 <= number <= 253 for number in ids):
            self.problems.append(f"driver.motors: expected a different id from 0 to 253 for each, got {ids}")
        elements = {element for stream in streams.values() for element in stream.elements}
        if missing := sorted(elements - set(motors)):
            self.problems.append(f"driver.motors: missing {', '.join(missing)}, which joint states consist of")
        if self.problems:
            return None
        return Driver(plain["kind"], motors, timeout, plain.get("at_exit", "release"), str(plain.get("middle", "")))

    def _settings(self, where: str, plain: Any) -> dict[str, int]:
        from robot_rl.hardware.feetech.registers import SETTINGS

        if not isinstance(plain or {}, Mapping):
            self.problems.append(f"{where}: expected a mapping, got {plain!r}")
            return {}
        found = dict(plain or {})
        self._keys(f"{where}.", found, set(SETTINGS), set())
        for name, value in found.items():
            largest = (1 << 8 * SETTINGS[name].size) - 1 if name in SETTINGS else 0
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
                self.problems.append(f"{where}.{name}: expected a whole number from 0 to {largest}, got {value!r}")
        return found

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
        if isinstance(values, (list, tuple)) and len(values) == count and all(is_finite(value) for value in values):
            return tuple(float(value) for value in values)
        self.problems.append(f"{where}: expected {count} finite numbers, got {values!r}")
        return ()

    def _positive(self, where: str, value: Any) -> float:
        if is_finite(value) and value > 0:
            return float(value)
        self.problems.append(f"{where}: expected a positive number, got {value!r}")
        return 1.0

    def _choice(self, where: str, value: Any, choices: Sequence[str]) -> str:
        if value not in choices:
            self.problems.append(f"{where}: expected one of {', '.join(choices)}; got {value!r}")
        return str(value)


def _fit(stream: Stream, feature: Feature) -> Iterator[str]:
    """Why a message of this stream cannot fill the feature."""
    if stream.type == JOINT_STATE:
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
    return "a list" if tuple in expected else "a text" if str in expected else "a number"
