"""What kind of value a configuration key takes: that of its default or, where that is null, the one listed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Accepts = Callable[[Any], bool]


def kind_of(key: str, default: Any) -> tuple[str, Accepts]:
    """What a key such as `training.steps` takes, in words, and whether a value in plain types is that."""
    if default is None:
        return next(((wanted, ACCEPTS[wanted]) for wanted, keys in NULL.items() if key in keys.split()), ANYTHING)
    if isinstance(default, dict):
        return f"keys and values such as {default}", _mapping
    if isinstance(default, list):
        return f"a list such as {default}", _list_of(_number if default and _number(default[0]) else _anything)
    for wanted in ("true or false", "an integer", "a number"):
        if ACCEPTS[wanted](default):
            return f"{wanted} such as {default}", ACCEPTS[wanted]
    return ANYTHING


def _anything(value: Any) -> bool:
    return True


def _boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _list_of(accepts: Accepts) -> Accepts:
    return lambda value: isinstance(value, list) and all(map(accepts, value))


def _either(*kinds: Accepts) -> Accepts:
    return lambda value: any(accepts(value) for accepts in kinds)


def _sizes(value: Any) -> bool:
    return _mapping(value) and all(_list_of(_integer)(size) and len(size) == 2 for size in value.values())


ANYTHING = "anything", _anything

ACCEPTS: dict[str, Accepts] = {
    "true or false": _boolean,
    "an integer": _integer,
    "a number": _number,
    "a text, in quotes of its own where it reads as a number": _text,
    "a name": _either(_text, _mapping),  # a mapping stands for a file's content
    "keys and values such as {a: 1}": _mapping,
    "a list of numbers": _list_of(_number),
    "a list of names": _list_of(_text),
    "a path or a list of paths": _either(_text, _list_of(_text)),
    "cameras as {agentview: [84, 84]}, height and width in pixels": _sizes,
    "numbers as in [0, 3], or all": _either(_list_of(_integer), lambda value: value == "all"),
}
"""Every kind, in the words of a message."""

NULL = {
    "an integer": (
        "episodes execute horizon processes steps threads workers actors.listen algorithm.steps "
        "network.augmentation.crop policy.augmentation.crop policy.execute policy.frames training.execute"
    ),
    "a number": (
        "end guidance handback mass thrust_max algorithm.std training.encoder_learning_rate training.gradient_clip "
        "training.target_kl training.value_clip"
    ),
    "a text, in quotes of its own where it reads as a number": (
        "calibration compare demonstrations device expert frame learner log name output policy port record secret "
        "warm_start actors.secret algorithm.demonstrations policy.estimator success.path"
    ),
    "a name": "controller randomization robot task",
    "keys and values such as {a: 1}": (
        "camera_devices environment impairments network settings teleop algorithm.settings"
    ),
    "a list of numbers": "arm dataset_weights",
    "a list of names": "observation policy.observation",
    "a path or a list of paths": "dataset failures successes",
    "cameras as {agentview: [84, 84]}, height and width in pixels": "cameras",
    "numbers as in [0, 3], or all": "dataset_episodes",
}
"""The keys whose default is null, by their kind; what null stands for is said beside each in its file."""
