"""What the cockpit shows of a ROS graph with a vehicle: states, cameras, and where the Supervisor says that it is."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from robot_rl.hardware.cockpit.flight_scene import FlightScene
from robot_rl.hardware.cockpit.newest import Newest
from robot_rl.hardware.cockpit.server import Poses
from robot_rl.hardware.px4.vehicle_file import ODOMETRY, VehicleFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph
from robot_rl.hardware.ros2.qos import SENSOR
from robot_rl.hardware.safety.supervisor_messages import STATUS


class FlightView(Newest):
    """Shows a graph; the ground is where the vehicle stood last."""

    def __init__(self, graph: Graph, robot: VehicleFile) -> None:
        super().__init__(graph)
        self._robot = robot
        self._scene = FlightScene(robot)
        self._geometry = 1, self._scene.geometry()
        self._poses: Poses | None = None
        self._seen: np.ndarray | None = None  # position, attitude wxyz, velocity [10]
        self._ground: float | None = None
        self._problem = ""
        graph.subscribe(ODOMETRY, "nav_msgs/msg/Odometry", partial(self._keep, ODOMETRY), replace(SENSOR, depth=1))

    def hello(self) -> dict[str, Any]:
        """What does not change."""
        limits = self._robot.plan.limits
        return {
            "robot": self._robot.name, "flies": True, "rate_hz": self._robot.contract.rate_hz,
            "altitude": limits.altitude, "battery": limits.battery, "silence": self._robot.plan.patience.silence,
            "joints": [], "lower": [], "upper": [],
        }  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Everything that is said in words and numbers."""
        self.poses()  # also for a page that shows none
        return {
            **self._everybody(), "problem": self._problem, "silent": self._silent(ODOMETRY, "odometry"),
            "flight": self._flight(),
        }  # fmt: skip

    def geometry(self) -> tuple[int, bytes] | None:
        """See `View`."""
        return self._geometry

    def poses(self) -> Poses | None:
        """See `View`."""
        seen, count = self._newest.get(ODOMETRY), self._counts.get(ODOMETRY, 0)
        if seen is None or (self._poses is not None and self._poses.sequence == count):
            return self._poses
        try:
            pose, linear = seen.message.pose.pose, seen.message.twist.twist.linear
        except messages.MessageError as error:
            self._problem = str(error)
            return self._poses
        place, turn = pose.position, pose.orientation
        numbers = np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z, linear.x, linear.y, linear.z])
        if not np.isfinite(numbers).all():
            return self._poses
        self._seen = numbers
        if self._ground is None or (self._said(STATUS) or {}).get("armed") == "False":
            self._ground = float(numbers[2])
        self._poses = Poses(count, seen.received, self._scene.poses(numbers[:3], numbers[3:7], self._ground))
        return self._poses

    def _flight(self) -> dict[str, Any] | None:
        """Height above the ground [m], speed [m/s], place [m] and heading [degrees, counterclockwise from east]."""
        if self._seen is None:
            return None
        position, (w, x, y, z) = self._seen[:3], self._seen[3:7]
        heading = math.degrees(math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z)))
        return {
            "height": round(float(position[2]) - (self._ground or 0.0), 2),
            "speed": round(float(np.linalg.norm(self._seen[7:])), 2),
            "place": [round(float(value), 2) for value in position[:2]], "heading": round(heading),
        }  # fmt: skip
