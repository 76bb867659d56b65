"""A small arm. Observed: joints, the pose of a cube, two cameras. Commanded: joints and a bounded gripper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.datasets import Contract, Feature
from robot_rl.datasets.statistics import Statistics, merge, summarise
from robot_rl.policies import Policy, build_policy

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "width": 32, "depth": 2, "time_features": 16},
    "perceptron": {"name": "perceptron", "width": 32},
    "unet1d": {"name": "unet1d", "widths": [16, 32], "groups": 4, "time_features": 16},
    "transformer": {"name": "transformer", "width": 32, "layers": 2, "heads": 2, "dropout": 0.0},
    "low_dim": {"name": "low_dim"},
    "cnn": {"name": "cnn", "channels": [8, 16], "keypoints": 4, "features": 8},
    "grid_cnn": {"name": "grid_cnn", "channels": [4, 8], "grid": [1, 1], "features": 8},
    "resnet18": {"name": "resnet18", "keypoints": 4, "features": 8, "width": 16},
}
"""Configurations that build in milliseconds."""


@pytest.fixture
def small() -> dict[str, dict[str, Any]]:
    return SMALL


@pytest.fixture
def contract() -> Contract:
    observation = [
        Feature("joint_position", (3,), unit="rad"),
        Feature("cube_pose", (7,), frame="base", representation="position_quaternion"),
        Feature("front", (48, 48, 3), dtype="uint8", kind="image"),
        Feature("wrist.left", (48, 64, 3), dtype="uint8", kind="image"),
    ]
    action = [
        Feature("joint_position", (3,), kind="action", unit="rad"),
        Feature("gripper_opening", (1,), kind="action", unit="m", lower=(0.0,), upper=(0.08,)),
    ]
    return Contract(
        "arm",
        20.0,
        {item.name: item for item in observation},
        {item.name: item for item in action},
        "servo_joint_position",
    )


def statistics_of(rows: np.ndarray) -> Statistics:
    return merge({name: value[None] for name, value in summarise(rows).items()})


@pytest.fixture
def statistics() -> dict[str, Statistics]:
    generator = np.random.default_rng(0)
    sizes = {"joint_position": 3, "cube_pose": 7, "action": 4}
    rows = {name: generator.normal(0.3, 2.0, (200, size)) for name, size in sizes.items()}
    rows["action"][:, 3] = generator.uniform(0, 0.08, 200)
    return {name: statistics_of(value) for name, value in rows.items()}


@pytest.fixture
def make_policy(contract: Contract, statistics: dict[str, Statistics]) -> Callable[..., Policy]:
    """Policy of small parts by name; other keys go into the configuration."""

    def make(
        process: str | Mapping[str, Any] = "flow_matching",
        denoiser: str = "mlp",
        encoder: str = "low_dim",
        **config: Any,
    ) -> Policy:
        torch.manual_seed(0)
        parts = {
            "process": {"name": process} if isinstance(process, str) else process,
            "denoiser": SMALL[denoiser],
            "encoder": SMALL[encoder],
            "action_horizon": 8,
        }
        return build_policy({**parts, **config}, contract, statistics)

    return make


@pytest.fixture
def make_batch(contract: Contract) -> Callable[..., dict[str, Any]]:
    def make(policy: Policy, size: int = 5, seed: int = 0) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        observation = {}
        for name, feature in policy.contract.observation.items():
            shape = (size, policy.obs_horizon, *feature.shape)
            if feature.is_frame:
                observation[name] = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
            else:
                observation[name] = torch.randn(shape, generator=generator)
        horizon = policy.action_horizon
        return {
            "observation": observation,
            "action": torch.randn(size, horizon, contract.action_dim, generator=generator) * 0.05 + 0.04,
            "action_valid": torch.ones(size, horizon, dtype=torch.bool),
            "observation_valid": torch.ones(size, policy.obs_horizon, dtype=torch.bool),
            "weight": torch.ones(size),
        }

    return make
