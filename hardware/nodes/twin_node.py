"""The `twin` node: a simulated robot with exactly the topics of the robot's file.

It publishes what the robot would (joint states, poses of the task's objects, cameras) and follows what arrives on the
robot's command topics. Beside that, as only a simulation can:

- `twin/reset` (std_srvs/srv/Trigger): begins the episode of parameter `seed`, then raises that by one;
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
from collections.abc import Sequence
from functools import partial
from math import ceil
from typing import Any, get_args

from robot_rl.datasets import ContractError
from robot_rl.hardware.nodes.command_line import node_main
from robot_rl.hardware.nodes.garbage import startup_spared
from robot_rl.hardware.robot_file import RobotFile, RobotFileError
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph, Parameter, Received, open_graph
from robot_rl.hardware.ros2.qos import LATCHED
from robot_rl.hardware.twin.lockstep import Lockstep
from robot_rl.hardware.twin.stream import Fault, Impairment
from robot_rl.hardware.twin.topics import Outgoing, TwinTopics, make_twin, simulated
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
_SWITCH = 0.0005  # s; how long the loop may wait for the camera thread to hand the interpreter over (Python: 5 ms)
_GRID = 0.01  # s; physics, streams and control ticks fall on its multiples together


class TwinBinding:
    """Binds the node to a graph: parameters, topics and services.

    Args:
        graph: declares the parameters of every topic and feature.
    """

    def __init__(self, graph: Graph, topics: TwinTopics, seed: Parameter) -> None:
        self.graph, self.topics, self._seed = graph, topics, seed
        self._publishers = {topic: graph.publisher(topic, *how) for topic, how in topics.types.items()}
        self._success = graph.publisher("twin/success", "std_msgs/msg/Bool", LATCHED)
        self._status = graph.publisher("twin/status", _DIAGNOSTICS, LATCHED)
        self._diagnostics = graph.publisher("/diagnostics", _DIAGNOSTICS)
        self._told: bool | None = None
        self._measured = (time.monotonic(), topics.twin.time)
        self._impairments = _Impairments(graph, topics)
        graph.service("twin/reset", "std_srvs/srv/Trigger", self._reset)
        graph.timer(_REFRESH, self._impairments.refresh, "wall")
        graph.timer(_STATUS, self.report, "wall")

    def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Publish what a tick gave, and success when it changed."""
        for topic, cdr in outgoing:
            self._publishers[topic].publish_cdr(cdr)
        if self._told != self.topics.success:
            self._told = self.topics.success
            self._success.publish(messages.make("std_msgs/msg/Bool", data=self._told))

    def report(self) -> None:
        """Publish the status."""
        wall, simulated = time.monotonic(), self.topics.twin.time
        began, from_time = self._measured
        self._measured = (wall, simulated)
        counts, twin, cameras = self.topics.counts, self.topics.twin, self.topics.cameras
        values = {
            "task": twin.env.task["name"], "seed": twin.seed, "success": self.topics.success,
            "real_time_factor": f"{(simulated - from_time) / max(wall - began, 1e-9):.3f}",
            "skipped_pictures": cameras.skipped if cameras else 0, "divergences": twin.divergences,
            **dict.fromkeys(("commands", "rejected", "resets", "pictures", "left_out", "timeouts"), 0), **counts,
        }  # fmt: skip
        pairs = [messages.make("diagnostic_msgs/msg/KeyValue", key=k, value=str(v)) for k, v in values.items()]
        status = messages.make(
            "diagnostic_msgs/msg/DiagnosticStatus", name="twin", message=self.topics.problem, values=pairs
        )
        header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(self.topics.clock))
        array = messages.make(_DIAGNOSTICS, header=header, status=[status])
        self._status.publish(array)
        self._diagnostics.publish(array)

    def _reset(self, _: Any) -> Any:
        seed = int(self._seed.value)
        if seed < 0:
            return _answer(False, f"seed: expected a number from 0 on, got {seed}")
        self._impairments.refresh()
        self.topics.reset(seed)
        self._seed.value = seed + 1
        self.publish(())
        self.report()
        self.graph.log.info("episode of seed %d", seed)
        return _answer(True, f"seed {seed}")


