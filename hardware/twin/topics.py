"""The topics of a twin: exactly those of the robot's file, with impairments, and without a graph.

Time and command messages go in, encoded messages come out; who calls decides what drives the time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from robot_rl.datasets import Contract, ContractError
from robot_rl.hardware import bindings
from robot_rl.hardware.joint_reference import CommandError
from robot_rl.hardware.robot_file import ARRAY, RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.qos import Qos
from robot_rl.hardware.twin.cameras import CameraThread
from robot_rl.hardware.twin.stream import Fault, Impairment, Link, Schedule, Stamps, noisy
from robot_rl.hardware.twin.twin import Twin
from robot_rl.sim.spec import SpecError, load


class Outgoing(NamedTuple):
    """A message to publish, encoded."""

    topic: str
    cdr: bytes


class TwinTopics:
    """A twin behind the topics of a robot.

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
        self._links: dict[str, Link[Any]] = {
            topic: Link(np.random.default_rng()) for topic in [*self.types, *self.command_topics]
        }
        self.impairments = dict.fromkeys(self._links, Impairment())
        self.noise = dict.fromkeys(robot.streams, 0.0)
        self._stamps = {topic: Stamps() for topic in self._features}
        self._noise_generator = np.random.default_rng()
        self._observed = -1.0
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
        moved, self._observed = self.clock != self._observed, self.clock
        due = {topic: names for topic, names in self._features.items() if self._schedules[topic].due(now) and moved}
        state = self.twin.state() if due else {}
        for topic, names in due.items():
            self._observe(topic, names, state)
        while self._pictures:
            self._send(*self._pictures.popleft())
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
        for name in frames:
            if self.cameras is None:
                self._deliver(name, stamp, self.twin.image(name))
            else:
                self.cameras.request(name, stamp)
        values = {name: self._measured(name, state[name], fault) for name in names if name not in frames}
        for target, message in bindings.encode_observations(self.robot, values, stamp).items():
            self._send(target, messages.encode(message))

    def _measured(self, name: str, value: np.ndarray, fault: Fault) -> np.ndarray:
        if fault == "nan":
            return np.full_like(value, np.nan)
        return noisy(value, self.robot.streams[name].feature, self.noise[name], self._noise_generator)

    def _deliver(self, camera: str, stamp: float, picture: np.ndarray) -> None:
        """Encode a picture; on the camera thread, where there is one. It goes out with the next tick."""
        self.counts["pictures"] += 1
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
            robot.for_policy(wanted([name]))
        except ContractError:
            # Without the joint positions nothing works: then the error below says what does not fit.
            return name == "joint_position"
        return True

    names = [name for name in offer.observation if offers(name)]
    found = robot.for_policy(wanted(names))
    streams = {
        name: replace(stream, feature=replace(stream.feature, calibration=offer.observation[name].calibration))
        for name, stream in found.streams.items() if name in offer.observation
    }  # fmt: skip
    return replace(found, streams=streams)


def camera_sizes(cameras: str) -> dict[str, tuple[int, int]]:
    """Height and width by camera, of `agentview:84x84,robot0_eye_in_hand:84x84`. Raises SpecError for anything else."""
    sizes = {}
    for camera in filter(None, cameras.split(",")):
        name, _, size = camera.strip().partition(":")
        height, _, width = size.partition("x")
        if not (height.isdigit() and width.isdigit()):
            raise SpecError(f"cameras: expected name:HEIGHTxWIDTH, separated by commas; got {camera!r}")
        sizes[name] = int(height), int(width)
    return sizes


def make_twin(robot: RobotFile, task: str, cameras: str, seed: int, randomization: str = "none") -> Twin:
    """The twin of a robot in a task.

    Args:
        cameras: of the scene, as `agentview:84x84,robot0_eye_in_hand:84x84` (height x width); may be empty.
        randomization: of the scene, a file of sim/randomization; what it does to observations and actions on their way
            is left out: see `TwinTopics.impairments`.

    Raises:
        SpecError: the robot has no simulation, or task, cameras or randomisation are unknown.
    """
    if robot.model is None or not robot.model.sim:
        raise SpecError(f"robot {robot.name!r} has no simulation: its file names none under model.sim")
    sizes = {name: list(size) for name, size in camera_sizes(cameras).items()}
    arms = load("task", task)["robots"]
    if arms != 1:
        raise SpecError(f"task {task!r} has {arms} arms, a robot's file describes one")
    spec = {
        "task": task, "robot": robot.model.sim, "rate_hz": robot.contract.rate_hz, "cameras": sizes,
        "randomization": randomization,
    }  # fmt: skip
    return Twin(spec, seed)
