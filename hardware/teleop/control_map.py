"""Which control of a gamepad or joystick does what, by a YAML file:

    axes:
      ABS_Y:  {moves: x, scale: -1.0}     # x y z roll pitch yaw (FLU), or gripper: from 0 (closed) to 1 (open)
    buttons:
      BTN_SOUTH: gripper                  # held: clutch, takeover, slow, gripper; or a word such as record
      ABS_HAT0Y-: success                 # a direction of an axis is a button, too

Axes deflect from -1 to 1. `mappings/gamepad.yaml` is for evdev's names, `mappings/joy.yaml` for sensor_msgs/Joy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from robot_rl.hardware.teleop.device import ANGULAR_SPEED, HELD, LINEAR_SPEED, WORDS, DeviceError, Reading

FOLDER = Path(__file__).parent / "mappings"
MOVES = ("x", "y", "z", "roll", "pitch", "yaw")

HALF = 0.5
"""Deflection at which a direction of an axis counts as pressed."""


@dataclass(frozen=True)
class ControlMap:
    """See above.

    Attributes:
        axes: control to what it moves and its scale.
        buttons: control to a button of `HELD` or a word.
    """

    axes: Mapping[str, tuple[str, float]]
    buttons: Mapping[str, str]

    @staticmethod
    def load(source: str | Path) -> ControlMap:
        """By the name of a file that ships, or a path. Raises `DeviceError`, naming what is wrong."""
        path = Path(source) if Path(source).suffix else FOLDER / f"{source}.yaml"
        try:
            plain: Any = yaml.safe_load(path.read_text())
            axes = {
                str(key): (str(value["moves"]), float(value.get("scale", 1.0)))
                for key, value in (plain.get("axes") or {}).items()
            }
            buttons = {str(key): str(value) for key, value in (plain.get("buttons") or {}).items()}
        except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise DeviceError(f"mapping file {path}: cannot be read: {error!r}") from error
        wrong = [f"{key}: moves {axis}" for key, (axis, _) in axes.items() if axis not in (*MOVES, "gripper")]
        wrong += [f"{key}: {word}" for key, word in buttons.items() if word not in HELD | WORDS]
        if wrong:
            raise DeviceError(
                f"mapping file {path}: {'; '.join(wrong)}: expected {', '.join((*MOVES, 'gripper'))} for axes and "
                f"{', '.join(sorted(HELD | WORDS))} for buttons"
            )
        return ControlMap(axes, buttons)

    def reading(self, stamp: float, axes: Mapping[str, float], held: Iterable[str]) -> Reading:
        """What the controls say: deflections of axes by name, and the names of buttons that are held."""
        twist, gripper = np.zeros(6), None
        for control, (moves, scale) in self.axes.items():
            deflection = axes.get(control, 0.0) * scale
            if moves == "gripper":
                gripper = float(np.clip(deflection, 0.0, 1.0))
            else:
                twist[MOVES.index(moves)] += deflection
        twist = np.clip(twist, -1.0, 1.0) * np.repeat([LINEAR_SPEED, ANGULAR_SPEED], 3)
        return Reading(stamp, twist=twist, gripper=gripper, buttons=frozenset(self.said(held)) & HELD)

    def said(self, controls: Iterable[str]) -> list[str]:
        """Buttons and words of the controls that are held or were pressed."""
        return [self.buttons[control] for control in controls if control in self.buttons]


def directions(axes: Mapping[str, float]) -> set[str]:
    """Directions of axes that count as pressed: `ABS_HAT0Y-`."""
    return {f"{name}{'+' if value > 0 else '-'}" for name, value in axes.items() if abs(value) >= HALF}


def pressed(names: Iterable[str]) -> list[str]:
    """Words, of buttons that were just pressed; those that count while they are held are none."""
    return [name for name in names if name in WORDS and name not in HELD]
