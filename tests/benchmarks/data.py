"""Data tools: importing LeRobot video, merging and splitting, checking.

    python tests/benchmarks/data.py [--episodes 40] [--steps 200] [--rounds 3]

Makes episodes of two 84x84 cameras, and of them a LeRobot data set (AV1 as LeRobot's own) in a temporary folder.
Times are CPU seconds for importing and checking, and wall seconds for merging and splitting, where the disk counts;
megabytes are those of the encoded frames and rows that the new store holds. Prints a line for each, and one line of
JSON last. The bars: importing >= 1 000 frames/s, merge and split >= 500 MB/s, check >= 5 000 frames/s.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from machine import machine

from robot_rl.datasets import Contract, EpisodeStore, Feature, edit
from robot_rl.datasets.check import check
from robot_rl.datasets.formats import lerobot

SIZE = 84
CAMERAS = ("agentview", "wrist")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="data-benchmark-"))
    try:
        store = record(folder / "source.zarr", options.episodes, options.steps)
        megabytes = size_of(store)
        frames = len(CAMERAS) * store.num_rows
        lerobot.write(store, folder / "lerobot")
        results: dict[str, Any] = {}

        def repeat(
            name: str, work: Callable[[Path], object], amount: float, clock: Callable[[], float], unit: str
        ) -> None:
            seconds = []
            for turn in range(options.rounds):
                output = folder / f"{name}-{turn}.zarr"
                started = clock()
                work(output)
                seconds.append(clock() - started)
                shutil.rmtree(output, ignore_errors=True)
            results[name] = amount / median(seconds)
            print(f"{name:>8} {results[name]:8.0f} {unit}")

        pictures = len(CAMERAS) * store.num_steps
        repeat(
            "import", lambda output: lerobot.read(folder / "lerobot", output), pictures, time.process_time, "frames/s"
        )
        both = [*edit.whole(store), *edit.whole(store)]
        repeat("merge", lambda output: edit.assemble(output, both), 2 * megabytes, time.perf_counter, "MB/s")
        half = edit.whole(store, range(0, len(store), 2))
        repeat("split", lambda output: edit.assemble(output, half), megabytes / 2, time.perf_counter, "MB/s")
        repeat("check", lambda _: check(store), frames, time.process_time, "frames/s")
    finally:
        shutil.rmtree(folder)
    print(
        json.dumps({
            **results,
            "megabytes": megabytes,
            "frames": frames,
            "machine": machine("numpy", "imagecodecs", "av"),
        })
    )


def record(path: Path, episodes: int, steps: int) -> EpisodeStore:
    """Smooth pictures that move, with a little noise."""
    observation = {"joint_position": Feature("joint_position", (7,), unit="rad")}
    observation |= {name: Feature(name, (SIZE, SIZE, 3), dtype="uint8", kind="image") for name in CAMERAS}
    contract = Contract("benchmark", 20.0, observation, {"action": Feature("action", (8,), kind="action")})
    draw = np.random.default_rng(0)
    coarse = np.kron(draw.integers(0, 240, (12, 12, 3)), np.ones((SIZE // 12, SIZE // 12, 1)))
    picture = (coarse + draw.integers(0, 15, coarse.shape)).astype(np.uint8)

    def row(step: int) -> dict[str, np.ndarray]:
        moved = {name: np.roll(picture, step, axis) for axis, name in enumerate(CAMERAS)}
        return {"joint_position": np.full(7, step, np.float32), **moved}

    EpisodeStore.create(path, contract)
    with EpisodeStore.append(path) as writer:
        for number in range(episodes):
            with writer.episode(task="lift", seed=number) as episode:
                for step in range(steps):
                    episode.add(row(step), np.zeros(8))
                episode.finish(row(steps), success=True)
    return EpisodeStore.open(path)


def size_of(store: EpisodeStore) -> float:
    """Megabytes of encoded frames and rows."""
    frames = sum(int(store.array(f"frames/{name}/size").slice(0, store.num_rows).sum()) for name in CAMERAS)
    rows = sum(kind.row_bytes for kind in store.layout.row_arrays.values()) * store.num_rows
    return (frames + rows) / 1e6


if __name__ == "__main__":
    main()
