"""The keys of the person beside a robot: the space bar is an emergency stop, whatever the program is doing."""

from __future__ import annotations

from collections.abc import Callable

from robot_rl.hardware.ros2.graph import Graph

LISTEN = 0.02
"""Between two looks at the keys [wall s]."""


class Keys:
    """Looks at the keys whenever the graph is spun. Those that do not stop wait to be asked for.

    Args:
        graph: of this program.
        pressed: the keys since the last call, see `Terminal.keys`.
        stop: stops the robot.
    """

    def __init__(self, graph: Graph, pressed: Callable[[], str], stop: Callable[[], None]) -> None:
        self._pressed, self._stop, self._kept = pressed, stop, ""
        graph.timer(LISTEN, self._listen, "wall")

    def take(self) -> str:
        """The others since the last call."""
        self._listen()
        kept, self._kept = self._kept, ""
        return kept

    def _listen(self) -> None:
        pressed = self._pressed()
        if " " in pressed:
            self._stop()
        self._kept += pressed.replace(" ", "")
