"""The contract: what a robot observes and which action it executes, stated once and carried everywhere.

Every environment, dataset, policy checkpoint, robot and ROS node holds a `Contract`. Three questions are kept apart:

- `equal(a, b)`: are both the same in every field? (appending to a store, resuming a training)
- `satisfies(consumer, producer)`: does the producer offer everything the consumer needs, by name, and does it execute
  the consumer's action? (running a policy on a robot that has more sensors than the policy was trained with)
- `united(a, b)`: can recordings of both be trained on together? Bounds may differ: the wider ones hold.

All raise `ContractError`, which lists every difference at once with both values and what to do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml

SCHEMA_VERSION = 1

Kind = Literal["state", "image", "depth", "action", "text"]
Role = Literal["policy", "privileged", "diagnostic"]
Mode = Literal["absolute", "delta"]
Representation = Literal[
    "vector", "position", "quaternion", "rotation_6d", "position_quaternion", "position_rotation_6d", "axis_angle"
]

ROTATION_SLICES: dict[str, slice] = {
    "quaternion": slice(0, 4),
    "rotation_6d": slice(0, 6),
    "position_quaternion": slice(3, 7),
    "position_rotation_6d": slice(3, 9),
}
"""Where the rotation stands in a feature of each representation; a normaliser leaves these elements untouched."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FILES = re.compile(r"zarr\.json|c(\.[0-9]+)+", re.IGNORECASE)

_REPRESENTATION_SIZE = {
    "position": 3, "quaternion": 4, "rotation_6d": 6,
    "position_quaternion": 7, "position_rotation_6d": 9, "axis_angle": 3,
}  # fmt: skip


class ContractError(ValueError):
    """A contract is malformed, or two contracts do not fit. `differences` holds one line for each problem."""

    def __init__(self, title: str, differences: Iterable[str], advice: str = "") -> None:
        self.differences = tuple(differences)
        lines = [title, *(f"  - {difference}" for difference in self.differences)]
        super().__init__("\n".join([*lines, advice] if advice else lines))


