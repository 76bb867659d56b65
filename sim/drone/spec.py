"""What a drone environment is made of: task, vehicle, controller and the rest, as plain data that a store can keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robot_rl.sim import spec
from robot_rl.sim.drone.vehicle_model import is_path, read_vehicle
from robot_rl.sim.spec import SpecError

FOLDER = Path(__file__).parent
PREFIX = "drone/"
CONTROLLERS = {"ctbr": "rates", "attitude": "attitude", "velocity": "velocity", "position": "position"}
"""Names of the action levels, and the level of `DroneBatch` that each is."""

DEFAULTS: dict[str, Any] = {
    "robot": None,
    "controller": "ctbr",
    "observation": None,
    "rate_hz": None,
    "horizon": None,
    "randomization": None,
    "contact": None,
    "cameras": {},
}
"""What `resolve` fills in. A robot, horizon or rate of None is the task's own; the rate else `RATE_HZ`. With a contact
of None the ground stops a drone, and gates and poles end its flight; else see `contact.resolve`."""
RATE_HZ = 50


def available(group: str) -> list[str]:
    """Names of the YAML files of a group: `task`, `vehicle` or `randomization`."""
    return spec.available(group, FOLDER)


def load(group: str, entry: str | Mapping[str, Any]) -> dict[str, Any]:
    """Content of a group's file by its name, as `robot_rl.sim.spec.load`; a task's name may begin with `drone/`."""
    name = entry.removeprefix(PREFIX) if isinstance(entry, str) else entry
    return spec.load(group, name, FOLDER, PREFIX if group == "task" else "")


def resolve(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults and check every key, as `robot_rl.sim.spec.resolve` does for arms.

    A vehicle that is given by the path of its file becomes the content of that file: what is recorded with it, and
    trained on that, can be flown where there is no such file.

    Raises:
        SpecError: a key or a value is unknown, or there is no such vehicle.
    """
    if unknown := sorted(set(given) - {"task", *DEFAULTS}):
        raise SpecError(f"no key {', '.join(unknown)} in a drone's environment; known: task, {', '.join(DEFAULTS)}")
    resolved = {"task": given["task"], **DEFAULTS, **{key: value for key, value in given.items() if value is not None}}
    task = load("task", resolved["task"])
    for key in ("robot", "horizon"):
        resolved[key] = task[key] if resolved[key] is None else resolved[key]
    if isinstance(resolved["robot"], str) and is_path(resolved["robot"]):
        resolved["robot"] = read_vehicle(resolved["robot"])
    resolved["rate_hz"] = task.get("rate_hz", RATE_HZ) if resolved["rate_hz"] is None else resolved["rate_hz"]
    if resolved["controller"] not in CONTROLLERS:
        raise SpecError(f"controller: expected one of {', '.join(CONTROLLERS)}; got {resolved['controller']!r}")
    if not (isinstance(resolved["horizon"], int) and resolved["horizon"] > 0):
        raise SpecError(f"horizon: expected a positive number of steps, got {resolved['horizon']!r}")
    if not (isinstance(resolved["rate_hz"], int | float) and resolved["rate_hz"] > 0):
        raise SpecError(f"rate_hz: expected a positive number, got {resolved['rate_hz']!r}")
    spec.check_cameras(resolved["cameras"])
    if resolved["contact"] is not None:
        from robot_rl.sim.drone.contact import resolve as resolve_contact

        resolved["contact"] = resolve_contact(resolved["contact"])
    return resolved
