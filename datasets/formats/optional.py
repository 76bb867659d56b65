"""Libraries of the extra `convert`, imported when a conversion needs them."""

from __future__ import annotations

import importlib
from typing import Any

from robot_rl.datasets.errors import StoreError


def h5py() -> Any:
    """h5py, for robomimic."""
    return _imported("h5py")


def pyarrow() -> Any:
    """pyarrow with its parquet module, for LeRobot."""
    _imported("pyarrow.parquet")
    return _imported("pyarrow")


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise StoreError(f"this format needs {name}: install it with `pip install 'robot_rl[convert]'`") from error
