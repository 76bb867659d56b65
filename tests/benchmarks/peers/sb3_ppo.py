"""Trains stable-baselines3's PPO on Hopper-v5, for rl.py. Run with a Python that holds it."""

import json
import sys
import time

import gymnasium
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

ENVS, STEPS, EPOCHS, MINIBATCH = 16, 128, 10, 64


def main() -> None:
    torch.set_num_threads(1)
    envs = VecNormalize(DummyVecEnv([lambda: gymnasium.make("Hopper-v5")] * ENVS))
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=STEPS,
        batch_size=MINIBATCH,
        n_epochs=EPOCHS,
        learning_rate=3e-4,
        seed=0,
        device="cpu",
    )
    model.set_logger(Logger(folder=None, output_formats=[]))  # without one it makes a folder each time
    model.learn(ENVS * STEPS)
    for _ in sys.stdin:
        began, busy = time.perf_counter(), time.process_time()
        model.learn(ENVS * STEPS, reset_num_timesteps=False)
        elapsed, busy = time.perf_counter() - began, time.process_time() - busy
        steps, updates = ENVS * STEPS, EPOCHS * ENVS * STEPS // MINIBATCH
        made = {"steps_per_second": steps / elapsed, "updates_per_second": updates / elapsed}
        print(json.dumps({**made, "steps_per_cpu_second": steps / busy}), flush=True)


if __name__ == "__main__":
    main()
