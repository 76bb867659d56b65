"""The measured values of a run over its steps: `metrics.csv`, TensorBoard, and `metrics.json` for its results."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MetricLog:
    """Appends rows to `metrics.csv` and scalars to `tensorboard/` of a run folder.

    Args:
        folder: the run folder.
        columns: every name that a row may hold, besides `step`.
        step: how many steps are done; rows of later ones are dropped, since a resumed run writes them again.
    """

    def __init__(self, folder: Path, columns: tuple[str, ...], step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / "metrics.csv"
        self._columns = ("step", *columns)
        self._keep(step)
        # Buffered by line, so that a kill loses nothing that was shown.
        self._file = self._path.open("a", newline="", buffering=1)
        self._writer = csv.DictWriter(self._file, self._columns, restval="", lineterminator="\n")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1, flush_secs=10)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Record values measured after `step` steps."""
        self._writer.writerow({"step": step, **values})
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Write everything out."""
        self._file.close()
        self._board.close()

    def _keep(self, step: int) -> None:
        kept = [row for row in read_metrics(self._path) if row["step"] <= step]
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, "step": int(row["step"])} for row in kept)
        beside.replace(self._path)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.csv`, without its empty cells; a half-written last line is left out."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]


def write_results(folder: Path, values: Mapping[str, Any]) -> None:
    """Merge values into `metrics.json` of a run folder, replacing the file in one piece."""
    path = folder / "metrics.json"
    merged = {**read_results(folder), **values}
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(merged, indent=2) + "\n")
    beside.replace(path)


def read_results(folder: Path) -> dict[str, Any]:
    """The content of `metrics.json`, empty when there is none."""
    path = folder / "metrics.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}
