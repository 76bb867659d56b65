"""What a Supervisor hears and says, whatever robot it has: leases, proposals, requests, status and transitions."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol

from robot_rl.datasets import Contract
from robot_rl.hardware.safety.lease import Lease, LeaseRefused, SourceKind
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervisor import SupervisorError
from robot_rl.hardware.safety.supervisor_messages import (
    MalformedError,
    SourceWord,
    decode_proposal,
    decode_source,
    describe_actions,
    diagnostic,
    diagnostics,
)
from robot_rl.hardware.safety.supervisor_state import State, Status, Transition

REFUSALS = 8
"""So many refused sources are told why; one that stays silent for a second is forgotten."""

LEVELS = {State.HELD: 1, State.STOPPED: 2}
"""Levels of diagnostics; those of the other states are 0."""


class Supervising(Protocol):
    """A Supervisor, seen by sources and people; see `supervisor.Supervisor` for each."""

    @property
    def status(self) -> Status: ...
    def acquire(self, source: str, kind: SourceKind, now: float) -> Lease: ...
    def heartbeat(self, lease_id: int, now: float) -> None: ...
    def release(self, lease_id: int, now: float, reason: str = ...) -> None: ...
    def propose(self, proposal: Proposal, now: float) -> str | None: ...
    def reject(self, reason: str) -> None: ...
    def home(self, now: float) -> None: ...
    def disengage(self) -> None: ...
    def emergency_stop(self, reason: str) -> None: ...
    def clear(self) -> None: ...
    def take_transitions(self) -> list[Transition]: ...


class Reception:
    """Messages in, messages out, around a Supervisor; it knows no graph and no clock.

    Args:
        supervisor: who decides.
        contract: that proposals follow.
        robot: its name.
        device_steps: whether a device, too, proposes an action for every control tick, as a scripted person does.
    """

    def __init__(self, supervisor: Supervising, contract: Contract, robot: str, device_steps: bool = False) -> None:
        self._supervising, self._robot_name, self._device_steps = supervisor, robot, device_steps
        self._names, self._actions = contract.action_names, describe_actions(contract)
        self._token, self._followed, self._sent = "", "", 0
        self._refused: dict[str, tuple[float, str]] = {}
        self.proposed = -1.0
        """Stamp of the newest proposal that could be read [s]."""

    def hear(self, message: Any, now: float) -> None:
        """A source asks for the lease, keeps it or gives it back."""
        try:
            word = decode_source(message)
        except MalformedError as error:
            self._supervising.reject(error.reason)
            return
        holder = self._supervising.status.holder
        holds = holder is not None and word.token == self._token
        with suppress(LeaseRefused):
            if holds and holder is not None:
                if word.wish != "release":
                    self._supervising.heartbeat(holder.id, now)
                elif word.lease == holder.id:
                    self._supervising.release(holder.id, now, f"{word.name!r}: {word.reason or 'lease released'}")
                return
        if word.wish == "acquire":
            self._grant(word, now)

    def propose(self, message: Any, now: float) -> str | None:
        """A source proposes an action; returns why it is rejected, which is counted, or None."""
        try:
            proposal = decode_proposal(message, self._names)
        except MalformedError as error:
            self._supervising.reject(error.reason)
            return error.reason
        # A source that acts is alive.
        with suppress(LeaseRefused):
            self._supervising.heartbeat(proposal.lease, now)
            self.proposed = proposal.stamp  # the newest may be older: simulated time may begin anew
        rejected = self._supervising.propose(proposal, now)
        if rejected is None:
            self._followed = message.header.frame_id
        return rejected

    def awaits(self, stamp: float) -> bool:
        """Whether some source, but no person, is expected to propose an action for this time [s], and has not yet."""
        status = self._supervising.status
        holder = status.holder
        if holder is None or status.state not in (State.READY, State.RUNNING, State.INTERVENING):
            return False
        return (holder.kind != "device" or self._device_steps) and self.proposed < stamp - 1e-6

    def request(self, name: str, now: float) -> tuple[bool, str]:
        """A service was called: whether it did what its name says, and the message for people."""
        supervisor = self._supervising
        try:
            match name:
                case "home":
                    self._home(now)
                case "disengage":
                    supervisor.disengage()
                case "emergency_stop":
                    supervisor.emergency_stop("service")
                case "clear":
                    supervisor.clear()
        except SupervisorError as error:
            return False, str(error)
        return True, f"{supervisor.status.state}: {supervisor.status.reason}"

    def transitions(self, now: float) -> list[Any]:
        """The changes of state since the last call, as messages."""
        return [
            diagnostic(
                "supervisor", LEVELS.get(change.after, 0), change.reason,
                {"from": change.before, "to": change.after, "stamp": f"{now:.6f}"}, self._robot_name,
            )
            for change in self._supervising.take_transitions()
        ]  # fmt: skip

    def _home(self, now: float) -> None:
        self._supervising.home(now)

    def _grant(self, word: SourceWord, now: float) -> None:
        if word.actions != self._actions:
            why = f"contract mismatch: {word.name!r} acts by {word.actions!r}, this robot by {self._actions!r}"
        else:
            try:
                self._supervising.acquire(word.name, word.kind, now)
            except LeaseRefused as error:
                why = str(error)
            else:
                self._token = word.token
                self._refused.pop(word.token, None)
                return
        if word.token in self._refused or len(self._refused) < REFUSALS:
            self._refused[word.token] = (now, why)

    def _forget(self, now: float) -> None:
        """Forget refused sources that have fallen silent."""
        self._refused = {token: entry for token, entry in self._refused.items() if 0 <= now - entry[0] <= 1.0}

    def _further(self) -> dict[str, object]:
        """What the status of this kind of robot says beside that of all."""
        return {}

    def _status(self, stamp: float) -> Any:
        status = self._supervising.status
        holder = status.holder
        values = {
            "state": status.state,
            "holder": holder.source if holder else "",
            "token": self._token if holder else "",
            "kind": holder.kind if holder else "",
            "lease": holder.id if holder else 0,
            "accepted": status.accepted,
            "limited": status.limited,
            "commands": self._sent,
            "followed": self._followed,
            **self._further(),
            **{f"rejected.{reason}": count for reason, count in status.rejected.items()},
            **{f"refused.{token}": why for token, (_, why) in self._refused.items()},
        }
        level = LEVELS.get(status.state, 0)
        return diagnostics(stamp, diagnostic("supervisor", level, status.reason, values, self._robot_name))
