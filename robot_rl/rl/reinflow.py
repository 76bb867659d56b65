"""`reinflow`: fine-tuning of a flow policy through a few noisy Euler steps (ReinFlow, Zhang et al. 2025).

A small network gives each Euler step a deviation, which makes of the sampler a chain of Gaussian steps with an exact
density; one ratio for each chunk. The deviation's upper bound is held for a while and then lowered. A deployed policy
draws no such noise.
"""

from __future__ import annotations

import math

from torch import Tensor

from robot_rl.policies import Policy, PolicyError
from robot_rl.policies.flow_matching import FlowMatching
from robot_rl.rl.extended import extended
from robot_rl.rl.method import Method, mean_executed, refuse_choosing, trains


class ReinFlow(Method):
    """Args:
    policy: with a flow, or a shortcut model; it is given the noise network if it has none.
    steps: Euler steps, in training and afterwards.
    std_min, std_max: bounds of the deviation, normalised. Much above 0.25 the noise ruins the policy before it learns.
    hold: share of the training for which the upper bound is held before it falls along half a cosine,
    fall: by this share of the distance to the lower one.
    """

    def __init__(
        self, policy: Policy, *, steps: int = 4, std_min: float = 0.08, std_max: float = 0.14, hold: float = 0.35,
        fall: float = 0.3,
    ) -> None:  # fmt: skip
        process = policy.config["process"]
        if not isinstance(policy.process, FlowMatching):
            raise PolicyError(
                f"reinflow trains flow policies, this one is {process['name']}; use algorithm={trains(policy)}"
            )
        refuse_choosing("reinflow", policy)
        if not 0 < std_min <= std_max:
            raise PolicyError(f"algorithm: expected 0 < std_min <= std_max, got {std_min} and {std_max}")
        if not (0 <= hold <= 1 and 0 <= fall <= 1):
            raise PolicyError(f"algorithm: expected hold and fall from 0 to 1, got {hold} and {fall}")
        noisy = {**process, "steps": steps, "learned_noise": True, "chain_std": std_max, "chain_std_min": std_min}
        self.policy = extended(policy, process=noisy)  # its noise network, if that is new, begins at random
        assert isinstance(self.policy.process, FlowMatching)
        assert self.policy.process.noise is not None
        self.noise = self.policy.process.noise
        self.bounds, self.hold, self.fall = (std_min, std_max), hold, fall

    def begin(self, done: float) -> None:
        falling = max(0.0, done - self.hold) / max(1e-9, 1 - self.hold)
        low, high = self.bounds
        self.noise.log_high = math.log(high - self.fall * (high - low) * 0.5 * (1 - math.cos(math.pi * falling)))

    def condense(self, log_density: Tensor, counted: Tensor) -> Tensor:
        return mean_executed(log_density, counted).mean(dim=1, keepdim=True)
