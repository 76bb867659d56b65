"""Steps crazyflow's simulator (first-principles dynamics, thrust and body rates), for drone_sim.py.

Arguments: number of drones, steps of 2 ms in each `Sim.step`. Run with a Python that holds crazyflow.
"""

import json
import sys
import time

import jax
import numpy as np
from crazyflow.control import Control
from crazyflow.dynamics import Dynamics
from crazyflow.sim import Sim


def main() -> None:
    number, steps = int(sys.argv[1]), int(sys.argv[2])
    sim = Sim(number, 1, dynamics=Dynamics.first_principles, control=Control.body_rate, freq=500)
    commands = np.zeros((number, 1, 4), np.float32)
    commands[..., -1] = 0.42

    def step() -> None:
        sim.body_rate_control(commands)
        sim.step(steps)
        jax.block_until_ready(sim.data)

    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        count, started, busy = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - started < float(line):
            step()
            count += number * steps
        elapsed, busy = time.perf_counter() - started, time.process_time() - busy
        print(json.dumps({"per_second": count / elapsed, "per_cpu_second": count / busy}), flush=True)


if __name__ == "__main__":
    main()
