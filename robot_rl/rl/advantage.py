"""Generalised advantage estimation (Schulman et al. 2016) over decisions that last one or several control steps.

A decision is a chunk of actions of which some are executed. Its reward is the discounted sum of the rewards of its
steps, and what follows it counts gamma^steps: with chunks of one action this is the usual estimate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]


def generalised_advantage(
    reward: Table, value: Table, following: Table, discount: Table, ended: NDArray[np.bool_], decay: float
) -> Table:
    """The advantage [T, N] of each decision of N environments, one row after the other.

    Args:
        reward: [T, N], discounted sum over the steps of the decision.
        value: [T, N], of the observation at which it was made.
        following: [T, N], value of the observation after it: the last one of the episode, where that was cut off.
        discount: [T, N], gamma^steps; 0 where the task has terminated, after which nothing can be earned. A cut-off
            (`truncated`) keeps its discount: the episode would have gone on.
        ended: bool [T, N], whether the next row belongs to another episode.
        decay: lambda, per decision.
    """
    advantage = np.zeros_like(reward)
    later = np.zeros(reward.shape[1])
    for row in reversed(range(len(reward))):
        surprise = reward[row] + discount[row] * following[row] - value[row]
        later = surprise + np.where(ended[row], 0.0, discount[row] * decay * later)
        advantage[row] = later
    return advantage
