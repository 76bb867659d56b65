"""Where two trees of plain values differ: configurations, environment specifications."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def differences(there: Any, here: Any, ignore: Iterable[str] = (), key: str = "") -> list[str]:
    """One line for each leaf that differs: `key: there against here`.

    Args:
        ignore: dotted keys that may differ, with all below them.
    """
    if key in ignore:
        return []
    if isinstance(there, dict) and isinstance(here, dict):
        names = [*there, *(name for name in here if name not in there)]
        return [
            line
            for name in names
            for line in differences(there.get(name), here.get(name), ignore, f"{key}.{name}" if key else str(name))
        ]
    return [] if there == here else [f"{key}: {there!r} against {here!r}"]