class _Impairments:
    """The parameters of all topics and features, and what they make of the node's streams."""

    def __init__(self, graph: Graph, topics: TwinTopics) -> None:
        self._graph, self._twin = graph, topics
        self._all = {
            "latency": graph.parameter("latency", 0.0, "of all topics, from stamp to arrival [s]"),
            "jitter": graph.parameter("jitter", 0.0, "of all topics, added to the latency: uniform from 0 to this [s]"),
            "loss": graph.parameter("loss", 0.0, "of all topics, probability that a message is lost"),
        }
        self._topics = {topic: self._declare(_dotted(topic)) for topic in topics.impairments}
        self._noise = {
            name: graph.parameter(f"{name}.noise", 0.0, f"standard deviation of {name}, in its unit")
            for name in topics.noise
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
                self._twin.impairments[topic] = Impairment(**numbers, fault=parameters["fault"].value)
            for name, parameter in self._noise.items():
                self._twin.noise[name] = max(0.0, parameter.value)
        except ValueError as error:
            if self._twin.problem != str(error):
                self._twin.problem = str(error)
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
        self._binding, self._topics, self._graph = binding, binding.topics, binding.graph
        self._graph.timer(1.0 / self._topics.robot.tick_rate_hz, self._tick, "wall")

    def receive(self, topic: str, message: Any) -> None:
        self._topics.command(topic, message, self._now())

    def _tick(self) -> None:
        self._binding.publish(self._topics.tick(self._now()))

    def _now(self) -> float:
        now = self._graph.now()
        behind = now - self._topics.clock
        if not -_GRID <= behind <= FALL_BEHIND:
            # Whole steps of the grid, so that streams and control ticks go on falling together.
            self._topics.leave_out(self._topics.clock + _GRID * round(behind / _GRID))
            self._topics.counts["left_out"] += 1
        return now


class _Lockstep:
    """Drives the node by the answers of the Supervisor, and everybody else by /clock."""

    def __init__(self, binding: TwinBinding) -> None:
        self._binding, self._topics, graph = binding, binding.topics, binding.graph
        self._period = 1.0 / self._topics.robot.tick_rate_hz
        self._lockstep = Lockstep(self._period)
        self._round = round(CLOCK_START / self._period) - 1
        self._announced = 0.0
        self._clock = graph.publisher("/clock", "rosgraph_msgs/msg/Clock")
        graph.subscribe("supervisor/status", _DIAGNOSTICS, self._on_status, LATCHED)
        graph.timer(min(_POLL, self._period), self._go_on, "wall")

    def receive(self, topic: str, message: Any) -> None:
        self._topics.command(topic, message, self._round * self._period)
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
            self._topics.counts["timeouts"] = self._lockstep.timeouts
            self._round += 1
            now = self._round * self._period
            self._binding.publish(self._topics.tick(now))
            self._lockstep.begin(now, wall)
        elif wall - self._announced < ANNOUNCE:
            return
        self._announced = wall
        self._clock.publish(messages.make("rosgraph_msgs/msg/Clock", clock=messages.stamp(self._round * self._period)))


@node_main
def main(argv: Sequence[str]) -> int:
    """Run the node until a signal ends it. Returns the exit status."""
    with open_graph("twin", argv) as graph:
        name = _setting(graph, "robot", "panda", "name of a robot, or path of its file")
        task = _setting(graph, "task", "lift", "of the simulation")
        cameras = _setting(graph, "cameras", "", "as name:HEIGHTxWIDTH, separated by commas")
        randomization = _setting(graph, "randomization", "none", "of the scene, a file of sim/randomization")
        seed = graph.parameter("seed", 0, "of the next episode; raised by one with each reset")
        real_time = _setting(graph, "real_time", True, "else /clock is published, and time goes in lockstep")
        try:
            robot = RobotFile.load(name)
            twin = make_twin(robot, task, cameras, max(0, int(seed.value)), randomization)
            start = _GRID * ceil(time.time() / _GRID) if real_time else CLOCK_START
            topics = TwinTopics(simulated(robot, twin.env.contract), twin, start, render=real_time and bool(cameras))
        except (SpecError, RobotFileError, ContractError, RenderError) as error:
            for line in str(error).splitlines():
                graph.log.error("%s", line)
            return 1
        if topics.cameras is not None:
            sys.setswitchinterval(_SWITCH)
        binding = TwinBinding(graph, topics, seed)
        graph.refuse_undeclared()
        driver = _RealTime(binding) if real_time else _Lockstep(binding)
        for topic, (message_type, qos) in topics.command_topics.items():
            graph.subscribe(topic, message_type, partial(_receive, driver, topic), qos)
        graph.log.info("simulates %s in %s: %s", robot.name, task, ", ".join(topics.robot.streams))
        try:
            with startup_spared():
                graph.spin()
        finally:
            topics.close()
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
