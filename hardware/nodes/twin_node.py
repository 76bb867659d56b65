"""The `twin` node: a simulated robot with exactly the topics of the robot's file.

It publishes what the robot would (joint states, poses of the task's objects, cameras) and follows what arrives on the
robot's command topics. Beside that, as only a simulation can:

- `twin/reset` (std_srvs/srv/Trigger): begins the episode of parameter `seed`, which is then raised by one;
- `twin/success` (std_msgs/msg/Bool, latched): whether the task is done, at the control rate, when it changes;
- `twin/status` (diagnostic_msgs/msg/DiagnosticArray, latched, and on /diagnostics): seed, speed, counts.

With `real_time:=false` it publishes /clock and goes in lockstep with the Supervisor (see `twin_lockstep`); all others
then run with `use_sim_time:=true`.

Each topic has parameters `<topic>.latency`, `.jitter`, `.loss` and `.fault` (slashes as dots, below 0: that of all
topics), each feature `<feature>.noise`. They may be changed at any time; draws follow the seed of the episode.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any, NamedTuple, get_args
from zlib import crc32

import numpy as np

from robot_rl.datasets import Contract, ContractError
from robot_rl.hardware import bindings
from robot_rl.hardware.joint_reference import CommandError
from robot_rl.hardware.robot_file import ARRAY, RobotFile, RobotFileError
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph, Parameter, Received, open_graph
from robot_rl.hardware.ros2.qos import LATCHED, Qos
from robot_rl.hardware.twin import Twin
from robot_rl.hardware.twin_cameras import CameraThread
from robot_rl.hardware.twin_lockstep import Lockstep
from robot_rl.hardware.twin_stream import Fault, Impairment, Link, Schedule, Stamps, noisy
from robot_rl.sim.render import RenderError
from robot_rl.sim.spec import SpecError

CLOCK_START = 1.0
"""Where simulated time begins [s]; zero would mean that there is no time yet."""

FALL_BEHIND = 0.25
"""How far the physics may lag behind the wall clock before that time is left out [s]."""

ANNOUNCE = 0.05
"""Between two announcements of the same time in lockstep [wall s]: /clock is best effort."""

_DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
_STATUS, _REFRESH, _POLL = 1.0, 0.1, 0.005  # wall s
_GRID = 0.01  # s; physics, streams and control ticks fall on its multiples together


class Outgoing(NamedTuple):
    """A message to publish, encoded."""

    topic: str
    cdr: bytes


class TwinNode:
    """What the node does, without a graph: time and commands in, messages out.

    Args:
        robot: all of whose streams can be simulated, see `simulated`.
        twin: of its task.
        start: the clock at the twin's time zero [s].
        render: pictures beside the loop, else within it; see `CameraThread`.

    Attributes:
        types: message type and QoS of each topic that is published.
        impairments: by topic, published or commanded; may be replaced at any time.
        noise: standard deviation by feature.
    """

    def __init__(self, robot: RobotFile, twin: Twin, start: float, render: bool = False) -> None:
        self.robot, self.twin = robot, twin
        self._start = start
        self._features: dict[str, list[str]] = {}
        self.types: dict[str, tuple[str, Qos]] = {}
        for name, stream in robot.streams.items():
            self._features.setdefault(stream.topic, []).append(name)
            self.types[stream.topic] = (stream.type, replace(stream.qos, deadline=None))
            if stream.feature.is_frame and stream.camera_info:
                self.types[stream.camera_info] = ("sensor_msgs/msg/CameraInfo", Qos(reliability="reliable"))
        rates = {name: stream.rate_hz or robot.contract.rate_hz for name, stream in robot.streams.items()}
        self._schedules = {
            topic: Schedule(max(rates[name] for name in names)) for topic, names in self._features.items()
        }
        self._links: dict[str, Link] = {
            topic: Link(np.random.default_rng()) for topic in [*self.types, *self.command_topics]
        }
        self.impairments = dict.fromkeys(self._links, Impairment())
        self.noise = dict.fromkeys(robot.streams, 0.0)
        self._stamps = {topic: Stamps() for topic in self._features}
        self._noise_generator = np.random.default_rng()
        self._control = Schedule(robot.contract.rate_hz)
        self.success = False
        self.counts: Counter[str] = Counter()
        self.problem = ""
        self.cameras = CameraThread(twin, self._deliver) if render else None
        self._pictures: deque[Outgoing] = deque()
        self.reset(twin.seed)

    @property
    def command_topics(self) -> dict[str, tuple[str, Qos]]:
        """Message type and QoS of each topic that commands come on."""
        return {command.topic: (command.type, command.qos) for command in self.robot.commands.values()}

    @property
    def clock(self) -> float:
        """Time of the present physical state [s]."""
        return self._start + self.twin.time

    def reset(self, seed: int) -> None:
        """Begin the episode of a seed; messages on their way are lost."""
        if self.cameras is None:
            self.twin.reset(seed)
        else:
            with self.cameras.lock:
                self.twin.reset(seed)
        for topic, link in self._links.items():
            link.clear(np.random.default_rng([seed, crc32(topic.encode())]))
        self._noise_generator = np.random.default_rng([seed, 0])
        self.success = self.twin.success
        self.counts["resets"] += 1

    def tick(self, now: float) -> list[Outgoing]:
        """Go on to a time [s]; what is to be published then."""
        self._go_on(now)
        due = {topic: names for topic, names in self._features.items() if self._schedules[topic].due(now)}
        state = self.twin.state() if due else {}
        for topic, names in due.items():
            self._observe(topic, names, state)
        while self._pictures:
            self._send(*self._pictures.popleft())
            self.counts["pictures"] += 1
        if self._control.due(now):
            self.success = self.twin.success
        return [
            Outgoing(topic, cdr) for topic in self.types for cdr in self._links[topic].receive(max(now, self.clock))
        ]

    def command(self, topic: str, message: Any, now: float) -> None:
        """A message has come on a command topic."""
        self.counts["commands"] += 1
        link = self._links[topic]
        link.impairment = self.impairments[topic]
        link.send(message, now)
        self._go_on(now)

    def leave_out(self, now: float) -> None:
        """Let the clock jump to a time [s] without simulating what lies between."""
        self._start += now - self.clock

    def close(self) -> None:
        """End the camera thread and free rendering resources."""
        if self.cameras is not None:
            self.cameras.close()
        self.twin.close()

    def _go_on(self, now: float) -> None:
        self.twin.advance(now - self._start)
        for topic in self.command_topics:
            for message in self._links[topic].receive(now):
                try:
                    self._follow(bindings.decode_command(self.robot, topic, message))
                except (bindings.BindingError, CommandError) as error:
                    self.counts["rejected"] += 1
                    self.problem = f"{topic}: {error}"

    def _follow(self, setpoints: bindings.Setpoints) -> None:
        if setpoints.feature == "gripper_opening":
            self.twin.move_gripper(float(setpoints.position[-1, 0]))
        elif self.robot.commands[setpoints.feature].type == ARRAY:
            self.twin.follow_position(setpoints.position[-1], 1.0 / self.robot.command_rate_hz)
        else:
            begin = 0.0 if setpoints.start is None else setpoints.start - self.clock
            self.twin.follow(
                begin + setpoints.times, setpoints.position, setpoints.velocity, setpoints.acceleration
            )  # fmt: skip

    def _observe(self, topic: str, names: Sequence[str], state: Mapping[str, np.ndarray]) -> None:
        fault = self.impairments[topic].fault
        stamp = self._stamps[topic].of(self.clock, fault)
        frames = [name for name in names if self.robot.streams[name].feature.is_frame]
        if frames and self.cameras is not None:
            self.cameras.request(frames, stamp)
        for name in frames if self.cameras is None else ():
            self._deliver(name, stamp, self.twin.image(name))
        values = {name: self._measured(name, state[name], fault) for name in names if name not in frames}
        for target, message in bindings.encode_observations(self.robot, values, stamp).items():
            self._send(target, messages.encode(message))

    def _measured(self, name: str, value: np.ndarray, fault: Fault) -> np.ndarray:
        if fault == "nan":
            return np.full_like(value, np.nan)
        return noisy(value, self.robot.streams[name].feature, self.noise[name], self._noise_generator)

    def _deliver(self, camera: str, stamp: float, picture: np.ndarray) -> None:
        """Encode a picture; on the camera thread, where there is one. It goes out with the next tick."""
        stream = self.robot.streams[camera]
        self._pictures.append(
            Outgoing(stream.topic, messages.encode(bindings.encode_observation(stream, picture, stamp)))
        )
        if stream.camera_info:
            info = messages.encode(bindings.encode_camera_info(stream, stamp))
            self._pictures.append(Outgoing(stream.camera_info, info))

    def _send(self, topic: str, cdr: bytes) -> None:
        link = self._links[topic]
        link.impairment = self.impairments[topic]
        link.send(cdr, self.clock)


class TwinBinding:
    """Binds the node to a graph: parameters, topics and services.

    Args:
        graph: declares the parameters of every topic and feature.
    """

    def __init__(self, graph: Graph, node: TwinNode, seed: Parameter) -> None:
        self.graph, self.node, self._seed = graph, node, seed
        self._publishers = {topic: graph.publisher(topic, *how) for topic, how in node.types.items()}
        self._success = graph.publisher("twin/success", "std_msgs/msg/Bool", LATCHED)
        self._status = graph.publisher("twin/status", _DIAGNOSTICS, LATCHED)
        self._diagnostics = graph.publisher("/diagnostics", _DIAGNOSTICS)
        self._told: bool | None = None
        self._measured = (time.monotonic(), node.twin.time)
        self._impairments = _Impairments(graph, node)
        graph.service("twin/reset", "std_srvs/srv/Trigger", self._reset)
        graph.timer(_REFRESH, self._impairments.refresh, "wall")
        graph.timer(_STATUS, self.report, "wall")

    def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Publish what a tick gave, and success when it changed."""
        for topic, cdr in outgoing:
            self._publishers[topic].publish_cdr(cdr)
        if self._told != self.node.success:
            self._told = self.node.success
            self._success.publish(messages.make("std_msgs/msg/Bool", data=self._told))

    def report(self) -> None:
        """Publish the status."""
        wall, simulated = time.monotonic(), self.node.twin.time
        began, from_time = self._measured
        self._measured = (wall, simulated)
        counts, twin, cameras = self.node.counts, self.node.twin, self.node.cameras
        values = {
            "task": twin.env.task["name"], "seed": twin.seed, "success": self.node.success,
            "real_time_factor": f"{(simulated - from_time) / max(wall - began, 1e-9):.3f}",
            "skipped_pictures": cameras.skipped if cameras else 0, "divergences": twin.divergences,
            **dict.fromkeys(("commands", "rejected", "resets", "pictures", "left_out", "timeouts"), 0), **counts,
        }  # fmt: skip
        pairs = [messages.make("diagnostic_msgs/msg/KeyValue", key=k, value=str(v)) for k, v in values.items()]
        status = messages.make(
            "diagnostic_msgs/msg/DiagnosticStatus", name="twin", message=self.node.problem, values=pairs
        )
        header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(self.node.clock))
        array = messages.make(_DIAGNOSTICS, header=header, status=[status])
        self._status.publish(array)
        self._diagnostics.publish(array)

    def _reset(self, _: Any) -> Any:
        seed = int(self._seed.value)
        if seed < 0:
            return _answer(False, f"seed: expected a number from 0 on, got {seed}")
        self._impairments.refresh()
        self.node.reset(seed)
        self._seed.value = seed + 1
        self.publish(())
        self.report()
        self.graph.log.info("episode of seed %d", seed)
        return _answer(True, f"seed {seed}")


