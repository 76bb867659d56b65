"""The experts of drones side by side: success and tracking over the same seeds, and how long each takes for an action.

Times are of one drone on one core, in turns between the experts, with what they read from the simulator. An action of
the model-predictive expert is one iteration of its optimisation. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from machine import machine

from robot_rl import sim
from robot_rl.sim.drone import expert

COPIES = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["hover", "takeoff_land", "figure8", "lissajous", "gates"])
    parser.add_argument("--experts", nargs="+", default=["geometric", "mpc"], choices=expert.EXPERTS)
    parser.add_argument("--randomizations", nargs="+", default=["none", "test", "full"])
    parser.add_argument("--episodes", type=int, default=100, help="of each, from seed 0; 0 measures times alone")
    parser.add_argument("--turns", type=int, default=10, help="of 100 actions for each expert")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    figures = []
    for task in options.tasks if options.episodes else []:
        for randomization in options.randomizations:
            for name in options.experts:
                found = fly({"task": f"drone/{task}", "randomization": randomization}, name, options.episodes)
                figures.append({"task": task, "randomization": randomization, "expert": name, **found})
                print(figures[-1], file=sys.stderr, flush=True)
    times = {task: measure(f"drone/{task}", options.experts, options.turns) for task in ("figure8", "gates")}
    for task, row in times.items():
        for name, values in row.items():
            print(f"{task}, {name}: median {values['median_ms']:.2f} ms, 99 % within {values['p99_ms']:.2f} ms")
    about = machine("numpy", "numba")
    print(json.dumps({"flights": figures, "milliseconds_per_action": times, "machine": about}))


def fly(spec: dict[str, Any], name: str, episodes: int) -> dict[str, float]:
    """Success, and means over episodes of what is measured."""
    finals: list[dict[str, Any]] = []
    with sim.make_vector(spec, min(COPIES, episodes)) as venv:
        _, info = venv.reset(seed=range(episodes))
        act = expert.start(venv.world, name)
        while info["active"].any():
            _, _, terminated, truncated, info = venv.step(act())
            finals += [info["final_info"][index] for index in np.flatnonzero(terminated | truncated)]
    found = {"success": float(np.mean([final["success"] for final in finals]))}
    for metric in ("position_rmse", "lap_time", "gate_margin"):
        values = [value for final in finals if (value := final["metrics"].get(metric)) is not None]
        if values:
            found[metric] = float(np.mean(values))
    return found


def measure(task: str, experts: list[str], turns: int) -> dict[str, dict[str, float]]:
    """Times of an action of each expert [ms], in turns of 100 actions."""
    envs = {name: sim.make(task) for name in experts}
    acts = {name: expert.start(env.world, name) for name, env in envs.items()}
    spent: dict[str, list[float]] = {name: [] for name in envs}
    for turn in range(turns + 1):
        for name, env in envs.items():
            for _ in range(100):
                started = time.perf_counter()
                action = acts[name]()[0]
                # The first turn compiles.
                if turn:
                    spent[name].append(1e3 * (time.perf_counter() - started))
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    env.reset()
    return {
        name: {"median_ms": float(np.median(row)), "p99_ms": float(np.quantile(row, 0.99))}
        for name, row in spent.items()
    }


if __name__ == "__main__":
    main()
