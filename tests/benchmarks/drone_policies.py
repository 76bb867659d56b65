"""The policies of docs/drones.md and docs/px4.md, by the commands that a user gives: one resumable row for each recipe.

    python tests/benchmarks/drone_policies.py --rows gates figure8 corridor [--seeds 0 1] [--sizes tiny]

A row collects demonstrations of the expert and trains; then, round by round, the policy flies, the expert says what it
would have done, and all is trained on (DAgger). Every policy is evaluated under each randomisation of the table, of
`corridor` the last alone. `*_px4` are those that `drone_deploy.py` flies: they see what a vehicle under PX4 tells.
A seed moves all flights and trainings. Everything lies below `--cache`; the same command goes on from there, and what
is finished is not repeated. `--sizes tiny` goes through all commands with next to no data.

Success comes with Wilson's 95 % interval, RMSE [m] and lap time [s] with Student's, over the episodes that have them.
`flown`: how many of the labelled flights succeeded. The last line of the output is JSON."""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robot_rl.datasets import EpisodeStore
from robot_rl.intervals import student, wilson

METRICS = ("position_rmse", "lap_time", "gate_margin")
SEEDS_APART = 10_000  # between the flights of two seeds
TINY = {"episodes": 2, "training.steps": 20, "training.batch_size": 16}


@dataclass(frozen=True)
class Flights:
    """Episodes of one `collect`."""

    episodes: int
    first_seed: int
    randomization: str


@dataclass(frozen=True)
class Row:
    """A recipe: the expert's flights and their noise, those of each round, keys of `train`, and what is evaluated."""

    task: str
    preset: str
    demonstrations: Flights
    noise: float
    rounds: tuple[tuple[Flights, ...], ...]
    train: tuple[str, ...] = ()
    evaluated: tuple[str, ...] = ("none", "test")


TOLD = "position,velocity,attitude,body_rates"
GATES = Row(
    "gates", "drone_mlp", Flights(160, 0, "test"), 0.02, ((Flights(128, 1000, "test"),), (Flights(160, 3000, "test"),))
)
COURSE = f"policy.observation=[{TOLD},accelerometer,gyro,next_gate,gate_after,poles,last_action]"
FIGURE8 = Row(
    "figure8", "drone_mlp", Flights(80, 0, "full"), 0.05, ((Flights(64, 1000, "test"), Flights(32, 2000, "none")),),
    ("training.steps=6000",),
)  # fmt: skip
ODOMETRY = f"policy.observation=[{TOLD},reference,last_action]"
ROWS = {
    "gates": GATES,
    "gates_flow": replace(GATES, preset="drone_flow"),
    "gates_px4": replace(GATES, train=(COURSE,), evaluated=("none",)),
    "figure8": FIGURE8,
    "figure8_flow": replace(
        FIGURE8, preset="drone_flow", demonstrations=Flights(100, 0, "payload"),
        rounds=((Flights(64, 1000, "test"),),), evaluated=("none", "test", "payload"),
    ),
    "figure8_px4": replace(FIGURE8, train=(*FIGURE8.train, ODOMETRY), evaluated=("none",)),
}  # fmt: skip
CORRIDOR = (
    "task=drone/corridor", "cameras={onboard: [48, 64]}", "encoding=raw", "sim_state=false", "expert=mpc_aiming",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, "corridor"], default=[*ROWS, "corridor"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation")
    parser.add_argument("--sizes", choices=["full", "tiny"], default="full")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks/drone_policies"))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.sizes == "tiny":
        options.episodes, options.cache = TINY["episodes"], options.cache / "tiny"
    results: dict[str, Any] = {}
    for name in options.rows:
        for seed in options.seeds:
            folder = options.cache / f"{name}_{seed}"
            run = Commands(options.sizes == "tiny", seed, options.episodes)
            found = corridor(run, folder) if name == "corridor" else row(ROWS[name], run, folder)
            for policy, measured in found.items():
                results[f"{name} {seed} {policy}"] = measured
                print(f"{name} {seed} {policy}: {measured}", flush=True)
    print(json.dumps({"benchmark": "drone_policies", "sizes": options.sizes, "policies": results}))


@dataclass(frozen=True)
class Commands:
    """The commands of one row, with its seed and its sizes."""

    tiny: bool
    seed: int
    episodes: int

    def collect(self, store: Path, flights: Flights, *keys: str) -> Path:
        """Fly, or go on; the store."""
        episodes = TINY["episodes"] if self.tiny else flights.episodes
        first = flights.first_seed + SEEDS_APART * self.seed
        flown = (f"randomization={flights.randomization}", f"episodes={episodes}", f"first_seed={first}")
        self._run("collect", *flown, *keys, f"output={store}")
        return store

    def train(self, run: Path, stores: list[Path], *keys: str) -> Path:
        """Train, or go on; the run folder."""
        small = [f"{key}={value}" for key, value in TINY.items() if key.startswith("training")] if self.tiny else []
        shared = (f"dataset=[{','.join(map(str, stores))}]", "threads=1", f"seed={self.seed}")
        self._run("train", *shared, *keys, *small, f"output={run}")
        return run

    def evaluate(self, run: Path, task: str, randomization: str) -> dict[str, Any]:
        """Success, RMSE and times with their intervals."""
        folder = run.parent / f"{run.name}_{randomization}"
        if not (folder / "evaluation" / "results.json").exists():
            flown = (f"task={task}", f"randomization={randomization}", f"episodes={self.episodes}", "videos=0")
            self._run("evaluate", f"policy={run}", *flown, "processes=1", f"output={folder}")
        results = json.loads((folder / "evaluation" / "results.json").read_text())
        success = {"success": results["success_rate"], "interval": results["success_interval"]}
        return success | measured(folder / "evaluation" / "episodes.csv")

    def _run(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "robot_rl.cli", *arguments], check=True, stdout=sys.stderr)