class _Impairments:
    """The parameters of all topics and features, and what they make of the node's streams."""

    def __init__(self, graph: Graph, node: TwinNode) -> None:
        self._graph, self._node = graph, node
        self._all = {
            "latency": graph.parameter("latency", 0.0, "of all topics, from stamp to arrival [s]"),
            "jitter": graph.parameter("jitter", 0.0, "of all topics, added to the latency: uniform from 0 to this [s]"),
            "loss": graph.parameter("loss", 0.0, "of all topics, probability that a message is lost"),
        }
        self._topics = {topic: self._declare(_dotted(topic)) for topic in node.impairments}
        self._noise = {
            name: graph.parameter(f"{name}.noise", 0.0, f"standard deviation of {name}, in its unit")
            for name in node.noise
        }
        self.refresh()

    def refresh(self) -> None:
        """Take over what the parameters say now; impossible values are reported and change nothing."""
        try:
            for topic, parameters in self._topics.items():
                numbers = {
                    key: parameters[key].value if parameters[key].value >= 0 else shared.value
                    for key, shared in self._all.items()
                }
                self._node.impairments[topic] = Impairment(**numbers, fault=parameters["fault"].value)
            for name, parameter in self._noise.items():
                self._node.noise[name] = max(0.0, parameter.value)
        except ValueError as error:
            if self._node.problem != str(error):
                self._node.problem = str(error)
                self._graph.log.error("%s", error)

    def _declare(self, name: str) -> dict[str, Parameter]:
        graph = self._graph
        own = {
            key: graph.parameter(f"{name}.{key}", -1.0, f"{key} of this topic; below 0: as all") for key in self._all
        }
        kinds = ", ".join(repr(kind) for kind in get_args(Fault))
        return own | {"fault": graph.parameter(f"{name}.fault", "", f"for tests, one of {kinds}")}


