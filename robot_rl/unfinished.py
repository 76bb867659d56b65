"""Finished episodes of an evaluation that has not come to its end, so that the same command goes on from there."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.rollout import Outcome


def unfinished_folder(folder: Path, doing: str = "evaluate") -> Path:
    """Where in a run folder the outcomes lie; `doing` is `evaluate` or `compare`."""
    return folder / f".{doing}-unfinished"


class Unfinished:
    """Outcomes by seed, one file each, in a folder that is gone when the evaluation is complete.

    Outcomes of other settings, or of another policy, are thrown away.

    Args:
        folder: for them alone.
        settings: what decides the outcomes, JSON types.
        checkpoint: the folder with the policy's files alone, which decide too; None: it has none.

    Attributes:
        outcomes: that were there at the start.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], checkpoint: Path | None) -> None:
        self.folder = folder
        self.outcomes: dict[int, Outcome] = {}
        self._began, self._before = time.perf_counter(), 0.0
        files = [] if checkpoint is None else sorted(checkpoint.rglob("*"))
        known = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]
        content = json.dumps([dict(settings), known], sort_keys=True, default=str)
        self._mark = hashlib.sha256(content.encode()).hexdigest()
        mark = folder / "settings"
        if mark.is_file() and mark.read_text() == self._mark:
            for file in folder.glob("*.npz"):
                outcome, seconds = _read(file)
                self.outcomes[outcome.seed] = outcome
                self._before = max(self._before, seconds)
        else:
            self.finish()

    @property
    def seconds(self) -> float:
        """That the evaluation has taken, with those before it was stopped."""
        return self._before + time.perf_counter() - self._began

    def keep(self, outcome: Outcome) -> None:
        """Write an outcome."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "settings").write_text(self._mark)
        plain = {name: value for name, value in vars(outcome).items() if name != "observations"}
        plain |= {"metrics": json.dumps(dict(outcome.metrics)), "seconds": self.seconds}
        plain["success_step"] = -1 if outcome.success_step is None else outcome.success_step
        beside = self.folder / f".{outcome.seed}"
        with beside.open("wb") as file:
            np.savez(file, **plain)
        beside.replace(self.folder / f"{outcome.seed}.npz")

    def finish(self) -> None:
        """Remove the folder: the evaluation is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(file: Path) -> tuple[Outcome, float]:
    """An outcome, and the seconds that the evaluation had taken then."""
    with np.load(file, allow_pickle=False) as stored:
        plain: dict[str, Any] = dict(stored)
    for name in ("seed", "success_step"):
        plain[name] = int(plain[name])
    plain["metrics"] = json.loads(str(plain["metrics"]))
    for name in ("terminated", "truncated"):
        plain[name] = bool(plain[name])
    plain["success_step"] = None if plain["success_step"] < 0 else plain["success_step"]
    seconds = float(plain.pop("seconds", 0.0))  # not kept by those who evaluated before it was
    return Outcome(**plain), seconds
