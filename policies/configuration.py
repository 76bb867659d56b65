"""Building parts from plain configuration: the keyword-only arguments of a class are its keys, with their defaults."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any


class PolicyError(ValueError):
    """A policy's configuration, its statistics or what it was given to work on does not fit."""


SIZES = frozenset({
    "width", "widths", "depth", "layers", "heads", "features", "time_features", "std_width", "kernel", "groups",
    "channels", "keypoints", "stride", "grid", "candidates", "steps", "train_steps",
})  # fmt: skip
"""Keys of what is counted, of networks and processes: each is 1 or more, or null where that is the default."""

_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def complete(section: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over `defaults`; an unknown key is an error that lists the known ones."""
    unknown = [key for key in given if key not in defaults]
    if unknown:
        raise PolicyError(f"{section}: no such key {', '.join(map(repr, unknown))}; known are {', '.join(defaults)}")
    problems = [
        f"{section}.{key}: expected {_EXPECTED[kind]}, got {value!r}"
        for key, value in given.items()
        for kind in [type(defaults[key])]
        if kind in _EXPECTED and not _is(value, kind)
    ]
    problems += [
        f"{section}.{key}: expected at least 1, got {value!r}"
        for key, value in given.items()
        for sizes in [value if isinstance(value, (list, tuple)) else [value]]
        if key in SIZES and any(_is(size, float) and size < 1 for size in sizes)
    ]
    if problems:
        raise PolicyError("\n".join(problems))
    return {**defaults, **given}


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def resolve(section: str, given: Mapping[str, Any], kinds: Mapping[str, type]) -> dict[str, Any]:
    """Complete the configuration of one of several kinds, chosen by its key `name`."""
    name = str(given.get("name"))
    if name not in kinds:
        raise PolicyError(f"{section}.name: expected one of {', '.join(kinds)}; got {name!r}")
    return complete(f"{section} ({name})", given, {"name": name, **options(kinds[name])})


def options(kind: type) -> dict[str, Any]:
    """The keys that configure a class, with their defaults."""
    parameters = inspect.signature(kind).parameters.values()
    return {item.name: plain(item.default) for item in parameters if item.kind is inspect.Parameter.KEYWORD_ONLY}


def construct(section: str, resolved: Mapping[str, Any], kinds: Mapping[str, type], *sizes: Any) -> Any:
    """Make the part that a resolved configuration describes; `sizes` are its positional arguments."""
    chosen = {key: value for key, value in resolved.items() if key != "name"}
    try:
        return kinds[resolved["name"]](*sizes, **chosen)
    except (TypeError, ValueError) as error:
        raise PolicyError(f"{section} ({resolved['name']}): {error}") from error


def plain(value: Any) -> Any:
    """Mappings and sequences (also Hydra's) as dictionaries and lists, so that JSON can hold them."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        return value
    return [plain(item) for item in value]
