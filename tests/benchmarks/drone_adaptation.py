"""What an estimate of mass and thrust is worth to a drone's policy: without it, with it, and with the truth.

    python tests/benchmarks/drone_adaptation.py [--sensors odometry all] [--policy drone_mlp] [--output runs/adaptation]

The figure-8 with mass and thrust drawn within ± 30 % (`randomization=payload`). The commands are those of a user:

1. `collect` and `train policy=drone_estimator`: the estimator, from short flights of many vehicles;
2. `collect`: demonstrations of the figure-8, for all policies the same;
3. for each policy `train`, `collect source=dagger` from its own flights, `train` on both, `evaluate` on other seeds.

Three policies for each choice of sensors: `plain`; `adaptive`, which observes the frozen estimate as well; `oracle`,
which observes mass and thrust themselves. With `odometry` they see one observation of where the drone is, how it moves
and where to fly; with `all` also accelerometer, gyro, optical flow, range and last action, four in a row.

Bars: at least one choice where adaptive is 15 points above plain; everywhere at least 90 % of the oracle. Stages that
are finished are not repeated. Prints a table, and one line of JSON last.
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
from robot_rl.policies import Policy, load_policy
from robot_rl.policies.prediction import new_generator, predict

FLIGHT = ("task=drone/figure8", "randomization=payload", "sim_state=false")
DEMONSTRATED_SEEDS, FLOWN_SEEDS, VEHICLE_SEEDS, UNSEEN_SEEDS = 0, 10_000, 20_000, 30_000
ODOMETRY = ["position", "velocity", "attitude", "body_rates", "reference"]
EVERYTHING = [*ODOMETRY, "accelerometer", "gyro", "optical_flow", "range", "last_action"]
SENSORS = {"odometry": (ODOMETRY, 1), "all": (EVERYTHING, 4)}
VARIANTS = ("plain", "adaptive", "oracle")
SETTLED = 50
"""Steps after which an estimate is judged: its window is full."""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_drone_adaptation"))
    parser.add_argument("--sensors", nargs="+", choices=SENSORS, default=list(SENSORS))
    parser.add_argument("--policy", default="drone_mlp", help="preset of the policies")
    parser.add_argument("--vehicles", type=int, default=500, help="flights of 3 s for the estimator")
    parser.add_argument("--demonstrations", type=int, default=100)
    parser.add_argument("--flights", type=int, default=96, help="of each policy, labelled by the expert")
    parser.add_argument("--steps", type=int, default=4000, help="of each training")
    parser.add_argument("--train", nargs="*", default=[], help="further keys of `train` for the policies")
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation")
    options = parser.parse_args()
    folder: Path = options.output
    vehicles, unseen, demonstrations = (
        folder / f"{name}.zarr" for name in ("vehicles", "unseen_vehicles", "demonstrations")
    )
    estimator = folder / "estimator"

    short = ("environment={horizon: 150}", "noise=0.05")
    _run(
        "collect", *FLIGHT, *short, f"episodes={options.vehicles}", f"first_seed={VEHICLE_SEEDS}", f"output={vehicles}"
    )
    _run("collect", *FLIGHT, *short, "episodes=100", f"first_seed={UNSEEN_SEEDS}", f"output={unseen}")
    _run("train", "policy=drone_estimator", f"dataset={vehicles}", f"output={estimator}", "threads=1")
    _run(
        "collect", *FLIGHT, "noise=0.05", f"episodes={options.demonstrations}", f"first_seed={DEMONSTRATED_SEEDS}",
        f"output={demonstrations}",
    )  # fmt: skip
    rows = {
        f"{sensors}, {variant}": _row(options, sensors, variant, demonstrations, estimator)
        for sensors in options.sensors
        for variant in VARIANTS
    }
    estimates = _estimates(load_policy(estimator), EpisodeStore.open(unseen))

    for name, row in rows.items():
        low, high = row["interval"]
        error = f"RMSE {100 * row['position_rmse']:.1f} cm"
        print(f"{name:20}{row['success']:6.0%}  95 % interval {low:.0%} to {high:.0%}, {error}")
    print("estimates: " + ", ".join(f"{name} {value:.3f}" for name, value in estimates.items()))
    print(
        json.dumps({
            "benchmark": "drone_adaptation", "policies": rows, "estimates": estimates,
            "settings": {key: value for key, value in vars(options).items() if key != "output"},
            "machine": machine("torch", "numba"),
        })
    )  # fmt: skip


def _row(
    options: argparse.Namespace, sensors: str, variant: str, demonstrations: Path, estimator: Path
) -> dict[str, Any]:
    """Two rounds of DAgger of one policy, and its evaluation."""
    folder = options.output / f"{options.policy}_{sensors}_{variant}"
    features, horizon = SENSORS[sensors]
    observed = [*features, "vehicle_factors"] if variant == "oracle" else features
    training = [
        f"policy={options.policy}", f"policy.observation=[{','.join(observed)}]", f"policy.obs_horizon={horizon}",
        "labels=intended", "include_failures=true", f"training.steps={options.steps}", "threads=1",
        *options.train,
    ]  # fmt: skip
    if variant == "adaptive":
        training.append(f"policy.estimator={estimator}")
    first, second, flights = folder / "first", folder / "second", folder / "flights.zarr"
    _run("train", *training, f"dataset={demonstrations}", f"output={first}")
    _run(
        "collect", *FLIGHT, "source=dagger", f"policy={first}", "execute=1", f"episodes={options.flights}",
        f"first_seed={FLOWN_SEEDS}", f"output={flights}",
    )  # fmt: skip
    _run("train", *training, f"dataset=[{demonstrations},{flights}]", f"output={second}")
    found = folder / "evaluated" / "evaluation" / "results.json"
    if not found.exists():
        _run(
            "evaluate", f"policy={second}", "execute=1", f"episodes={options.episodes}", "videos=0", "processes=1",
            f"output={folder / 'evaluated'}",
        )  # fmt: skip
    results = json.loads(found.read_text())
    return {
        "success": results["success_rate"], "interval": results["success_interval"],
        "position_rmse": results["metrics"]["position_rmse"],
    }  # fmt: skip


def _estimates(estimator: Policy, store: EpisodeStore) -> dict[str, float]:
    """Mean absolute errors in flights of vehicles that were not trained on, once the window is full."""
    windows = store.windows(
        estimator.obs_horizon, 1, episodes=range(len(store)), labels="vehicle_factors", batch_size=1024,
        observation=list(estimator.contract.observation),
    )  # fmt: skip
    estimated, true = [], []
    for batch in windows.epoch():
        settled = batch["step"].numpy() >= SETTLED
        found = predict(estimator, batch["observation"], [new_generator(estimator, 0)])
        estimated.append(found[settled, 0])
        true.append(batch["action"].numpy()[settled, 0])
    a, b = np.concatenate(estimated), np.concatenate(true)
    return {
        "mass": float(np.abs(a - b)[:, 0].mean()),
        "thrust": float(np.abs(a - b)[:, 1].mean()),
        "thrust_over_mass": float(np.abs(a[:, 1] / a[:, 0] - b[:, 1] / b[:, 0]).mean()),
        "thrust_over_mass_if_nominal": float(np.abs(1 - b[:, 1] / b[:, 0]).mean()),
    }


def _run(command: str, *overrides: str) -> None:
    subprocess.run([sys.executable, "-m", "robot_rl.cli", command, *overrides], check=True)


if __name__ == "__main__":
    main()
