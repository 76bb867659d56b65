"""Ten demonstrations become many: how often a generated episode succeeds, and how long it takes.

    python tests/benchmarks/multiply.py [--tasks lift pick_place_can nut_assembly_square] [--attempts 200]
        [--sources 10] [--noise 0.0] [--workers 2] [--output runs/benchmark_multiply]

The sources are successes of the scripted expert from seed 50000 on, the attempts begin at seed 0. What was recorded
before in the output folder is not made again. Prints a line a task, and one line of JSON last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from robot_rl.datasets import EpisodeStore
from robot_rl.intervals import wilson


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["lift", "pick_place_can", "nut_assembly_square"])
    parser.add_argument("--attempts", type=int, default=200)
    parser.add_argument("--sources", type=int, default=10)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_multiply"))
    options = parser.parse_args()
    results = {}
    for task in options.tasks:
        source, made = options.output / f"{task}_source.zarr", options.output / f"{task}.zarr"
        common = [f"task={task}", f"workers={options.workers}"]
        _collect(*common, f"output={source}", f"episodes={options.sources}", "until_success=true", "first_seed=50000")
        _collect(
            *common, f"output={made}", f"episodes={options.attempts}", "source=multiply", f"demonstrations={source}",
            f"noise={options.noise}",
        )  # fmt: skip
        store, sources = EpisodeStore.open(made), EpisodeStore.open(source)
        successes = len(store.select(success=True))
        used = {store.facts(index)["source_episode"] for index in range(len(store))}
        results[task] = {
            "attempts": len(store), "success_rate": successes / len(store),
            "success_interval": wilson(successes, len(store)), "sources_used": len(used),
            "steps": sum(episode.length for episode in store) / len(store),
            "source_steps": sum(episode.length for episode in sources) / len(sources),
        }  # fmt: skip
        print(f"{task}: {successes} of {len(store)} succeed, {results[task]['steps']:.0f} steps on average")
    print(json.dumps({"noise": options.noise, "tasks": results}))


def _collect(*keys: str) -> None:
    subprocess.run([sys.executable, "-m", "robot_rl.cli", "collect", *keys], check=True)


if __name__ == "__main__":
    main()
