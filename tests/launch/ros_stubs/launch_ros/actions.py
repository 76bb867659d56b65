"""The action that starts a node."""

from typing import Any

from launch import Action, LaunchContext, SomeSubstitutions, Substitution, perform
from launch_ros.parameter_descriptions import ParameterValue


class Node(Action):
    """`started` gets the node with its evaluated parameters, as they would stand in the file that the node reads."""

    def __init__(
        self,
        *,
        executable: SomeSubstitutions,
        package: SomeSubstitutions | None = None,
        name: SomeSubstitutions | None = None,
        namespace: SomeSubstitutions | None = None,
        parameters: list[dict[str, Any]] | None = None,
        remappings: list[tuple[SomeSubstitutions, SomeSubstitutions]] | None = None,
        arguments: list[SomeSubstitutions] | None = None,
        output: str = "log",
        emulate_tty: bool = False,
        on_exit: Any = None,
        sigterm_timeout: SomeSubstitutions = "5",
        sigkill_timeout: SomeSubstitutions = "5",
        condition: Any = None,
    ) -> None:
        super().__init__(condition=condition)
        assert parameters is None or isinstance(parameters, list)
        assert on_exit is None or isinstance(on_exit, Action)
        self.executable, self.package, self.name, self.namespace = executable, package, name, namespace
        self.parameters, self.remappings, self.arguments = parameters or [], remappings or [], arguments or []
        self.on_exit, self.timeouts = on_exit, (sigterm_timeout, sigkill_timeout)

    def execute(self, context: LaunchContext, started: list[Any]) -> None:
        values: dict[str, Any] = {}
        for group in self.parameters:
            for name, value in group.items():
                if isinstance(value, Substitution):
                    value = ParameterValue(value)
                if isinstance(value, ParameterValue):
                    value = value.evaluate(context)
                assert isinstance(value, bool | int | float | str), f"{name}: {value!r}"
                values[name] = value
        started.append({
            "package": None if self.package is None else perform(context, self.package),
            "executable": perform(context, self.executable),
            "name": None if self.name is None else perform(context, self.name),
            "namespace": None if self.namespace is None else perform(context, self.namespace),
            "parameters": values,
            "remappings": [[perform(context, old), perform(context, new)] for old, new in self.remappings],
            "arguments": [perform(context, argument) for argument in self.arguments],
            "ends_all": self.on_exit is not None,
            "timeouts": [float(perform(context, timeout)) for timeout in self.timeouts],
        })
