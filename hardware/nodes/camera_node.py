"""The `camera` node: cameras of this computer on the topics of the robot's file, as any driver would publish them.

Each camera is named after the feature that it fills; the file says topic, type (Image or CompressedImage), CameraInfo
and QoS. Pictures keep their own size, as whoever reads them scales; their stamps are those of the cameras. Depth, of a
camera that has it, is the feature `<name>_depth`.

- `camera/status` (diagnostic_msgs/msg/DiagnosticArray, latched, and on /diagnostics): of each camera its rate, counts
  of frames, dropped ones and reconnects, the age of the newest, and as message why there are none.

Parameters are `robot`, `cameras` (names) and of each camera `<name>.kind` and the settings of that kind. A camera that
cannot be had at the start ends the node; one that is lost later is looked for until it is back.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from robot_rl.datasets import Contract, ContractError
from robot_rl.datasets.contract import Feature
from robot_rl.hardware import bindings
from robot_rl.hardware.cameras.camera import Camera, CameraError, Frame, Source
from robot_rl.hardware.cameras.kinds import defaults, make_source
from robot_rl.hardware.nodes.command_line import node_main
from robot_rl.hardware.robot_file import RobotFile, RobotFileError, Stream
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph, Publisher, open_graph
from robot_rl.hardware.ros2.qos import LATCHED

STATUS = 1.0
"""Between two reports [s]."""

_DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
_INFO = "sensor_msgs/msg/CameraInfo"


class CameraNode:
    """Publishes cameras.

    Args:
        graph: of the node.
        robot: whose topics the pictures go to.
        settings: by name of the camera; see `cameras.kinds`.

    Raises:
        CameraError: settings are impossible.
        ContractError: the robot has no such camera.
    """

    def __init__(self, graph: Graph, robot: RobotFile, settings: Mapping[str, Mapping[str, Any]]) -> None:
        self._graph = graph
        self.cameras: dict[str, Camera] = {}
        for name, given in settings.items():
            source = make_source(given)
            publisher = CameraPublisher(graph, robot, name, source, bool(given.get("depth")))
            self.cameras[name] = Camera(source, publisher.deliver)
        self._said = dict.fromkeys(settings, "")
        self._frames = dict.fromkeys(settings, 0)
        self._reported = graph.now()
        self._status = graph.publisher("camera/status", _DIAGNOSTICS, LATCHED)
        self._diagnostics = graph.publisher("/diagnostics", _DIAGNOSTICS)
        graph.timer(STATUS, self.report, "wall")

    def report(self) -> None:
        """Publish the status, and log what has changed."""
        now = self._graph.now()
        elapsed, self._reported = now - self._reported, now
        found = []
        for name, camera in self.cameras.items():
            counts, newest, problem = camera.counts, camera.newest(), camera.problem
            rate = (counts.frames - self._frames[name]) / elapsed if elapsed > 0 else 0.0
            self._frames[name] = counts.frames
            values = {
                "rate [Hz]": f"{rate:.1f}", "frames": counts.frames, "dropped": counts.dropped,
                "reconnects": counts.reconnects, "age [s]": f"{now - newest.stamp:.3f}" if newest else "",
            }  # fmt: skip
            pairs = [messages.make("diagnostic_msgs/msg/KeyValue", key=k, value=str(v)) for k, v in values.items()]
            kind = "diagnostic_msgs/msg/DiagnosticStatus"
            found.append(messages.make(kind, name=name, hardware_id=camera.source.name, message=problem, values=pairs))
            if problem != self._said[name]:
                self._said[name] = problem
                self._graph.log.warning("%s: %s", name, problem or "it is back")
        header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(now))
        array = messages.make(_DIAGNOSTICS, header=header, status=found)
        self._status.publish(array)
        self._diagnostics.publish(array)


class CameraPublisher:
    """Publishes the frames of one camera: encodes on the camera's thread, sends on the node's.

    Args:
        source: tells the calibration where the robot's file does not.
        depth: whether the camera gives it.
    """

    def __init__(self, graph: Graph, robot: RobotFile, name: str, source: Source, depth: bool) -> None:
        self._graph, self._source = graph, source
        self._streams = {"picture": stream_of(robot, Feature(name, (1, 1, 3), "uint8", kind="image"))}
        if depth:
            self._streams["depth"] = stream_of(robot, Feature(f"{name}_depth", (1, 1, 1), "uint16", kind="depth"))
        known = robot.contract.observation.get(name)
        self._known = known.calibration if known is not None else {}
        self._known_size = known.shape[:2] if known is not None else ()
        self._publishers: dict[str, Publisher] = {}
        for stream in self._streams.values():
            qos = replace(stream.qos, deadline=None)
            self._publishers[stream.topic] = graph.publisher(stream.topic, stream.type, qos)
            if stream.camera_info:
                self._publishers[stream.camera_info] = graph.publisher(stream.camera_info, _INFO)

    def deliver(self, frame: Frame) -> None:
        """Publish a frame; on the thread of the camera."""
        values = {"picture": frame.picture, "depth": frame.depth}
        sent = []
        for part, stream in self._streams.items():
            value = values[part]
            if value is not None:
                sent += self._encoded(stream, value.reshape(*value.shape[:2], -1), frame.stamp)
        for topic, cdr in sent:
            self._graph.call_soon(partial(self._publishers[topic].publish_cdr, cdr))

    def _encoded(self, stream: Stream, value: np.ndarray, stamp: float) -> list[tuple[str, bytes]]:
        size = value.shape[:2]
        calibration = self._known if size == self._known_size else self._source.calibration
        feature = replace(stream.feature, shape=value.shape, calibration=calibration)
        # The reader subtracts the latency of the file, which is what this stamp does not know.
        stream = replace(stream, feature=feature, latency=0.0)
        found = [(stream.topic, messages.encode(bindings.encode_observation(stream, value, stamp)))]
        if stream.camera_info:
            found.append((stream.camera_info, messages.encode(bindings.encode_camera_info(stream, stamp))))
        return found


def stream_of(robot: RobotFile, feature: Feature) -> Stream:
    """Where the pictures of a feature go.

    Raises:
        ContractError: the robot's file has neither the feature nor a pattern for it under `task_features`.
    """
    own = robot.contract
    return robot.for_policy(
        Contract(own.name, own.rate_hz, {feature.name: feature}, own.action, own.controller)
    ).streams[feature.name]


def declared(graph: Graph, robot: RobotFile, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The settings of each camera, from the parameters `<name>.<setting>`; size and rate default to the robot's file.

    Raises:
        CameraError: there is no such kind.
    """
    found = {}
    for name in names:
        kind = graph.parameter(f"{name}.kind", "opencv", "of the camera", read_only=True).value
        feature, stream = robot.contract.observation.get(name), robot.streams.get(name)
        settings = defaults(kind)
        if "size" in settings and feature is not None:
            settings["size"] = feature.shape[:2]
        if "rate" in settings and stream is not None and stream.rate_hz:
            settings["rate"] = stream.rate_hz
        for key, default in settings.items():
            plain = list(default) if isinstance(default, tuple) else 0.0 if default is None else default
            value = graph.parameter(f"{name}.{key}", plain, f"of the {kind} camera", read_only=True).value
            settings[key] = None if default is None and not value else value
        found[name] = {"kind": kind, **settings}
    return found


@node_main
def main(argv: Sequence[str]) -> int:
    """Run the node until a signal ends it. Returns the exit status."""
    with open_graph("camera", argv) as graph, ExitStack() as stack:
        name = graph.parameter("robot", "panda", "name of a robot, or path of its file", read_only=True).value
        text = "names of the features that the cameras fill"
        names = [each for each in graph.parameter("cameras", [""], text, read_only=True).value if each]
        try:
            if not names:
                raise CameraError("cameras: expected names, such as -p cameras:=\"['wrist_image']\"")
            robot = RobotFile.load(name)
            node = CameraNode(graph, robot, declared(graph, robot, names))
            for camera in node.cameras.values():
                stack.enter_context(camera)
        except (CameraError, RobotFileError, ContractError) as error:
            for line in str(error).splitlines():
                graph.log.error("%s", line)
            return 1
        graph.log.info("publishes %s", ", ".join(f"{key} ({c.source.name})" for key, c in node.cameras.items()))
        graph.spin()
    return 0


if __name__ == "__main__":
    sys.exit(main())
