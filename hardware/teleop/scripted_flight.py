"""A pilot played by a script: takes off, flies a way by twists, may lose the device, and lands.

    idle -> home -> ready -> record -> recording -> way -> (lost) -> success -> back home -> land -> idle

For tests and demonstrations. It sees what a pilot sees: where the vehicle is by `odometry`, and what `teleop/status`
says. The way is a list of places from where the recording began: forward, left, up [m], by the heading of that moment.
Without words it flies the way once the vehicle is ready, and neither takes off, records nor lands.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from robot_rl.hardware import bindings
from robot_rl.hardware.opened import Opened
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.ros2.graph import Graph, Received
from robot_rl.hardware.ros2.qos import LATCHED
from robot_rl.hardware.safety.supervisor_messages import pairs
from robot_rl.hardware.teleop.device import LINEAR_SPEED, DeviceError, Reading
from robot_rl.hardware.teleop.flight_mapping import turned
from robot_rl.sim.rotation import matrix_from_quaternion

GAIN = 1.0
"""Part of full deflection for each metre of the way that is left."""

LEAST = 0.15
"""The stick is never pushed less while there is a way to go."""

NEAR = 0.1
"""At a place [m]."""

PATIENCE = 0.3
"""With the stick pushed, until it lets go when it has not got the vehicle [s]: as a person has to."""

FLIES = ("ready", "running", "intervening", "held")


class ScriptedFlight(Opened):
    """See above.

    Args:
        graph: of the node.
        robot: that tells `position` and `attitude`.
        way: places [n, 3] m.
        words: say `home`, `record`, `success` and `land` as well.
        lost: for how long the device is lost at the end of the way [s]; 0: not at all.
        flights: after which it lands.
    """

    name = "scripted"

    def __init__(
        self, graph: Graph, robot: VehicleFile, way: np.ndarray, words: bool = True, lost: float = 0.0, flights: int = 1
    ) -> None:
        self._robot, self._way, self._says, self._lost, self._flights = robot, way, words, lost, flights
        self._seen: dict[str, np.ndarray] = {}
        self._start: tuple[np.ndarray, float] | None = None
        self._next, self._ended, self._done = 0, np.inf, 0
        self._phase = self._state = ""
        self._busy, self._leased, self._rested = True, False, 0.0
        self._may_take_off = False
        self._said, self._words = "", list[str]()
        for feature in ("position", "attitude"):
            stream = robot.streams[feature]
            graph.subscribe(stream.topic, stream.type, partial(self._observe, feature), stream.qos)
        graph.subscribe("teleop/status", "diagnostic_msgs/msg/DiagnosticArray", self._on_status, LATCHED)

    def read(self, now: float) -> Reading | None:
        """Where the stick is now; None while the device is lost."""
        if self._says:
            self._talk(now)
        if self._state not in FLIES or len(self._seen) < 2 or (self._says and self._phase != "recording"):
            self._start = None
            return self._rest(now)
        position, yaw = self._seen["position"], _heading(self._seen["attitude"])
        if self._start is None:
            self._start, self._next, self._ended = (position, yaw), 0, np.inf
        start, first_yaw = self._start
        while self._next < len(self._way):
            if not self._leased and now - self._rested > PATIENCE:
                return self._rest(now)
            left = start + turned(self._way[self._next], first_yaw) - position
            if (distance := float(np.linalg.norm(left))) > NEAR:
                part = turned(left / distance, -yaw) * np.clip(GAIN * distance, LEAST, 1.0)
                return Reading(now, twist=np.append(part * LINEAR_SPEED, np.zeros(3)))
            self._next += 1
        self._ended = min(self._ended, now)
        return None if now - self._ended < self._lost else self._rest(now)

    def events(self) -> list[str]:
        """Words since the last call."""
        words, self._words = self._words, []
        return words

    def _rest(self, now: float) -> Reading:
        self._rested = now
        return Reading(now, twist=np.zeros(6))

    def _talk(self, now: float) -> None:
        if self._phase != "recording":
            self._ended = np.inf
        word = ""
        if self._phase == "recording" and now - self._ended >= self._lost:
            word = "success"
        elif self._phase in ("idle", "done") and not self._busy:
            if self._state in ("ready", "intervening") or (self._state in FLIES and self._done >= self._flights):
                word = "land" if self._done >= self._flights else "record"
            elif self._state == "idle" and self._may_take_off and not self._done:
                word = "home"
        if word and word != self._said:
            self._done += word == "success"
            self._words.append(word)
        self._said = word

    def _observe(self, feature: str, received: Received) -> None:
        try:
            self._seen[feature] = bindings.decode(self._robot.streams[feature], received.message)
        except bindings.BindingError:
            return

    def _on_status(self, received: Received) -> None:
        values = pairs(received.message.status[0])
        self._phase, self._state = values.get("phase", ""), values.get("state", "")
        self._busy, self._leased = values.get("busy") != "False", values.get("leased") == "True"
        self._may_take_off = not values.get("preflight")


def make_flight(graph: Graph, robot: VehicleFile) -> ScriptedFlight:
    """With the parameters `scripted.way`, `.words`, `.lost` and `.flights`. Raises `DeviceError` for another way."""

    def setting(name: str, default: Any, text: str) -> Any:
        return graph.parameter(f"scripted.{name}", default, text, read_only=True).value

    numbers: Sequence[float] = setting("way", [2.0, 0.0, 0.0], "forward, left, up of each place from the start [m]")
    if not len(numbers) or len(numbers) % 3:
        raise DeviceError(f"scripted.way: expected forward, left, up for each place, got {list(numbers)}")
    return ScriptedFlight(
        graph, robot, np.array(numbers, float).reshape(-1, 3),
        setting("words", True, "it says home, record, success and land, too"),
        setting("lost", 0.0, "for how long the device is lost at the end of the way [s]"),
        setting("flights", 1, "after which it lands"),
    )  # fmt: skip


def _heading(attitude: np.ndarray) -> float:
    nose = matrix_from_quaternion(attitude)[:, 0]
    return float(np.arctan2(nose[1], nose[0]))
