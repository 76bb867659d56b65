"""The newest message of everything that a ROS graph says, decoded only when a page looks.

The spinning thread merely keeps what comes; the server's thread decodes at its own pace, and another one pictures.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from robot_rl.datasets.contract import Feature
from robot_rl.hardware import bindings
from robot_rl.hardware.robot_file import Stream
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Endpoint, Graph, Received
from robot_rl.hardware.ros2.qos import LATCHED, Qos
from robot_rl.hardware.safety.supervisor_messages import (
    BOOL,
    DIAGNOSTIC,
    DIAGNOSTICS,
    HISTORY,
    STATUS,
    TRANSITION,
    pairs,
)

WIDEST = 640
"""Width of the largest picture that is sent; larger ones are halved until they fit."""

QUALITY = 80
"""Of the pictures, as JPEG counts."""

STALE = 1.0
"""Age of the newest state of the robot from which on the page says so [s]."""

OLD = 3.0
"""Age of a status from which on whoever says it is taken to be gone [s]."""

_LOOK = 1.0
_NEWEST = Qos(reliability="best_effort", depth=1)
_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_REMEMBERED = 12


class CameraPicture:
    """The newest message of a camera, encoded once for all pages."""

    def __init__(self, received: Received, sequence: int) -> None:
        self.sequence, self.stamp = sequence, received.received
        self._received = received
        self._jpeg: bytes | None = None
        self._lock = threading.Lock()

    def jpeg(self) -> bytes:
        """As JPEG; empty when the message holds no colour picture."""
        with self._lock:
            if self._jpeg is None:
                try:
                    self._jpeg = _encode(self._received)
                except (bindings.BindingError, messages.MessageError):
                    self._jpeg = b""
            return self._jpeg


class Newest:
    """Keeps what a graph says: states of Supervisor, session, recorder, policy and twin, and every camera."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._newest: dict[str, Received] = {}
        self._counts: dict[str, int] = {}
        self._cameras: dict[str, str] = {}
        self._transitions: deque[tuple[float, str]] = deque(maxlen=_REMEMBERED)
        self._pictures: dict[str, CameraPicture] = {}
        self._subscribed: set[str] = set()
        for topic, kind, qos in (
            (STATUS, DIAGNOSTICS, LATCHED), ("teleop/status", DIAGNOSTICS, LATCHED),
            ("recorder/status", DIAGNOSTIC, LATCHED), ("twin/status", DIAGNOSTICS, LATCHED),
            ("twin/success", BOOL, LATCHED), ("policy/status", DIAGNOSTIC, LATCHED),
        ):  # fmt: skip
            graph.subscribe(topic, kind, partial(self._keep, topic), replace(qos, depth=1))
        graph.subscribe(TRANSITION, DIAGNOSTIC, self._remember, HISTORY)
        graph.timer(_LOOK, self._look, "wall")

    def cameras(self) -> list[str]:
        """See `View`."""
        return sorted(self._cameras)

    def picture(self, camera: str) -> CameraPicture | None:
        """See `View`."""
        topic = self._cameras.get(camera, "")
        received, count = self._newest.get(topic), self._counts.get(topic, 0)
        if received is None:
            return None
        last = self._pictures.get(camera)
        if last is None or last.sequence != count:
            last = self._pictures[camera] = CameraPicture(received, count)
        return last

    def _everybody(self) -> dict[str, Any]:
        """What everybody says."""
        success = self._newest.get("twin/success")
        return {
            "supervisor": self._said(STATUS), "session": self._said("teleop/status"),
            "recorder": self._said("recorder/status"), "policy": self._said("policy/status"),
            "twin": self._said("twin/status"),
            "success": None if success is None else bool(success.message.data),
            "transitions": list(self._transitions),
        }  # fmt: skip

    def _silent(self, topic: str, what: str) -> str:
        """For how long nothing has come on the topic that tells where the robot is; empty where that is fine."""
        seen = self._newest.get(topic)
        if seen is None:
            return f"no {what} yet"
        age = max(0.0, self._graph.now() - seen.received)
        return f"none for {age:.0f} s" if age > STALE else ""

    def _keep(self, topic: str, received: Received) -> None:
        self._newest[topic] = received
        self._counts[topic] = self._counts.get(topic, 0) + 1

    def _remember(self, received: Received) -> None:
        message = received.message
        self._transitions.append((received.received, f"{pairs(message).get('to', '')}: {message.message}"))

    def _said(self, topic: str) -> dict[str, Any] | None:
        received = self._newest.get(topic)
        if received is None:
            return None
        message = received.message
        status = message.status[0] if hasattr(message, "status") and len(message.status) else message
        if not hasattr(status, "values"):
            return None
        age = self._graph.now() - received.received
        return {"message": status.message, "level": int(_byte(status.level)), "old": age > OLD, **pairs(status)}

    def _add(self, name: str, stream: Stream) -> None:
        if stream.topic in self._subscribed and not stream.feature.is_frame:
            return
        if stream.feature.is_frame:
            self._cameras[name] = stream.topic
        if stream.topic not in self._subscribed:
            keep = partial(self._keep, stream.topic)
            subscription = self._graph.subscribe(stream.topic, stream.type, keep, _NEWEST)
            self._subscribed |= {stream.topic, subscription.topic}

    def _look(self) -> None:
        """Find what somebody publishes."""
        for endpoint in self._graph.endpoints():
            if endpoint.is_publisher and endpoint.topic not in self._subscribed:
                self._find(endpoint)

    def _find(self, endpoint: Endpoint) -> None:
        if endpoint.message_type in (_IMAGE, _COMPRESSED):
            name = re.sub(r"/(image_raw|image|compressed|image_raw/compressed)$", "", endpoint.topic).strip("/")
            stream = Stream(Feature(name, (1, 1, 3), "uint8", kind="image"), endpoint.topic, endpoint.message_type)
            self._add(name, stream)


def _byte(level: Any) -> Any:
    return level[0] if isinstance(level, bytes) else level


def _encode(received: Received) -> bytes:
    import cv2

    message = received.message
    if received.message_type == _COMPRESSED and "jpeg" in message.format and len(message.data) < 200_000:
        return bytes(message.data)
    picture = bindings.picture(received.topic, message)[..., ::-1]
    while picture.shape[1] > WIDEST:
        picture = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(picture), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return bytes(data) if done else b""
