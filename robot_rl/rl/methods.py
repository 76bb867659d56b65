"""The methods by name, and what each is made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from robot_rl.datasets import Contract
from robot_rl.policies import Policy
from robot_rl.policies.configuration import complete, construct, options
from robot_rl.rl.demo_reset import DemoReset
from robot_rl.rl.dppo import DPPO
from robot_rl.rl.dsrl import DSRL
from robot_rl.rl.expo import EXPO
from robot_rl.rl.hil import HIL
from robot_rl.rl.method import Method
from robot_rl.rl.off_policy_method import OffPolicyMethod
from robot_rl.rl.ppo import PPO
from robot_rl.rl.reinflow import ReinFlow
from robot_rl.rl.resip import ResiP
from robot_rl.rl.sac import SAC

METHODS: dict[str, type] = {
    "ppo": PPO, "reinflow": ReinFlow, "dppo": DPPO, "resip": ResiP, "demo_reset": DemoReset,
}  # fmt: skip
OFF_POLICY: dict[str, type] = {"sac": SAC, "rlpd": SAC, "hil": HIL, "dsrl": DSRL, "expo": EXPO}


def build_method(name: str, config: Mapping[str, Any], policy: Policy) -> Method:
    """The method of a preset's name.

    Raises:
        PolicyError: there is no such method or option, or it trains another kind of policy.
    """
    given = complete(f"algorithm ({name})", config, options(METHODS[name]))
    method: Method = construct("algorithm", {"name": name, **given}, METHODS, policy)
    return method


def build_off_policy(name: str, config: Mapping[str, Any], policy: Policy, execute: int) -> OffPolicyMethod:
    """The same, of the off-policy ones, which see `execute` actions of each chunk."""
    given = complete(f"algorithm ({name})", config, options(OFF_POLICY[name]))
    method: OffPolicyMethod = construct("algorithm", {"name": name, **given}, OFF_POLICY, policy, execute)
    return method


def fresh_policy(config: Mapping[str, Any], contract: Contract) -> Policy:
    """A policy that has seen nothing: actions scaled by their bounds, first means close to the middle.

    Args:
        config: see `robot_rl.policies.policy`; weights come from torch's global generator.
    """
    policy = Policy(config, contract).eval()
    bounded = torch.isfinite(policy.low) & torch.isfinite(policy.high)
    normalizer = policy.action_normalizer
    normalizer.center.copy_(torch.where(bounded, (policy.low + policy.high) / 2, 0.0))
    normalizer.spread.copy_(torch.where(bounded, (policy.high - policy.low) / 2, 1.0))
    last = [module for module in policy.denoiser.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(0.01)
        last.bias.zero_()
    return policy
