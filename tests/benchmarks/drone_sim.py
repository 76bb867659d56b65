"""Steps per second of the quadrotor simulator, against crazyflow in the same run, in turns.

A step is one substep of 2 ms. Every process is kept on one core. What the rows do:

- `batch N`: the flight of N drones alone (`DroneBatch`), 10 substeps a call, thrust and body rates that change with
  each call and come up to 18 ms late, each drone's always by the same. In every substep: rate controller on a gyro with
  bias and noise, mixer, rotor lag, thrust map, full inertia, gyroscopic terms, drag in the wind. Once a call: gusts,
  kicks, charge and voltage of the battery, accelerometer and gyro as they are observed, with bias and noise. Not in it,
  as they belong to the environment: odometry that is late, noisy or lost, commands that jitter or are lost, reference,
  optical flow and range, reward, resets.
- `gymnasium 1` and `vector N none` or `full`: the whole environment, one drone by Gymnasium or N by `sim.make_vector`,
  with all of that; `none` and `full` are its randomisation (of `gymnasium 1` it is `full`). They hold a point by the
  position controller, at 50 Hz, and all that is observed is computed. Resets count: a turn of `vector` is made of whole
  episodes of 5 s.
- `pictures`: 160 x 120, from on board, on the way through the gates.
- `crazyflow N step(n)`: it takes commands before each `Sim.step` of 2 ms, the way that its controllers are called, and
  is asked for `Sim.step(10)` besides; without gusts, noise, kicks and battery. Its like here is `batch`.

`--peer` is the Python of an environment that holds crazyflow:

    python -m venv peer && peer/bin/pip install crazyflow==0.4.0

The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from machine import machine

SCRIPT = Path(__file__).absolute()
PEER = SCRIPT.parent / "peers" / "crazyflow_steps.py"
SUBSTEPS = 10
RANDOMIZATIONS = ("none", "full")
"""Of the vector environment."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="Python of an environment with crazyflow")
    parser.add_argument("--drones", type=int, nargs="+", default=[1, 1024, 4096])
    parser.add_argument("--copies", type=int, default=4096, help="drones of the vector environment")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each takes")
    parser.add_argument("--seconds", type=float, default=2.0, help="per turn")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, number = options.measure.split(":")
        kinds = {"batch": batch, "env": env, "pictures": pictures}
        kinds |= {f"vector_{name}": partial(vector, randomization=name) for name in RANDOMIZATIONS}
        serve(kinds[kind](int(number)))
        return
    contenders = {
        f"batch {number}": [sys.executable, SCRIPT, "--measure", f"batch:{number}"] for number in options.drones
    }
    contenders["gymnasium 1"] = [sys.executable, SCRIPT, "--measure", "env:1"]
    for name in RANDOMIZATIONS:
        measured = f"vector_{name}:{options.copies}"
        contenders[f"vector {options.copies} {name}"] = [sys.executable, SCRIPT, "--measure", measured]
    contenders["pictures 160x120"] = [sys.executable, SCRIPT, "--measure", "pictures:1"]
    if options.peer:
        for number in options.drones:
            for steps in (1, SUBSTEPS):
                contenders[f"crazyflow {number} step({steps})"] = [options.peer.absolute(), PEER, number, steps]
    processes = {name: Contender(command) for name, command in contenders.items()}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in processes}
    for turn in range(options.rounds):
        for name, process in processes.items():
            turns[name].append(process.turn(options.seconds))
        print(f"\rround {turn + 1} of {options.rounds}", end="", file=sys.stderr)
    print(file=sys.stderr)
    for process in processes.values():
        process.finish()
    figures = {
        name: {unit: statistics.median(row[unit] for row in rows) for unit in rows[0]} for name, rows in turns.items()
    }
    for name, row in figures.items():
        print(f"{name:26}" + "".join(f"{value / 1e6:12.6f} M {unit}" for unit, value in row.items()))
    ratios: dict[str, dict[str, float]] = {}
    if options.peer:
        pairs = [(f"batch {number}", number) for number in options.drones] + [("gymnasium 1", 1)]
        for name, number in pairs:
            for peer in (f"crazyflow {number} step({steps})" for steps in (1, SUBSTEPS)):
                ratios[f"{name} / {peer}"] = {
                    unit: statistics.median(a[unit] / b[unit] for a, b in zip(turns[name], turns[peer], strict=True))
                    for unit in ("per_second", "per_cpu_second")
                }
        for name, ratio in ratios.items():
            print(f"{name}: {ratio['per_second']:.0f} ×, {ratio['per_cpu_second']:.0f} × per CPU second")
    else:
        print("crazyflow was not measured: --peer names the Python of an environment that holds it, see --help")
    print(json.dumps({"figures": figures, "ratios": ratios, "machine": machine("numpy", "numba")}))


