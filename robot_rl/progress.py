"""Progress of long work: a bar in a terminal; in a log file, which has no line to write over, a line a minute."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

EVERY = 60.0
"""Between two lines of a log [s]."""

_LINE = "{desc}: {percentage:.0f}% {n_fmt}/{total_fmt} {unit}s, {elapsed}, {remaining} left{postfix}"


class _Log:
    """Takes what would be written over as lines of their own."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress(total: int, initial: int, description: str, unit: str, shown: bool = True) -> tqdm[Any]:
    """A bar of tqdm over `total` units, of which `initial` are done."""
    plain: dict[str, Any] = {"total": total, "initial": initial, "desc": description, "unit": unit, "smoothing": 0.05}
    if sys.stderr.isatty() or not shown:
        return tqdm(**plain, disable=not shown)
    log: Any = _Log()
    return tqdm(**plain, file=log, mininterval=EVERY, maxinterval=EVERY, delay=EVERY, bar_format=_LINE)
