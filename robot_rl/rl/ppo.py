"""`ppo`: proximal policy optimisation of a Gaussian policy, cloned or from nothing (Schulman et al. 2017)."""

from __future__ import annotations

import torch

from robot_rl.policies import Policy, PolicyError
from robot_rl.policies.gaussian import Gaussian
from robot_rl.rl.gaussian_method import GaussianMethod
from robot_rl.rl.method import trains


class PPO(GaussianMethod):
    """Args:
    policy: with a Gaussian process.
    std: deviation to begin with, normalised, instead of the policy's own.
    """

    def __init__(self, policy: Policy, *, std: float | None = None) -> None:
        if not isinstance(policy.process, Gaussian):
            name = policy.config["process"]["name"]
            raise PolicyError(f"ppo trains Gaussian policies, this one is {name}; use algorithm={trains(policy)}")
        if std is not None and not std > 0:
            raise PolicyError(f"algorithm.std: expected a number above 0, got {std}")
        self.policy = policy
        if std is not None:
            with torch.no_grad():
                policy.process.log_std.fill_(torch.tensor(std).log().item())
