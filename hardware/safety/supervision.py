"""What every Supervisor keeps, whatever robot it has: its state, the lease, and what it has counted."""

from __future__ import annotations

from collections import Counter

from robot_rl.hardware.safety.lease import LeaseDesk
from robot_rl.hardware.safety.proposal import Screening
from robot_rl.hardware.safety.supervisor_state import TRANSITIONS, State, Status, Transition, Watchdog

FOLLOWING = (State.RUNNING, State.INTERVENING)
"""States in which somebody's actions are followed."""


class Supervision:
    """The common part of `Supervisor` and `FlightSupervisor`.

    Args:
        action_dim: A of the contract.
        watchdog: how long is waited for actions and heartbeats.
    """

    def __init__(self, action_dim: int, watchdog: Watchdog) -> None:
        self._desk = LeaseDesk(watchdog.lease)
        self._screening = Screening(action_dim, watchdog.action, watchdog.skew)
        self._state, self._reason = State.IDLE, "started"
        self._accepted, self._limited = 0, 0
        self._rejected: Counter[str] = Counter()
        self._transitions: list[Transition] = []

    @property
    def status(self) -> Status:
        """State, reason of the last transition, lease and counts."""
        return Status(
            self._state, self._reason, self._desk.holder, self._accepted, self._limited, dict(self._rejected)
        )  # fmt: skip

    def heartbeat(self, lease_id: int, now: float) -> None:
        """Keep a lease alive. Raises `LeaseRefused` when it is no longer held."""
        self._desk.heartbeat(lease_id, now)

    def release(self, lease_id: int, now: float, reason: str = "lease released") -> None:
        """Give the lease back on purpose: the robot brakes and is ready. Raises `LeaseRefused` when it is not held."""
        self._desk.heartbeat(lease_id, now)
        self._desk.revoke()
        self._brake()
        if self._state in FOLLOWING:
            self._enter(State.READY, reason)

    def reject(self, reason: str) -> None:
        """Count something as rejected that is not even a proposal or an observation."""
        self._rejected[reason] += 1

    def take_transitions(self) -> list[Transition]:
        """All changes of state since the last call."""
        taken, self._transitions = self._transitions, []
        return taken

    def _brake(self) -> None:
        """Come to rest from now on, wherever that is."""
        raise NotImplementedError

    def _enter(self, state: State, reason: str) -> None:
        assert state in TRANSITIONS[self._state], f"{self._state} -> {state}"
        self._transitions.append(Transition(self._state, state, reason))
        self._state, self._reason = state, reason
