"""`@compiled`: numba code without the interpreter lock, cached on disk where a folder can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba
from numba.extending import intrinsic

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

    They are inlined where they are called. Sums may be taken in another order, divisions by zero give infinity or NaN,
    and NaN stays NaN.
    """
    return _compile(function, {"fastmath": _ALGEBRA, "error_model": "numpy", "forceinline": True})


def _widest(_: Any) -> Any:
    def generate(context: Any, builder: Any, *_: Any) -> Any:
        # llvmlite's own `add` knows only attributes without a value.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return numba.types.void(), generate


widest: Any = intrinsic(_widest)
"""Called first in a function, it lets the loops there use vectors of 512 bits where there are such.

LLVM stays at 256 on most of those processors, for fear of a lower clock rate.
"""


def _compile(function: Callable[P, T], options: dict[str, Any]) -> Callable[P, T]:
    made: Callable[P, T]
    try:
        made = numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:
        made = numba.njit(nogil=True, **options)(function)
    return made