class _RealTime:
    """Drives the node by the wall clock."""

    def __init__(self, binding: TwinBinding) -> None:
        self._binding, self._node, self._graph = binding, binding.node, binding.graph
        self._graph.timer(1.0 / self._node.robot.tick_rate_hz, self._tick, "wall")

    def receive(self, topic: str, message: Any) -> None:
        self._node.command(topic, message, self._now())

    def _tick(self) -> None:
        self._binding.publish(self._node.tick(self._now()))

    def _now(self) -> float:
        now = self._graph.now()
        behind = now - self._node.clock
        if not -_GRID <= behind <= FALL_BEHIND:
            # Whole steps of the grid, so that streams and control ticks go on falling together.
            self._node.leave_out(self._node.clock + _GRID * round(behind / _GRID))
            self._node.counts["left_out"] += 1
        return now


class _Lockstep:
    """Drives the node by the answers of the Supervisor, and everybody else by /clock."""

    def __init__(self, binding: TwinBinding) -> None:
        self._binding, self._node, graph = binding, binding.node, binding.graph
        self._period = 1.0 / self._node.robot.tick_rate_hz
        self._lockstep = Lockstep(self._period)
        self._round = round(CLOCK_START / self._period) - 1
        self._announced = 0.0
        self._clock = graph.publisher("/clock", "rosgraph_msgs/msg/Clock")
        graph.subscribe("supervisor/status", _DIAGNOSTICS, self._on_status, LATCHED)
        graph.timer(_POLL, self._go_on, "wall")

    def receive(self, topic: str, message: Any) -> None:
        self._node.command(topic, message, self._round * self._period)
        self._lockstep.command()
        self._go_on()

    def _on_status(self, received: Received) -> None:
        array = received.message
        values = {pair.key: pair.value for status in array.status for pair in status.values}
        self._lockstep.status(messages.seconds(array.header.stamp), int(values.get("commands", 0)))
        self._go_on()

    def _go_on(self) -> None:
        wall = time.monotonic()
        if self._lockstep.may_go_on(wall):
            self._node.counts["timeouts"] = self._lockstep.timeouts
            self._round += 1
            now = self._round * self._period
            self._binding.publish(self._node.tick(now))
            self._lockstep.begin(now, wall)
        elif wall - self._announced < ANNOUNCE:
            return
        self._announced = wall
        self._clock.publish(messages.make("rosgraph_msgs/msg/Clock", clock=messages.stamp(self._round * self._period)))