@dataclass(frozen=True)
class Feature:
    """One named array of an observation or an action.

    Attributes:
        name: key in observations, stores and policies.
        shape: of one row; images and depth are (height, width, channels).
        dtype: NumPy name; `float32` for what a policy sees, `uint8` for images, `uint16` (millimetres) for depth.
        kind: `state`, `image`, `depth`, `action` or `text`.
        role: `policy`, `privileged` (only a simulator knows it) or `diagnostic`.
        names: one per element of a one-dimensional feature, for example joint names; may be empty.
        unit: SI, for example `rad`, `m`, `m/s`; empty when mixed or without one.
        frame: coordinate frame of poses, twists and points, for example `base`.
        representation: how the numbers encode a rotation or a pose; `vector` when they do not.
        mode: `absolute`, or `delta` against `relative_to`.
        relative_to: what a delta is relative to, for example `measured` or `previous_target`.
        lower, upper: bounds per element, in `unit`; empty when unbounded.
        rate_hz: native rate of the stream when it is not the contract's.
        calibration: camera intrinsics `fx, fy, cx, cy` [pixel] and `distortion`, where known. Pixel centres have whole
            coordinates: the middle of a picture is at `(width - 1) / 2`, `(height - 1) / 2`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    kind: Kind = "state"
    role: Role = "policy"
    names: tuple[str, ...] = ()
    unit: str = ""
    frame: str = ""
    representation: Representation = "vector"
    mode: Mode = "absolute"
    relative_to: str = ""
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()
    rate_hz: float | None = None
    calibration: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, kind in (("shape", int), ("names", str), ("lower", float), ("upper", float)):
            object.__setattr__(self, key, _sequence(self.name, key, getattr(self, key), kind))
        problems = list(self._problems())
        if problems:
            raise ContractError(f"feature {self.name!r} is malformed:", problems)

    @property
    def size(self) -> int:
        """Number of elements of one row."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def is_frame(self) -> bool:
        """Whether the feature is stored as encoded camera frames."""
        return self.kind in ("image", "depth")

    @property
    def rotation(self) -> slice | None:
        """The elements that hold a rotation, or None."""
        return ROTATION_SLICES.get(self.representation)

    def to_dict(self) -> dict[str, Any]:
        """All fields that differ from their default, as plain JSON types; the name stands as key outside."""
        plain = {}
        for item in fields(self):
            value = getattr(self, item.name)
            value = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
            if item.name == "shape" or (item.name != "name" and value != _default(item)):
                plain[item.name] = value
        return plain

    def _problems(self) -> Iterable[str]:
        for key in ("name", "unit", "frame", "relative_to", "dtype"):
            if not isinstance(getattr(self, key), str):
                yield f"{key}: expected text, got {getattr(self, key)!r}"
        for key, allowed in (("kind", Kind), ("role", Role), ("mode", Mode), ("representation", Representation)):
            if getattr(self, key) not in get_args(allowed):
                yield f"{key}: expected one of {', '.join(get_args(allowed))}; got {getattr(self, key)!r}"
        if self.rate_hz is not None:
            yield from _rate_problems(self.rate_hz)
        if not isinstance(self.calibration, Mapping):
            yield f"calibration: expected a mapping, got {self.calibration!r}"
        if any(length <= 0 for length in self.shape):
            yield f"shape: expected positive lengths, got {list(self.shape)}"
        try:
            np.dtype(self.dtype)
        except TypeError:
            yield f"dtype: {self.dtype!r} is no NumPy dtype"
        if self.kind == "image" and not (len(self.shape) == 3 and self.shape[2] == 3 and self.dtype == "uint8"):
            yield f"an image is uint8 [height, width, 3]; got {self.dtype} {list(self.shape)}"
        if self.kind == "depth" and not (len(self.shape) == 3 and self.shape[2] == 1 and self.dtype == "uint16"):
            yield f"depth is uint16 [height, width, 1] in millimetres; got {self.dtype} {list(self.shape)}"
        for key in ("names", "lower", "upper"):
            length = len(getattr(self, key))
            if length not in (0, self.size):
                yield f"{key}: expected {self.size} (shape {list(self.shape)}) or none, got {length}"
        size = _REPRESENTATION_SIZE.get(self.representation, self.size)
        if size != self.size:
            yield f"representation {self.representation} has {size} elements, shape {list(self.shape)} has {self.size}"
        if not all(math.isfinite(bound) for bound in (*self.lower, *self.upper)):
            yield (
                f"bounds: expected finite numbers, got lower {list(self.lower)} and upper {list(self.upper)}; "
                "what has no bounds leaves them out"
            )
        if self.lower and self.upper and any(low > high for low, high in zip(self.lower, self.upper, strict=False)):
            yield f"bounds: lower {list(self.lower)} exceeds upper {list(self.upper)}"
        if self.mode == "delta" and not self.relative_to:
            yield "mode delta needs relative_to, for example `measured`"


