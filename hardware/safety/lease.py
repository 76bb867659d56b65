"""Leases: who may move the robot. One source at a time, for as long as its heartbeat is heard.

A lease is granted by name and kind of the source. A person (`device`) takes over from anything else; apart from that
a lease that is held is respected. A heartbeat that stays out for `duration` seconds ends the lease.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

SourceKind = Literal["policy", "device", "script", "replay"]


class LeaseRefused(RuntimeError):  # noqa: N818
    """The lease is not granted, or is no longer held; the message says why and what to do."""


@dataclass(frozen=True)
class Lease:
    """The right of one source to move the robot; `id` is never used twice."""

    id: int
    source: str
    kind: SourceKind


class LeaseDesk:
    """Grants and watches the one lease of a robot.

    Args:
        duration: time without a heartbeat after which a lease ends [s].
    """

    def __init__(self, duration: float) -> None:
        if not duration > 0:
            raise ValueError(f"lease duration: expected a positive time, got {duration}")
        self.duration = duration
        self.holder: Lease | None = None
        self._heard = 0.0
        self._granted = 0

    def acquire(self, source: str, kind: SourceKind, now: float) -> Lease:
        """Grant the lease, revoking that of a source which a person takes over from.

        Raises:
            LeaseRefused: another source holds the lease.
        """
        if kind not in get_args(SourceKind):
            raise LeaseRefused(f"source {source!r}: expected a kind in {get_args(SourceKind)}, got {kind!r}")
        held = self.holder
        if held is not None and not self.expired(now) and (held.kind == "device" or kind != "device"):
            raise LeaseRefused(f"source {source!r}: {held.source!r} ({held.kind}) holds the lease; wait for it")
        self._granted += 1
        self._heard = now
        self.holder = Lease(self._granted, source, kind)
        return self.holder

    def heartbeat(self, lease_id: int, now: float) -> None:
        """Keep the lease alive. Raises `LeaseRefused` when it has expired or was revoked: acquire a new one."""
        if not self.valid(lease_id, now):
            raise LeaseRefused(f"lease {lease_id} has expired or was revoked; acquire a new one")
        self._heard = now

    def valid(self, lease_id: int, now: float) -> bool:
        """Whether this lease is held and alive."""
        return self.holder is not None and self.holder.id == lease_id and not self.expired(now)

    def expired(self, now: float) -> bool:
        """Whether a lease is held whose heartbeat stays out."""
        return self.holder is not None and not 0.0 <= now - self._heard <= self.duration

    def revoke(self) -> None:
        """End the lease, whoever holds it."""
        self.holder = None
