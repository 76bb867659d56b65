"""What a lean environment is made of: the task and a few options, as plain data that a store can keep."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from robot_rl.sim.spec import CHOICES, SpecError, check_cameras

if TYPE_CHECKING:
    from robot_rl.sim.lean.world import LeanWorld

TASKS = {"peg": "Peg"}
"""Names of the tasks, each a module of this folder, and the class in it."""

DEFAULTS: dict[str, Any] = {"horizon": None, "observation": None, "cameras": {}, "render_quality": "fast"}
"""What `resolve` fills in. A horizon of None is the task's own."""

FIXED = ("robot", "controller", "randomization", "rate_hz")
"""Keys of other environments, which a lean task decides itself."""


def task_class(name: str) -> type[LeanWorld]:
    """The class of a task."""
    found: type[LeanWorld] = getattr(import_module(f"robot_rl.sim.lean.{name}"), TASKS[name])
    return found


def resolve(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults and check every key, as `robot_rl.sim.spec.resolve` does for arms.

    Raises:
        SpecError: a key or a value is unknown.
    """
    task = given["task"]
    if unknown := sorted(set(given) - {"task", *DEFAULTS, *FIXED}):
        raise SpecError(f"no key {', '.join(unknown)} in the environment of {task}; known: task, {', '.join(DEFAULTS)}")
    world = task_class(task)
    decided = {"robot": None, "controller": None, "randomization": None, "rate_hz": world.RATE_HZ}
    for key, value in decided.items():
        if given.get(key) not in (None, value) and (key, given[key]) != ("randomization", "none"):
            raise SpecError(f"{key}: the task {task} leaves no choice; leave it out, got {given[key]!r}")
    chosen = {key: value for key, value in given.items() if key in DEFAULTS and value is not None}
    resolved = {"task": task, **decided, **DEFAULTS, **chosen}
    if resolved["horizon"] is None:
        resolved["horizon"] = world.HORIZON
    if not (isinstance(resolved["horizon"], int) and resolved["horizon"] > 0):
        raise SpecError(f"horizon: expected a positive number of steps, got {resolved['horizon']!r}")
    if resolved["render_quality"] not in CHOICES["render_quality"]:
        expected = ", ".join(CHOICES["render_quality"])
        raise SpecError(f"render_quality: expected one of {expected}; got {resolved['render_quality']!r}")
    check_cameras(resolved["cameras"])
    return resolved
