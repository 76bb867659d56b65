"""Arm environments against robosuite: control steps, processes and camera pictures.

    python tests/benchmarks/arm_sim.py [--tasks lift stack ...] [--robot panda] [--rounds 10] [--size 84]

Steps: robosuite runs OSC_POSE with its object observations, as by default. It and the three controllers of this package
take turns of some steps each, from the same seeds, so that all see the same load of the machine; with `ee_delta` the
actions are the same too (random), the others follow smooth targets as from a policy. Times are CPU seconds of the
process.

Processes: vectorised environments with the default controller take turns, for each number of processes; wall time. The
limit of the machine are as many of one process each, stepped beside each other, none waiting for another.

Pictures: robosuite's camera observation and both render qualities take turns picture by picture, of the same scene.

Prints a line for each, and one line of JSON last. The bars: `ratio` of steps >= 5, `efficiency` near 1, `ratio` of fast
pictures >= 3.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median
from typing import Any

import mujoco
import numpy as np
from machine import machine

from robot_rl.sim import make, make_vector
from robot_rl.sim.arm_model import import_robosuite
from robot_rl.sim.render import Renderer, RenderError
from robot_rl.sim.spec import load

CONTROLLERS = ("ee_delta", "joint_position", "ee_pose")
CAMERAS = ("agentview", "robot0_eye_in_hand")
AMPLITUDE, FREQUENCY = 0.1, (0.2, 0.6)
"""Of the sines that targets follow [rad or m] and [Hz]."""


def main() -> None:
    """Measure and print."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["lift"])
    parser.add_argument("--robot", default="panda")
    parser.add_argument("--controllers", nargs="+", default=list(CONTROLLERS))
    parser.add_argument("--rounds", type=int, default=10, help="turns of each")
    parser.add_argument("--steps", type=int, default=10, help="of robosuite in a turn; ours make five times as many")
    parser.add_argument("--processes", type=int, nargs="*", default=sorted({1, cores}), help="none: skip")
    parser.add_argument("--envs-per-process", type=int, default=8, help="as in an evaluation on two cores")
    parser.add_argument("--size", type=int, default=84, help="height and width of pictures [pixel]; 0: skip")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    steps, processes, pictures = [], [], []
    for task in options.tasks:
        for row in measure_steps(task, options.robot, options.controllers, options.rounds, options.steps):
            steps.append(row)
            print(
                f"{task:>20} {row['controller']:<19} {row['steps_per_s']:6.0f} steps/s, robosuite "
                f"{row['robosuite']:5.0f}, physics alone {row['physics']:6.0f}: {row['ratio']:5.2f} x robosuite"
            )
    first, counts = options.tasks[0], options.processes
    for row in measure_processes(
        first, options.robot, counts, options.envs_per_process, options.rounds, 2 * options.steps
    ):
        processes.append(row)
        print(
            f"{first:>20} {row['processes']:2d} processes, {row['num_envs']:3d} environments: {row['steps_per_s']:6.0f}"
            f" steps/s, each {100 * row['efficiency']:.0f} % as fast as with {counts[0]}; without "
            f"waiting for each other {row['unsynchronised']:.0f} steps/s"
        )
    for task in options.tasks if options.size else ():
        for row in measure_pictures(task, options.robot, options.size, options.rounds):
            pictures.append(row)
            print(
                f"{task:>20} {row['camera']:<19} {row['quality']} {row['pictures_per_s']:6.1f} pictures/s, robosuite "
                f"{row['robosuite']:5.1f}: {row['ratio']:5.2f} x robosuite, {row['psnr']:.1f} dB"
            )
    about = machine("mujoco", "robosuite", "numba", "numpy")
    print(json.dumps({"steps": steps, "processes": processes, "pictures": pictures, "machine": about}))


def measure_steps(task: str, robot: str, controllers: list[str], rounds: int, steps: int) -> list[dict[str, Any]]:
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
    rates = {name: 1.0 / median(values) for name, values in seconds.items()}
    return [
        {
            "task": task,
            "robot": robot,
            "controller": name,
            "steps_per_s": rates[name],
            "robosuite": rates["robosuite"],
            "physics": rates["physics"],
            "ratio": _ratio(seconds["robosuite"], seconds[name]),
        }
        for name in envs
    ]


