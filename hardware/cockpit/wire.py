"""What the page and its server say to each other over one web socket.

From the page, JSON:

| type      | fields                                    | what                                                   |
|-----------|-------------------------------------------|--------------------------------------------------------|
| `input`   | `sent`, `deflection`, `target`, `buttons` | what is held now; six numbers from -1 to 1, as a twist |
| `word`    | `sent`, `word`                            | a button or key was pressed: one of `device.WORDS`     |
| `shown`   | `stream`                                  | a frame is on the screen, the next may come            |
| `watch`   | `cameras`                                 | names of the cameras that are to be sent               |
| `ping`    | `sent`                                    | answered by `pong` with the same number                |

To the page: JSON `hello`, `status`, `pong`, `notice`; and binary frames that begin with 16 bytes, little endian: kind
(uint8), stream (uint8), zero (uint16), sequence (uint32), stamp (float64 s), and go on with

- kind 1, geometry, once: length of a JSON header (uint32), the header padded with spaces to a multiple of four bytes,
  vertices (float32 xyz), triangles (uint32); see `scene`;
- kind 2, poses: float32 [bodies, 7], x y z and quaternion w x y z in the robot's base frame;
- kind 3, a camera's picture as JPEG; `stream` is its place in the list of cameras of the status.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from robot_rl.hardware.cockpit.dead_man import Input
from robot_rl.hardware.teleop.device import ANGULAR_SPEED, HELD, LINEAR_SPEED, WORDS

GEOMETRY, POSES, PICTURE = 1, 2, 3
LARGEST = 16384
"""Bytes of a message of the page."""

_HEAD = struct.Struct("<BBHId")
_FAR = 10.0  # m
_LATEST = 1e10  # s
_FULL = np.repeat([LINEAR_SPEED, ANGULAR_SPEED], 3)


class WireError(ValueError):
    """A message of the page is malformed."""


def frame(kind: int, payload: bytes, stream: int = 0, sequence: int = 0, stamp: float = 0.0) -> bytes:
    """A binary frame."""
    return _HEAD.pack(kind, stream, 0, sequence & 0xFFFFFFFF, stamp) + payload


def read(text: str) -> dict[str, Any]:
    """A message of the page. Raises `WireError`; nothing that comes from outside is trusted to have a shape."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise WireError("expected an object with a type")
    return message


def number(message: dict[str, Any], key: str) -> float:
    """A finite number of a message. Raises `WireError`."""
    value: Any = message.get(key)
    if not _is_number(value, _LATEST):
        raise WireError(f"{key}: expected a finite number, got {str(value)[:40]!r}")
    return float(value)


def read_input(message: dict[str, Any]) -> Input:
    """The input of a message. Raises `WireError`."""
    deflection = _vector(message, "deflection", 6, 1.0)
    target = None
    if message.get("target") is not None:
        target = _vector(message, "target", 7, _FAR)
        norm = float(np.linalg.norm(target[3:]))
        if abs(norm - 1.0) > 0.01:
            raise WireError(f"target: expected a unit quaternion, got one of norm {norm:.3f}")
        target[3:] /= norm
    buttons = message.get("buttons", [])
    if not isinstance(buttons, list) or not all(isinstance(name, str) and name in HELD for name in buttons):
        raise WireError(f"buttons: expected some of {sorted(HELD)}, got {str(buttons)[:80]}")
    return Input(number(message, "sent"), deflection * _FULL, target, frozenset(buttons))


def read_word(message: dict[str, Any]) -> str:
    """The word of a message. Raises `WireError`."""
    word = message.get("word")
    if not isinstance(word, str) or word not in WORDS:
        raise WireError(f"word: expected one of {sorted(WORDS)}, got {str(word)[:40]!r}")
    return word


def _vector(message: dict[str, Any], key: str, size: int, largest: float) -> np.ndarray:
    values = message.get(key)
    if not (isinstance(values, list) and len(values) == size and all(_is_number(value, largest) for value in values)):
        raise WireError(f"{key}: expected {size} numbers from {-largest:g} to {largest:g}, got {str(values)[:80]}")
    return np.array(values, float)


def _is_number(value: Any, largest: float) -> bool:
    return type(value) in (int, float) and -largest <= value <= largest
