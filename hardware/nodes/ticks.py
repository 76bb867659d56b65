"""The ticks of a Supervisor, in step with the proposals of simulated time.

Simulated time goes on when everybody who acts on it has answered, and /clock reaches processes one after the other. So
the tick that begins a control period waits for the proposal of that time, and a proposal that comes before this process
has heard of its time waits for the tick. On the wall clock ticks come by the clock, and proposals count as they come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph

_EPSILON = 1e-6  # clocks are floats
_POLL = 0.01  # s, wall


class Ticks:
    """Calls `run` for every tick and `propose` for every proposal, in the order of their times.

    Args:
        graph: of this process.
        tick_rate_hz: of the Supervisor.
        control_rate_hz: of proposals.
        wait: how long the tick of a control period waits for the proposal of that time [wall s]; 0: not at all.
        awaits: whether a proposal for a time [s] is expected and has not come.
        run: does the tick of a time [s].
        propose: takes a proposal in.
    """

    def __init__(
        self, graph: Graph, tick_rate_hz: float, control_rate_hz: float, wait: float,
        awaits: Callable[[float], bool], run: Callable[[float], None], propose: Callable[[Any], None],
    ) -> None:  # fmt: skip
        self._graph, self._control_rate, self._wait = graph, control_rate_hz, wait
        self._awaits, self._run, self._propose = awaits, run, propose
        self._pending: tuple[float, float] | None = None
        self._early: list[Any] = []
        self._timer = graph.timer(1.0 / tick_rate_hz, self._tick)
        self.period = self._timer.period
        if wait > 0:
            graph.timer(_POLL, self.settle, "wall")

    def take(self, message: Any) -> None:
        """A proposal has come."""
        if self._wait > 0 and self._is_early(message):
            self._early.append(message)
        else:
            self._propose(message)
            self.settle()

    def settle(self) -> None:
        """Run the tick that waits for a proposal, if it need not wait any longer."""
        if self._pending is not None:
            stamp, until = self._pending
            if not self._awaits(stamp) or time.monotonic() >= until:
                self._run_pending(stamp)

    def _tick(self) -> None:
        if self._pending is not None:
            # Time went on without the proposal.
            self._run_pending(self._pending[0])
        early, self._early = self._early, []
        for message in early:
            self.take(message)
        stamp = self._timer.time
        periods = stamp * self._control_rate
        if self._wait > 0 and abs(periods - round(periods)) < 1e-3 and self._awaits(stamp):
            self._pending = (stamp, time.monotonic() + self._wait)
        else:
            self._run(stamp)

    def _run_pending(self, stamp: float) -> None:
        self._pending = None
        self._run(stamp)

    def _is_early(self, message: Any) -> bool:
        """Whether it is of a time to come, but of one that is near: the Supervisor rejects the others."""
        ahead = messages.seconds(message.header.stamp) - self._graph.now()
        return _EPSILON < ahead < 1.0 / self._control_rate + _EPSILON