def measure_processes(
    task: str, robot: str, processes: list[int], envs_per_process: int, rounds: int, steps: int
) -> list[dict[str, Any]]:
    """Steps per second of all environments together, for each number of processes.

    `efficiency`: how fast each process is, against the first number of processes; 1 is linear. `unsynchronised`: steps
    per second of as many processes that do not wait for each other.
    """
    generator = np.random.default_rng(0)
    seconds: dict[int, list[float]] = {count: [] for count in processes}
    apart: dict[int, list[float]] = {count: [] for count in processes}
    spec = {"task": task, "robot": robot}

    def run(env: Any, turn: int) -> tuple[float, float]:
        """Begin and end of the steps of a turn."""
        env.reset(seed=turn)
        actions = _sines(np.stack(env.call("rest_action")), steps, generator)
        started = time.perf_counter()
        for action in actions:
            env.step(action)
        return started, time.perf_counter()

    with ExitStack() as stack, ThreadPoolExecutor(max(processes, default=1)) as threads:
        envs = {count: stack.enter_context(make_vector(spec, envs_per_process * count, count)) for count in processes}
        singles = [
            stack.enter_context(make_vector(spec, envs_per_process, 1)) for _ in range(max(processes, default=0))
        ]
        for turn in range(rounds + 1):
            for count, env in envs.items():
                started, ended = run(env, turn)
                each = list(threads.map(run, singles[:count], [turn] * count))
                # The first turn compiles.
                if turn:
                    seconds[count].append((ended - started) / steps)
                    apart[count].append(float(np.mean([end - start for start, end in each])) / steps)
    return [
        {
            "processes": count,
            "num_envs": envs_per_process * count,
            "steps_per_s": envs_per_process * count / median(seconds[count]),
            "efficiency": _ratio(seconds[processes[0]], seconds[count]),
            "unsynchronised": envs_per_process * count / median(apart[count]),
        }
        for count in processes
    ]


def measure_pictures(task: str, robot: str, size: int, rounds: int) -> list[dict[str, Any]]:
    """Pictures per second of robosuite and of each quality, for each camera of a task; none without OpenGL."""
    try:
        theirs = robosuite_environment(
            task, robot, has_offscreen_renderer=True, camera_names=list(CAMERAS), camera_heights=size,
            camera_widths=size,
        )  # fmt: skip
        theirs.reset()
        model, data = theirs.sim.model._model, theirs.sim.data._data
        ours = {quality: Renderer(model, quality) for quality in ("fast", "full")}
    except (RenderError, ImportError) as error:
        print(f"no pictures: {error}")
        return []
    rows = []
    for camera in CAMERAS:
        pictures = {name: np.zeros((size, size, 3), np.uint8) for name in ("robosuite", *ours)}
        seconds: dict[str, list[float]] = {name: [] for name in pictures}
        for turn in range(2 * rounds + 1):
            for name in pictures:
                started = time.perf_counter()
                if name in ours:
                    ours[name].render(data, camera, pictures[name])
                else:
                    pictures[name] = theirs.sim.render(camera_name=camera, width=size, height=size)[::-1]
                # The first turn uploads meshes and textures.
                if turn:
                    seconds[name].append(time.perf_counter() - started)
        rates = {name: 1.0 / median(values) for name, values in seconds.items()}
        for quality in ours:
            difference = pictures["robosuite"].astype(float) - pictures[quality]
            rows.append({
                "task": task,
                "camera": camera,
                "quality": quality,
                "pictures_per_s": rates[quality],
                "robosuite": rates["robosuite"],
                "ratio": _ratio(seconds["robosuite"], seconds[quality]),
                "psnr": float(20 * np.log10(255 / max(np.sqrt(np.square(difference).mean()), 0.01))),
            })
    theirs.close()
    for renderer in ours.values():
        renderer.close()
    return rows


def robosuite_environment(task: str, robot: str, **arguments: Any) -> Any:
    """robosuite's environment of a task with its default controller, by default without cameras."""
    plain, arm = load("task", task), load("robot", robot)
    return import_robosuite().make(
        plain["environment"], robots=[arm["model"]] * plain["robots"], control_freq=20, has_renderer=False,
        gripper_types=arm["gripper"].get("model", "default"), use_camera_obs=False, hard_reset=False,
        ignore_done=True, seed=0, **{"has_offscreen_renderer": False, **arguments},
    )  # fmt: skip


def _seconds(step: Any, actions: np.ndarray) -> float:
    """CPU seconds for each step."""
    started = time.process_time()
    for action in actions:
        step(action)
    return (time.process_time() - started) / len(actions)


def _ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the turns."""
    return median(one / other for one, other in zip(slow, fast, strict=True))


def _sines(rest: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Smooth targets around `rest` [..., A], one after the other: [count, ..., A]."""
    frequency = generator.uniform(*FREQUENCY, rest.shape)
    times = np.arange(count).reshape(-1, *(1,) * rest.ndim) / 20
    return rest + AMPLITUDE * np.sin(2 * np.pi * frequency * times)


if __name__ == "__main__":
    main()
