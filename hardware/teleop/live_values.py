"""What a device says, on one line for people: `robot-rl teleop … check=true`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robot_rl.hardware.teleop.device import Reading


def describe(reading: Reading | None, now: float, words: Sequence[str] = ()) -> str:
    """One line: every value with its unit, the age of the reading, buttons that are held, words that were said last."""
    if reading is None:
        return "nothing yet: move the device"
    parts = []
    if reading.twist is not None:
        parts += [f"linear {_row(reading.twist[:3])} m/s", f"angular {_row(reading.twist[3:])} rad/s"]
    for name in ("pose", "target"):
        values = getattr(reading, name)
        if values is not None:
            parts.append(f"{name} {_row(values[:3])} m, wxyz {_row(values[3:])}")
    if reading.joint_position is not None:
        parts.append(f"joints {_row(reading.joint_position)} rad")
    if reading.gripper is not None:
        parts.append(f"gripper {reading.gripper:.2f}")
    if reading.buttons:
        parts.append(f"holds {' '.join(sorted(reading.buttons))}")
    if words:
        parts.append(f"said {' '.join(words)}")
    return "  ".join([*parts, f"age {1e3 * (now - reading.stamp):.0f} ms"])


def _row(values: np.ndarray) -> str:
    return " ".join(f"{value:+.2f}" for value in values)
