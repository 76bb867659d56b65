"""Wind, gusts, kicks and the battery as parameters of the flight, for calls of a given duration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_FOOT = 0.3048
_ROOT3 = math.sqrt(3.0)


def dryden(altitude: float, wind: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Strength [3] [m/s] and scale length [3] [m] of gusts along, across and upwards near the ground.

    The low-altitude model of MIL-F-8785C (3 to 300 m; lower and higher altitudes are taken as these).

    Args:
        altitude: above the ground [m]. wind: mean, at 20 feet [m/s]; for n of them [n] the strength is [3, n].
    """
    feet = min(max(altitude, 3.0), 300.0) / _FOOT
    ratio = 0.177 + 0.000823 * feet
    upwards = 0.1 * wind
    along = upwards / ratio**0.4
    return np.array([along, along, upwards]), np.array([feet / ratio**1.2, feet / ratio**1.2, feet]) * _FOOT


def wind_rows(
    period: float,
    mean: Sequence[np.ndarray | float] = (0.0, 0.0, 0.0),
    gusts: np.ndarray | float = 0.0,
    altitude: float = 3.0,
) -> dict[str, Any]:
    """Parameters of `flight.PARAMETERS` for a constant wind and Dryden gusts; [n] or numbers.

    Gusts pass at the speed of the mean wind, but at 1 m/s at least, along its heading.

    Args:
        period: of a call of `flight.advance` [s].
        mean: wind in the world [m/s].
        gusts: mean wind at 20 feet that the gusts belong to [m/s].
    """
    strength, length = dryden(altitude, gusts)
    times = np.divide.outer(length, np.maximum(np.hypot(mean[0], mean[1]), 1.0))
    along, across, upwards = np.exp(-period / times)
    heading = np.arctan2(mean[1], mean[0])
    return {
        "wind_x": mean[0], "wind_y": mean[1], "wind_z": mean[2],
        "gust_c": np.cos(heading), "gust_s": np.sin(heading),
        "gust_a": along, "gust_u": strength[0] * np.sqrt(1 - along**2),
        "gust_b": across, "gust_v": strength[1] / _second_order_deviation(across),
        "gust_d": upwards, "gust_w": strength[2] / _second_order_deviation(upwards),
    }  # fmt: skip


def kick_rows(
    period: float, rate: np.ndarray | float, velocity: np.ndarray | float, rates: np.ndarray | float
) -> dict[str, Any]:
    """Parameters for sudden changes of velocity [m/s] and body rates [rad/s], normal along each axis, `rate` per s."""
    return {"kick_p": 1 - np.exp(-rate * period), "kick_v": velocity, "kick_w": rates}


def battery_rows(
    period: float, endurance: np.ndarray | float, sag_empty: np.ndarray | float, sag_load: np.ndarray | float
) -> dict[str, Any]:
    """Parameters for a battery that lasts `endurance` s at full power; parts of the voltage lost empty and loaded."""
    return {"drain": period / endurance, "sag_empty": sag_empty, "sag_load": sag_load}


def _second_order_deviation(b: np.ndarray) -> np.ndarray:
    """Standard deviation of the gust filter of second order under unit noise, by its decay in a call."""
    first = (1 - b) / (1 + b)
    both = first / (1 + b)
    second = ((1 - b) * first + 2 * b * b * both) / (1 + b)
    deviation: np.ndarray = np.sqrt(3 * first + (1 - _ROOT3) ** 2 * second + 2 * _ROOT3 * (1 - _ROOT3) * both)
    return deviation
