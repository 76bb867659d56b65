"""Trains stable-baselines3's SAC on Hopper-v5, for rl.py. Run with a Python that holds it."""

import json
import sys
import time

import gymnasium
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger

STEPS = 250


def main() -> None:
    torch.set_num_threads(1)
    model = SAC(
        "MlpPolicy",
        gymnasium.make("Hopper-v5"),
        batch_size=256,
        learning_starts=1000,
        seed=0,
        device="cpu",
    )
    model.set_logger(Logger(folder=None, output_formats=[]))  # without one it makes a folder each time
    model.learn(1000 + STEPS)
    for _ in sys.stdin:
        began, busy = time.perf_counter(), time.process_time()
        model.learn(STEPS, reset_num_timesteps=False)
        elapsed, busy = time.perf_counter() - began, time.process_time() - busy
        made = {"steps_per_second": STEPS / elapsed, "updates_per_second": STEPS / elapsed}
        print(json.dumps({**made, "steps_per_cpu_second": STEPS / busy}), flush=True)


if __name__ == "__main__":
    main()
