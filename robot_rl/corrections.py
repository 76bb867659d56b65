"""How much each step of corrected episodes counts in training: what a person decided, and what the policy had wished.

In an episode of a running policy a person takes over when it errs. HG-DAgger (Kelly et al., HG-DAgger: Interactive
Imitation Learning with Human Experts, ICRA 2019) learns from the person's steps alone, beside the demonstrations: its
weights are 1 for interventions and 0 for the policy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_rl.datasets import EpisodeStore

ACTED = ("policy", "intervention")
"""Values of the fact `source` of episodes in which a policy acted, alone or corrected by a person."""


def corrected(store: EpisodeStore, episodes: NDArray[np.int64]) -> bool:
    """Whether a policy acted in any of the episodes."""
    return any(store.facts(int(episode)).get("source") in ACTED for episode in episodes)


def step_weights(
    store: EpisodeStore, episodes: NDArray[np.int64], intervention: float, policy: float
) -> NDArray[np.float32]:
    """Weight of each row of the store [R]: 1 in demonstrations and outside `episodes`.

    Args:
        intervention: of steps in which a person intervened.
        policy: of steps that the policy decided.
    """
    weights = np.ones(store.num_rows, np.float32)
    for episode in episodes:
        if store.facts(int(episode)).get("source") in ACTED:
            first = int(store.episode_starts[episode])
            rows = np.arange(first, first + int(store.lengths[episode]))
            intervened = store.array("data/intervened").gather(rows)
            weights[rows] = np.where(intervened, intervention, policy)
    return weights
