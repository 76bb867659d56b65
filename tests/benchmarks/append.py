"""How fast episodes are recorded: committed frames a second, and how long a recorder is held up.

    python tests/benchmarks/append.py [--frames FOLDER_OF_NPY]

The workload: episodes of 200 steps with two 84×84 cameras, four low-dimensional features and an action; every episode
is committed and synced. Frames are those in `--frames` (uint8 [episodes, steps, 84, 84, 3], as tests/benchmarks/
windows.py keeps them), or shaded boxes on a noisy floor. The peer, in turns with each encoding, is zarr itself in the
layout of diffusion_policy: one chunk for each frame, compressed by Blosc LZ4, nothing synced. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from machine import machine
from zarr.codecs import BloscCodec

from robot_rl.datasets import Contract, EpisodeStore, Feature

CAMERAS = ("agentview", "wrist")
STEPS, SIZE = 200, 84


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="folder with recorded frames, one .npy for each camera")
    parser.add_argument("--folder", type=Path, help="where to record; by default a temporary folder")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    frames = recorded(options.frames) if options.frames else rendered()
    turns: dict[str, list[dict[str, float]]] = {}
    folder = Path(tempfile.mkdtemp(prefix="append_", dir=options.folder))
    try:
        for _ in range(options.rounds):
            for encoding in ("jpeg", "lz4", "raw", "png"):
                measured = measure(
                    lambda path, encoding=encoding: record(path, frames, options.episodes, encoding), folder
                )
                turns.setdefault(encoding, []).append(measured)
            turns.setdefault("zarr", []).append(measure(lambda path: record_by_zarr(path, frames, 1), folder))
    finally:
        shutil.rmtree(folder)
    result = {
        name: {key: statistics.median(turn[key] for turn in found) for key in found[0]} for name, found in turns.items()
    }
    for name, values in result.items():
        size = values["bytes_per_frame"] / (SIZE * SIZE * 3)
        print(
            f"{name:5} {values['frames_per_second']:8.0f} frames/s, {values['frames_per_cpu_second']:8.0f} per "
            f"CPU-second, {size:6.1%} of the raw size; a step takes {values['step_ms']:.2f} ms (99 of 100 within "
            f"{values['step_p99_ms']:.2f}), to finish {values['finish_ms']:.0f} ms"
        )
    about = machine("numpy", "imagecodecs", "zarr")
    print(json.dumps({"benchmark": "append", "result": result, "machine": about}))


def measure(act: Callable[[Path], dict[str, float]], folder: Path) -> dict[str, float]:
    """What `act` says of a new path."""
    path = folder / "store"
    try:
        return act(path)
    finally:
        shutil.rmtree(path)


class Speed:
    """Frames per second of wall and of processor time, of all threads; a store is made before."""

    def __init__(self) -> None:
        self._wall, self._busy = time.perf_counter(), time.process_time()

    def of(self, frames: int) -> dict[str, float]:
        wall, busy = time.perf_counter() - self._wall, time.process_time() - self._busy
        return {"frames_per_second": frames / wall, "frames_per_cpu_second": frames / busy}


def record(path: Path, frames: dict[str, np.ndarray], episodes: int, encoding: str) -> dict[str, float]:
    """Record into an episode store."""
    shapes = {"joint_position": (7,), "joint_velocity": (7,), "gripper_opening": (1,), "cube_pose": (7,)}
    observation = {name: Feature(name, shape) for name, shape in shapes.items()}
    observation |= {name: Feature(name, (SIZE, SIZE, 3), "uint8", "image") for name in CAMERAS}
    action = {"joint_position": Feature("joint_position", (8,), kind="action")}
    store = EpisodeStore.create(path, Contract("append", 20.0, observation, action), encoding=encoding)
    rows = {
        name: np.random.default_rng(0).normal(size=(STEPS + 1, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    steps, finishes, speed = [], [], Speed()
    with EpisodeStore.append(store.path) as writer:
        for number in range(episodes):
            with writer.episode(task="append", seed=number) as episode:
                for step in range(STEPS + 1):
                    images = {name: frames[name][(number * STEPS + step) % len(frames[name])] for name in CAMERAS}
                    seen = {**{name: values[step] for name, values in rows.items()}, **images}
                    start = time.perf_counter()
                    if step < STEPS:
                        episode.add(seen, np.zeros(8, np.float32), reward=1.0)
                        steps.append(time.perf_counter() - start)
                    else:
                        episode.finish(seen, success=True)
                        finishes.append(time.perf_counter() - start)
    return {
        **speed.of(len(CAMERAS) * episodes * (STEPS + 1)),
        "bytes_per_frame": size_on_disk(path / "frames") / (len(CAMERAS) * episodes * (STEPS + 1)),
        "step_ms": statistics.mean(steps) * 1e3,
        "step_p99_ms": float(np.percentile(steps, 99)) * 1e3,
        "finish_ms": statistics.mean(finishes) * 1e3,
    }


def record_by_zarr(path: Path, frames: dict[str, np.ndarray], episodes: int) -> dict[str, float]:
    """Record by zarr itself, one chunk for each frame."""
    group = zarr.open_group(path, mode="w")
    options = {"dtype": "u1", "chunks": (1, SIZE, SIZE, 3), "compressors": BloscCodec(cname="lz4")}
    arrays = {name: group.create_array(name, shape=(0, SIZE, SIZE, 3), **options) for name in CAMERAS}
    steps, speed = [], Speed()
    for step in range(episodes * (STEPS + 1)):
        start = time.perf_counter()
        for name, array in arrays.items():
            array.append(frames[name][step % len(frames[name])][None])
        steps.append(time.perf_counter() - start)
    return {
        **speed.of(len(CAMERAS) * len(steps)),
        "bytes_per_frame": size_on_disk(path) / (len(CAMERAS) * len(steps)),
        "step_ms": statistics.mean(steps) * 1e3,
        "step_p99_ms": float(np.percentile(steps, 99)) * 1e3,
        "finish_ms": 0.0,
    }


def size_on_disk(path: Path) -> int:
    """Bytes that the files below a folder occupy."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def recorded(folder: Path) -> dict[str, np.ndarray]:
    """Frames [n, 84, 84, 3] from two .npy files."""
    files = [
        file for file in sorted(folder.glob("*.npy")) if np.load(file, mmap_mode="r").shape[-3:] == (SIZE, SIZE, 3)
    ]
    if len(files) < len(CAMERAS):
        raise SystemExit(f"{folder}: expected two files of 84×84 frames, found {[file.name for file in files]}")
    found = [np.array(np.load(file, mmap_mode="r").reshape(-1, SIZE, SIZE, 3)[:2000]) for file in files]
    return dict(zip(CAMERAS, found, strict=False))


def rendered() -> dict[str, np.ndarray]:
    """Shaded boxes that move over a noisy floor, [200, 84, 84, 3] for each camera."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    found = {}
    for name in CAMERAS:
        floor = (140 + 0.4 * y)[..., None] * np.array([1.0, 0.95, 0.9]) + draw.normal(0, 3, (SIZE, SIZE, 3))
        pictures = []
        for step in range(STEPS):
            picture = floor.copy()
            for box in range(6):
                left, top = 30 + 25 * np.sin(0.02 * step + box), 30 + 25 * np.cos(0.03 * step + 2 * box)
                inside = (x > left) & (x < left + 14) & (y > top) & (y < top + 18)
                picture[inside] = (x[inside] - left)[:, None] * 4 + draw.integers(40, 160, 3)
            pictures.append(picture.clip(0, 255).astype(np.uint8))
        found[name] = np.stack(pictures)
    return found


if __name__ == "__main__":
    main()
