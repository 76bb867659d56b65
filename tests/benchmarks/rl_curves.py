"""Draws the learning curves of docs/finetuning.md from finished trainings.

    python tests/benchmarks/rl_curves.py curves.svg "Off-policy:rlpd:RUN" "Off-policy:rlpd:RUN" "On-policy:resip:RUN"

Each argument is PANEL:LABEL:RUN, RUN a folder that `robot-rl finetune` wrote, such as tests/benchmarks/rl.py leaves
below its cache; runs of one label share a colour. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from robot_rl.plots import learning_curves


def main() -> None:
    """Draw, and print what was drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("runs", nargs="+", metavar="PANEL:LABEL:RUN")
    options = parser.parse_args()
    panels: dict[str, dict[str, list[list[dict[str, float]]]]] = {}
    for text in options.runs:
        panel, label, run = text.split(":", 2)
        panels.setdefault(panel, {}).setdefault(label, []).append(read(Path(run)))
    learning_curves(options.output, panels)
    drawn = {panel: {label: len(runs) for label, runs in kinds.items()} for panel, kinds in panels.items()}
    print(json.dumps({"file": str(options.output), "trainings": drawn}))


def read(run: Path) -> list[dict[str, float]]:
    """The rows of a training, by column; empty cells are left out."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


if __name__ == "__main__":
    main()
