"""The port between our nodes and a ROS 2 graph: topics, timers, parameters, services, actions, one clock.

A node binds its pure functions to a `Graph` and calls `spin`; which adapter stands behind it is decided once, in
`open_graph`. Every callback runs on the thread that spins, one at a time.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias

from robot_rl.hardware.ros2.qos import RELIABLE, Qos

ParameterType: TypeAlias = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]
Clock: TypeAlias = Literal["node", "wall"]


class GraphError(RuntimeError):
    """The graph cannot do what was asked: the message says what was expected, what came and what to do."""


class Received:
    """One sample of a subscription: raw CDR, decoded when somebody looks.

    `received` is the node's clock [s] when the sample was taken, `topic` the resolved name.
    """

    def __init__(self, cdr: bytes, topic: str, message_type: str, received: float) -> None:
        self.cdr, self.topic, self.message_type, self.received = cdr, topic, message_type, received

    @cached_property
    def message(self) -> Any:
        """The message as a rosbags dataclass. Raises MessageError when the bytes are not of this type."""
        from robot_rl.hardware.ros2 import messages

        return messages.decode(self.cdr, self.message_type)


@dataclass(frozen=True)
class Endpoint:
    """A publisher or subscription somewhere on the graph, ourselves included."""

    topic: str
    message_type: str
    node: str
    qos: Qos
    is_publisher: bool
    type_hash: str = ""


class Publisher(Protocol):
    """One topic that this node writes; `topic` is the resolved name, `matched` the number of readers."""

    topic: str

    @property
    def matched(self) -> int: ...
    def publish(self, message: Any) -> None: ...
    def publish_cdr(self, cdr: bytes) -> None: ...
    def close(self) -> None: ...


class Subscription(Protocol):
    """One topic that this node reads; `matched` is the number of writers."""

    topic: str

    @property
    def matched(self) -> int: ...
    def close(self) -> None: ...


class Timer(Protocol):
    """Fires at the multiples of `period` [s] on its clock; `time` is the multiple for which it fired last.

    A timer that comes late fires once for the newest multiple and leaves out those it missed.
    """

    period: float
    time: float

    def cancel(self) -> None: ...


class Client(Protocol):
    """A service of another node. `done` gets the response, or None when the time-out [wall s] ran out first."""

    @property
    def ready(self) -> bool: ...
    def call(self, request: Any, done: Callable[[Any | None], None], timeout: float = 5.0) -> None: ...


class ActionClient(Protocol):
    """An action of another node, one goal at a time: a new goal replaces interest in the last one.

    `done` gets how it ended ("succeeded", "aborted", "canceled", "rejected", "timeout") and the result, or None;
    `accepted` is called before, once the server has taken the goal. A goal that timed out is cancelled.
    """

    @property
    def ready(self) -> bool: ...
    def send(
        self,
        goal: Any,
        done: Callable[[str, Any | None], None],
        timeout: float = 30.0,
        accepted: Callable[[], None] = lambda: None,
    ) -> None: ...
    def cancel(self) -> None: ...


class Parameter(Protocol):
    """A declared parameter; its type is that of the default and stays. The node itself may set `value`, too."""

    value: Any


class Graph(Protocol):
    """A node on a ROS 2 graph. Topic and service names are relative unless they start with "/" or "~"."""

    name: str
    """Fully qualified, as in `ros2 node list`."""
    log: logging.Logger
    """To the terminal in ROS 2's form, and to /rosout."""

    def now(self) -> float:
        """The node's clock [s]: wall time since the epoch, or /clock (0 before its first tick) with use_sim_time."""
        ...

    def publisher(self, topic: str, message_type: str, qos: Qos = RELIABLE) -> Publisher: ...
    def subscribe(
        self, topic: str, message_type: str, callback: Callable[[Received], None], qos: Qos = RELIABLE
    ) -> Subscription: ...
    def timer(self, period: float, callback: Callable[[], None], clock: Clock = "node") -> Timer: ...
    def service(self, name: str, service_type: str, handler: Callable[[Any], Any]) -> None: ...
    def client(self, name: str, service_type: str) -> Client: ...
    def action_client(self, name: str, action_type: str) -> ActionClient: ...
    def parameter(self, name: str, default: Any, description: str, read_only: bool = False) -> Parameter:
        """Declare a parameter, once; its value is what the command line or a file says, else the default.

        Raises GraphError for a value of another type (an integer is fine for a float).
        """
        ...

    def refuse_undeclared(self) -> None:
        """Raise GraphError if `-p` gives a parameter that has not been declared by now; `spin` but warns of it."""
        ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """From any thread: run on the spinning thread, as soon as it is free."""
        ...

    def endpoints(self) -> list[Endpoint]:
        """Every publisher and subscription that has been discovered until now."""
        ...

    def spin(self, until: Callable[[], bool] | None = None, timeout: float | None = None) -> bool:
        """Run callbacks until `until` holds (then True), `timeout` [wall s] is over, `stop` or a signal."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called or a signal came."""
        ...

    def stop(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Graph: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def adapter(environment: Mapping[str, str] = os.environ) -> Literal["rclpy", "dds"]:
    """The adapter in use: `ROBOT_RL_ROS` where it is set, else rclpy where it can be imported, else DDS."""
    chosen = environment.get("ROBOT_RL_ROS", "")
    if chosen not in ("", "rclpy", "dds"):
        raise GraphError(f"ROBOT_RL_ROS is 'rclpy' or 'dds', not {chosen!r}")
    if chosen == "dds":
        return "dds"
    missing = missing_rclpy()
    if chosen == "rclpy" and missing:
        raise GraphError(f"ROBOT_RL_ROS=rclpy, but rclpy cannot be imported: {missing}")
    return "dds" if missing else "rclpy"


def missing_rclpy() -> str:
    """Why rclpy cannot be imported; empty when it can."""
    if importlib.util.find_spec("rclpy") is None:
        return "source ROS 2's setup.bash"
    try:
        importlib.import_module("rclpy")
    except ImportError as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return f"{str(error).strip().splitlines()[0]} (this is Python {version}; ROS 2 Jazzy's is 3.12)"
    return ""


def open_graph(
    name: str,
    argv: Sequence[str] = (),
    namespace: str = "",
    parameters: Mapping[str, ParameterType] | None = None,
) -> Graph:
    """Join the ROS 2 graph as the node `name`.

    `argv` are the program's arguments (`--ros-args …`, without the program's name), `parameters` values that stand
    below those of `argv`. Raises GraphError for arguments that are not understood and when an adapter is missing.
    """
    if adapter() == "rclpy":
        from robot_rl.hardware.ros2.rclpy_graph import RclpyGraph

        return RclpyGraph(name, argv, namespace, parameters or {})
    if importlib.util.find_spec("cyclonedds") is None or importlib.util.find_spec("rosbags") is None:
        raise GraphError('neither rclpy nor cyclonedds is installed: source ROS 2, or pip install "robot_rl[ros]"')
    from robot_rl.hardware.ros2.dds_graph import DdsGraph

    graph = DdsGraph(name, argv, namespace, parameters or {})
    if "ROBOT_RL_ROS" not in os.environ and importlib.util.find_spec("rclpy") is not None:
        graph.log.warning("DDS instead of rclpy, which is there but cannot be imported: %s", missing_rclpy())
    return graph
