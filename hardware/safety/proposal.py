"""Proposals: actions that sources wish to be executed, and the screening that they must pass."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np

from robot_rl.hardware.safety.lease import LeaseDesk

Rejection = Literal[
    "no_lease", "out_of_order", "stale", "from_the_future", "wrong_shape", "non_finite", "wrong_state", "unreachable"
]


@dataclass(frozen=True)
class Proposal:
    """One action under a lease.

    Attributes:
        lease: id of the lease it is proposed under.
        sequence: rises with every proposal of a lease; gaps are allowed.
        stamp: when the action was decided [s], on the supervisor's clock.
        action: vector [A] under the robot's contract.
    """

    lease: int
    sequence: int
    stamp: float
    action: np.ndarray


class Screening:
    """Decides whether a proposal may be executed at all, without looking at the motion.

    Args:
        action_dim: A of the contract.
        max_age: oldest action that is still executed [s].
        skew: how far a stamp may lie ahead of the clock [s].
    """

    def __init__(self, action_dim: int, max_age: float, skew: float) -> None:
        self.action_dim, self.max_age, self.skew = action_dim, max_age, skew
        self._lease, self._sequence, self._stamp = 0, 0, 0.0

    def rejection(self, proposal: Proposal, desk: LeaseDesk, now: float) -> Rejection | None:
        """The first reason against the proposal, or None; only one that passes is remembered for the order."""
        if not desk.valid(proposal.lease, now):
            return "no_lease"
        age = now - proposal.stamp
        if not age <= self.max_age:
            return "stale"
        if age < -self.skew:
            return "from_the_future"
        same_lease = proposal.lease == self._lease
        if same_lease and (proposal.sequence <= self._sequence or proposal.stamp < self._stamp):
            return "out_of_order"
        action = proposal.action
        if not isinstance(action, np.ndarray) or action.shape != (self.action_dim,) or action.dtype.kind not in "fiu":
            return "wrong_shape"
        if not all(map(isfinite, action.tolist())):
            return "non_finite"
        self._lease, self._sequence, self._stamp = proposal.lease, proposal.sequence, proposal.stamp
        return None
