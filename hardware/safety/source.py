"""A source of actions on the graph: asks the Supervisor for the lease, keeps it, and proposes actions under it.

    source = Source(graph, "flow", "policy", contract)
    source.acquire()                        # asks until it is granted
    if source.lease is not None:            # at each control step
        source.propose(action, graph.now())
    source.release("episode over")

A lease that ends (a person took over, an emergency stop, a fault) is not asked for again by itself: `lease` is None,
`reason` says why, and whoever decides calls `acquire` once more.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from robot_rl.datasets import Contract
from robot_rl.hardware.ros2.graph import Graph, Received
from robot_rl.hardware.ros2.qos import LATCHED
from robot_rl.hardware.safety.lease import SourceKind
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervisor_messages import (
    DIAGNOSTIC,
    DIAGNOSTICS,
    JOINT_STATE,
    PROPOSAL,
    SOURCE,
    STATUS,
    SourceWord,
    Wish,
    describe_actions,
    encode_proposal,
    encode_source,
    pairs,
)

BEAT = 0.05
"""Between two heartbeats [s], on the node's clock."""

GRANT = 5.0
"""How long a lease is awaited [wall s], so that nothing begins to move when nobody looks any more."""

SILENCE = 0.5
"""Without a status for so long [s], on the node's clock, the Supervisor is taken to be gone."""


class Source:
    """Speaks with the Supervisor for one source; everything happens on the thread that spins the graph.

    Args:
        graph: node of the source.
        name: of the source, for people.
        kind: a `device` takes over from all others.
        contract: that its actions follow; the Supervisor refuses the lease where it runs another one.
    """

    def __init__(self, graph: Graph, name: str, kind: SourceKind, contract: Contract) -> None:
        self._graph, self._name, self._kind = graph, name, kind
        self._names, self._actions = contract.action_names, describe_actions(contract)
        self._token = secrets.token_hex(8)
        self._words = graph.publisher(SOURCE, DIAGNOSTIC)
        self._proposals = graph.publisher(PROPOSAL, JOINT_STATE)
        self._wanted = False
        self._lease: int | None = None
        self._held, self._given_back = 0, 0
        self._sequence, self._lost_lease = 0, 0
        self._state, self._reason = "", "the Supervisor has not been heard yet"
        self._followed, self._holder = "", ""
        self._preflight = ""
        self._heard = 0.0
        graph.subscribe(STATUS, DIAGNOSTICS, self._on_status, LATCHED)
        graph.timer(BEAT, self._beat)

    @property
    def lease(self) -> int | None:
        """Id of the lease that is held, or None."""
        return self._lease

    @property
    def followed(self) -> bool:
        """Whether the Supervisor has followed an action under the lease that is held."""
        return self._lease is not None and self._followed.startswith(f"{self._lease}/")

    @property
    def free(self) -> bool:
        """Whether nobody holds the lease, as far as the Supervisor was heard."""
        return not self._holder

    @property
    def state(self) -> str:
        """State of the Supervisor, as in `supervisor_state.State`; empty while it is not heard."""
        return self._state

    @property
    def reason(self) -> str:
        """Why the Supervisor is in its state, or why it refuses the lease."""
        return self._reason

    @property
    def preflight(self) -> str:
        """What forbids a vehicle on the ground to take off; empty where nothing does."""
        return self._preflight

    def acquire(self) -> None:
        """Ask for the lease until it is granted, lost again, or released."""
        self._wanted = True
        self._beat()

    def release(self, reason: str = "lease released") -> None:
        """Give the lease back, or ask for it no longer; the Supervisor gives `reason` as that of its state."""
        self._wanted, self._lease, self._given_back = False, None, self._held
        if self._held:
            self._say("release", self._held, reason)

    def propose(self, action: ArrayLike, stamp: float) -> bool:
        """Propose an action [A], decided at `stamp` [s]. Whether there is a lease to propose it under.

        Raises:
            ValueError: the action has another length than the contract's.
        """
        values = np.asarray(action, float)
        if values.shape != (len(self._names),):
            raise ValueError(f"action: expected {len(self._names)} numbers ({self._actions}), got {values.shape}")
        if self._lease is None:
            return False
        self._sequence += 1
        self._proposals.publish(encode_proposal(Proposal(self._lease, self._sequence, stamp, values), self._names))
        return True

    def wish(self, action: ArrayLike, stamp: float) -> None:
        """Say what would be proposed, after another source took over: nobody follows it, but it is recorded.

        It goes out under the lease that was lost, so the Supervisor counts it as `no_lease`.
        """
        if self._lost_lease:
            self._sequence += 1
            proposal = Proposal(self._lost_lease, self._sequence, stamp, np.asarray(action, float))
            self._proposals.publish(encode_proposal(proposal, self._names))

    def _beat(self) -> None:
        if self._state and not abs(self._graph.now() - self._heard) <= SILENCE:
            self._state = ""
            self._lose("the Supervisor is silent")
        if self._lease is not None:
            self._say("hold", self._lease)
        elif self._wanted:
            self._say("acquire", 0)
        elif self._held:
            # The Supervisor still takes us for the holder: it has not heard of the release.
            self._say("release", self._held, "lease released")

    def _say(self, wish: Wish, lease: int, reason: str = "") -> None:
        word = SourceWord(self._name, self._token, wish, self._kind, lease, self._actions, reason)
        self._words.publish(encode_source(word))

    def _on_status(self, received: Received) -> None:
        for status in received.message.status:
            self._heard = received.received
            self._take(status.message, pairs(status))

    def _take(self, reason: str, values: Mapping[str, str]) -> None:
        self._state, self._reason = values.get("state", ""), reason
        self._followed, self._holder = values.get("followed", ""), values.get("token", "")
        self._preflight = values.get("preflight", "")
        self._held = int(values.get("lease", "0")) if values.get("token") == self._token else 0
        if self._lease is not None and self._held != self._lease:
            self._lose(self._reason)
        elif self._wanted and self._lease is None and self._held not in (0, self._given_back):
            self._lease, self._sequence = self._held, 0
        elif self._wanted and self._lease is None:
            self._reason = values.get(f"refused.{self._token}", self._reason)

    def _lose(self, reason: str) -> None:
        self._held = 0
        self._reason = reason
        if self._lease is not None:
            self._lost_lease, self._lease, self._wanted = self._lease, None, False
