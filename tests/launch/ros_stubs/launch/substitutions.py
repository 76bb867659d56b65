"""Texts that are known only when launching."""

from launch import LaunchContext, SomeSubstitutions, Substitution, perform
from launch.conditions import as_boolean


class LaunchConfiguration(Substitution):
    def __init__(self, variable_name: str, *, default: SomeSubstitutions | None = None) -> None:
        self.variable_name, self.default = variable_name, default

    def perform(self, context: LaunchContext) -> str:
        if self.variable_name in context.launch_configurations:
            return context.launch_configurations[self.variable_name]
        if self.default is None:
            raise RuntimeError(f"launch configuration '{self.variable_name}' does not exist")
        return perform(context, self.default)


class ThisLaunchFileDir(Substitution):
    def perform(self, context: LaunchContext) -> str:
        return str(context.directory)


class PathJoinSubstitution(Substitution):
    def __init__(self, substitutions: list[SomeSubstitutions]) -> None:
        self.substitutions = substitutions

    def perform(self, context: LaunchContext) -> str:
        return "/".join(perform(context, part) for part in self.substitutions)


class NotSubstitution(Substitution):
    def __init__(self, value: SomeSubstitutions) -> None:
        self.value = value

    def perform(self, context: LaunchContext) -> str:
        return "false" if as_boolean(perform(context, self.value)) else "true"


class AndSubstitution(Substitution):
    def __init__(self, left: SomeSubstitutions, right: SomeSubstitutions) -> None:
        self.left, self.right = left, right

    def perform(self, context: LaunchContext) -> str:
        both = as_boolean(perform(context, self.left)) and as_boolean(perform(context, self.right))
        return "true" if both else "false"


class IfElseSubstitution(Substitution):
    def __init__(
        self, condition: SomeSubstitutions, if_value: SomeSubstitutions = "", else_value: SomeSubstitutions = ""
    ) -> None:
        self.condition, self.if_value, self.else_value = condition, if_value, else_value

    def perform(self, context: LaunchContext) -> str:
        chosen = self.if_value if as_boolean(perform(context, self.condition)) else self.else_value
        return perform(context, chosen)


class NotEqualsSubstitution(Substitution):
    def __init__(self, left: SomeSubstitutions, right: SomeSubstitutions) -> None:
        self.left, self.right = left, right

    def perform(self, context: LaunchContext) -> str:
        return "false" if perform(context, self.left) == perform(context, self.right) else "true"
