"""What the cockpit shows of a ROS graph: the newest message of everything, decoded only when a page looks.

The spinning thread merely keeps what comes; the server's thread decodes joint states, poses and status at its own pace,
and another one pictures.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np

from robot_rl.datasets.contract import Feature
from robot_rl.hardware import bindings
from robot_rl.hardware.cockpit.server import Poses
from robot_rl.hardware.robot_file import RobotFile, RobotFileError, Stream
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph, Received
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

PATIENCE = 3.0
"""From the first joint state on, how long a twin is awaited, whose task names the scene [s]."""

WIDEST = 640
"""Width of the largest picture that is sent; larger ones are halved until they fit."""

QUALITY = 80
"""Of the pictures, as JPEG counts."""

STALE = 1.0
"""Age of the newest joint state from which on the page says so [s]."""

OLD = 3.0
"""Age of a status from which on whoever says it is taken to be gone [s]."""

_LOOK = 1.0
_NEWEST = Qos(reliability="best_effort", depth=1)
_POSE, _IMAGE = "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/Image"
_COMPRESSED = "sensor_msgs/msg/CompressedImage"
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


class GraphView:
    """Shows a graph.

    Args:
        task: whose furniture is shown around the robot; empty: that of the twin, if there is one.
    """

    def __init__(self, graph: Graph, robot: RobotFile, task: str = "") -> None:
        self._graph, self._robot, self._task = graph, robot, task
        self._newest: dict[str, Received] = {}
        self._counts: dict[str, int] = {}
        self._objects: dict[str, Stream] = {}
        self._cameras: dict[str, str] = {}
        self._transitions: deque[tuple[float, str]] = deque(maxlen=_REMEMBERED)
        self._scene: Any = None
        self._geometry: tuple[int, bytes] | None = None
        self._problem = ""
        self._first_seen = 0.0
        self._building = False
        self._built_for: str | None = None
        self._version = 0
        self._pictures: dict[str, CameraPicture] = {}
        self._position = np.array(robot.home)
        self._opening: float | None = None
        self._poses: Poses | None = None
        self._joints = robot.streams["joint_position"]
        self._gripper = robot.streams.get("gripper_opening")
        self._subscribed: set[str] = set()
        for stream in robot.streams.values():
            self._add(stream.feature.name, stream)
        for topic, kind, qos in (
            (STATUS, DIAGNOSTICS, LATCHED), ("teleop/status", DIAGNOSTICS, LATCHED),
            ("recorder/status", DIAGNOSTIC, LATCHED), ("twin/status", DIAGNOSTICS, LATCHED),
            ("twin/success", BOOL, LATCHED), ("policy/status", DIAGNOSTIC, LATCHED),
        ):  # fmt: skip
            graph.subscribe(topic, kind, partial(self._keep, topic), replace(qos, depth=1))
        graph.subscribe(TRANSITION, DIAGNOSTIC, self._remember, HISTORY)
        graph.timer(_LOOK, self._look, "wall")

    def hello(self) -> dict[str, Any]:
        """What does not change."""
        limits, gripper = self._robot.limits, self._robot.gripper
        return {
            "robot": self._robot.name, "joints": list(self._robot.joints),
            "lower": limits.lower.tolist(), "upper": limits.upper.tolist(),
            "opening": gripper.opening if gripper else None, "rate_hz": self._robot.contract.rate_hz,
        }  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Everything that is said in words and numbers."""
        seen = self._newest.get(self._joints.topic)
        age = None if seen is None else max(0.0, self._graph.now() - seen.received)
        success = self._newest.get("twin/success")
        return {
            "problem": self._problem,
            "silent": "no joint states yet" if age is None else f"none for {age:.0f} s" if age > STALE else "",
            "supervisor": self._said(STATUS), "session": self._said("teleop/status"),
            "recorder": self._said("recorder/status"), "policy": self._said("policy/status"),
            "twin": self._said("twin/status"),
            "success": None if success is None else bool(success.message.data),
            "transitions": list(self._transitions),
            "position": [round(float(value), 3) for value in self._position] if self._poses else None,
            "opening": None if self._opening is None else round(self._opening, 4),
        }  # fmt: skip

    def geometry(self) -> tuple[int, bytes] | None:
        """See `View`."""
        if self._scene is not None and self._scene.know([name.removesuffix("_pose") for name in self._objects]):
            self._geometry = None
        if self._geometry is None and self._scene is not None:
            self._version += 1
            self._geometry = self._version, self._scene.geometry()
        return self._geometry

    def poses(self) -> Poses | None:
        """See `View`."""
        seen, count = self._newest.get(self._joints.topic), self._counts.get(self._joints.topic, 0)
        if seen is None or self._scene is None:
            return None
        if self._poses is not None and self._poses.sequence == count:
            return self._poses
        try:
            self._position = bindings.decode(self._joints, seen.message)
            held = self._newest.get(self._gripper.topic) if self._gripper else None
            if held is not None and self._gripper is not None:
                self._opening = float(bindings.decode(self._gripper, held.message)[0])
            objects = {}
            for name, stream in list(self._objects.items()):
                if (received := self._newest.get(stream.topic)) is not None:
                    objects[name.removesuffix("_pose")] = bindings.decode(stream, received.message)
            values = self._scene.poses(self._position, self._opening, objects)
            self._poses = Poses(count, seen.received, values)
        except bindings.ElsewhereError:
            pass  # other joints share the topic
        except (bindings.BindingError, messages.MessageError) as error:
            self._problem = str(error)
        return self._poses

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
        elif name.endswith("_pose") and name != "ee_pose":
            self._objects[name] = stream
        if stream.topic not in self._subscribed:
            keep = partial(self._keep, stream.topic)
            subscription = self._graph.subscribe(stream.topic, stream.type, keep, _NEWEST)
            self._subscribed |= {stream.topic, subscription.topic}

    def _look(self) -> None:
        """Find objects and cameras that somebody publishes, and build the scene once it is known which."""
        for endpoint in self._graph.endpoints():
            if not endpoint.is_publisher or endpoint.topic in self._subscribed:
                continue
            if endpoint.message_type == _POSE:
                self._find_object(endpoint.topic)
            elif endpoint.message_type in (_IMAGE, _COMPRESSED):
                name = re.sub(r"/(image_raw|image|compressed|image_raw/compressed)$", "", endpoint.topic).strip("/")
                stream = Stream(Feature(name, (1, 1, 3), "uint8", kind="image"), endpoint.topic, endpoint.message_type)
                self._add(name, stream)
        twin = self._said("twin/status")
        if self._joints.topic not in self._newest:
            return
        self._first_seen = self._first_seen or time.monotonic()
        task = self._task or (twin or {}).get("task", "")
        if not task and time.monotonic() - self._first_seen < PATIENCE:
            return
        if not self._building and (self._built_for is None or (task and task != self._built_for)):
            self._building, self._built_for = True, task
            threading.Thread(target=self._build, args=(task,), name="cockpit scene", daemon=True).start()

    def _find_object(self, topic: str) -> None:
        for pattern, (plain, stream) in self._robot.task_features.items():
            if plain.get("kind", "state") != "state" or "{feature}" not in stream.topic:
                continue
            before, after = stream.topic.split("{feature}", 1)
            name = topic[len(before) : len(topic) - len(after)]
            if topic == before + name + after and "/" not in name and fnmatchcase(name, pattern):
                feature = Feature(name, **{"shape": (7,), **plain})
                self._add(name, replace(stream, feature=feature, topic=topic))
                return

    def _build(self, task: str) -> None:
        from robot_rl.hardware.cockpit.scene import Scene
        from robot_rl.sim.spec import SpecError

        try:
            scene = Scene(self._robot, task)
            scene.know([name.removesuffix("_pose") for name in self._objects])
            self._geometry, self._scene = None, scene
        except (SpecError, RobotFileError, ImportError) as error:
            self._problem = f"no scene: {error}"
        finally:
            self._building = False


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
