"""Parameters of a node: declared with a type that stays, overridden from outside, served to `ros2 param`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import GraphError

# (element type, is a list) -> (code, field) of rcl_interfaces/msg/ParameterType and ParameterValue.
CODES = {
    (bool, False): (1, "bool_value"),
    (int, False): (2, "integer_value"),
    (float, False): (3, "double_value"),
    (str, False): (4, "string_value"),
    (bool, True): (6, "bool_array_value"),
    (int, True): (7, "integer_array_value"),
    (float, True): (8, "double_array_value"),
    (str, True): (9, "string_array_value"),
}
FIELDS = {code: (kind, field) for kind, (code, field) in CODES.items()}
NOT_SET = 0


class Declared:
    """See `graph.Parameter`."""

    def __init__(
        self, name: str, value: Any, description: str, read_only: bool, changed: Callable[[str, list[Declared]], None]
    ) -> None:
        self.name, self.description, self.read_only = name, description, read_only
        self._value, self._changed = value, changed

    @property
    def value(self) -> Any:
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = coerced(self.name, value, self._value)
        self._changed("changed", [self])

    @property
    def code(self) -> int:
        return CODES[_kind(self.value)][0]


def coerced(name: str, value: Any, default: Any) -> Any:
    """`value` as what a parameter with this default may hold. Raises GraphError naming both types."""
    (element, many), (wanted, several) = _kind(value), _kind(default)
    if many == several and several and (not value or not default):
        return value  # the element type of an empty list is open
    if many == several and element is int and wanted is float:
        return [float(item) for item in value] if several else float(value)
    if (element, many) != (wanted, several):
        raise GraphError(
            f"parameter {name} is {_describe(wanted, several)} like {default!r}, "
            f"not {_describe(element, many)} like {value!r}"
        )
    return list(value) if several else value


class ParameterTable:
    """The declared parameters. `changed(kind, names)` is called after each change, kind "new" or "changed"."""

    def __init__(self, overrides: Mapping[str, Any], changed: Callable[[str, list[Declared]], None]) -> None:
        self.overrides = overrides
        self._changed = changed
        self._declared: dict[str, Declared] = {}

    def __getitem__(self, name: str) -> Declared:
        return self._declared[name]

    def __contains__(self, name: str) -> bool:
        return name in self._declared

    def declare(self, name: str, default: Any, description: str, read_only: bool) -> Declared:
        default = coerced(name, default, default)
        value = coerced(name, self.overrides[name], default) if name in self.overrides else default
        self._declared[name] = Declared(name, value, description, read_only, self._changed)
        self._changed("new", [self._declared[name]])
        return self._declared[name]

    def set(self, values: Mapping[str, Any]) -> str:
        """Set all or nothing; why not, or an empty string."""
        accepted = {}
        for name, value in values.items():
            parameter = self._declared.get(name)
            if parameter is None:
                return f"parameter {name} is not declared"
            if parameter.read_only:
                return f"parameter {name} is read-only"
            try:
                accepted[name] = coerced(name, value, parameter.value)
            except GraphError as error:
                return str(error)
        for name, value in accepted.items():
            self._declared[name].value = value
        return ""

    def services(self) -> dict[str, tuple[str, Callable[[Any], Any]]]:
        """What every ROS 2 node serves below its name: {name: (type, handler)}."""
        handlers = {
            "describe_parameters": ("DescribeParameters", self._describe),
            "get_parameter_types": ("GetParameterTypes", self._types),
            "get_parameters": ("GetParameters", self._get),
            "list_parameters": ("ListParameters", self._list),
            "set_parameters": ("SetParameters", self._set_each),
            "set_parameters_atomically": ("SetParametersAtomically", self._set_all),
        }
        return {name: (f"rcl_interfaces/srv/{kind}", handler) for name, (kind, handler) in handlers.items()}

    # rclcpp and rclpy answer a request for an unknown name with an empty list, for parameters that were not declared.
    def _known(self, names: list[str]) -> list[Declared]:
        return [self._declared[name] for name in names] if all(name in self._declared for name in names) else []

    def _describe(self, request: Any) -> Any:
        return messages.make(
            "rcl_interfaces/srv/DescribeParameters_Response",
            descriptors=[
                messages.make(
                    "rcl_interfaces/msg/ParameterDescriptor",
                    name=parameter.name,
                    type=parameter.code,
                    description=parameter.description,
                    read_only=parameter.read_only,
                )
                for parameter in self._known(request.names)
            ],
        )

    def _types(self, request: Any) -> Any:
        types = [parameter.code for parameter in self._known(request.names)]
        return messages.make("rcl_interfaces/srv/GetParameterTypes_Response", types=types)

    def _get(self, request: Any) -> Any:
        values = [to_message(parameter.value) for parameter in self._known(request.names)]
        return messages.make("rcl_interfaces/srv/GetParameters_Response", values=values)

    def _list(self, request: Any) -> Any:
        def wanted(name: str) -> bool:
            for prefix in request.prefixes or [""]:
                rest = name.removeprefix(f"{prefix}." if prefix else "")
                inside = not prefix or name == prefix or rest != name
                if inside and (request.depth == 0 or rest.count(".") < request.depth):
                    return True
            return False

        names = sorted(filter(wanted, self._declared))
        prefixes = sorted({name.rpartition(".")[0] for name in names} - {""})
        result = messages.make("rcl_interfaces/msg/ListParametersResult", names=names, prefixes=prefixes)
        return messages.make("rcl_interfaces/srv/ListParameters_Response", result=result)

    def _set_each(self, request: Any) -> Any:
        results = [_result(self.set(_assignments([parameter]))) for parameter in request.parameters]
        return messages.make("rcl_interfaces/srv/SetParameters_Response", results=results)

    def _set_all(self, request: Any) -> Any:
        result = _result(self.set(_assignments(request.parameters)))
        return messages.make("rcl_interfaces/srv/SetParametersAtomically_Response", result=result)


def event(node: str, kind: str, parameters: list[Declared]) -> Any:
    """What /parameter_events says of new or changed parameters."""
    values = [
        messages.make("rcl_interfaces/msg/Parameter", name=parameter.name, value=to_message(parameter.value))
        for parameter in parameters
    ]
    fields = {"new_parameters" if kind == "new" else "changed_parameters": values}
    return messages.make("rcl_interfaces/msg/ParameterEvent", stamp=messages.stamp(time.time()), node=node, **fields)


def to_message(value: Any) -> Any:
    code, field = CODES[_kind(value)]
    return messages.make("rcl_interfaces/msg/ParameterValue", type=code, **{field: value})


def from_message(message: Any) -> Any:
    """The Python value; None when it is not set or of a type (bytes) that no parameter here has."""
    if message.type not in FIELDS:
        return None
    (element, many), field = FIELDS[message.type]
    value = getattr(message, field)
    return [element(item) for item in value] if many else element(value)


def _assignments(parameters: list[Any]) -> dict[str, Any]:
    return {parameter.name: from_message(parameter.value) for parameter in parameters}


def _result(reason: str) -> Any:
    return messages.make("rcl_interfaces/msg/SetParametersResult", successful=not reason, reason=reason)


def _kind(value: Any) -> tuple[type, bool]:
    many = isinstance(value, list | tuple)
    elements = {type(item) for item in value} if many else {type(value)}
    if elements == {int, float}:
        elements = {float}
    element = elements.pop() if len(elements) == 1 else str if not elements else None
    if element not in (bool, int, float, str):
        raise GraphError(f"a parameter is a bool, int, float, string or a list of one of these, not {value!r}")
    return element, many


def _describe(element: type, many: bool) -> str:
    return f"a list of {element.__name__}" if many else f"{'an' if element is int else 'a'} {element.__name__}"
