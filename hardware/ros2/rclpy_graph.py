"""The graph through rclpy, where ROS 2 is sourced: the same messages, clock and timers, rclpy's transport.

Topics pass as raw CDR (`raw=True`, `publish(bytes)`), services by way of rclpy's own classes. Remapping, namespaces,
logging and `ros2 param` are rclpy's; the values of parameters are read by our rules, so that both adapters agree.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter as RclpyParameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.signals import SignalHandlerOptions

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.actions import ServiceActionClient
from robot_rl.hardware.ros2.arguments import Arguments
from robot_rl.hardware.ros2.graph import Clock, Endpoint, GraphError, ParameterType, Received
from robot_rl.hardware.ros2.graph_log import open_log
from robot_rl.hardware.ros2.messages import MessageError
from robot_rl.hardware.ros2.parameters import coerced
from robot_rl.hardware.ros2.qos import RELIABLE, Qos
from robot_rl.hardware.ros2.spin_loop import LoopTimer, SpinLoop

CLOCK_QOS = Qos(reliability="best_effort", depth=1)
RETRY = 0.01
"""Between two looks for a service that is not there yet [s]."""
BATCH = 200
"""Callbacks after one wait before timers have their turn."""


class RclpyPublication:
    """See `graph.Publisher`."""

    def __init__(self, node: Node, topic: str, message_type: str, qos: Qos) -> None:
        self._node, self._message_type = node, message_type
        self._publisher = node.create_publisher(_class(message_type), topic, _profile(qos))
        self.topic: str = self._publisher.topic_name

    @property
    def matched(self) -> int:
        return int(self._publisher.get_subscription_count())

    def publish(self, message: Any) -> None:
        if getattr(message, "__msgtype__", None) != self._message_type:
            raise MessageError(f"{self.topic} carries {self._message_type}, not {message!r:.200}")
        self._publisher.publish(messages.encode(message))

    def publish_cdr(self, cdr: bytes) -> None:
        self._publisher.publish(bytes(cdr))

    def close(self) -> None:
        self._node.destroy_publisher(self._publisher)


class RclpySubscription:
    """See `graph.Subscription`."""

    def __init__(self, node: Node, topic: str, message_type: str, on_cdr: Callable[[bytes], None], qos: Qos) -> None:
        self._node = node
        self._subscription = node.create_subscription(_class(message_type), topic, on_cdr, _profile(qos), raw=True)
        self.topic: str = self._subscription.topic_name

    @property
    def matched(self) -> int:
        return int(self._node.count_publishers(self.topic))

    def close(self) -> None:
        self._node.destroy_subscription(self._subscription)


class RclpyClient:
    """See `graph.Client`. Requests that are made too early go out when the service is there."""

    def __init__(self, node: Node, loop: SpinLoop, name: str, service_type: str) -> None:
        self._loop = loop
        self._class, self._response_type = _class(service_type), f"{service_type}_Response"
        self._client = node.create_client(self._class, name)

    @property
    def ready(self) -> bool:
        return bool(self._client.service_is_ready())

    def call(self, request: Any, done: Callable[[Any | None], None], timeout: float = 5.0) -> None:
        body = deserialize_message(messages.encode(request), self._class.Request)
        pending: list[Any] = []
        open_call = [done]

        def finish(response: Any | None) -> None:
            if open_call:
                open_call.pop()(response)

        def answered(future: Any) -> None:
            if open_call and not future.cancelled():
                finish(messages.decode(serialize_message(future.result()), self._response_type))

        def send() -> None:
            if not open_call:
                return
            if self.ready:
                pending.append(self._client.call_async(body))
                pending[0].add_done_callback(answered)
            else:
                self._loop.call_later(RETRY, send)

        def give_up() -> None:
            if open_call:
                for future in pending:
                    self._client.remove_pending_request(future)
                finish(None)

        send()
        self._loop.call_later(timeout, give_up)


class RclpyDeclared:
    """See `graph.Parameter`."""

    def __init__(self, node: Node, name: str) -> None:
        self._node, self.name = node, name

    @property
    def value(self) -> Any:
        value = self._node.get_parameter(self.name).value
        return value if isinstance(value, bool | int | float | str) else list(value)  # rclpy holds array.array

    @value.setter
    def value(self, value: Any) -> None:
        value = coerced(self.name, value, self.value)
        (result,) = self._node.set_parameters([RclpyParameter(self.name, value=value)])
        if not result.successful:
            raise GraphError(f"parameter {self.name} cannot be set: {result.reason}")


class RclpyLog(logging.Handler):
    """Hands the records to rclpy's logger, which ties a severity to each line of code that calls it."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.CRITICAL:
            self._logger.fatal(text)
        elif record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