@dataclass(frozen=True)
class Contract:
    """The ordered features of observation and action, their rate, and the controller that executes the action.

    Attributes:
        name: for people; not compared.
        rate_hz: rows and actions per second.
        observation: by name, in order.
        action: by name, in order; a policy's action vector is their concatenation.
        controller: id of what executes the action, for example `servo_joint_position`; equal ids mean equal behaviour.
        schema_version: of this description.
    """

    name: str
    rate_hz: float
    observation: Mapping[str, Feature]
    action: Mapping[str, Feature]
    controller: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        problems = _rate_problems(self.rate_hz)
        problems += [
            f"{key}: expected text, got {getattr(self, key)!r}"
            for key in ("name", "controller")
            if not isinstance(getattr(self, key), str)
        ]
        if not self.action:
            problems.append("action: expected at least one feature")
        if self.schema_version != SCHEMA_VERSION:
            problems.append(f"schema_version: this version reads {SCHEMA_VERSION}, got {self.schema_version}")
        for name in self.observation:
            if problem := name_problem(name):
                problems.append(f"observation.{name}: {problem}")
        for feature in self.action.values():
            if len(feature.shape) != 1:
                problems.append(f"action.{feature.name}: expected one dimension, got shape {list(feature.shape)}")
        if problems:
            raise ContractError(f"contract {self.name!r} is malformed:", problems)

    @property
    def action_dim(self) -> int:
        """A, the length of the concatenated action vector."""
        return sum(feature.size for feature in self.action.values())

    @property
    def action_slices(self) -> dict[str, slice]:
        """Where each action feature stands in the action vector."""
        slices, start = {}, 0
        for name, feature in self.action.items():
            slices[name] = slice(start, start + feature.size)
            start += feature.size
        return slices

    @property
    def action_names(self) -> list[str]:
        """One name for each element of the action vector, for plots and tables."""
        return [name for feature in self.action.values() for name in element_names(feature)]

    @property
    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound of the action vector, float32 [A]; infinite where none is stated."""
        low = [np.asarray(f.lower or np.full(f.size, -np.inf), np.float32) for f in self.action.values()]
        high = [np.asarray(f.upper or np.full(f.size, np.inf), np.float32) for f in self.action.values()]
        return np.concatenate(low), np.concatenate(high)

    @property
    def cameras(self) -> dict[str, Feature]:
        """The image and depth features of the observation."""
        return {name: feature for name, feature in self.observation.items() if feature.is_frame}

    def split_action(self, action: np.ndarray) -> dict[str, np.ndarray]:
        """Cut an action vector [..., A] into its features."""
        return {name: action[..., part] for name, part in self.action_slices.items()}

    def join_action(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """Concatenate action features to the float32 vector [..., A], in the contract's order."""
        return np.concatenate([np.asarray(parts[name], np.float32) for name in self.action], axis=-1)

    def select(self, observation: Iterable[str]) -> Contract:
        """The same contract with only the named observation features, in the contract's order."""
        wanted = set(observation)
        if missing := wanted - set(self.observation):
            raise ContractError(
                "no such observation:", sorted(missing),
                f"The contract {self.name!r} has: {', '.join(self.observation)}.",
            )  # fmt: skip
        kept = {name: feature for name, feature in self.observation.items() if name in wanted}
        return Contract(self.name, self.rate_hz, kept, self.action, self.controller, self.schema_version)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `Contract.from_dict` restores it."""
        return {
            "name": self.name,
            "schema_version": self.schema_version,
            "rate_hz": self.rate_hz,
            "controller": self.controller,
            "observation": {name: feature.to_dict() for name, feature in self.observation.items()},
            "action": {name: feature.to_dict() for name, feature in self.action.items()},
        }

    def to_json(self) -> str:
        """As it stands in checkpoints."""
        return json.dumps(self.to_dict(), indent=2)

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Contract:
        """Read a contract, from YAML or JSON. Unknown and missing keys are errors."""
        known = {item.name for item in fields(Contract)}
        problems = [f"{key}: no such key; known are {', '.join(sorted(known))}" for key in plain if key not in known]
        problems += [f"{key}: missing" for key in ("name", "rate_hz", "observation", "action") if key not in plain]
        groups: dict[str, dict[str, Feature]] = {"observation": {}, "action": {}}
        for group, parsed in groups.items():
            found = plain.get(group) or {}
            if not isinstance(found, Mapping):
                problems.append(f"{group}: expected a mapping of features by name, got {found!r}")
                continue
            for name, values in found.items():
                try:
                    parsed[name] = _feature(name, values, kind="action" if group == "action" else "state")
                except ContractError as error:
                    problems += [f"{group}.{name}: {difference}" for difference in error.differences]
        if "rate_hz" in plain:
            problems += _rate_problems(plain["rate_hz"])
        if problems:
            raise ContractError(f"contract {plain.get('name', '')!r} cannot be read:", problems)
        return Contract(**{**plain, **groups, "rate_hz": float(plain["rate_hz"])})

    @staticmethod
    def from_yaml(path: str | Path) -> Contract:
        """Read a contract from a YAML file; errors name the file."""
        try:
            plain = yaml.safe_load(Path(path).read_text())
        except yaml.YAMLError as error:
            raise ContractError(f"{path} is not valid YAML:", [str(error)]) from error
        if not isinstance(plain, dict):
            raise ContractError(f"{path} holds no contract:", [f"expected a mapping, got {type(plain).__name__}"])
        try:
            return Contract.from_dict(plain)
        except ContractError as error:
            raise ContractError(f"{path}:", error.differences) from error


def name_problem(name: str) -> str | None:
    """Why no observation and no stream can have this name: in a store, its folder stands in one of Zarr's."""
    if not _NAME.fullmatch(name):
        return "a name consists of letters, digits, `_`, `.` and `-`, and begins with a letter or digit"
    if _FILES.fullmatch(name):
        return "this name is taken by the files of a store"
    return None


