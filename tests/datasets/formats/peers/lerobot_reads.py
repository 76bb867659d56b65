"""What LeRobot's own LeRobotDataset makes of a folder, as arrays; runs in an environment that holds lerobot.

    python lerobot_reads.py DATASET FOUND.npz

Every frame is read, pictures decoded by LeRobot, then every frame again with a history of all features and a chunk of
actions (delta_timestamps).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torchvision_stub

torchvision_stub.use()

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

HISTORY, CHUNK = 2, 4


def main() -> None:
    path, output = Path(sys.argv[1]), sys.argv[2]
    dataset = LeRobotDataset("local/dataset", path)
    rows = [dataset[index] for index in range(len(dataset))]
    keys = [key for key in rows[0] if key != "task"]
    found = {key: np.stack([np.asarray(row[key]) for row in rows]) for key in keys}
    fps, observed = dataset.fps, [key for key in keys if key.startswith("observation")]
    deltas = {key: [(step + 1 - HISTORY) / fps for step in range(HISTORY)] for key in observed}
    deltas["action"] = [step / fps for step in range(CHUNK)]
    windows = LeRobotDataset("local/dataset", path, delta_timestamps=deltas)
    for index in range(len(windows)):
        row = windows[index]
        for key in ("action", "action_is_pad", *observed):
            found.setdefault(f"windows/{key}", []).append(np.asarray(row[key]))  # type: ignore[union-attr]
    for feature, statistics in dataset.meta.stats.items():
        for name, value in statistics.items():
            found[f"stats/{feature}/{name}"] = np.asarray(value)
    np.savez_compressed(output, **{key: np.asarray(value) for key, value in found.items()})
    print(json.dumps({
        "tasks": [row["task"] for row in rows],
        "episodes": dataset.num_episodes,
        "lengths": [int(length) for length in dataset.meta.episodes["length"]],
        "features": {key: feature["dtype"] for key, feature in dataset.features.items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
