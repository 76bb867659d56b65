"""What an environment is made of: task, robot, controller and the rest, as plain data that a store can keep."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

FOLDER = Path(__file__).parent
GROUPS = ("task", "robot", "controller", "randomization")

DEFAULTS: dict[str, Any] = {
    "robot": "panda",
    "controller": "joint_position",
    "cameras": {},
    "observation": None,
    "rate_hz": 20,
    "horizon": None,
    "ends_at_success": True,
    "randomization": None,
    "render_quality": "fast",
    "stepper": "fast",
}
"""What `resolve` fills in. A horizon of None is the task's own. An episode that does not end at success goes on."""

CHOICES = {"render_quality": ("fast", "full"), "stepper": ("fast", "robosuite")}


class SpecError(ValueError):
    """An environment cannot be made as asked. The message names what exists."""


def is_finite(value: Any) -> bool:
    """Whether an entry of a YAML file is a finite number, as true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def family_of(spec: str | Mapping[str, Any]) -> Literal["arm", "drone", "lean", "gym"]:
    """Which kind of environment a specification asks for, by the name of its task."""
    from robot_rl.sim.lean.spec import TASKS

    task = spec if isinstance(spec, str) else spec.get("task")
    name = task if isinstance(task, str) else ""
    if name in TASKS:
        return "lean"
    return "drone" if name.startswith("drone/") else "gym" if name.startswith("gym/") else "arm"


def fixed_rate(spec: Mapping[str, Any]) -> float | None:
    """Control steps per second of a task that leaves no choice of them; None of one that does.

    Raises:
        SpecError: there is no such task.
    """
    if family_of(spec) in ("arm", "drone"):
        return None
    own = {key: spec[key] for key in ("task", "arguments") if key in spec}
    return float(resolve(own)["rate_hz"])


def available(group: str, folder: Path = FOLDER) -> list[str]:
    """Names of the YAML files of a group: `task`, `robot`, `controller` or `randomization` of arms."""
    return sorted(path.stem for path in (folder / group).glob("*.yaml"))


def load(group: str, entry: str | Mapping[str, Any], folder: Path = FOLDER, prefix: str = "") -> dict[str, Any]:
    """Content of a group's file by its name; a mapping is taken as such content.

    Args:
        folder: of the groups; those of arms by default.
        prefix: that people write before the names.

    Raises:
        SpecError: there is no such file.
    """
    if isinstance(entry, Mapping):
        return dict(entry)
    path = folder / group / f"{entry}.yaml"
    if not isinstance(entry, str) or not path.is_file():
        known = [prefix + name for name in available(group, folder)]
        if group == "task" and folder == FOLDER:
            from robot_rl.sim.lean.spec import TASKS

            known += [*TASKS, *(f"drone/{name}" for name in available(group, FOLDER / "drone"))]
        asked = prefix + entry if isinstance(entry, str) else entry
        close = difflib.get_close_matches(str(asked), known, 1)
        meant = f". Did you mean {close[0]}?" if close else ""
        raise SpecError(f"no {group} {asked!r}; there are: {', '.join(known)}{meant}")
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def resolve(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults and check every key; the result holds plain JSON types only.

    Args:
        spec: task name, or mapping with `task` and any keys of `DEFAULTS`. `cameras` maps a camera to [height, width].
            Tasks named `drone/...` are resolved by `robot_rl.sim.drone.spec`, lean ones by `robot_rl.sim.lean.spec`,
            and `gym/...` by `robot_rl.sim.gym_env`.

    Raises:
        SpecError: a key or a value is unknown.
    """
    given = {"task": spec} if isinstance(spec, str) else dict(spec)
    if (family := family_of(given)) == "drone":
        from robot_rl.sim.drone.spec import resolve as resolve_drone

        return _plain(resolve_drone(given))
    if family == "lean":
        from robot_rl.sim.lean.spec import resolve as resolve_lean

        return _plain(resolve_lean(given))
    if family == "gym":
        from robot_rl.sim.gym_env import resolve_gym

        return _plain(resolve_gym(given))
    if unknown := sorted(set(given) - {"task", *DEFAULTS}):
        raise SpecError(f"no such key in an environment: {', '.join(unknown)}; known are: task, {', '.join(DEFAULTS)}")
    if "task" not in given:
        raise SpecError(f"an environment needs a task: {', '.join(available('task'))}")
    resolved = {"task": given["task"], **DEFAULTS, **{key: value for key, value in given.items() if value is not None}}
    try:
        task = load("task", resolved["task"])
    except SpecError as error:
        raise SpecError(f"{error}; drone/…, lean and gym/… ones: `robot-rl collect --help`") from None
    if resolved["horizon"] is None:
        resolved["horizon"] = task["horizon"]
    for key, choices in CHOICES.items():
        if resolved[key] not in choices:
            raise SpecError(f"{key}: expected one of {', '.join(choices)}; got {resolved[key]!r}")
    if not (isinstance(resolved["horizon"], int) and resolved["horizon"] > 0):
        raise SpecError(f"horizon: expected a positive number of steps, got {resolved['horizon']!r}")
    rate, observation = resolved["rate_hz"], resolved["observation"]
    if not (isinstance(rate, int | float) and rate > 0):
        raise SpecError(f"rate_hz: expected a positive number, got {rate!r}")
    if isinstance(observation, str):
        raise SpecError(f"observation: expected a list of names, got {observation!r}")
    check_end(resolved["ends_at_success"])
    check_cameras(resolved["cameras"])
    return _plain(resolved)


def decided(given: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The specification of a task that leaves few choices: `fixed` are the keys of arms that it decides itself.

    Raises:
        SpecError: a key is unknown, a fixed one differs, or cameras and render quality are none.
    """
    task = given["task"]
    if unknown := sorted(set(given) - {"task", *defaults, *fixed}):
        raise SpecError(f"no key {', '.join(unknown)} in the environment of {task}; known: task, {', '.join(defaults)}")
    for key, value in fixed.items():
        none = key == "randomization" and given.get(key) == "none"
        if given.get(key) not in (None, value) and not none:
            raise SpecError(f"{key}: the task {task} leaves no choice; leave it out, got {given[key]!r}")
    chosen = {key: value for key, value in given.items() if key in defaults and value is not None}
    resolved = {"task": task, **fixed, **defaults, **chosen}
    if resolved["render_quality"] not in CHOICES["render_quality"]:
        expected = ", ".join(CHOICES["render_quality"])
        raise SpecError(f"render_quality: expected one of {expected}; got {resolved['render_quality']!r}")
    check_cameras(resolved["cameras"])
    return resolved


def check_end(ends_at_success: Any) -> None:
    """Refuse what is not true or false.

    Raises:
        SpecError: it is not.
    """
    if not isinstance(ends_at_success, bool):
        raise SpecError(f"ends_at_success: expected true or false, got {ends_at_success!r}")


def check_cameras(cameras: Any) -> None:
    """Refuse what is no mapping of camera to [height, width].

    Raises:
        SpecError: which one is wrong.
    """
    if not isinstance(cameras, Mapping):
        raise SpecError(f"cameras: expected a mapping of camera to [height, width], got {cameras!r}")
    for camera, size in cameras.items():
        pair = isinstance(size, Sequence) and len(size) == 2
        if not (pair and all(isinstance(length, int) and length > 0 for length in size)):
            raise SpecError(f"camera {camera!r}: expected [height, width] in pixels, got {size!r}")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): _plain_item(item) for key, item in values.items()}


def _plain_item(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, (list, tuple)):
        return [_plain_item(item) for item in value]
    return value
