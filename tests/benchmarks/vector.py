"""Throughput of vectorised environments over processes, against one environment stepped in a plain loop.

    python tests/benchmarks/vector.py [--task lift] [--cameras 84] [--steps 300] [--processes 1 2 ...]

Prints a line for each number of processes, and one line of JSON last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from typing import Any

import numpy as np

from robot_rl.sim import make, make_vector


def main() -> None:
    """Measure and print."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="lift")
    parser.add_argument("--cameras", type=int, default=0, help="size of two camera pictures; 0: none")
    parser.add_argument("--steps", type=int, default=300, help="of each environment")
    parser.add_argument("--envs-per-process", type=int, default=4)
    parser.add_argument("--processes", type=int, nargs="+", default=sorted({0, 1, cores}))
    options = parser.parse_args()
    size = [options.cameras, options.cameras]
    cameras = {"agentview": size, "robot0_eye_in_hand": size} if options.cameras else {}
    spec = {"task": options.task, "cameras": cameras}
    single = plain_loop(spec, options.steps)
    print(f"one environment in a plain loop: {single:.0f} steps/s")
    rows = []
    for processes in options.processes:
        num_envs = options.envs_per_process * max(processes, 1)
        with make_vector(spec, num_envs, processes) as venv:
            rest = np.stack(venv.call("rest_action"))
            for warm in (True, False):
                venv.reset(seed=0)
                for _ in range(5 if warm else options.steps):
                    venv.step(rest)
            rows.append({"processes": processes, "num_envs": num_envs, "steps_per_s": venv.throughput})
        print(f"{processes} processes, {num_envs} environments: {rows[-1]['steps_per_s']:.0f} steps/s")
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": cores,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in ("mujoco", "robosuite", "numpy")},
    }
    print(json.dumps({"plain_loop": single, "vectorised": rows, "cameras": options.cameras, "machine": machine}))


def plain_loop(spec: dict[str, Any], steps: int) -> float:
    """Steps per second of one environment."""
    env = make(spec)
    env.reset(seed=0)
    rest = env.rest_action()
    for _ in range(5):
        env.step(rest)
    started = time.perf_counter()
    for _ in range(steps):
        env.step(rest)
    taken = time.perf_counter() - started
    env.close()
    return steps / taken


if __name__ == "__main__":
    main()
