"""What a launch description does besides starting nodes."""

from collections.abc import Iterable
from typing import Any

from launch import Action, LaunchContext, SomeSubstitutions, perform
from launch.launch_description_sources import PythonLaunchDescriptionSource


class DeclareLaunchArgument(Action):
    def __init__(
        self,
        name: str,
        *,
        default_value: SomeSubstitutions | None = None,
        description: str | None = None,
        choices: list[str] | None = None,
        condition: Any = None,
    ) -> None:
        super().__init__(condition=condition)
        self.name, self.default_value, self.description, self.choices = name, default_value, description, choices
        if choices is not None and isinstance(default_value, str) and default_value not in choices:
            raise RuntimeError(f"default_value {default_value!r} is not in {choices}")

    def execute(self, context: LaunchContext, started: list[Any]) -> None:
        if self.name not in context.launch_configurations:
            if self.default_value is None:
                raise RuntimeError(f"required launch argument {self.name!r} was not provided")
            context.launch_configurations[self.name] = perform(context, self.default_value)
        value = context.launch_configurations[self.name]
        if self.choices is not None and value not in self.choices:
            raise RuntimeError(f"argument {self.name!r}: {value!r} is not one of {self.choices}")


class IncludeLaunchDescription(Action):
    """Runs another file in the same scope: its arguments are set, and stay set, in the context of the includer."""

    def __init__(
        self,
        launch_description_source: PythonLaunchDescriptionSource,
        *,
        launch_arguments: Iterable[tuple[str, SomeSubstitutions]] | None = None,
        condition: Any = None,
    ) -> None:
        super().__init__(condition=condition)
        self.source, self.launch_arguments = launch_description_source, list(launch_arguments or ())

    def execute(self, context: LaunchContext, started: list[Any]) -> None:
        directory = context.directory
        description = self.source.get_launch_description(context)
        for name, value in self.launch_arguments:
            context.launch_configurations[name] = perform(context, value)
        description.visit(context, started)
        context.directory = directory


class Shutdown(Action):
    def __init__(self, *, reason: str = "reason not given", condition: Any = None) -> None:
        super().__init__(condition=condition)
        self.reason = reason


class LogInfo(Action):
    def __init__(self, *, msg: SomeSubstitutions, condition: Any = None) -> None:
        super().__init__(condition=condition)
        self.msg = msg

    def execute(self, context: LaunchContext, started: list[Any]) -> None:
        started.append({"log": perform(context, self.msg)})