def element_names(feature: Feature) -> list[str]:
    """A name for each element of a feature: its own names, or `feature[i]`."""
    if feature.names:
        return [f"{feature.name}.{name}" for name in feature.names]
    return [feature.name] if feature.size == 1 else [f"{feature.name}[{index}]" for index in range(feature.size)]


def equal(a: Contract, b: Contract) -> None:
    """Raise `ContractError` unless both contracts are the same in every field but their name.

    Principal points that lie up to half a pixel apart count as the same: it is what older stores miss them by.
    """
    differences = _header_differences(a, b)
    first, second = (repr(a.name), repr(b.name)) if a.name != b.name else ("the first", "the second")
    for group in ("observation", "action"):
        left, right = getattr(a, group), getattr(b, group)
        if list(left) != list(right) and set(left) == set(right):
            differences.append(f"{group} order: {list(left)} against {list(right)}")
        for name in [*left, *(name for name in right if name not in left)]:
            if name not in left or name not in right:
                missing, present = (first, second) if name not in left else (second, first)
                differences.append(f"{group}.{name}: only in {present}, not in {missing}")
            else:
                differences += _feature_differences(group, left[name], right[name], ignore=())
    if differences:
        raise ContractError(
            f"contracts {a.name!r} and {b.name!r} are not equal:", differences,
            "Record into a new store, or configure both sides alike.",
        )  # fmt: skip


def united(a: Contract, b: Contract) -> Contract:
    """The contract of two recordings that are trained on together: that of `a`, with the wider bounds of both.

    Bounds are the robot's that was recorded: those of a simulated gripper and of a real one differ by a little.

    Raises:
        ContractError: they differ in anything but bounds and name.
    """

    def widened(left: Mapping[str, Feature], right: Mapping[str, Feature]) -> dict[str, Feature]:
        return {name: _widened(feature, right.get(name, feature)) for name, feature in left.items()}

    both = (
        replace(a, observation=widened(a.observation, b.observation), action=widened(a.action, b.action)),
        replace(b, observation=widened(b.observation, a.observation), action=widened(b.action, a.action)),
    )
    equal(*both)
    return both[0]


