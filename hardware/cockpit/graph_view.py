"""What the cockpit shows of a ROS graph with an arm: states, cameras, and the scene by joint states and poses."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from robot_rl.datasets.contract import Feature
from robot_rl.hardware import bindings
from robot_rl.hardware.cockpit.newest import Newest
from robot_rl.hardware.cockpit.server import Poses
from robot_rl.hardware.robot_file import RobotFile, RobotFileError, Stream
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Endpoint, Graph

PATIENCE = 3.0
"""From the first joint state on, how long a twin is awaited, whose task names the scene [s]."""

_POSE = "geometry_msgs/msg/PoseStamped"


class GraphView(Newest):
    """Shows a graph.

    Args:
        task: whose furniture is shown around the robot; empty: that of the twin, if there is one.
    """

    def __init__(self, graph: Graph, robot: RobotFile, task: str = "") -> None:
        super().__init__(graph)
        self._robot, self._task = robot, task
        self._objects: dict[str, Stream] = {}
        self._scene: Any = None
        self._geometry: tuple[int, bytes] | None = None
        self._problem = ""
        self._first_seen = 0.0
        self._building = False
        self._built_for: str | None = None
        self._version = 0
        self._position = np.array(robot.home)
        self._opening: float | None = None
        self._poses: Poses | None = None
        self._joints = robot.streams["joint_position"]
        self._gripper = robot.streams.get("gripper_opening")
        for stream in robot.streams.values():
            self._add(stream.feature.name, stream)

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
        return {
            **self._everybody(), "problem": self._problem, "silent": self._silent(self._joints.topic, "joint states"),
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

    def _add(self, name: str, stream: Stream) -> None:
        if name.endswith("_pose") and name != "ee_pose" and stream.topic not in self._subscribed:
            self._objects[name] = stream
        super()._add(name, stream)

    def _look(self) -> None:
        """Find objects and cameras that somebody publishes, and build the scene once it is known which."""
        super()._look()
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

    def _find(self, endpoint: Endpoint) -> None:
        if endpoint.message_type == _POSE:
            self._find_object(endpoint.topic)
        else:
            super()._find(endpoint)

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
