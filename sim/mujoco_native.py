"""MuJoCo's C functions for use inside compiled code: called by address of model and data, without the interpreter.

`model._address` and `data._address` are the C pointers. Nothing checks them: whoever calls keeps both objects alive.
A fatal error inside these functions ends the process; the Python bindings would raise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
from llvmlite import binding  # type: ignore[import-untyped]
from numba import types


def _library() -> Path:
    folder = Path(mujoco.__file__).parent
    for pattern in ("libmujoco.so*", "libmujoco*.dylib", "mujoco.dll"):
        for path in folder.glob(pattern):
            return path
    raise ImportError(f"no MuJoCo library beside its Python bindings in {folder}; reinstall mujoco")


binding.load_library_permanently(str(_library()))

_MODEL_DATA = types.void(types.intp, types.intp)

mj_step: Any = types.ExternalFunction("mj_step", _MODEL_DATA)
"""One time step with the present controls."""

mj_step1: Any = types.ExternalFunction("mj_step1", _MODEL_DATA)
"""Everything that follows from position and velocity, up to where controls are due."""

mj_step2: Any = types.ExternalFunction("mj_step2", _MODEL_DATA)
"""Forces and integration, with the controls in place."""

mj_kinematics: Any = types.ExternalFunction("mj_kinematics", _MODEL_DATA)
"""Where bodies, geoms and sites are at the present positions of the joints."""

mj_geomDistance: Any = types.ExternalFunction(  # noqa: N816
    "mj_geomDistance", types.float64(types.intp, types.intp, types.int32, types.int32, types.float64, types.intp)
)
"""Distance between two geoms [m], at most the given one; the last argument is an address for the points, or 0."""
