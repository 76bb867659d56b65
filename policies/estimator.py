"""A frozen estimator of what cannot be observed, from a window of past observations and actions.

The adaptation of RMA (Kumar et al. 2021) and SOUS VIDE (Low et al. 2024): a network is trained to tell mass and thrust
from what the vehicle did, then frozen, and the policy observes its estimate. An estimator is a Gaussian policy whose
one action is the estimated feature (`robot-rl train labels=<feature>`): training and checkpoints are those of any
policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robot_rl.datasets.contract import Contract
from robot_rl.policies.configuration import PolicyError


class Estimator(nn.Module):
    """Args:
    policy: that estimates; it is frozen.

    Attributes:
        horizon: T, observations that it needs.
        features: numbers that it estimates.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        config = policy.config
        problems = []
        if config["process"]["name"] != "gaussian":
            problems.append(f"process: expected gaussian, whose mean is the estimate; got {config['process']['name']}")
        if (policy.action_horizon, policy.action_offset) != (1, 0):
            problems.append(
                f"action_horizon and action_offset: expected 1 and 0, got {policy.action_horizon} and "
                f"{policy.action_offset}"
            )
        if config["estimator"] is not None:
            problems.append("estimator: expected none, an estimator does not rely on another one")
        if problems:
            raise PolicyError(
                "\n".join([
                    f"estimator: a policy that gives {', '.join(policy.contract.action)} cannot be one:",
                    *(f"  - {line}" for line in problems),
                    "Train one by `robot-rl train policy=drone_estimator`.",
                ])
            )
        self.policy = policy.requires_grad_(False)
        self.horizon: int = policy.obs_horizon
        self.features: int = policy.contract.action_dim
        self.train(False)

    @property
    def contract(self) -> Contract:
        """What is observed, and as action what is estimated."""
        contract: Contract = self.policy.contract
        return contract

    def describe(self) -> dict[str, Any]:
        """What `Policy` needs to build it again, plain JSON types; its weights are among those of the policy."""
        return {"config": self.policy.config, "contract": self.contract.to_dict()}

    def train(self, mode: bool = True) -> Estimator:
        """It stays in evaluation mode: it is frozen."""
        super().train(False)
        return self

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """{name: [B, T', *shape]} in raw units, T' at least T, to the estimate [B, features], normalised."""
        context = self.policy.encoder({
            name: observation[name][:, -self.horizon :] for name in self.contract.observation
        })
        policy = self.policy
        noise = torch.zeros_like(context[:, :1, :1]).expand(-1, -1, self.features)
        estimate: Tensor = policy.process.sample(policy.denoiser, context, noise, 1, None, None)
        return estimate.flatten(1)