class RclpyGraph:
    """See `graph.Graph`."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str] = (),
        namespace: str = "",
        defaults: Mapping[str, ParameterType] | None = None,
    ) -> None:
        self.arguments = Arguments(name, argv, namespace)  # the same complaints as over DDS, and before rclpy's
        self._overrides = {**(defaults or {}), **self.arguments.parameters}
        self._context = Context()
        rclpy.init(args=list(argv), context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        simulated = coerced("use_sim_time", self._overrides.get("use_sim_time", False), False)
        self._node = Node(
            name,
            context=self._context,
            namespace=namespace or None,
            parameter_overrides=[RclpyParameter("use_sim_time", value=simulated)],
        )
        self.name: str = self._node.get_fully_qualified_name()
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._guard = self._node.create_guard_condition(lambda: None)
        self._loop = SpinLoop(self._wake)
        self._loop.catch_signals()
        self.log = open_log(self.name, self.arguments.log_level, RclpyLog(self._node.get_logger()))
        self._callbacks = 0
        self._clock: float | None = None
        self._clock_reader: RclpySubscription | None = None
        self._closed = False
        self.arguments.declare("use_sim_time")
        self._use_clock(simulated)
        self._node.add_post_set_parameters_callback(self._on_parameters)

    def now(self) -> float:
        return self._loop.now()

    def publisher(self, topic: str, message_type: str, qos: Qos = RELIABLE) -> RclpyPublication:
        return RclpyPublication(self._node, topic, message_type, qos)

    def subscribe(
        self, topic: str, message_type: str, callback: Callable[[Received], None], qos: Qos = RELIABLE
    ) -> RclpySubscription:
        def on_cdr(cdr: bytes) -> None:
            self._callbacks += 1
            try:
                callback(Received(cdr, subscription.topic, message_type, self.now()))
            except MessageError as error:  # whatever a peer sends must not take this node down
                self.log.warning("a message was dropped: %s", error)

        subscription = RclpySubscription(self._node, topic, message_type, on_cdr, qos)
        return subscription

    def timer(self, period: float, callback: Callable[[], None], clock: Clock = "node") -> LoopTimer:
        return self._loop.timer(period, callback, clock)

    def service(self, name: str, service_type: str, handler: Callable[[Any], Any]) -> None:
        service_class = _class(service_type)

        def answer(request: Any, response: Any) -> Any:
            self._callbacks += 1
            reply = handler(messages.decode(serialize_message(request), f"{service_type}_Request"))
            return deserialize_message(messages.encode(reply), service_class.Response)

        self._node.create_service(service_class, name, answer)

    def client(self, name: str, service_type: str) -> RclpyClient:
        return RclpyClient(self._node, self._loop, name, service_type)

    def action_client(self, name: str, action_type: str) -> ServiceActionClient:
        return ServiceActionClient(self, name, action_type)

    def parameter(self, name: str, default: Any, description: str, read_only: bool = False) -> RclpyDeclared:
        self.arguments.declare(name)
        value = coerced(name, self._overrides.get(name, default), default)
        # rclpy takes an empty list for one of bytes: leave its type open.
        descriptor = ParameterDescriptor(description=description, read_only=read_only, dynamic_typing=value == [])
        self._node.declare_parameter(name, value, descriptor, ignore_override=True)
        return RclpyDeclared(self._node, name)

    def refuse_undeclared(self) -> None:
        self.arguments.refuse_undeclared()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    def endpoints(self) -> list[Endpoint]:
        found = []
        for topic, _ in self._node.get_topic_names_and_types():
            for is_publisher, infos in (
                (True, self._node.get_publishers_info_by_topic(topic)),
                (False, self._node.get_subscriptions_info_by_topic(topic)),
            ):
                for info in infos:
                    node = f"{info.node_namespace.rstrip('/')}/{info.node_name}"
                    type_hash = str(getattr(info, "topic_type_hash", "") or "")
                    qos = _qos(info.qos_profile)
                    found.append(Endpoint(topic, info.topic_type, node, qos, is_publisher, type_hash))
        return sorted(found, key=lambda endpoint: (endpoint.topic, not endpoint.is_publisher, endpoint.node))

    def spin(self, until: Callable[[], bool] | None = None, timeout: float | None = None) -> bool:
        self.arguments.warn_of_undeclared(self.log)
        return self._loop.spin(self._wait, until, timeout)

    @property
    def stopped(self) -> bool:
        return self._loop.stopped

    def stop(self) -> None:
        self._loop.stop()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.release_signals()
        self.log.handlers.clear()
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def __enter__(self) -> RclpyGraph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wake(self) -> None:
        if not self._closed:
            self._guard.trigger()

    def _wait(self, seconds: float) -> None:
        """One wait, then everything that is ready; /clock last, after what was sent before it."""
        self._executor.spin_once(timeout_sec=seconds)
        for _ in range(BATCH):
            before = self._callbacks
            self._executor.spin_once(timeout_sec=0.0)
            if self._callbacks == before:
                break
        if self._clock is not None:
            now, self._clock = self._clock, None
            self._loop.set_clock(now)

    def _use_clock(self, simulated: bool) -> None:
        self._loop.simulated = simulated
        if simulated and self._clock_reader is None:
            clock = "rosgraph_msgs/msg/Clock"
            self._clock_reader = RclpySubscription(self._node, "/clock", clock, self._on_clock, CLOCK_QOS)

    def _on_clock(self, cdr: bytes) -> None:
        self._callbacks += 1
        self._clock = messages.seconds(messages.decode(cdr, "rosgraph_msgs/msg/Clock").clock)

    def _on_parameters(self, changed: list[Any]) -> None:
        for parameter in changed:
            if parameter.name == "use_sim_time":
                self._use_clock(bool(parameter.value))


def _class(interface: str) -> Any:
    """rclpy's class of a message, service or (its hidden services) action type."""
    package, kind, name = interface.split("/")
    try:
        module = importlib.import_module(f"{package}.{kind}")
        if kind == "action":
            action, part = name.rsplit("_", 1)
            return getattr(getattr(module, action).Impl, f"{part}Service")
        return getattr(module, name)
    except (ImportError, AttributeError) as error:
        raise GraphError(
            f"{interface} is not installed: sudo apt install ros-$ROS_DISTRO-{package.replace('_', '-')}"
        ) from error


def _profile(qos: Qos) -> Any:
    reliable, latched = qos.reliability == "reliable", qos.durability == "transient_local"
    options = {} if qos.deadline is None else {"deadline": Duration(seconds=qos.deadline)}
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST if qos.depth else HistoryPolicy.KEEP_ALL,
        depth=qos.depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        **options,
    )


def _qos(profile: Any) -> Qos:
    deadline = profile.deadline.nanoseconds * 1e-9
    return Qos(
        reliability="reliable" if profile.reliability == ReliabilityPolicy.RELIABLE else "best_effort",
        durability="transient_local" if profile.durability == DurabilityPolicy.TRANSIENT_LOCAL else "volatile",
        depth=profile.depth if profile.history == HistoryPolicy.KEEP_LAST else 0,
        deadline=deadline if 0 < deadline < 1e9 else None,
    )
