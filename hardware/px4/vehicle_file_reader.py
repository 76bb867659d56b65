"""Reads a vehicle's file strictly: what is unknown, missing, of a wrong type or not finite is told, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from robot_rl.datasets import Contract, ContractError
from robot_rl.hardware.px4.flight_state import FlightLimits, FlightPlan, Patience
from robot_rl.hardware.px4.vehicle_file import INERTIAL, KIND, OBSERVED, PICTURES, VehicleFile, picture_stream
from robot_rl.hardware.robot_file import RobotFileError, Stream
from robot_rl.hardware.ros2.arguments import FULL_NAME
from robot_rl.hardware.ros2.qos import Qos
from robot_rl.hardware.safety.supervisor_state import Watchdog
from robot_rl.sim.spec import is_finite

NEEDED = ("name", "contract", "flight")
OPTIONAL = ("kind", "description", "namespace", "vehicle", "px4_msgs", "cameras")
TEXTS = ("namespace", "px4_msgs")
_SHAPES: Mapping[str, tuple[int, ...]] = {
    "home": (3,), "limits.fence": (2, 3), "limits.rates": (3,), "limits.throttle": (2,),
}  # fmt: skip
"""Of entries of `flight` that are no single numbers."""
_PARTS = {"limits": FlightLimits, "watchdog": Watchdog, "patience": Patience}
_CAMERA = {
    "topic": str, "type": str, "camera_info": str, "frame_id": str, "clock": str, "qos": Mapping,
    "max_age": float, "latency": float, "rate_hz": float,
}  # fmt: skip
"""Keys of a camera, and what they hold."""


def read(path: Path) -> VehicleFile:
    """See `VehicleFile.load`."""
    try:
        plain: Any = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise RobotFileError(str(path), [f"not valid YAML: {error}"]) from error
    if not isinstance(plain, dict) or plain.get("kind") != KIND:
        raise RobotFileError(str(path), [f"expected `kind: {KIND}`, as in hardware/robots/px4.yaml"])
    problems = [f"{key} is missing" for key in NEEDED if key not in plain]
    known = (*NEEDED, *OPTIONAL)
    problems += [f"no key {key!r}; there are: {', '.join(known)}" for key in plain if key not in known]
    texts = _texts(plain, problems)
    cameras = _cameras(plain.get("cameras") or {}, problems)
    contract = _contract(plain["contract"], cameras, problems) if "contract" in plain else None
    plan = _plan(plain["flight"], problems) if "flight" in plain else None
    if contract is not None and plan is not None:
        try:
            plan = plan.for_period(1 / contract.rate_hz)
        except ValueError as error:
            problems.append(str(error))
    vehicle = plain.get("vehicle")
    if vehicle in (None, ""):
        vehicle = VehicleFile.vehicle
    if not isinstance(vehicle, str | Mapping):
        problems.append(f"vehicle: expected a name, or path or content of a vehicle's file; got {vehicle!r}")
    if problems or contract is None or plan is None:
        raise RobotFileError(str(path), problems)
    return VehicleFile(str(plain["name"]), contract, plan, vehicle=vehicle, cameras=cameras, **texts)


def _texts(plain: Mapping[str, Any], problems: list[str]) -> dict[str, str]:
    found = {key: plain[key] for key in TEXTS if plain.get(key) is not None}
    if wrong := {key: value for key, value in found.items() if not isinstance(value, str)}:
        problems += [f"{key}: expected a text, got {value!r}" for key, value in wrong.items()]
        return {}
    namespace = found.get("namespace", "")
    if namespace and not FULL_NAME.fullmatch(namespace):
        problems.append(f"namespace: expected none, or a name with a leading slash such as /px4_1; got {namespace!r}")
    found = {key: value for key, value in found.items() if value}
    if "px4_msgs" in found:
        found["px4_msgs"] = str(Path(found["px4_msgs"]).expanduser())
    return found


def _contract(plain: Any, cameras: Mapping[str, Stream], problems: list[str]) -> Contract | None:
    if not isinstance(plain, Mapping):
        problems.append(f"contract: expected a mapping, got {plain!r}")
        return None
    try:
        contract = Contract.from_dict(plain)
    except ContractError as error:
        problems += [f"contract: {difference}" for difference in error.differences]
        return None
    known = (*OBSERVED, *INERTIAL, *cameras)
    if odd := sorted(set(contract.observation) - set(known)):
        problems.append(f"contract: a vehicle tells {', '.join(known)}; got {', '.join(odd)}")
    return contract


def _plan(plain: Any, problems: list[str]) -> FlightPlan | None:
    if not isinstance(plain, Mapping):
        problems.append(f"flight: expected a mapping, got {plain!r}")
        return None
    found = [*_odd_keys("flight", plain, {item.name for item in fields(FlightPlan)})]
    for key, value in plain.items():
        if key not in _PARTS:
            found += _odd_numbers(f"flight.{key}", value, _SHAPES.get(str(key), ()))
        elif not isinstance(value, Mapping):
            found.append(f"flight.{key}: expected a mapping, got {value!r}")
        else:
            found += _odd_keys(f"flight.{key}", value, {item.name for item in fields(_PARTS[key])})
            for part, number in value.items():
                found += _odd_numbers(f"flight.{key}.{part}", number, _SHAPES.get(f"{key}.{part}", ()))
    if not found:
        try:
            return FlightPlan.from_mapping(plain)
        except ValueError as error:
            found = [f"flight: {line.removeprefix('flight: ')}" for line in str(error).splitlines()]
    problems += found
    return None


def _cameras(plain: Any, problems: list[str]) -> dict[str, Stream]:
    if not isinstance(plain, Mapping):
        problems.append(f"cameras: expected a mapping of cameras by name, got {plain!r}")
        return {}
    found = {}
    for name, values in plain.items():
        where = f"cameras.{name}"
        if not isinstance(values, Mapping):
            problems.append(f"{where}: expected a mapping, got {values!r}")
            continue
        odd = _odd_keys(where, values, set(_CAMERA))
        for key, value in values.items():
            kind: type | None = _CAMERA.get(key)
            if kind is float and not (key == "rate_hz" and value is None):
                odd += _odd_numbers(f"{where}.{key}", value)
            elif kind in (str, Mapping) and not isinstance(value, kind):
                odd.append(f"{where}.{key}: expected a {'text' if kind is str else 'mapping'}, got {value!r}")
        if not odd:
            try:
                stream = picture_stream({**values, **({"qos": Qos(**values["qos"])} if "qos" in values else {})})
            except (TypeError, ValueError) as error:
                odd = [f"{where}: {error}"]
            else:
                found[str(name)] = stream
                odd += [f"{where}: {problem}" for problem in _impossible(stream)]
        problems += odd
    return found


def _impossible(stream: Stream) -> list[str]:
    problems = []
    if stream.type not in PICTURES:
        problems.append(f"expected a type of {', '.join(PICTURES)}, got {stream.type!r}")
    if stream.clock not in ("header", "receive"):
        problems.append(f"expected a clock of header or receive, got {stream.clock!r}")
    if not stream.max_age > 0 or not (stream.rate_hz is None or stream.rate_hz > 0) or stream.latency < 0:
        problems.append("expected max_age and rate_hz above 0, and latency of at least 0")
    return problems


def _odd_keys(where: str, plain: Mapping[str, Any], known: set[str]) -> list[str]:
    return [f"{where}: no key {key!r}; there are: {', '.join(sorted(known))}" for key in plain if key not in known]


def _odd_numbers(where: str, value: Any, shape: Sequence[int] = ()) -> list[str]:
    """What is wrong with numbers that should be finite, [*shape]; none where nothing is."""
    if _holds(value, shape):
        return []
    wanted = f"{' x '.join(map(str, shape))} finite numbers" if shape else "a finite number"
    return [f"{where}: expected {wanted}, got {value!r}"]


def _holds(value: Any, shape: Sequence[int]) -> bool:
    if not shape:
        return is_finite(value)
    return isinstance(value, list | tuple) and len(value) == shape[0] and all(_holds(each, shape[1:]) for each in value)
