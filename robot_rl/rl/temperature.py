"""What the soft methods share: an actor that climbs values with an entropy as large as wanted, and its temperature.

Soft actor-critic with an automatic temperature (Haarnoja et al. 2018, arXiv 1812.05905); numbers are its equations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robot_rl.policies import PolicyError


def log_temperature(temperature: float, device: torch.device) -> nn.Parameter:
    """log alpha to begin with, [].

    Raises:
        PolicyError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise PolicyError(f"algorithm: expected a temperature above 0, got {temperature}")
    return nn.Parameter(torch.tensor(math.log(temperature), device=device))


def soft_loss(
    log_alpha: nn.Parameter, log_prob: Tensor, value: Tensor, target_entropy: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """alpha log pi(a|s) - Q(s, a) of the actor (eq. 7), with the temperature's loss (eq. 18), [], and what to log.

    Args:
        log_prob: of actions that the actor drew, with its gradients, [B].
        value: of these actions, [B].
        target_entropy: of a decision [nat]; alpha moves so that the actor keeps it.
    """
    alpha = log_alpha.exp()
    actor = (alpha.detach() * log_prob - value).mean()
    entropy = -log_prob.detach().mean()
    logged = {"actor_loss": actor.detach(), "entropy": entropy, "temperature": alpha.detach()}
    return actor + alpha * (entropy - target_entropy), logged
