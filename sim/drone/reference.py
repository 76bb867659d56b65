"""References: where a drone should be at each step of an episode, as tables of position and its derivatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_rl.sim.drone.course import Course
from robot_rl.sim.drone.generators import Generators
from robot_rl.sim.drone.min_snap import Trajectory, allocate_times, keep_limits, min_snap
from robot_rl.sim.spec import SpecError

COLUMNS = 12
"""Position, velocity, acceleration and jerk, in the world [m, s]."""


Figure = tuple[np.ndarray, np.ndarray]
"""Amplitudes [..., 3] [m] and periods of a round [...] [s] of Lissajous figures."""


def differs(task: Mapping[str, Any], moved: bool) -> bool:
    """Whether the references of a task's episodes differ, where its gates are moved or not."""
    if task["reference"]["kind"] == "lissajous":
        config = task["reference"]
        return any(low != high for low, high in (*config["amplitude"], config["period"]))
    return "corridor" in task or ("gates" in task and moved)


def draw_figure(task: Mapping[str, Any], generator: Generators) -> Figure | None:
    """Lissajous figures of n episodes, for a task that flies such."""
    config = task["reference"]
    if config["kind"] != "lissajous":
        return None
    amplitude = np.stack([generator.uniform(*interval) for interval in config["amplitude"]], axis=-1)
    return amplitude, generator.uniform(*config["period"])


def reference(
    task: Mapping[str, Any], steps: int, period: float, course: Course | None, figure: Figure | None = None
) -> np.ndarray:
    """Tables of episodes, [steps, COLUMNS] where they do not differ, else [n, steps, COLUMNS].

    Args:
        course: the gates as they stand, where there are any.
        figure: as drawn, where Lissajous figures are flown; None: the smallest and fastest.

    Raises:
        SpecError: the task asks for a reference that does not exist.
    """
    config, times = task["reference"], np.arange(steps) * period
    kind = config["kind"]
    if kind == "point":
        return _still(np.asarray(config["position"], float), steps)
    if kind == "hop":
        return _hop(config, times)
    if kind == "lissajous":
        amplitude, round_time = figure or (np.array(config["amplitude"])[:, 0], np.array(config["period"][0]))
        return _lissajous(config, times, amplitude, round_time)
    if kind == "course" and course is not None:
        return _table(course_trajectory(task, course), times)
    raise SpecError(f"reference: expected point, hop, lissajous, or course with gates; got {kind!r}")


def course_trajectory(task: Mapping[str, Any], course: Course) -> Trajectory:
    """Minimum snap from the start through all gates to the finish, straight on both sides of each gate."""
    config, centers = task["reference"], course.centers
    off = config["straight"] * course.normals
    *many, gates, _ = centers.shape
    through = np.stack([centers - off, centers, centers + off], axis=-2).reshape(*many, 3 * gates, 3)
    start, finish = (np.broadcast_to(end, (*many, 3))[..., None, :] for end in (course.start, course.finish))
    waypoints = np.concatenate([start, through, finish], axis=-2)
    trajectory = min_snap(waypoints, allocate_times(waypoints, config["speed"], config["acceleration"]))
    return keep_limits(trajectory, config["speed"], config["acceleration"])


def _table(trajectory: Trajectory, times: np.ndarray) -> np.ndarray:
    return np.concatenate([trajectory.sample(times, derivative) for derivative in range(4)], axis=-1)


def _still(position: np.ndarray, steps: int) -> np.ndarray:
    table = np.zeros((steps, COLUMNS))
    table[:, :3] = position
    return table


def _hop(config: Mapping[str, Any], times: np.ndarray) -> np.ndarray:
    """Up and down again, to a little below the ground, which decides where the drone stands."""
    below = -0.1
    waits = np.array([[0, 0, 0.0], [0, 0, config["height"]], [0, 0, below]])
    up = min_snap(waits[:2], np.array([config["rise"]]))
    down = min_snap(waits[1:], np.array([config["fall"]]))
    table = _still(waits[0], len(times))
    start = config["wait"]
    top = start + config["rise"]
    turn = top + config["hold"]
    table[times >= start] = _table(up, times[times >= start] - start)
    table[times >= turn] = _table(down, times[times >= turn] - turn)
    return table


def _lissajous(config: Mapping[str, Any], times: np.ndarray, amplitude: np.ndarray, period: np.ndarray) -> np.ndarray:
    """Sines along each axis, whose common phase rises smoothly from rest to its full rate."""
    amplitude, rate = amplitude[..., None, :], 2 * np.pi / period[..., None, None]
    phase, speed, change, jerk = (each[:, None] for each in _ramp(times, config["ramp"]))
    w = rate * np.asarray(config["frequency"], float)
    angle = phase * w + np.asarray(config["phase"], float)
    sine, cosine = amplitude * np.sin(angle), amplitude * np.cos(angle) * w
    return np.concatenate(
        [
            np.asarray(config["center"], float) + sine,
            cosine * speed,
            cosine * change - w**2 * sine * speed**2,
            cosine * jerk - 3 * w**2 * sine * speed * change - w**2 * cosine * speed**3,
        ],
        axis=-1,
    )


def _ramp(times: np.ndarray, ramp: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Time that starts to run smoothly within `ramp` seconds, and its first three derivatives."""
    u = np.clip(times / ramp, 0, 1)
    speed = u**3 * (10 - 15 * u + 6 * u**2)
    change = 30 * u**2 * (1 - u) ** 2 / ramp
    jerk = 60 * u * (1 - u) * (1 - 2 * u) / ramp**2
    time = ramp * u**4 * (2.5 - 3 * u + u**2) + np.maximum(times - ramp, 0)
    return time, speed, change, jerk