def row(made: Row, run: Commands, folder: Path) -> dict[str, Any]:
    """Every policy of a recipe: of the demonstrations, then of each round."""
    task = f"drone/{made.task}"
    learn = (f"policy={made.preset}", "labels=intended", "include_failures=true", *made.train)
    stores = [run.collect(folder / "f0.zarr", made.demonstrations, f"task={task}", f"noise={made.noise}")]
    policy = run.train(folder / "r0", stores, *learn)
    found = {policy.name: {name: run.evaluate(policy, task, name) for name in made.evaluated}}
    for number, flights in enumerate(made.rounds, 1):
        keys = (f"task={task}", "source=dagger", f"policy={policy}")
        new = [run.collect(folder / f"f{number}_{each.randomization}.zarr", each, *keys) for each in flights]
        found[policy.name]["flown"], stores = [successes(store) for store in new], stores + new
        policy = run.train(folder / f"r{number}", stores, *learn)
        found[policy.name] = {name: run.evaluate(policy, task, name) for name in made.evaluated}
    return found


def corridor(run: Commands, folder: Path, rounds: int = 2) -> dict[str, Any]:
    """The visual policy: an estimator of the next arch, and a policy that observes what it tells."""
    stores = [run.collect(folder / "v0.zarr", Flights(160, 0, "kicked"), *CORRIDOR, "noise=0.02")]
    sight = run.train(folder / "sight", stores, "policy=drone_sight")

    def learn(name: str, *keys: str) -> Path:
        vision = ("policy=drone_vision", f"policy.estimator={sight}", "training.batch_size=128")
        weights = f"dataset_weights=[{','.join('1' * len(stores))}]"
        return run.train(folder / name, stores, *vision, weights, *keys)

    policy, found = learn("r0", "training.steps=1500"), {}
    for number in range(1, rounds + 1):
        flights, keys = Flights(64, 1000 * number, "visual"), (*CORRIDOR, "source=dagger", f"policy={policy}")
        stores.append(run.collect(folder / f"v{number}.zarr", flights, *keys))
        found[policy.name] = {"flown": [successes(stores[-1])]}
        if number == rounds:
            again = ("policy=drone_sight", f"warm_start={sight}", "training.steps=2000")
            sight = run.train(folder / "sight_again", stores, *again)
        policy = learn(f"r{number}", f"warm_start={policy}", "training.steps=400")
    return found | {policy.name: {"visual": run.evaluate(policy, "drone/corridor", "visual")}}


def successes(store: Path) -> dict[str, Any]:
    """How many flights of a store succeeded."""
    opened = EpisodeStore.open(store)
    number = len(opened.select(success=True))
    return {"success": number / len(opened), "interval": wilson(number, len(opened)), "flights": len(opened)}


def measured(episodes: Path) -> dict[str, Any]:
    """Means of what an episodes.csv tells, with their intervals, None of one flight."""
    with episodes.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for name in METRICS:
        if values := [float(each[name]) for each in rows if each.get(name) not in (None, "", "None")]:
            found[name] = {"mean": sum(values) / len(values), "interval": student(values), "episodes": len(values)}
    return found


if __name__ == "__main__":
    main()
