"""Control steps per second of the lean tasks through the whole interface, in one process on one thread.

Each task is driven by its expert with strong noise, so that most steps are in contact, in `--copies` copies; `peg_rim`
presses the peg on the plate beside the hole throughout, the worst case, with actions that cost nothing to choose. The
time of the expert is left out. `gymnasium` is Hopper-v5 through this interface and bare, in turns. The best round of
each counts.

    OMP_NUM_THREADS=1 python tests/benchmarks/lean_tasks.py

The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import gymnasium
import numpy as np
from machine import machine

from robot_rl import sim
from robot_rl.sim.lean.spec import TASKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200, help="of all copies, in each round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, float] = {}
    for _ in range(options.rounds):
        turn = {task: expert(task, options.copies, options.steps) for task in TASKS}
        turn["peg_rim"] = pressing(options.copies, options.steps)
        turn["gym_hopper"] = through_the_interface(options.steps * 10)
        turn["gym_hopper_bare"] = bare(options.steps * 10)
        found = {name: max(rate, found.get(name, 0.0)) for name, rate in turn.items()}
    for name, rate in found.items():
        print(f"{name:16} {rate:9.0f} control steps/s")
    about = machine("mujoco")
    rates = {name: round(rate) for name, rate in found.items()}
    print(json.dumps({"control_steps_per_second": rates, "copies": options.copies, "machine": about}))


def expert(task: str, copies: int, steps: int) -> float:
    """With automatic resets; noise of a third of the largest action."""
    with sim.make_vector(task, copies) as venv:
        world = getattr(venv, "world")  # noqa: B009
        generator = np.random.default_rng(0)
        low, high = venv.contract.action_bounds
        noise = (high - low) / 6
        venv.reset(seed=0)
        for _ in range(steps):
            actions = world.expert() + noise * generator.standard_normal((copies, len(low)))
            venv.step(actions.astype(np.float32))
        return venv.throughput


def pressing(copies: int, steps: int) -> float:
    """All pegs on the plate, moving about beside the hole."""
    with sim.make_vector({"task": "peg", "horizon": 10**6}, copies) as venv:
        world = getattr(venv, "world")  # noqa: B009
        generator = np.random.default_rng(0)
        venv.reset(seed=0)
        world.physics.qpos[:, :2] = world.physics.mocap[:, 0, :2] + 0.004
        world.physics.qpos[:, 2] = 0.001
        actions = generator.uniform(-0.3, 0.3, (steps, copies, 4)).astype(np.float32)
        actions[:, :, 2] = -1.0
        start = time.perf_counter()
        for row in actions:
            venv.step(row)
        return copies * steps / (time.perf_counter() - start)


def through_the_interface(steps: int) -> float:
    """Hopper as an environment of this package, one copy, random actions."""
    with sim.make_vector("gym/Hopper-v5", 1, processes=0) as venv:
        actions = np.random.default_rng(0).uniform(-1, 1, (steps, 1, 3)).astype(np.float32)
        venv.reset(seed=0)
        start = time.perf_counter()
        for row in actions:
            venv.step(row)
        return steps / (time.perf_counter() - start)


def bare(steps: int) -> float:
    """Hopper as Gymnasium makes it."""
    env = gymnasium.make("Hopper-v5")
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 3)).astype(np.float32)
    env.reset(seed=0)
    start = time.perf_counter()
    for row in actions:
        _, _, terminated, truncated, _ = env.step(row)
        if terminated or truncated:
            env.reset()
    return steps / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
