"""As much of ROS 2 Jazzy's `launch` as the launch files use, in its own words and with its errors.

It is put on the path of a process of its own: without ROS it shows what `ros2 launch` would start. What it does not
know it refuses, as the real one refuses arguments that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


class LaunchContext:
    """What is known while launching: the arguments, and the folder of the file that is being read."""

    def __init__(self, launch_configurations: dict[str, str], directory: Path) -> None:
        self.launch_configurations, self.directory = launch_configurations, directory


class Substitution:
    """A text that is known only when launching."""

    def perform(self, context: LaunchContext) -> str:
        raise NotImplementedError


SomeSubstitutions = str | Substitution | Iterable["str | Substitution"]


def perform(context: LaunchContext, value: SomeSubstitutions) -> str:
    """The text of one substitution or of several in a row. Raises TypeError for anything else, such as a number."""
    if isinstance(value, str):
        return value
    if isinstance(value, Substitution):
        return value.perform(context)
    if isinstance(value, Iterable):
        return "".join(perform(context, part) for part in value)
    raise TypeError(f"expected a string, a substitution or a list of them, got {value!r}")


class Action:
    """Something that a launch description does, unless its condition is false."""

    def __init__(self, *, condition: Any = None) -> None:
        self.condition = condition

    def visit(self, context: LaunchContext, started: list[Any]) -> None:
        if self.condition is None or self.condition.evaluate(context):
            self.execute(context, started)

    def execute(self, context: LaunchContext, started: list[Any]) -> None:
        raise NotImplementedError


class LaunchDescription:
    """The actions of one file, in order."""

    def __init__(self, initial_entities: Iterable[Action] = ()) -> None:
        self.entities = list(initial_entities)
        assert all(isinstance(entity, Action) for entity in self.entities)

    def visit(self, context: LaunchContext, started: list[Any]) -> None:
        for entity in self.entities:
            entity.visit(context, started)
