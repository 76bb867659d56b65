"""Episodes of the line, written to a store as recorded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robot_rl.datasets import EpisodeStore
from robot_rl.policies import Policy
from robot_rl.rl.methods import fresh_policy
from tests.robot_rl.rl.line import CONTRACT


def store_episodes(path: Path, lengths: Sequence[int], terminated: Sequence[bool], seed: int = 0) -> EpisodeStore:
    """Random places, pushes and rewards; an episode that is not terminated is truncated."""
    draw = np.random.default_rng(seed)
    EpisodeStore.create(path, CONTRACT)
    with EpisodeStore.append(path) as writer:
        for length, over in zip(lengths, terminated, strict=True):
            places = draw.normal(size=(length + 1, 1)).astype(np.float32)
            with writer.episode(task="line", source="expert") as episode:
                for step in range(length):
                    last = step == length - 1
                    episode.add(
                        {"place": places[step]}, draw.uniform(-0.9, 0.9, 1), reward=draw.normal(),
                        terminated=last and over, truncated=last and not over,
                    )  # fmt: skip
                episode.finish({"place": places[-1]}, success=over)
    return EpisodeStore.open(path)


def squashed_policy(horizon: int = 1, obs_horizon: int = 1, width: int = 32) -> Policy:
    """A new tanh-Gaussian policy of the line."""
    return fresh_policy(
        {
            "obs_horizon": obs_horizon, "action_horizon": horizon, "process": {"name": "tanh_gaussian"},
            "denoiser": {"name": "perceptron", "width": width},
        },
        CONTRACT,
    )  # fmt: skip
