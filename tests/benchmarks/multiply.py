"""Ten demonstrations become two hundred: how often that succeeds, and what policies learn from the ten and the many.

    python tests/benchmarks/multiply.py [--tasks lift pick_place_can nut_assembly_square] [--policies pick_place_can]
        [--output runs/benchmark_multiply] [--workers 2]

The sources are those of the scripted expert at the first ten seeds, noise 0.15; attempts begin at seed 1000, noise 0.3,
and go on until 200 have succeeded. Both policies train by the defaults of `robot-rl train` on intended actions, and
are tried from the same 100 starts. What was made before in the output folder is not made again. Prints one line of JSON
last.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from robot_rl.datasets import EpisodeStore
from robot_rl.intervals import mcnemar, wilson

SOURCES, MANY, EPISODES = 10, 200, 100


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["lift", "pick_place_can", "nut_assembly_square"])
    parser.add_argument("--policies", nargs="*", default=["pick_place_can"], help="tasks to train policies for")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_multiply"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    results = {}
    for task in options.tasks:
        ten, many = options.output / f"{task}_{SOURCES}.zarr", options.output / f"{task}_{MANY}.zarr"
        results[task] = _multiply(task, ten, many, options.workers)
        print(f"{task}: {results[task]}")
        if task in options.policies:
            results[task]["policies"] = _compare(ten, many, options.workers)
            print(f"{task}: {results[task]['policies']}")
    print(json.dumps(results))


def _multiply(task: str, ten: Path, many: Path, workers: int) -> dict[str, Any]:
    _robot_rl("collect", f"task={task}", f"output={ten}", f"episodes={SOURCES}", "noise=0.15", f"workers={workers}")
    _robot_rl(
        "collect", "source=multiply", f"demonstrations={ten}", f"output={many}", f"episodes={MANY}", "noise=0.3",
        "until_success=true", "first_seed=1000", f"workers={workers}",
    )  # fmt: skip
    store, sources = EpisodeStore.open(many), EpisodeStore.open(ten)
    successes = len(store.select(success=True))
    return {
        "sources": len(sources.select(success=True)), "attempts": len(store), "successes": successes,
        "interval": wilson(successes, len(store)),
        "sources_used": len({store.facts(index)["source_episode"] for index in range(len(store))}),
        "steps": store.num_steps / len(store), "source_steps": sources.num_steps / len(sources),
    }  # fmt: skip


def _compare(ten: Path, many: Path, workers: int) -> dict[str, Any]:
    outcomes = {store.stem: _outcomes(store, workers) for store in (ten, many)}
    found: dict[str, Any] = {
        name: {"successes": sum(each), "episodes": len(each), "interval": wilson(sum(each), len(each))}
        for name, each in outcomes.items()
    }
    return found | {"p_value": mcnemar(*outcomes.values()).p_value}


def _outcomes(store: Path, workers: int) -> list[bool]:
    """Of a policy trained on the store, from each start."""
    run = store.with_suffix("")
    _robot_rl("train", f"dataset={store}", f"output={run}", "labels=intended", "held_out=0.0")
    _robot_rl("evaluate", f"policy={run}", f"output={run}", f"episodes={EPISODES}", f"processes={workers}", "videos=0")
    with (run / "evaluation" / "episodes.csv").open() as file:
        return [row["success"] == "1" for row in csv.DictReader(file)]


def _robot_rl(*keys: str) -> None:
    subprocess.run([sys.executable, "-m", "robot_rl.cli", *keys], check=True)


if __name__ == "__main__":
    main()
