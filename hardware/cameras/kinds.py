"""The kinds of cameras by name, and a camera from the settings that a person writes.

    make_source({"kind": "opencv", "device": "/dev/video0", "size": [480, 640], "rate": 30})

A kind is a class whose arguments are its settings. What all kinds share is checked here: `size` (height, width), `rate`
[Hz], `exposure` [s].
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from robot_rl.hardware.cameras.camera import CameraError, Source

KINDS = {
    "opencv": ("robot_rl.hardware.cameras.opencv:OpenCVSource", "V4L2 camera, most USB cameras; video files"),
    "realsense": ("robot_rl.hardware.cameras.realsense:RealSenseSource", "Intel RealSense, also depth"),
    "topic": ("robot_rl.hardware.cameras.topic:TopicSource", "a ROS topic of pictures"),
    "synthetic": ("robot_rl.hardware.cameras.synthetic:SyntheticSource", "computed pictures, for tests"),
}
"""Class and description of each."""

_NOT_SETTINGS = {"connect", "scene"}  # for code alone


def make_source(settings: Mapping[str, Any]) -> Source:
    """The source of a camera; it still has to be opened. Settings that are None are left at their defaults.

    Raises:
        CameraError: there is no such kind or setting, or a value is impossible.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    kind = str(given.pop("kind", "opencv"))
    known = defaults(kind)
    for key in given:
        if key not in known:
            raise CameraError(f"{kind} has no setting {key!r}{_closest(key, known)}; it has {', '.join(known)}")
    _check(given)
    source: Source = _class(kind)(**given)
    return source


def defaults(kind: str) -> dict[str, Any]:
    """The settings of a kind with their defaults; a device that has to be named is empty. Raises `CameraError`."""
    if kind not in KINDS:
        raise CameraError(f"kind: there is no {kind!r}{_closest(kind, KINDS)}; there are {', '.join(KINDS)}")
    parameters = inspect.signature(_class(kind)).parameters
    return {
        key: "" if parameter.default is parameter.empty else parameter.default
        for key, parameter in parameters.items() if key not in _NOT_SETTINGS
    }  # fmt: skip


def _class(kind: str) -> Any:
    module, _, name = KINDS[kind][0].partition(":")
    return getattr(import_module(module), name)


def _check(given: Mapping[str, Any]) -> None:
    size = given.get("size", [1, 1])
    whole = isinstance(size, list | tuple) and all(isinstance(side, int) and side > 0 for side in size)
    if not whole or len(size) != 2:
        raise CameraError(f"size: expected height and width in pixels, such as [480, 640]; got {size!r}")
    for key in ("rate", "exposure"):
        value = given.get(key, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise CameraError(f"{key}: expected a number above 0 {'Hz' if key == 'rate' else 's'}, got {value!r}")


def _closest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else ""
