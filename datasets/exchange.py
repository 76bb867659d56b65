"""Two names of a file system change places at once, as `rename` alone cannot do it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_AT_CWD, _EXCHANGE = -100, 2
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def exchange(one: Path, other: Path) -> bool:
    """Swap what two existing names stand for; False where system or file system cannot (Linux alone can)."""
    if _renameat2 is None:
        return False
    return bool(_renameat2(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(other), _EXCHANGE) == 0)
