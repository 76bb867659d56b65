"""What a lean environment is made of: the task and a few options, as plain data that a store can keep."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from robot_rl.sim.spec import SpecError, check_end, decided

if TYPE_CHECKING:
    from robot_rl.sim.lean.world import LeanWorld

TASKS = {
    "peg": "peg.Peg", "push_t": "push_t.PushT", "avoid": "avoid.Avoid", "drawer_open": "drawer.DrawerOpen",
    "drawer_close": "drawer.DrawerClose",
}  # fmt: skip
"""Names of the tasks; of each the module of this folder and the class in it."""

DEFAULTS: dict[str, Any] = {
    "horizon": None, "ends_at_success": True, "observation": None, "cameras": {}, "render_quality": "fast",
}  # fmt: skip
"""What `resolve` fills in. A horizon of None is the task's own. An episode that does not end at success goes on."""


def task_class(name: str) -> type[LeanWorld]:
    """The class of a task."""
    module, kind = TASKS[name].split(".")
    found: type[LeanWorld] = getattr(import_module(f"robot_rl.sim.lean.{module}"), kind)
    return found


def resolve(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults and check every key, as `robot_rl.sim.spec.resolve` does for arms.

    Raises:
        SpecError: a key or a value is unknown.
    """
    world = task_class(given["task"])
    fixed = {"robot": None, "controller": None, "randomization": None, "rate_hz": world.RATE_HZ}
    resolved = decided(given, DEFAULTS, fixed)
    if resolved["horizon"] is None:
        resolved["horizon"] = world.HORIZON
    if not (isinstance(resolved["horizon"], int) and resolved["horizon"] > 0):
        raise SpecError(f"horizon: expected a positive number of steps, got {resolved['horizon']!r}")
    check_end(resolved["ends_at_success"])
    return resolved
