"""The picture of a simulated camera as a feature of a contract."""

from __future__ import annotations

import math

from robot_rl.datasets.contract import Feature


def camera_feature(name: str, height: int, width: int, fovy: float) -> Feature:
    """An image of [height, width] pixels, with the intrinsics of MuJoCo's cameras.

    Args:
        fovy: vertical angle of view [degrees]; pixels are square.
    """
    focal = 0.5 * height / math.tan(0.5 * math.radians(fovy))
    calibration = {"fx": focal, "fy": focal, "cx": 0.5 * (width - 1), "cy": 0.5 * (height - 1)}
    return Feature(name, (height, width, 3), "uint8", kind="image", calibration=calibration)
