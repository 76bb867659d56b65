"""`--ros-args`: names, remappings, parameters and logging of one node, by the rules of ROS 2's rcl.

Sources: design.ros2.org "ROS Command Line Arguments", "Topic and Service name mapping" and "Static Remapping".
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_rl.hardware.ros2.graph import GraphError

TOKEN = r"[A-Za-z_][A-Za-z0-9_]*"
FULL_NAME = re.compile(rf"(/{TOKEN})+")
WITH_VALUE = {
    **{"-r": "remap", "--remap": "remap", "-p": "param", "--param": "param", "--params-file": "file"},
    **{"--log-level": "level", "-e": "other", "--enclave": "other", "--log-config-file": "other"},
    "--log-file-name": "other",
}
LOG_SWITCH = re.compile(r"--(enable|disable)-(rosout|stdout|external-lib)-logs")
LOG_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}
BOOLEANS = dict.fromkeys(("true", "yes", "on", "y"), True) | dict.fromkeys(("false", "no", "off", "n"), False)


@dataclass(frozen=True)
class Remap:
    """One rule; an empty `node` stands for every node."""

    node: str
    old: str
    new: str


class Arguments:
    """What the command line says to one node. Raises GraphError for whatever rcl would not understand."""

    def __init__(self, name: str, argv: Sequence[str] = (), namespace: str = "") -> None:
        self.log_level, self.rosout, self.stdout = 20, True, True
        self._remaps: list[Remap] = []
        self._assignments: list[tuple[str, str, Any]] = []
        files: list[str] = []
        for option, value in _ros_arguments(argv):
            if option == "remap":
                self._remaps.append(_remap(value))
            elif option == "param":
                self._assignments.append(_assignment(value))
            elif option == "file":
                files.append(value)
            elif option == "level":
                self.log_level = _log_level(value)
            elif option == "disable-rosout":
                self.rosout = False
            elif option == "disable-stdout":
                self.stdout = False
        own = name
        self.name = self._renamed(own, ("__node", "__name"), name)
        namespace = self._renamed(own, ("__ns",), namespace or "/")
        self.namespace = "/" + namespace.strip("/")
        self.full_name = f"{self.namespace.rstrip('/')}/{self.name}"
        if not re.fullmatch(TOKEN, self.name) or not FULL_NAME.fullmatch(self.full_name):
            raise GraphError(f"{self.full_name!r} is no node name: letters, digits and _, separated by /")
        self._files = [(Path(file), _read_parameters(Path(file))) for file in files]
        self._declared: set[str] = set()
        self._warned = False

    def resolve(self, name: str) -> str:
        """The full topic or service name that `name` stands for in this node, after remapping."""
        full = self._expand(name)
        if not FULL_NAME.fullmatch(full):
            raise GraphError(f"{name!r} is no topic or service name: letters, digits and _, separated by /")
        for rule in self._remaps:
            if not rule.old.startswith("__") and rule.node in ("", self.name) and self._expand(rule.old) == full:
                return self._expand(rule.new)
        return full

    @property
    def parameters(self) -> dict[str, Any]:
        """Values given to this node: files in order, exact names above wildcards, `-p` above files."""
        values: dict[str, Any] = {}
        for _, entries in self._files:
            for exact in (False, True):
                for pattern, entry in entries:
                    if ("*" not in pattern) == exact and _matches(pattern, self.full_name):
                        values |= entry
        for node, parameter, value in self._assignments:
            if not node or _matches(node if node.startswith("/") else f"/**/{node}", self.full_name):
                values[parameter] = value
        return values

    def declare(self, parameter: str) -> None:
        """Note that this node declares a parameter. Raises GraphError the second time."""
        if parameter in self._declared:
            raise GraphError(f"parameter {parameter} is declared twice")
        self._declared.add(parameter)

    @property
    def _undeclared(self) -> list[str]:
        """The names that `-p` gives to this node and that nobody declared: usually a typo."""
        own = ("", self.name, self.full_name)
        return sorted({name for node, name, _ in self._assignments if node in own} - self._declared)

    def refuse_undeclared(self) -> None:
        """Raise GraphError if `-p` gives what this node has not declared by now."""
        if undeclared := self._undeclared:
            raise GraphError(f"no parameter {', '.join(undeclared)}; there are {', '.join(sorted(self._declared))}")

    def warn_of_undeclared(self, log: logging.Logger) -> None:
        """The same as a warning, once."""
        if not self._warned and (undeclared := self._undeclared):
            log.warning("-p gives what this node does not declare: %s", ", ".join(undeclared))
        self._warned = True

    def _expand(self, name: str) -> str:
        substitutions = {"{node}": self.name, "{ns}": self.namespace, "{namespace}": self.namespace}
        for mark, text in substitutions.items():
            name = name.replace(mark, text)
        if name.startswith("/"):
            return name
        if name == "~" or name.startswith("~/"):
            return self.full_name + name[1:]
        return f"{self.namespace.rstrip('/')}/{name}"

    def _renamed(self, node: str, marks: Sequence[str], default: str) -> str:
        rules = (rule.new for rule in self._remaps if rule.old in marks and rule.node in ("", node))
        return next(rules, default)


def _ros_arguments(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, value) of everything between `--ros-args` and `--`; anything else is refused."""
    inside, arguments = False, iter(argv)
    for argument in arguments:
        if argument in ("--ros-args", "--"):
            inside = argument == "--ros-args"
        elif not inside:
            raise GraphError(f"unknown argument {argument!r}: settings are given as --ros-args -p name:=value")
        elif argument in WITH_VALUE:
            value = next(arguments, None)
            if value is None:
                raise GraphError(f"{argument} needs a value")
            yield WITH_VALUE[argument], value
        elif switch := LOG_SWITCH.fullmatch(argument):
            yield f"{switch[1]}-{switch[2]}", ""
        else:
            raise GraphError(f"unknown ROS argument {argument!r}")


