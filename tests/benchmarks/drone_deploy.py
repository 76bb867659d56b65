"""A policy of a drone over DDS, against the twin of its vehicle, beside the same seeds in one process.

    python tests/benchmarks/drone_deploy.py --policy runs/benchmarks/drone_policies/figure8_px4_0/r1 [--flights 100]

`robot-rl deploy` flies in lockstep, `robot-rl evaluate` in one process, both without randomisation;
`drone_policies.py` trains the policies of the table in docs/px4.md. Both are below `--output`, and what is finished is
not repeated. Success comes with Wilson's 95 % interval and the exact McNemar test of the pairs, RMSE [m] and lap time
[s] with Student's interval, over the flights that have them. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from machine import machine

from robot_rl.intervals import mcnemar, wilson


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="run or checkpoint folder")
    parser.add_argument("--flights", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=100_000)
    parser.add_argument("--robot", default="px4", help="a vehicle's file")
    parser.add_argument("--record", action="store_true", help="with the black box")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/drone_deploy"))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    shared = (f"policy={options.policy}", f"episodes={options.flights}", f"first_seed={options.first_seed}")
    deployed = fly(
        options, "deployment", "deploy", *shared, f"robot={options.robot}", "twin=true", "compare=false",
        f"record={str(options.record).lower()}",
    )  # fmt: skip
    alone = fly(options, "evaluation", "evaluate", *shared, "randomization=none", "videos=0", "processes=1")
    if [each["seed"] for each in deployed] != [each["seed"] for each in alone]:
        raise SystemExit(f"{options.output} holds flights of other seeds; choose another --output")
    found = {
        "over DDS": summary(options.output / "deployment"),
        "in one process": summary(options.output / "evaluation"),
    }
    for place, values in found.items():
        print(f"{place}: {values}")
    pairs = mcnemar(*([bool(int(each["success"])) for each in side] for side in (deployed, alone)))
    lost = {each["seed"]: each["reason"] for each in deployed if each["success"] == "0"}
    print(json.dumps({
        "benchmark": "drone_deploy", "policy": str(options.policy), "flights": len(deployed), **found,
        "pairs": pairs.__dict__, "lost": lost, "machine": machine("numpy", "numba"),
    }))  # fmt: skip


def fly(options: argparse.Namespace, kind: str, *arguments: str) -> list[dict[str, str]]:
    """The rows of episodes.csv of a command, which is given unless there are as many."""
    run = options.output / kind
    table = run / kind / "episodes.csv"
    if not table.exists() or len(read(table)) != options.flights:
        command = [sys.executable, "-m", "robot_rl.cli", *arguments, f"output={run}"]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return read(table)


def summary(run: Path) -> dict[str, Any]:
    """Success and what was measured in a run folder, with intervals."""
    table = run / run.name / "episodes.csv"
    won = [each["success"] == "1" for each in read(table)]
    measured = import_module("drone_policies").measured(table)
    return {"success": sum(won) / len(won), "interval": wilson(sum(won), len(won)), **measured}


def read(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
