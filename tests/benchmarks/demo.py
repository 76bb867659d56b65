"""The demo, three times over from different seeds: how long it takes, and the success pooled over the three trainings.

    python tests/benchmarks/demo.py [--runs 3] [--output runs/benchmark_demo]

Each run is the whole of `robot-rl demo` in a process of its own: 100 demonstrations, training, 100 evaluation episodes,
offline evaluation, report. Prints a line a run, and one line of JSON last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from machine import machine

from robot_rl.intervals import wilson


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_demo"))
    options = parser.parse_args()
    runs = []
    for seed in range(options.runs):
        folder = options.output / f"seed{seed}"
        keys = [f"output={folder}", f"first_seed={1000 * seed}", f"seed={seed}"]
        command = [sys.executable, "-m", "robot_rl.cli", "demo", *keys]
        started = time.perf_counter()
        subprocess.run(command, check=True)
        wall = time.perf_counter() - started
        metrics = json.loads((folder / "metrics.json").read_text())
        runs.append({**metrics, "wall_seconds": wall})
        print(f"seed {seed}: {metrics['success_rate']:.1%} of {metrics['episodes']} in {wall:.0f} s")
    episodes = sum(run["episodes"] for run in runs)
    successes = sum(round(run["success_rate"] * run["episodes"]) for run in runs)
    print(
        json.dumps({
            "success_rate": successes / episodes,
            "success_interval": wilson(successes, episodes),
            "episodes": episodes,
            "wall_seconds": [run["wall_seconds"] for run in runs],
            "stage_seconds": [run["seconds"] for run in runs],
            "offline_action_error": [run["offline_action_error"] for run in runs],
            "hold_baseline_error": [run["hold_baseline_error"] for run in runs],
            "machine": machine("torch", "mujoco"),
        })
    )


if __name__ == "__main__":
    main()
