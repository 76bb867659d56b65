"""Lockstep: simulated time goes on as soon as everybody who acts on it has done so, and never waits for the wall clock.

At each value of /clock the Supervisor publishes its commands, then a status with that stamp and the number of commands
sent so far. When both have come, time goes on. Who is silent is waited for once; from then on time passes as on the
wall clock, until the Supervisor is heard again, so that faults unfold as they would on a robot.
"""

from __future__ import annotations

PATIENCE = 2.0
"""How long an answer is awaited [wall s]; a Supervisor that waits for a proposal may take a second."""


class Lockstep:
    """Decides when the next tick may come.

    Args:
        period: of a tick [s].
        patience: how long an answer is awaited [wall s].

    Attributes:
        timeouts: how often an answer did not come.
    """

    def __init__(self, period: float, patience: float = PATIENCE) -> None:
        self.period, self.patience = period, patience
        self.timeouts = 0
        self._answering = False
        self._time, self._began = -1.0, -1e9
        self._answered = False
        self._commands: int | None = None
        self._awaited, self._arrived = 0, 0

    def begin(self, time: float, wall: float) -> None:
        """The tick of a simulated time [s] has been announced."""
        self._time, self._began = time, wall
        self._answered = False
        self._awaited = self._arrived = 0

    def command(self) -> None:
        """A command has arrived."""
        self._arrived += 1

    def status(self, stamp: float, commands: int) -> None:
        """The Supervisor's status of a tick has arrived, with the number of commands that it has sent so far."""
        before, self._commands = self._commands, commands
        self._answering = True
        if stamp < self._time - 0.5 * self.period:
            return
        self._answered = True
        if before is not None and commands > before:
            self._awaited += commands - before

    def may_go_on(self, wall: float) -> bool:
        """Whether the next tick may come now."""
        waited = wall - self._began
        if not self._answering:
            return waited >= self.period
        if self._answered and self._arrived >= self._awaited:
            return True
        if waited < self.patience:
            return False
        self.timeouts += 1
        self._answering, self._commands = False, None
        return True
