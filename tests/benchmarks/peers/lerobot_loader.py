"""LeRobot's own data set and loader on the workload of the window benchmark; runs in an environment of its own.

    python -m venv peer
    peer/bin/pip install lerobot==0.4.4 "numpy<2.3"
    peer/bin/python tests/benchmarks/peers/lerobot_loader.py write FRAMES DATASET video
    peer/bin/python tests/benchmarks/peers/lerobot_loader.py read DATASET <<< 20

Where only a CPU build of torch is at hand, this set of versions works:

    peer/bin/pip install --no-deps torch==2.13.0 torchvision==0.25.0 lerobot==0.4.4 "numpy<2.3"
    peer/bin/pip install "datasets>=4,<5" "huggingface-hub>=0.34.2,<0.36" "av>=15,<16" "accelerate>=1.10,<2" einops \\
        jsonlines draccus==0.10.0 deepdiff imageio gymnasium opencv-python-headless
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch

FPS = 20
OBS_HORIZON, ACTION_HORIZON = 2, 16
STATES = {"joint_position": 7, "gripper_opening": 1, "cube_pose": 7}
CAMERAS = ("agentview", "robot0_eye_in_hand")


def lerobot_dataset() -> type:
    """LeRobot's class, also where torchvision has no compiled operators for this torch: loading does not use them."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        lerobot_dataset.library = library
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset


def write(frames: Path, folder: Path, kind: str) -> None:
    """Write the recorded episodes as a LeRobot v3 data set, cameras as `image` or `video` with its default codec."""
    features = {name: {"dtype": "float32", "shape": (size,), "names": None} for name, size in STATES.items()}
    features["action"] = {"dtype": "float32", "shape": (7,), "names": None}
    for camera in CAMERAS:
        features[f"observation.images.{camera}"] = {
            "dtype": kind,
            "shape": (84, 84, 3),
            "names": ["height", "width", "channels"],
        }
    dataset = lerobot_dataset().create("benchmark/lift", FPS, features, folder, use_videos=kind == "video")
    arrays = {name: np.load(frames / f"{name}.npy", mmap_mode="r") for name in (*STATES, *CAMERAS, "action")}
    for episode in range(len(arrays["action"])):
        for step in range(arrays["action"].shape[1]):
            row = {name: np.array(arrays[name][episode, step]) for name in (*STATES, "action")}
            row |= {f"observation.images.{camera}": np.array(arrays[camera][episode, step]) for camera in CAMERAS}
            dataset.add_frame({**row, "task": "lift the cube"})
        dataset.save_episode()
    dataset.finalize()


def read(folder: Path, batch_size: int, workers: int) -> None:
    """Read shuffled batches of the same windows for as many seconds as each line of the standard input says."""
    import lerobot

    observed = [(index + 1 - OBS_HORIZON) / FPS for index in range(OBS_HORIZON)]
    deltas = dict.fromkeys((*STATES, *(f"observation.images.{camera}" for camera in CAMERAS)), observed)
    deltas["action"] = [index / FPS for index in range(ACTION_HORIZON)]
    dataset = lerobot_dataset()("benchmark/lift", folder, delta_timestamps=deltas)
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=workers)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for _ in range(2):
        next(batches)
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        number, started, busy = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - started < float(line):
            number += len(next(batches)["action"])
        elapsed, busy = time.perf_counter() - started, time.process_time() - busy
        print(json.dumps({"windows_per_second": number / elapsed, "windows_per_cpu_second": number / busy}), flush=True)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(json.dumps({"bytes": size, "version": lerobot.__version__}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("frames", type=Path)
    writing.add_argument("dataset", type=Path)
    writing.add_argument("kind", choices=("image", "video"))
    reading = commands.add_parser("read")
    reading.add_argument("dataset", type=Path)
    reading.add_argument("--batch-size", type=int, default=64)
    reading.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if options.command == "write":
        write(options.frames, options.dataset, options.kind)
    else:
        read(options.dataset, options.batch_size, options.workers)


if __name__ == "__main__":
    main()
