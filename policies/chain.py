"""The Markov chain that led to a sampled chunk, with its exact log-density."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chain:
    """States of a stochastic sampler, from the first draw to the chunk, in the policy's normalised units.

    The states are as they were drawn: nothing is clipped, so that their density is exact. `Policy.decode` turns the
    last one into actions (and clips there).

    Attributes:
        states: [B, K + 1, H, A]; state 0 is the first draw, state K the chunk. A Gaussian policy has K = 0.
        log_density: [B, K + 1, H, A], of each element given the state before; its sum is the log-probability.
    """

    states: Tensor
    log_density: Tensor

    @property
    def log_prob(self) -> Tensor:
        """[B, K + 1]: log-probability of the first draw and of each transition (sums, not means)."""
        return self.log_density.sum(dim=(-2, -1))


def gaussian_log_density(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Element-wise log-density of `x` under N(mean, std²); all broadcast."""
    z = (x - mean) / std
    return torch.addcmul(-0.5 * math.log(2 * math.pi) - std.log(), z, z, value=-0.5)
