"""What the entries of a vehicle's file have to be; everything that is wrong with one is told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from robot_rl.sim.drone.flight import SUBSTEP
from robot_rl.sim.spec import SpecError, is_finite

_NYQUIST = 0.5 / SUBSTEP  # Hz; a sampled filter has no cut-off above
_CUTOFF = f" above 0 and below {_NYQUIST:g}"
_BOUNDS: Mapping[str, Callable[[float], bool]] = {
    "": lambda value: True, " above 0": lambda value: value > 0, " of at least 0": lambda value: value >= 0,
    _CUTOFF: lambda value: 0 < value < _NYQUIST,
}  # fmt: skip


def check(content: Mapping[str, Any], source: str) -> None:
    """Refuse what makes no vehicle.

    Args:
        content: of a vehicle's file.
        source: what it is called where something is wrong.

    Raises:
        SpecError: with one line for each problem.
    """
    problems = [*_problems(content, _expected())] or [*_contradictions(content)]
    if problems:
        raise SpecError("\n".join([f"{source}: no vehicle:", *(f"  - {problem}" for problem in problems)]))


@cache
def autopilot() -> dict[str, dict[str, Any]]:
    """PX4's parameters, from which vehicles may differ."""
    path = Path(__file__).parent / "autopilot" / "px4.yaml"
    content: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())
    return content


def _number(bound: str = "") -> tuple[str, Callable[[Any], bool]]:
    return f"a finite number{bound}", lambda value: is_finite(value) and _BOUNDS[bound](value)


def _list(bound: str, *lengths: int) -> tuple[str, Callable[[Any], bool]]:
    def holds(value: Any) -> bool:
        right = isinstance(value, list | tuple) and len(value) in lengths
        return right and all(is_finite(each) and _BOUNDS[bound](each) for each in value)

    return f"a list of {' or '.join(map(str, lengths))} finite numbers{bound}", holds


_LAG = {"linear": _number(" of at least 0"), "quadratic": _number(" of at least 0")}
_ENTRIES: Mapping[str, Any] = {
    "name": ("a text", lambda value: isinstance(value, str)),
    "mass": _number(" above 0"),
    "inertia": _list("", 3, 6),
    "arm": _list(" above 0", 2),
    "thrust": {
        "linear": _number(), "quadratic": _number(" of at least 0"), "maximum": _number(" above 0"),
        "thrust_to_weight": _number(" above 0"), "unit": ("rpm or one", lambda value: value in ("rpm", "one")),
    },
    "torque_per_thrust": _number(" above 0"),
    "drag": _list(" of at least 0", 2),
    "max_rates": _list(" above 0", 3),
    "rise": _LAG,
    "fall": _LAG,
    **dict.fromkeys(("spin_drag", "rotor_inertia", "speed_max", "idle", "floor"), _number(" of at least 0")),
    "direct": ("true or false", lambda value: isinstance(value, bool)),
}  # fmt: skip
"""What each entry is expected to be, in words, and whether a value is that; of its parts, where it has some."""
_NEEDED = {
    "": ("name", "mass", "inertia", "arm", "thrust", "torque_per_thrust", "drag", "max_rates"),
    "thrust": ("linear", "quadratic"),
}


@cache
def _expected() -> Mapping[str, Any]:
    """With the autopilot's parameters, each in the shape of PX4's."""

    def entry(name: str, default: Any) -> tuple[str, Callable[[Any], bool]]:
        bound = _CUTOFF if name.endswith("cutoff") else " of at least 0"
        return _list(bound, len(default)) if isinstance(default, list) else _number(bound)

    parts = {part: {name: entry(name, value) for name, value in own.items()} for part, own in autopilot().items()}
    return {**_ENTRIES, "autopilot": parts}


def _problems(value: Any, expected: Any, where: str = "") -> Iterator[str]:
    if not isinstance(expected, Mapping):
        words, holds = expected
        if not holds(value):
            yield f"{where}: expected {words}, got {value!r}"
        return
    if not isinstance(value, Mapping):
        yield f"{where}: expected a mapping of {', '.join(expected)}, got {value!r}"
        return
    prefix = f"{where}." if where else ""
    yield from (f"{prefix}{key} is missing" for key in _NEEDED.get(where, ()) if key not in value)
    for key, each in value.items():
        if key in expected:
            yield from _problems(each, expected[key], f"{prefix}{key}")
        else:
            yield f"no key {prefix}{key}; there are: {', '.join(sorted(expected))}"


def _contradictions(content: Mapping[str, Any]) -> Iterator[str]:
    """Of entries that are right each by itself."""
    thrust = content["thrust"]
    if ("maximum" in thrust) == ("thrust_to_weight" in thrust):
        yield f"thrust: expected either maximum or thrust_to_weight, got {', '.join(thrust)}"
    if thrust["quadratic"] == 0 and thrust["linear"] <= 0:
        yield "thrust: expected one that grows with the speed, got no quadratic and no positive linear part"
    lags = {key: content[key] for key in ("rise", "fall") if content.get(key)}
    if len(lags) == 1:
        yield "rise and fall have to be given both or not at all"
    yield from (f"{key}: expected a part above 0, got {lag}" for key, lag in lags.items() if not any(lag.values()))