def simulated(robot: RobotFile, offer: Contract) -> RobotFile:
    """The robot restricted to the streams that a simulation with the contract `offer` can fill.

    Raises:
        ContractError: not even the arm's joint positions.
    """

    def wanted(names: Sequence[str]) -> Contract:
        features = {name: offer.observation[name] for name in names}
        return Contract(offer.name, robot.contract.rate_hz, features, robot.contract.action, robot.contract.controller)

    def offers(name: str) -> bool:
        try:
            return bool(robot.for_policy(wanted([name])))
        except ContractError:
            return name == "joint_position"

    names = [name for name in offer.observation if offers(name)]
    found = robot.for_policy(wanted(names))
    streams = {
        name: replace(stream, feature=replace(stream.feature, calibration=offer.observation[name].calibration))
        for name, stream in found.streams.items() if name in offer.observation
    }  # fmt: skip
    return replace(found, streams=streams)


def make_twin(robot: RobotFile, task: str, cameras: str, seed: int) -> Twin:
    """The twin of a robot in a task.

    Args:
        cameras: of the scene, as `agentview:84x84,robot0_eye_in_hand:84x84` (height x width); may be empty.

    Raises:
        SpecError: the robot has no simulation, or task or cameras are unknown.
    """
    if robot.model is None or not robot.model.sim:
        raise SpecError(f"robot {robot.name!r} has no simulation: its file names none under model.sim")
    sizes = {}
    for camera in filter(None, cameras.split(",")):
        name, _, size = camera.strip().partition(":")
        height, _, width = size.partition("x")
        if not (height.isdigit() and width.isdigit()):
            raise SpecError(f"cameras: expected name:HEIGHTxWIDTH, separated by commas; got {camera!r}")
        sizes[name] = [int(height), int(width)]
    spec = {"task": task, "robot": robot.model.sim, "rate_hz": robot.contract.rate_hz, "cameras": sizes}
    return Twin(spec, seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Returns the exit status."""
    with open_graph("twin", sys.argv[1:] if argv is None else argv) as graph:
        name = _setting(graph, "robot", "panda", "name of a robot, or path of its file")
        task = _setting(graph, "task", "lift", "of the simulation")
        cameras = _setting(graph, "cameras", "", "as name:HEIGHTxWIDTH, separated by commas")
        seed = graph.parameter("seed", 0, "of the next episode; raised by one with each reset")
        real_time = _setting(graph, "real_time", True, "else /clock is published, and time goes in lockstep")
        try:
            robot = RobotFile.load(name)
            twin = make_twin(robot, task, cameras, max(0, int(seed.value)))
            seed.value = twin.seed + 1
            start = _GRID * ceil(time.time() / _GRID) if real_time else CLOCK_START
            node = TwinNode(simulated(robot, twin.env.contract), twin, start, render=real_time and bool(cameras))
        except (SpecError, RobotFileError, ContractError, RenderError) as error:
            for line in str(error).splitlines():
                graph.log.error("%s", line)
            return 1
        binding = TwinBinding(graph, node, seed)
        driver = _RealTime(binding) if real_time else _Lockstep(binding)
        for topic, (message_type, qos) in node.command_topics.items():
            graph.subscribe(topic, message_type, partial(_receive, driver, topic), qos)
        graph.log.info("simulates %s in %s: %s", robot.name, task, ", ".join(node.robot.streams))
        try:
            graph.spin()
        finally:
            node.close()
    return 0


def _receive(driver: _RealTime | _Lockstep, topic: str, received: Received) -> None:
    driver.receive(topic, received.message)


def _setting(graph: Graph, name: str, default: Any, description: str) -> Any:
    return graph.parameter(name, default, description, read_only=True).value


def _dotted(topic: str) -> str:
    return topic.strip("/").replace("/", ".")


def _answer(success: bool, message: str) -> Any:
    return messages.make("std_srvs/srv/Trigger_Response", success=success, message=message)


if __name__ == "__main__":
    sys.exit(main())
