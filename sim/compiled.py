"""`@compiled`: numba code without the interpreter lock, cached on disk where a folder can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba

P = ParamSpec("P")
T = TypeVar("T")

_ALGEBRA = {"contract", "reassoc", "nsz", "arcp"}


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function with numba at its first call. Other threads run meanwhile, also during every call.

    The machine code is kept beside the source, or else in the user's cache folder (`NUMBA_CACHE_DIR` overrides both);
    where neither can be written, every process compiles anew.

    numba renews the kept code when the file of the function called from Python changes, not when a function changes
    that this one calls in turn: what calls each other stands in one file.
    """
    return _compile(function, {})


def compiled_lanes(function: Callable[P, T]) -> Callable[P, T]:
    """`compiled` for loops over lanes that become vector instructions.

    Sums may be taken in another order, divisions by zero give infinity or NaN, and NaN stays NaN.
    """
    return _compile(function, {"fastmath": _ALGEBRA, "error_model": "numpy"})


def _compile(function: Callable[P, T], options: dict[str, Any]) -> Callable[P, T]:
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:
        return numba.njit(nogil=True, **options)(function)
