"""A policy of ten demonstrations, corrected by a person (HG-DAgger): success before and after, on the same seeds.

    python tests/benchmarks/correction.py [--demonstrations 10] [--corrections 30] [--output runs/benchmark_correction]

Lift with the cube anywhere on a plate of 26 cm (`randomization=wide`), where ten demonstrations are few. The commands
are those of a user, all seeds differ:

1. `collect`: the demonstrations, from the scripted expert;
2. `train`: the first policy;
3. `teleop policy=…`: it acts on the twin, through Supervisor and recorder. The scripted device plays the person: takes
   over when the robot has hardly come on for `--patience` seconds, and keeps it until the cube is lifted. All episodes
   are kept and counted, also those in which nothing was to be corrected;
4. `train policy_weight=0`: the same training on the demonstrations and the person's steps;
5. `evaluate compare=…`: both policies on 100 other seeds.

Beside it, a policy of as many demonstrations as there are episodes in all, evaluated on the same seeds. Stages that are
finished are not repeated. Prints a table, and one line of JSON last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from robot_rl.datasets import EpisodeStore

SCENES = ("task=lift", "randomization=wide")
CORRECTED_SEEDS = 10_000


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_correction"))
    parser.add_argument("--demonstrations", type=int, default=10)
    parser.add_argument("--corrections", type=int, default=30, help="episodes with the person beside the policy")
    parser.add_argument("--patience", type=float, default=1.0, help="of the person [s]")
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation")
    parser.add_argument("--steps", type=int, default=5000, help="of each training")
    options = parser.parse_args()
    folder = options.output
    few, many, session = folder / "demonstrations.zarr", folder / "more_demonstrations.zarr", folder / "session"
    corrections = session / "episodes.zarr"
    number = options.demonstrations
    training = ("held_out=0", f"training.steps={options.steps}", "threads=1")

    _run("collect", *SCENES, f"episodes={number}", f"output={few}")
    _run("train", f"dataset={few}", f"output={folder / 'before'}", *training)
    _run(
        "teleop", "device=scripted", "twin=true", "real_time=false", *SCENES, f"policy={folder / 'before'}",
        f"episodes={options.corrections}", "until_success=false", f"first_seed={CORRECTED_SEEDS}", "auto=true",
        "countdown=0", "dead_band=0", f"settings={{scripted.patience: {options.patience}}}", f"output={session}",
    )  # fmt: skip
    _run("train", f"dataset=[{few},{corrections}]", "policy_weight=0", f"output={folder / 'after'}", *training)
    _run("collect", *SCENES, f"episodes={number + options.corrections}", f"output={many}")
    _run("train", f"dataset={many}", f"output={folder / 'demonstrations_only'}", *training)

    after, before = _compare(folder, "before", options.episodes)
    _, only = _compare(folder, "demonstrations_only", options.episodes)
    rows = {
        f"{number} demonstrations": before,
        "corrected": after,
        f"{number + options.corrections} demonstrations": only,
    }
    for name, row in rows.items():
        low, high = row["interval"]
        p_value = f"  p = {row['p_value']:.2g}" if "p_value" in row else ""
        print(f"{name:20}{row['success']:8.1%}  95 % interval {low:.1%} to {high:.1%}{p_value}")
    print(
        json.dumps({
            "policies": rows, "session": _describe(EpisodeStore.open(corrections)),
            "episodes": options.episodes, "steps": options.steps, "patience": options.patience,
            "machine": machine("torch", "mujoco"),
        })
    )  # fmt: skip


def _run(command: str, *overrides: str) -> None:
    subprocess.run([sys.executable, "-m", "robot_rl.cli", command, *overrides], check=True)


def _compare(folder: Path, other: str, episodes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Success of the corrected policy and of another one, with the p-value of their difference at the latter."""
    output = folder / f"after_against_{other}"
    _run(
        "evaluate", f"policy={folder / 'after'}", f"compare={folder / other}", f"episodes={episodes}", "videos=0",
        f"output={output}",
    )  # fmt: skip
    results = json.loads((output / "evaluation" / "results.json").read_text())
    compared = results["comparison"]
    rows = [{"success": row["success_rate"], "interval": row["success_interval"]} for row in (results, compared)]
    return rows[0], rows[1] | {key: compared[key] for key in ("p_value", "only_first", "only_second")}


def _describe(store: EpisodeStore) -> dict[str, Any]:
    """What the person did in the session."""
    facts = [store.facts(index) for index in range(len(store))]
    intervened = [store[index].intervened[:-1] for index in range(len(store))]
    return {
        "episodes": len(store), "successes": sum(fact["success"] is True for fact in facts),
        "corrected": sum(fact["source"] == "intervention" for fact in facts),
        "steps": int(sum(map(len, intervened))), "intervened_steps": int(sum(map(np.sum, intervened))),
    }  # fmt: skip


if __name__ == "__main__":
    main()
