"""Camera observations of robosuite against both qualities of `robot_rl.sim.render`, of the same scenes.

    python tests/benchmarks/rendering.py [--tasks Lift Door ...] [--size 84] [--rounds 20]

Renderers take turns picture by picture, so that all see the same load of the machine. Prints a line for each camera,
and one line of JSON last.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
from importlib.metadata import version
from statistics import geometric_mean

import numpy as np

CAMERAS = ("agentview", "robot0_eye_in_hand")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["Lift"], help="robosuite's names")
    parser.add_argument("--size", type=int, default=84, help="height and width [pixel]")
    parser.add_argument("--rounds", type=int, default=20, help="pictures of each renderer and camera")
    options = parser.parse_args()
    rows = [row for task in options.tasks for row in measure(task, options.size, options.rounds)]
    for row in rows:
        print(
            f"{row['task']:>18} {row['camera']:<20} robosuite {row['robosuite']:6.1f}  full {row['full']:6.1f}  "
            f"fast {row['fast']:6.1f} pictures/s   fast is {row['ratio']:4.1f} x robosuite, {row['psnr_fast']:.1f} dB; "
            f"full differs by at most {row['difference_full']}"
        )
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in ("mujoco", "robosuite", "numpy")},
    }
    ratios = [row["ratio"] for row in rows]
    print(
        json.dumps({"ratio": geometric_mean(ratios), "least_ratio": min(ratios), "pictures": rows, "machine": machine})
    )


def measure(task: str, size: int, rounds: int) -> list[dict[str, object]]:
    """Pictures per second of each renderer, for each camera of a task."""
    from robot_rl.sim.arm_model import import_robosuite
    from robot_rl.sim.render import Renderer

    robosuite = import_robosuite()
    logging.disable(logging.WARNING)
    env = robosuite.make(
        task, robots=["Panda"] * (2 if task.startswith("TwoArm") else 1), has_renderer=False,
        has_offscreen_renderer=True, camera_names=list(CAMERAS), camera_heights=size, camera_widths=size,
        hard_reset=False, seed=0,
    )  # fmt: skip
    env.reset()
    model, data = env.sim.model._model, env.sim.data._data
    ours = {quality: Renderer(model, quality) for quality in ("fast", "full")}
    rows = []
    for camera in CAMERAS:
        pictures = {name: np.zeros((size, size, 3), np.uint8) for name in ("robosuite", *ours)}
        seconds = dict.fromkeys(pictures, 0.0)
        for turn in range(rounds + 1):
            for name in pictures:
                started = time.perf_counter()
                if name in ours:
                    ours[name].render(data, camera, pictures[name])
                else:
                    pictures[name] = env.sim.render(camera_name=camera, width=size, height=size)[::-1]
                # The first turn uploads meshes and textures.
                seconds[name] += (time.perf_counter() - started) if turn else 0.0
        theirs = pictures["robosuite"].astype(float)
        rows.append({
            "task": task,
            "camera": camera,
            **{name: rounds / taken for name, taken in seconds.items()},
            "ratio": seconds["robosuite"] / seconds["fast"],
            "psnr_fast": float(10 * np.log10(255**2 / np.square(theirs - pictures["fast"]).mean())),
            "difference_full": int(np.abs(theirs - pictures["full"]).max()),
        })
    env.close()
    for renderer in ours.values():
        renderer.close()
    return rows


if __name__ == "__main__":
    main()