def _remap(rule: str) -> Remap:
    scheme = "(?:rostopic://|rosservice://)?"
    matched = re.fullmatch(rf"(?:({TOKEN}):(?!//))?{scheme}([^:]+):={scheme}(.+)", rule)
    if not matched:
        raise GraphError(f"-r {rule!r} is no remapping: write from:=to or node:from:=to")
    return Remap(matched[1] or "", matched[2], matched[3])


def _assignment(text: str) -> tuple[str, str, Any]:
    matched = re.fullmatch(rf"(?:(/?{TOKEN}(?:/{TOKEN})*):)?([^:=]+):=(.*)", text, re.DOTALL)
    if not matched:
        raise GraphError(f"-p {text!r} is no parameter: write name:=value or node:name:=value")
    return matched[1] or "", matched[2], _yaml(matched[3], f"-p {text}")


def _log_level(text: str) -> int:
    level = text.rsplit(":=", 1)[-1].lower()
    if level not in LOG_LEVELS:
        raise GraphError(f"--log-level {text!r}: expected one of {', '.join(LOG_LEVELS)}")
    # A level of one named logger is not a level of this node.
    return LOG_LEVELS[level] if ":=" not in text else LOG_LEVELS["info"]


def _read_parameters(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """[(node name or pattern, {parameter: value})] of a ROS 2 parameter file, in its order."""
    try:
        tree = _yaml(path.read_text(), str(path))
    except OSError as error:
        raise GraphError(f"parameter file {path}: {error.strerror}") from error
    if not isinstance(tree, Mapping):
        raise GraphError(f"{path}: expected node names with ros__parameters below, got {type(tree).__name__}")
    return list(_nodes(tree, "", path))


def _nodes(tree: Mapping[str, Any], prefix: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in tree.items():
        if not isinstance(value, Mapping):
            raise GraphError(f"{path}: {prefix}/{key} stands outside of ros__parameters")
        name = f"{prefix}/{str(key).strip('/')}"
        if "ros__parameters" in value:
            yield name, dict(_flat(value["ros__parameters"] or {}, ""))
        else:
            yield from _nodes(value, name, path)


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _matches(pattern: str, full_name: str) -> bool:
    """`*` is one token of a name, `**` any number of them."""
    expression = re.escape(pattern).replace(r"/\*\*", rf"(/{TOKEN})*").replace(r"\*", TOKEN)
    return re.fullmatch(expression, full_name) is not None


def _yaml(text: str, source: str) -> Any:
    """YAML with rcl's scalars: 1e3 is a number, a date is a string, what is quoted stays a string."""
    import yaml

    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise GraphError(f"{source}: {error}") from error
    return "" if node is None else _value(node, source)


def _value(node: Any, source: str) -> Any:
    if node.id == "mapping":
        return {_value(key, source): _value(value, source) for key, value in node.value}
    if node.id == "sequence":
        values = [_value(item, source) for item in node.value]
        if {type(value) for value in values} == {int, float}:
            return [float(value) for value in values]
        if len({type(value) for value in values}) > 1:
            raise GraphError(f"{source}: the elements of a list must be of one type, not {values}")
        return values
    text = node.value
    if node.style in ("'", '"') or node.tag == "!!str":
        return text
    if text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    if re.fullmatch(r"[-+]?(0|[1-9]\d*|0[xX][0-9a-fA-F]+)", text):
        return int(text, 0)
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
        return float(text)
    if re.fullmatch(r"[-+]?\.?(inf|Inf|INF)|\.?(nan|NaN|NAN)", text):
        return float(text.replace(".", "").lower())
    return text
