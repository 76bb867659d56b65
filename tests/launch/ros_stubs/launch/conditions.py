"""Conditions of actions."""

from launch import LaunchContext, SomeSubstitutions, perform


def as_boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f"expected 'true', 'false', '1' or '0', got '{text}'")
    return text.lower() in ("true", "1")


class IfCondition:
    def __init__(self, predicate_expression: SomeSubstitutions) -> None:
        self.predicate_expression = predicate_expression

    def evaluate(self, context: LaunchContext) -> bool:
        return as_boolean(perform(context, self.predicate_expression))


class UnlessCondition(IfCondition):
    def evaluate(self, context: LaunchContext) -> bool:
        return not super().evaluate(context)
