"""A camera on a ROS topic: sensor_msgs/msg/Image or CompressedImage, by a node of its own.

The stamp is that of the header, or the time of reception where the driver leaves it zero. Lost pictures are told by the
stamps: ROS 2 headers have no number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from robot_rl.hardware import bindings
from robot_rl.hardware.cameras.camera import CameraError, Frame
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Endpoint, Graph, GraphError, Received, open_graph
from robot_rl.hardware.ros2.messages import MessageError
from robot_rl.hardware.ros2.qos import Qos

TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")

DISCOVERY = 3.0
"""How long the topic is looked for [s]."""

SILENT = 2.0
"""How long a topic may say nothing before the camera counts as lost [s]."""

_NEWEST = Qos("best_effort", depth=2)


class TopicSource:
    """See above.

    Args:
        device: the topic.
        connect: joins a graph; the namespace and domain are those of the environment.
    """

    def __init__(self, device: str, connect: Callable[[], Graph] = lambda: open_graph("robot_rl_camera_view")) -> None:
        self._topic = f"/{str(device).strip('/')}"
        self.name = f"topic {self._topic}"
        self.calibration: Mapping[str, Any] = {}
        self._connect = connect
        self._graph: Graph | None = None
        self._newest: Received | None = None

    def open(self) -> None:
        """Raises `CameraError`: there is no graph, or no such topic of pictures on it."""
        self.close()
        try:
            self._graph = self._connect()
        except GraphError as error:
            raise CameraError(f"{self.name}: {error}") from error
        self._graph.subscribe(self._topic, self._type(self._graph), self._take, _NEWEST)

    def read(self) -> Frame:
        """The next picture."""
        graph = self._graph
        assert graph is not None
        self._newest = None
        if not graph.spin(until=lambda: self._newest is not None, timeout=SILENT):
            raise CameraError(f"{self.name}: no picture for {SILENT:g} s")
        assert self._newest is not None
        received = self._newest.received
        try:
            message = self._newest.message
            picture = bindings.picture(self._topic, message)
        except (bindings.BindingError, MessageError) as error:
            raise CameraError(str(error)) from error
        return Frame(picture, messages.seconds(message.header.stamp) or received, received)

    def close(self) -> None:
        """Leave the graph."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()

    def _type(self, graph: Graph) -> str:
        def found() -> list[Endpoint]:
            return [end for end in graph.endpoints() if end.topic == self._topic and end.is_publisher]

        graph.spin(until=lambda: bool(found()), timeout=DISCOVERY)
        kinds = {end.message_type for end in found()}
        if not kinds:
            known = pictures(graph)
            advice = f"; pictures are on {', '.join(known)}" if known else "; nobody publishes pictures"
            raise CameraError(f"{self.name}: nobody publishes it{advice}. `robot-rl doctor` shows the ROS domain")
        if not kinds & set(TYPES):
            raise CameraError(f"{self.name}: expected {' or '.join(TYPES)}, it is {', '.join(sorted(kinds))}")
        return next(kind for kind in TYPES if kind in kinds)

    def _take(self, received: Received) -> None:
        self._newest = received


def pictures(graph: Graph) -> list[str]:
    """The topics on which somebody publishes pictures."""
    return sorted({end.topic for end in graph.endpoints() if end.is_publisher and end.message_type in TYPES})
