"""One table over the runs of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robot_rl.metric_log import read_results

COLUMNS = {
    "success": ("success_rate",),
    "interval": ("success_interval",),
    "held-out loss": ("training", "best", "held_out_loss"),
    "best step": ("training", "best", "step"),
    "parameters": ("training", "parameters"),
    "training s": ("training", "seconds"),
}


def sweep_table(folders: Sequence[str | Path]) -> str:
    """The results of run folders, from their `metrics.json`: one line each, best first; only columns with a value.

    Runs with a success rate are ordered by it, the others by their held-out loss. A run without results says so.
    """
    runs = [(str(folder), read_results(Path(folder))) for folder in folders]
    runs.sort(key=lambda run: _rank(run[1]))
    names = [name for name, keys in COLUMNS.items() if any(_find(results, keys) is not None for _, results in runs)]
    header = ["run", *names]
    rows = [
        [folder, *(_show(_find(results, COLUMNS[name])) for name in names)] if results else [folder, "no results"]
        for folder, results in runs
    ]
    widths = [max(len(row[column]) for row in [header, *rows] if column < len(row)) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in [header, *rows]
    )


def _rank(results: Mapping[str, Any]) -> tuple[bool, float]:
    success, loss = (_find(results, COLUMNS[name]) for name in ("success", "held-out loss"))
    return success is None, -success if success is not None else float("inf") if loss is None else loss


def _find(results: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    value: Any = results
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _show(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " to ".join(_show(part) for part in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