def satisfies(consumer: Contract, producer: Contract, casts: Mapping[str, str] | None = None) -> None:
    """Raise `ContractError` unless `producer` offers all that `consumer` observes and executes its action.

    Observations are matched by name; the producer may offer more. Actions must be the same, in the same order, executed
    by the same controller at the same rate. Bounds, roles and calibration may differ: they are the producer's.

    Args:
        casts: observation features whose dtype may be changed, and to what: `{"joint_position": "float32"}`.
    """
    casts = casts or {}
    differences = _header_differences(consumer, producer)
    for name, wanted in consumer.observation.items():
        if name not in producer.observation:
            offered = ", ".join(producer.observation)
            differences.append(f"observation.{name}: needed by {consumer.name!r}; {producer.name!r} offers {offered}")
            continue
        cast = ("dtype",) if casts.get(name) == wanted.dtype else ()
        ignore = ("lower", "upper", "role", "calibration", "rate_hz", *cast)
        differences += _feature_differences("observation", wanted, producer.observation[name], ignore)
    if list(consumer.action) != list(producer.action):
        differences.append(f"action: {list(consumer.action)} against {list(producer.action)}")
    for name in [name for name in consumer.action if name in producer.action]:
        ignore = ("lower", "upper", "role", "calibration", "rate_hz")
        differences += _feature_differences("action", consumer.action[name], producer.action[name], ignore)
    if differences:
        raise ContractError(
            f"{producer.name!r} does not satisfy {consumer.name!r} (needed against offered):", differences,
            "Configure the same task, robot, controller and cameras as for recording, or train on data of this robot.",
        )  # fmt: skip


def _rate_problems(value: object) -> list[str]:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf:
        return []
    return [f"rate_hz: expected a positive number, got {value!r}"]


def _widened(a: Feature, b: Feature) -> Feature:
    """`a` with the bounds of both; without bounds where one of them has none, or their shapes differ."""
    lower, upper = (
        tuple(widest(pair) for pair in zip(left, right, strict=False))
        for widest, left, right in ((min, a.lower, b.lower), (max, a.upper, b.upper))
    )
    return replace(a, lower=lower, upper=upper) if a.shape == b.shape else a


def _header_differences(a: Contract, b: Contract) -> list[str]:
    keys = ("schema_version", "rate_hz", "controller")
    pairs = [(key, getattr(a, key), getattr(b, key)) for key in keys]
    return [f"{key}: {left!r} against {right!r}" for key, left, right in pairs if left != right]


def _feature_differences(group: str, a: Feature, b: Feature, ignore: tuple[str, ...]) -> list[str]:
    return [
        f"{group}.{a.name}.{item.name}: {_show(getattr(a, item.name))} against {_show(getattr(b, item.name))}"
        for item in fields(Feature)
        if item.name not in ignore and getattr(a, item.name) != getattr(b, item.name)
        if item.name != "calibration" or not _same_view(a.calibration, b.calibration)
    ]


def _same_view(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether intrinsics differ by no more than rounding, and principal points by half a pixel."""
    slack = {"fx": 0.0, "fy": 0.0, "cx": 0.5, "cy": 0.5}
    return a.keys() == b.keys() and all(
        a[key] == b[key] or (key in slack and math.isclose(a[key], b[key], abs_tol=slack[key])) for key in a
    )


def _show(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else repr(value)


def _default(item: Any) -> object:
    if item.name == "calibration":
        return {}
    return list(item.default) if isinstance(item.default, tuple) else item.default


def _sequence(name: str, key: str, value: object, kind: type) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ContractError(f"feature {name!r} is malformed:", [f"{key}: expected a list, got {value!r}"])
    given = list(value)
    try:
        converted = tuple(kind(element) for element in given)
    except (TypeError, ValueError):
        converted = ()
    # A number that is cut or a number in place of a text is a mistake; 1 in place of 1.0 is none.
    if len(converted) != len(given) or (
        kind is not float and any(a != b for a, b in zip(converted, given, strict=True))
    ):
        raise ContractError(
            f"feature {name!r} is malformed:", [f"{key}: expected a list of {kind.__name__}, got {given!r}"]
        )
    return converted


def _feature(name: str, values: object, kind: Kind) -> Feature:
    if not isinstance(values, Mapping):
        raise ContractError("", [f"expected a mapping with at least `shape`, got {values!r}"])
    known = {item.name for item in fields(Feature)} - {"name"}
    problems = [f"{key}: no such key; known are {', '.join(sorted(known))}" for key in values if key not in known]
    if "shape" not in values:
        problems.append("shape: missing")
    if problems:
        raise ContractError("", problems)
    return Feature(name=name, **{"kind": kind, **values})
