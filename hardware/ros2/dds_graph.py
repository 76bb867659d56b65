"""The graph over plain DDS: a native citizen of a ROS 2 graph that runs rmw_cyclonedds, without ROS 2."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from robot_rl.hardware.ros2 import messages, parameters
from robot_rl.hardware.ros2.actions import ServiceActionClient
from robot_rl.hardware.ros2.arguments import Arguments
from robot_rl.hardware.ros2.dds_participant import DdsParticipant, Reader, Writer
from robot_rl.hardware.ros2.dds_services import DdsClient, DdsService
from robot_rl.hardware.ros2.graph import Clock, Endpoint, ParameterType, Received
from robot_rl.hardware.ros2.graph_log import GraphLog, open_log
from robot_rl.hardware.ros2.messages import MessageError
from robot_rl.hardware.ros2.qos import RELIABLE, Qos
from robot_rl.hardware.ros2.spin_loop import LoopTimer, SpinLoop

CLOCK_QOS = Qos(reliability="best_effort", depth=1)
ROSOUT_QOS, ROSOUT_LIFESPAN = Qos(durability="transient_local", depth=1000), 10.0
EVENTS_QOS = Qos(depth=1000)
LOOK_PERIOD = 1.0
"""Between two looks for peers whose quality of service does not match [s]."""


class DdsPublication:
    """See `graph.Publisher`."""

    def __init__(self, graph: DdsGraph, topic: str, message_type: str, qos: Qos) -> None:
        self.topic = topic
        self._graph, self._message_type = graph, message_type
        self._writer: Writer = graph.participant.writer(f"rt{topic}", message_type, qos)
        self._complained = 0.0

    @property
    def matched(self) -> int:
        return self._writer.matched

    def publish(self, message: Any) -> None:
        if getattr(message, "__msgtype__", None) != self._message_type:
            raise MessageError(f"{self.topic} carries {self._message_type}, not {message!r:.200}")
        self.publish_cdr(messages.encode(message))

    def publish_cdr(self, cdr: bytes) -> None:
        if not self._writer.write(cdr) and time.monotonic() - self._complained > 1.0:
            self._complained = time.monotonic()
            self._graph.log.warning("%s: a reader holds the topic up; messages are dropped", self.topic)

    def close(self) -> None:
        self._graph.participant.remove(self._writer)


class DdsSubscription:
    """See `graph.Subscription`."""

    def __init__(
        self, graph: DdsGraph, topic: str, message_type: str, callback: Callable[[Received], None], qos: Qos
    ) -> None:
        self.topic = topic
        self._graph, self._message_type, self._callback = graph, message_type, callback
        self._reader: Reader = graph.participant.reader(f"rt{topic}", message_type, qos, self._on_sample)

    @property
    def matched(self) -> int:
        return self._reader.matched

    def close(self) -> None:
        self._graph.participant.remove(self._reader)

    def _on_sample(self, cdr: bytes, info: Any) -> None:
        self._callback(Received(cdr, self.topic, self._message_type, self._graph.now()))


class DdsGraph:
    """See `graph.Graph`."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str] = (),
        namespace: str = "",
        defaults: Mapping[str, ParameterType] | None = None,
    ) -> None:
        self.arguments = Arguments(name, argv, namespace)
        self.name = self.arguments.full_name
        self.participant = DdsParticipant(self.arguments.namespace, self.arguments.name)
        self._loop = SpinLoop(self.participant.wake)
        self._loop.catch_signals()
        self._clock: DdsSubscription | None = None
        rosout = self.publisher("/rosout", "rcl_interfaces/msg/Log", ROSOUT_QOS) if self.arguments.rosout else None
        handler = GraphLog(self.name[1:].replace("/", "."), self.arguments.stdout, rosout.publish if rosout else None)
        self.log = open_log(self.name, self.arguments.log_level, handler)
        self._events = self.publisher("/parameter_events", "rcl_interfaces/msg/ParameterEvent", EVENTS_QOS)
        overrides = {**(defaults or {}), **self.arguments.parameters}
        self._parameters = parameters.ParameterTable(overrides, self._on_parameters)
        for service, (service_type, answer) in self._parameters.services().items():
            self.service(f"~/{service}", service_type, answer)
        self.parameter("use_sim_time", False, "Take the time from /clock instead of this computer's clock.")
        self._loop.timer(LOOK_PERIOD, self._look, "wall")

    def now(self) -> float:
        return self._loop.now()

    def publisher(self, topic: str, message_type: str, qos: Qos = RELIABLE) -> DdsPublication:
        return DdsPublication(self, self.arguments.resolve(topic), message_type, qos)

    def subscribe(
        self, topic: str, message_type: str, callback: Callable[[Received], None], qos: Qos = RELIABLE
    ) -> DdsSubscription:
        return DdsSubscription(self, self.arguments.resolve(topic), message_type, callback, qos)

    def timer(self, period: float, callback: Callable[[], None], clock: Clock = "node") -> LoopTimer:
        return self._loop.timer(period, callback, clock)

    def service(self, name: str, service_type: str, handler: Callable[[Any], Any]) -> None:
        DdsService(self.participant, self._loop, self.arguments.resolve(name), service_type, handler)

    def client(self, name: str, service_type: str) -> DdsClient:
        return DdsClient(self.participant, self._loop, self.arguments.resolve(name), service_type)

    def action_client(self, name: str, action_type: str) -> ServiceActionClient:
        return ServiceActionClient(self, name, action_type)

    def parameter(self, name: str, default: Any, description: str, read_only: bool = False) -> parameters.Declared:
        self.arguments.declare(name)
        return self._parameters.declare(name, default, description, read_only)

    def refuse_undeclared(self) -> None:
        self.arguments.refuse_undeclared()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    def endpoints(self) -> list[Endpoint]:
        return self.participant.endpoints()

    def spin(self, until: Callable[[], bool] | None = None, timeout: float | None = None) -> bool:
        self.arguments.warn_of_undeclared(self.log)
        return self._loop.spin(self._wait, until, timeout)

    @property
    def stopped(self) -> bool:
        return self._loop.stopped

    def stop(self) -> None:
        self._loop.stop()

    def close(self) -> None:
        self._loop.release_signals()
        for handler in self.log.handlers:
            handler.close()
        self.log.handlers.clear()
        self.participant.close()

    def __enter__(self) -> DdsGraph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, seconds: float) -> None:
        for _, reader, cdr, info in self.participant.wait(seconds):
            try:
                reader.callback(cdr, info)
            except MessageError as error:  # whatever a peer sends must not take this node down
                self.log.warning("a message was dropped: %s", error)

    def _on_parameters(self, kind: str, changed: list[parameters.Declared]) -> None:
        self._events.publish(parameters.event(self.name, kind, changed))
        for parameter in changed:
            if parameter.name == "use_sim_time":
                self._use_clock(parameter.value)

    def _use_clock(self, simulated: bool) -> None:
        self._loop.simulated = simulated
        if simulated and self._clock is None:
            self._clock = self.subscribe("/clock", "rosgraph_msgs/msg/Clock", self._on_clock, CLOCK_QOS)

    def _on_clock(self, received: Received) -> None:
        self._loop.set_clock(messages.seconds(received.message.clock))

    def _look(self) -> None:
        for topic, policy in self.participant.refused():
            self.log.warning("%s: a peer's %s does not match ours: nothing passes between us", topic, policy)
