"""Control steps per second of arm environments against robosuite's own `env.step`, state only, in one process.

    python tests/benchmarks/arm_sim.py [--tasks lift stack ...] [--robot panda] [--rounds 10]

robosuite runs OSC_POSE with its object observations, as by default. It and the three controllers of this package take
turns of some steps each, from the same seeds, so that all see the same load of the machine; with `ee_delta` the actions
are the same too (random), the others follow smooth targets as from a policy. Times are CPU seconds of the process.

Prints a line for each task and controller, and one line of JSON last. See vector.py for many processes and rendering.py
for pictures.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import time
from importlib.metadata import version
from typing import Any

import mujoco
import numpy as np

from robot_rl.sim import make
from robot_rl.sim.arm_model import import_robosuite
from robot_rl.sim.spec import load

CONTROLLERS = ("ee_delta", "joint_position", "ee_pose")
AMPLITUDE, FREQUENCY = 0.1, (0.2, 0.6)
"""Of the sines that targets follow [rad or m] and [Hz]."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["lift"])
    parser.add_argument("--robot", default="panda")
    parser.add_argument("--controllers", nargs="+", default=list(CONTROLLERS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--steps", type=int, default=10, help="of robosuite in a round; the others make five times as many"
    )
    options = parser.parse_args()
    rows = []
    for task in options.tasks:
        for row in measure(task, options.robot, options.controllers, options.rounds, options.steps):
            rows.append(row)
            print(
                f"{task:>20} {options.robot} {row['controller']:<16} {row['steps_per_s']:6.0f} steps/s, "
                f"robosuite {row['robosuite']:5.0f}, physics {row['physics']:6.0f}: {row['ratio']:5.2f} x robosuite"
            )
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in ("mujoco", "robosuite", "numba", "numpy")},
    }
    print(json.dumps({"steps": rows, "machine": machine}))


def measure(task: str, robot: str, controllers: list[str], rounds: int, steps: int) -> list[dict[str, Any]]:
    """Steps per second of robosuite, of each controller, and of the physics without any."""
    theirs = robosuite_environment(task, robot)
    envs = {name: make({"task": task, "robot": robot, "controller": name}) for name in controllers}
    physics = make({"task": task, "robot": robot})
    seconds: dict[str, list[float]] = {name: [] for name in ("robosuite", "physics", *envs)}
    generator = np.random.default_rng(0)
    for turn in range(rounds + 1):
        theirs.rng.bit_generator.state = np.random.default_rng(turn).bit_generator.state
        theirs.reset()
        deltas = generator.uniform(-1, 1, (5 * steps, theirs.action_dim))
        taken = {"robosuite": _seconds(theirs.step, deltas[:steps])}
        for name, env in envs.items():
            env.reset(seed=turn)
            actions = deltas if name == "ee_delta" else _sines(env.rest_action(), 5 * steps, generator)
            taken[name] = _seconds(env.step, actions)
        physics.reset(seed=turn)
        taken["physics"] = _seconds(lambda _: mujoco.mj_step(physics.model, physics.data, 25), deltas)
        # The first turn compiles.
        for name, value in taken.items() if turn else ():
            seconds[name].append(value)
    rates = {name: 1.0 / statistics.median(values) for name, values in seconds.items()}
    return [
        {
            "task": task,
            "robot": robot,
            "controller": name,
            "steps_per_s": rates[name],
            "robosuite": rates["robosuite"],
            "physics": rates["physics"],
            "ratio": statistics.median(
                slow / fast for slow, fast in zip(seconds["robosuite"], seconds[name], strict=True)
            ),
        }
        for name in envs
    ]


def robosuite_environment(task: str, robot: str) -> Any:
    """robosuite's environment of a task with its default controller and state observations."""
    robosuite = import_robosuite()
    logging.disable(logging.WARNING)
    plain, arm = load("task", task), load("robot", robot)
    return robosuite.make(
        plain["environment"], robots=[arm["model"]] * plain["robots"], control_freq=20, has_renderer=False,
        gripper_types=arm["gripper"].get("model", "default"), has_offscreen_renderer=False, use_camera_obs=False,
        hard_reset=False, ignore_done=True, seed=0,
    )  # fmt: skip


def _seconds(step: Any, actions: np.ndarray) -> float:
    """CPU seconds for each step."""
    started = time.process_time()
    for action in actions:
        step(action)
    return (time.process_time() - started) / len(actions)


def _sines(rest: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    frequency = generator.uniform(*FREQUENCY, len(rest))
    return rest + AMPLITUDE * np.sin(2 * np.pi * frequency * np.arange(count)[:, None] / 20)


if __name__ == "__main__":
    main()
