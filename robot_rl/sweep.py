"""What trainings are called, and one table over the runs of a sweep."""

from __future__ import annotations

import csv
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


def named_after(datasets: str | Sequence[str]) -> str:
    """What a training on these stores is called, where it is not told."""
    paths = [datasets] if isinstance(datasets, str) else datasets
    return "+".join(dict.fromkeys(Path(path).stem for path in paths))[:100]


def write_tables(folder: str | Path, runs: Mapping[str, bool]) -> str:
    """Leave the table over the runs in a folder, as `sweep.csv` (full precision) and `sweep.md`; returns it as text.

    Args:
        runs: folders, and whether they ended well; of the others, whatever lies there is not theirs.
    """
    table = _table(runs)
    texts = [[cell if isinstance(cell, str) else _show(cell) for cell in row] for row in table]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "sweep.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([_show(cell) if isinstance(cell, list) else cell for cell in row] for row in table)
    ruled = [texts[0], ["---", *("---:" for _ in texts[0][1:])], *texts[1:]]
    (folder / "sweep.md").write_text("".join(f"| {' | '.join(row)} |\n" for row in ruled))
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in texts
    ]
    return "\n".join(line.rstrip() for line in lines)


def _table(runs: Mapping[str, bool]) -> list[list[Any]]:
    """The results of run folders, from their `metrics.json`: one row each, best first; only columns with a value.

    Runs with a success rate are ordered by it, the others by their held-out loss; those without results come last.
    """
    results = ((run, read_results(Path(run)) if well else {}) for run, well in runs.items())
    found = sorted(results, key=lambda run: _rank(run[1]))
    names = [name for name, keys in COLUMNS.items() if any(_find(results, keys) is not None for _, results in found)]
    return [["run", *names], *([run, *(_find(results, COLUMNS[name]) for name in names)] for run, results in found)]


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