def batch(number: int) -> Any:
    """A function that flies a batch for 20 ms with all that disturbs its flight, and the steps that this makes."""
    import numpy as np

    from robot_rl.sim.drone.batch import DroneBatch
    from robot_rl.sim.drone.vehicle_model import load_vehicle

    vehicle = load_vehicle("cf21B_500")
    drones = DroneBatch(vehicle, number, SUBSTEPS)
    drones.begin(np.arange(number), np.arange(number), np.array([0, 0, 1.0]), parameters={
        "gyr_n": 0.01, "acb_n": 0.1, "gyr_x": 0.01, "acb_z": 0.05, "wind_x": 1.0, "wind_y": -0.5,
        "gust_a": 0.98, "gust_u": 0.1,
        "gust_b": 0.98, "gust_d": 0.97, "gust_v": 1.0, "gust_w": 0.5, "gust_c": 0.8, "gust_s": 0.6,
        "kick_p": 0.02, "kick_v": 0.1, "kick_w": 0.1, "drain": 1e-4, "sag_empty": 0.1, "sag_load": 0.05, "floor": -1e6,
    })  # fmt: skip
    generator = np.random.default_rng(0)
    commands = np.zeros((16, number, 4))
    commands[..., 0] = vehicle.hover_throttle
    commands[..., 1:] = generator.normal(0, 0.3, (16, number, 3))
    delay = generator.integers(0, SUBSTEPS, number)
    turn = 0

    def step() -> int:
        nonlocal turn
        drones.command(commands[turn % 16], delay)
        drones.step()
        turn += 1
        return number * SUBSTEPS

    return step


def env(_: int) -> Any:
    """A function that steps the Gymnasium environment of one drone, and the steps of 2 ms that this makes."""
    from robot_rl import sim

    single = sim.make({"task": "drone/hover", "robot": "cf21B_500", "randomization": "full", "controller": "position"})
    seed = 0
    single.reset(seed=seed)
    action = single.rest_action()

    def step() -> int:
        nonlocal seed
        _, _, terminated, truncated, _ = single.step(action)
        if terminated or truncated:
            seed += 1
            single.reset(seed=seed)
        return SUBSTEPS

    return step


def vector(number: int, randomization: str) -> Any:
    """A function that flies an episode of all drones of a vector environment, and the steps of 2 ms that this makes."""
    import numpy as np

    from robot_rl import sim

    spec = {
        "task": "drone/hover", "robot": "cf21B_500", "randomization": randomization, "controller": "position",
    }  # fmt: skip
    venv = sim.make_vector(spec, number)
    seed = 0

    def step() -> int:
        nonlocal seed
        venv.reset(seed=seed)
        seed += 2 * number  # those that end early go on with seeds of their own
        places = venv.world.batch.read("position")
        actions = np.concatenate([places, np.zeros((number, 1), np.float32)], axis=1)
        for _ in range(venv.world.horizon):
            venv.step(actions)
        return number * SUBSTEPS * venv.world.horizon

    return step


def pictures(_: int) -> Any:
    """A function that takes a picture from on board a drone that flies through gates."""
    from robot_rl import sim
    from robot_rl.sim.drone.expert import act

    single = sim.make("drone/gates")
    single.reset(seed=0)
    places = []
    for _ in range(200):
        single.step(act(single.world)[0])
        places.append(single.world.batch.read("odometry"))
    turn = 0

    def step() -> int:
        nonlocal turn
        single.world.batch.write("odometry", places[turn % len(places)])
        single.image("onboard", 120, 160)
        turn += 1
        return 1

    return step


def serve(step: Any) -> None:
    """Step for as many seconds as each line of the standard input says, and print what that gave."""
    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        number, started, busy = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - started < float(line):
            number += step()
        elapsed, busy = time.perf_counter() - started, time.process_time() - busy
        print(json.dumps({"per_second": number / elapsed, "per_cpu_second": number / busy}), flush=True)


class Contender:
    """A process on one core that steps when told to."""

    def __init__(self, command: list[Any]) -> None:
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
        }  # fmt: skip
        core = min(os.sched_getaffinity(0))
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=environment, cwd="/", text=True,
        )  # fmt: skip
        while self._line() != "ready":
            pass

    def turn(self, seconds: float) -> dict[str, float]:
        assert self._process.stdin
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return dict(json.loads(self._line()))

    def finish(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"this failed, run it by hand to see why: {' '.join(map(str, self._process.args))}")
        return line.strip()


if __name__ == "__main__":
    main()
