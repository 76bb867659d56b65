"""The web page as a teleoperation device: keyboard, touch pads, gamepad, or a target that is dragged in the scene.

ROS parameters: `web.host`, `web.port`, `web.token`, `web.certificates`, `web.task`. The node reads it like any other
device; beside that, the emergency stop of the page goes straight to the Supervisor.

An arm holds still while no page is open or nobody drives; a driver who is cut off is a lost device, and has not let go:
a policy does not go on. A vehicle hovers under a page on which nothing is held, and
is without a pilot when no page is heard for `ABSENT`: closed, hidden, or cut off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robot_rl.hardware.cockpit.access import AccessError
from robot_rl.hardware.cockpit.pilot import Pilot
from robot_rl.hardware.opened import Opened
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph
from robot_rl.hardware.safety.supervisor_messages import BOOL, STOP_REQUEST
from robot_rl.hardware.teleop.device import DeviceError, Reading

if TYPE_CHECKING:
    from robot_rl.hardware.cockpit.server import CockpitServer

PORT = 8765

ABSENT = 1.0
"""Without a word of any page, until a vehicle's pilot counts as gone [s]; pages speak four times a second."""

_REST = np.zeros(6)


class WebDevice(Opened):
    """A `Device` whose readings come from the page.

    Args:
        server: that is opened and closed with the device; None in tests.
        patience: without a word of any page, until the device is lost [s]; infinite while a page is connected.
    """

    name = "web"

    def __init__(
        self, pilot: Pilot, server: CockpitServer | None = None, log: Callable[..., None] = print,
        patience: float = math.inf,
    ) -> None:  # fmt: skip
        self._pilot, self._server, self._log, self._patience = pilot, server, log, patience

    def open(self) -> None:
        """Begin to serve the page. Raises `DeviceError`, as when the port is taken."""
        if self._server is None:
            return
        try:
            self._server.open()
        except AccessError as error:
            raise DeviceError(str(error)) from None
        self._log("cockpit: open %s", self._server.url)
        if self._server.fingerprint:
            self._log(
                "its certificate is self-signed: the browser will warn; the SHA-256 fingerprint is %s",
                self._server.fingerprint,
            )

    def read(self, now: float) -> Reading | None:
        """What the driver holds; at rest while nobody does, None while no page is there, or an arm's driver is lost."""
        held, pressed = self._pilot.held(), self._pilot.pressed()
        if held is None:
            there = self._pilot.silence() < self._patience
            if math.isinf(self._patience):
                there = there and not self._pilot.cut_off()
            return Reading(now, twist=_REST, buttons=pressed) if there else None
        age, given = held
        twist = given.twist if given.target is None else None
        return Reading(now - age, twist=twist, target=given.target, buttons=given.buttons | pressed)

    def events(self) -> list[str]:
        """Buttons and keys of all pages."""
        return self._pilot.words()

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()


def make(graph: Graph, robot: RobotFile | VehicleFile) -> WebDevice:
    """The device of a node. Raises `DeviceError` when something is missing."""
    try:
        from robot_rl.hardware.cockpit.flight_view import FlightView
        from robot_rl.hardware.cockpit.graph_view import GraphView
        from robot_rl.hardware.cockpit.server import CockpitServer
    except ImportError as error:
        raise DeviceError(f'device web: {error}; pip install "robot_rl[web]"') from None

    def setting(name: str, default: str | int, description: str) -> str:
        return str(graph.parameter(f"web.{name}", default, description, read_only=True).value)

    requests = graph.publisher(STOP_REQUEST, BOOL)

    def stop() -> None:
        graph.call_soon(lambda: requests.publish(messages.make(BOOL, data=True)))

    pilot = Pilot(stop)
    task = setting("task", "", "whose objects and furniture are shown; empty: the twin's")
    flies = isinstance(robot, VehicleFile)
    view = FlightView(graph, robot) if isinstance(robot, VehicleFile) else GraphView(graph, robot, task)
    folder = setting("certificates", "", "folder of the certificate; empty: ~/.config/robot_rl/cockpit")
    try:
        server = CockpitServer(
            view, pilot,
            host=setting("host", "127.0.0.1", "address to listen at; 0.0.0.0: all networks, with token and HTTPS"),
            port=int(setting("port", PORT, "to listen at")),
            token=setting("token", "", "that the page asks for; empty: a random one beyond this computer"),
            certificates=Path(folder) if folder else None,
        )  # fmt: skip
    except AccessError as error:
        raise DeviceError(str(error)) from None
    return WebDevice(pilot, server, graph.log.info, ABSENT if flies else math.inf)
