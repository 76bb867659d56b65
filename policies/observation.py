"""What a policy has to be given: how many observations, checked against its contract before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robot_rl.datasets.contract import Contract
from robot_rl.policies.configuration import PolicyError


def observed_steps(config: Mapping[str, Any]) -> int:
    """The number of observations that a policy of a resolved configuration needs, with its estimator's."""
    estimator = config.get("estimator")
    return max(int(config["obs_horizon"]), 0 if estimator is None else int(estimator["config"]["obs_horizon"]))


def check_observation(contract: Contract, obs_horizon: int, observation: Mapping[str, Any]) -> None:
    """Raise `PolicyError` unless the arrays are exactly the contract's features, each of shape [B, To, *shape]."""
    wanted = contract.observation
    lacking = [name for name in wanted if name not in observation]
    added = [name for name in observation if name not in wanted]
    if lacking or added:
        raise PolicyError(
            f"the observation does not match the policy's contract: it lacks {lacking}, it adds {added}; "
            f"the policy takes {list(wanted)}, it was given {list(observation)}; pass exactly these features"
        )
    batch = observation[next(iter(wanted))].shape[0]
    for name, feature in wanted.items():
        expected = [batch, obs_horizon, *feature.shape]
        if list(observation[name].shape) != expected:
            raise PolicyError(
                f"observation {name!r}: expected shape [B, To, ...] = {expected}, got {list(observation[name].shape)}"
            )
