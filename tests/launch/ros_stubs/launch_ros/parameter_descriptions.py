"""Parameters whose type is stated, as texts cannot show it: "1" is a string, a number or true."""

from typing import Any

import yaml
from launch import LaunchContext, SomeSubstitutions, perform


class ParameterValue:
    def __init__(self, value: SomeSubstitutions, *, value_type: type | None = None) -> None:
        assert value_type in (bool, int, float, str, None)
        self.value, self.value_type = value, value_type

    def evaluate(self, context: LaunchContext) -> Any:
        text = perform(context, self.value)
        if self.value_type in (int, float, str):
            return self.value_type(text)
        value = yaml.safe_load(text)
        if self.value_type is bool and not isinstance(value, bool):
            raise ValueError(f"cannot convert {text!r} to bool")
        return value
