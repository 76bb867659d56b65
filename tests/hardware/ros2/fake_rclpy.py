"""A stand-in for rclpy of ROS 2 Jazzy: the signatures and rules that the adapter relies on, and a bus in this process.

Where the real one raises, this one raises: for messages that are neither bytes nor of the type, for parameters of
another type than declared, for a logger's line that changes its severity, for arguments that do not exist.
"""

from __future__ import annotations

import enum
import importlib.machinery
import inspect
import re
import sys
import threading
import time
import types
from collections import deque
from functools import partial


class World:
    """What a ROS domain is: everything that contexts of this process see of each other."""

    def __init__(self):
        self.nodes = []
        self.changed = threading.Condition()


WORLD = World()


class Context:
    def __init__(self):
        self.args, self.valid = None, False

    def try_shutdown(self):
        self.valid = False


class SignalHandlerOptions(enum.Enum):
    NO = 0
    ALL = 3


def init(*, args=None, context=None, domain_id=None, signal_handler_options=None):
    assert isinstance(args, list)
    assert signal_handler_options is SignalHandlerOptions.NO
    unknown = [value for value in args if value.startswith("--bad")]
    assert not unknown, f"UnknownROSArgsError: {unknown}"
    context.args, context.valid = args, True


class Duration:
    def __init__(self, *, seconds=0, nanoseconds=0):
        self.nanoseconds = int(seconds * 1e9) + nanoseconds


class HistoryPolicy(enum.IntEnum):
    KEEP_LAST, KEEP_ALL = 1, 2


class ReliabilityPolicy(enum.IntEnum):
    RELIABLE, BEST_EFFORT = 1, 2


class DurabilityPolicy(enum.IntEnum):
    TRANSIENT_LOCAL, VOLATILE = 1, 2


class QoSProfile:
    def __init__(self, *, history, depth, reliability, durability, deadline=None):
        self.history, self.depth = HistoryPolicy(history), depth
        self.reliability, self.durability = ReliabilityPolicy(reliability), DurabilityPolicy(durability)
        self.deadline = deadline or Duration(nanoseconds=9223372036854775807)


class Parameter:
    def __init__(self, name, type_=None, value=None):
        self.name, self.value = name, value


class ParameterDescriptor:
    def __init__(self, *, description="", read_only=False, dynamic_typing=False):
        self.description, self.read_only, self.dynamic_typing = description, read_only, dynamic_typing


class Logger:
    def __init__(self):
        self.lines, self._severities = [], {}

    def _log(self, severity, text):
        place = inspect.stack()[2]
        known = self._severities.setdefault((place.filename, place.lineno), severity)
        assert known == severity, "Logger severity cannot be changed between calls."
        self.lines.append((severity, text))

    def debug(self, text):
        self._log("debug", text)

    def info(self, text):
        self._log("info", text)

    def warning(self, text):
        self._log("warning", text)

    def error(self, text):
        self._log("error", text)

    def fatal(self, text):
        self._log("fatal", text)


class Publisher:
    def __init__(self, node, msg_type, topic, qos):
        self.node, self.msg_type, self.topic_name, self.qos, self.kept = node, msg_type, node.full(topic), qos, deque()

    def _readers(self):
        return [s for n in WORLD.nodes for s in n.subscriptions if s.topic_name == self.topic_name and s.hears(self)]

    def get_subscription_count(self):
        return len(self._readers())

    def publish(self, msg):
        assert isinstance(msg, bytes), f"Expected {self.msg_type}, got {type(msg)}"
        self.kept.append(msg)
        for reader in self._readers():
            reader.put(msg)


class Subscription:
    def __init__(self, node, msg_type, topic, callback, qos):
        inspect.signature(callback).bind(object())
        self.node, self.msg_type, self.topic_name, self.callback, self.qos = (
            node,
            msg_type,
            node.full(topic),
            callback,
            qos,
        )
        self.queue = deque(maxlen=qos.depth or None)

    def hears(self, publisher):
        reliable = self.qos.reliability == ReliabilityPolicy.RELIABLE
        latched = self.qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
        return not (reliable and publisher.qos.reliability == ReliabilityPolicy.BEST_EFFORT) and not (
            latched and publisher.qos.durability == DurabilityPolicy.VOLATILE
        )

    def put(self, msg):
        with WORLD.changed:
            self.queue.append(msg)
            WORLD.changed.notify_all()


class GuardCondition:
    def __init__(self, callback):
        self.callback, self.triggered = callback, False

    def trigger(self):
        with WORLD.changed:
            self.triggered = True
            WORLD.changed.notify_all()


class Future:
    def __init__(self):
        self._callbacks, self._result = [], None

    def add_done_callback(self, callback):
        self._callbacks.append(callback)

    def cancelled(self):
        return False

    def result(self):
        return self._result


class Client:
    def __init__(self, node, srv_type, name):
        self.node, self.srv_type, self.name, self.queue, self.pending = node, srv_type, node.full(name), deque(), []

    def _servers(self):
        return [s for n in WORLD.nodes for s in n.services if s.name == self.name]

    def service_is_ready(self):
        return bool(self._servers())

    def call_async(self, request):
        assert isinstance(request, self.srv_type.Request)
        future = Future()
        self.pending.append(future)
        for server in self._servers():
            server.put(request, self, future)
        return future

    def remove_pending_request(self, future):
        self.pending.remove(future)


class Service:
    def __init__(self, node, srv_type, name, callback):
        self.srv_type, self.name, self.callback, self.queue = srv_type, node.full(name), callback, deque()

    def put(self, *request):
        with WORLD.changed:
            self.queue.append(request)
            WORLD.changed.notify_all()


class EndpointInfo:
    def __init__(self, end):
        self.node_name, self.node_namespace = end.node.name, end.node.namespace
        self.topic_type, self.qos_profile = end.msg_type.ros_type, end.qos
        self.topic_type_hash = "RIHS01_0"


class Node:
    def __init__(self, node_name, *, context=None, namespace=None, parameter_overrides=None):
        assert context.valid
        remaps = dict(value.split(":=") for value in context.args if ":=" in value and not value.startswith("-"))
        self.name, self.namespace = remaps.get("__node", node_name), remaps.get("__ns", namespace or "/")
        if not self.namespace.startswith("/"):
            self.namespace = "/" + self.namespace
        self.remaps, self.logger = remaps, Logger()
        self.subscriptions, self.publishers, self.guards, self.services, self.clients = [], [], [], [], []
        self.parameters, self.descriptors, self.post = {}, {}, []
        overrides = {parameter.name: parameter.value for parameter in parameter_overrides or []}
        self.declare_parameter("use_sim_time", overrides.get("use_sim_time", False))
        WORLD.nodes.append(self)

    def full(self, name):
        own = f"{self.namespace.rstrip('/')}/{self.name}"
        name = own + name[1:] if name.startswith("~") else name
        name = name if name.startswith("/") else f"{self.namespace.rstrip('/')}/{name}"
        new = {self.full(old) if not old.startswith("/") else old: new for old, new in self._rules()}.get(name, name)
        assert re.fullmatch(r"(/[A-Za-z_]\w*)+", name), f"InvalidTopicNameException: {name}"
        return new if new.startswith("/") else f"{self.namespace.rstrip('/')}/{new}"

    def _rules(self):
        rules, self.remaps = self.remaps, {}
        self.remaps = rules
        return [(old, new) for old, new in rules.items() if old.startswith("/")]

    def get_fully_qualified_name(self):
        return f"{self.namespace.rstrip('/')}/{self.name}"

    def get_logger(self):
        return self.logger

    def create_publisher(self, msg_type, topic, qos_profile):
        self.publishers.append(Publisher(self, msg_type, topic, qos_profile))
        return self.publishers[-1]

    def create_subscription(self, msg_type, topic, callback, qos_profile, *, raw=False):
        assert raw
        self.subscriptions.append(Subscription(self, msg_type, topic, callback, qos_profile))
        subscription = self.subscriptions[-1]
        for node in WORLD.nodes:
            for publisher in node.publishers:
                latched = subscription.qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
                if latched and publisher.topic_name == subscription.topic_name and subscription.hears(publisher):
                    subscription.queue.extend(publisher.kept)
        return subscription

    def destroy_publisher(self, publisher):
        self.publishers.remove(publisher)

    def destroy_subscription(self, subscription):
        self.subscriptions.remove(subscription)

    def create_guard_condition(self, callback):
        self.guards.append(GuardCondition(callback))
        return self.guards[-1]

    def create_client(self, srv_type, srv_name):
        self.clients.append(Client(self, srv_type, srv_name))
        return self.clients[-1]

    def create_service(self, srv_type, srv_name, callback):
        inspect.signature(callback).bind(object(), object())
        self.services.append(Service(self, srv_type, srv_name, callback))
        return self.services[-1]

    def count_publishers(self, topic_name):
        return sum(p.topic_name == topic_name for n in WORLD.nodes for p in n.publishers)

    def get_topic_names_and_types(self):
        ends = [end for node in WORLD.nodes for end in (*node.publishers, *node.subscriptions)]
        return [(topic, []) for topic in sorted({end.topic_name for end in ends})]

    def get_publishers_info_by_topic(self, topic_name):
        return [EndpointInfo(p) for n in WORLD.nodes for p in n.publishers if p.topic_name == topic_name]

    def get_subscriptions_info_by_topic(self, topic_name):
        return [EndpointInfo(s) for n in WORLD.nodes for s in n.subscriptions if s.topic_name == topic_name]

    def declare_parameter(self, name, value=None, descriptor=None, ignore_override=False):
        assert name not in self.parameters, "ParameterAlreadyDeclaredException"
        self.parameters[name], self.descriptors[name] = value, descriptor or ParameterDescriptor()
        return Parameter(name, value=value)

    def get_parameter(self, name):
        return Parameter(name, value=self.parameters[name])

    def add_post_set_parameters_callback(self, callback):
        self.post.append(callback)

    def set_parameters(self, parameter_list):
        results = []
        for parameter in parameter_list:
            descriptor, old = self.descriptors[parameter.name], self.parameters[parameter.name]
            fits = descriptor.dynamic_typing or type(old) is type(parameter.value)
            good = fits and not descriptor.read_only
            results.append(types.SimpleNamespace(successful=good, reason="" if good else "read-only or another type"))
            if good:
                self.parameters[parameter.name] = parameter.value
                for callback in self.post:
                    callback([parameter])
        return results

    def destroy_node(self):
        WORLD.nodes.remove(self)


class SingleThreadedExecutor:
    def __init__(self, *, context=None):
        self.node, self.tasks = None, deque()

    def add_node(self, node):
        self.node = node
        return True

    def shutdown(self, timeout_sec=None):
        return True

    def spin_once(self, timeout_sec=None):
        """One callback, as the real one does; waking without work does not end the wait."""
        end = time.monotonic() + timeout_sec
        with WORLD.changed:
            work = self._work()
            while work is None and time.monotonic() < end:
                WORLD.changed.wait(max(0.0, end - time.monotonic()))
                work = self._work()
        if work is not None:
            work()

    def _work(self):
        node = self.node
        if self.tasks:
            return self.tasks.popleft()
        for subscription in node.subscriptions:
            if subscription.queue:
                message = subscription.queue.popleft()
                return lambda: subscription.callback(message)
        for guard in node.guards:
            if guard.triggered:
                guard.triggered = False
                return guard.callback
        for client in node.clients:
            if client.queue:
                self._receive(client, *client.queue.popleft())
                return lambda: None
        for service in node.services:
            if service.queue:
                return partial(self._serve, service, *service.queue.popleft())
        return None

    def _receive(self, client, future, response):
        if future in client.pending:
            client.pending.remove(future)
            future._result = response
            self.tasks.extend(partial(callback, future) for callback in future._callbacks)

    def _serve(self, service, request, client, future):
        response = service.callback(request, service.srv_type.Response())
        assert isinstance(response, service.srv_type.Response)
        with WORLD.changed:
            client.queue.append((future, response))
            WORLD.changed.notify_all()


class Message:
    """rclpy's message objects, of which only the CDR matters here."""

    cdr = b"\0\1\0\0"


def serialize_message(message):
    assert isinstance(message, Message)
    return message.cdr


def deserialize_message(serialized_message, message_type):
    assert isinstance(serialized_message, bytes)
    message = message_type()
    message.cdr = serialized_message
    return message


def _service(name):
    parts = {part: type(f"{name}_{part}", (Message,), {}) for part in ("Request", "Response", "Event")}
    return type(name, (), parts)


class _Interfaces(types.ModuleType):
    """A module `<package>.msg`, `.srv` or `.action` in which every interface exists."""

    def __getattr__(self, name):
        package, kind = self.__name__.split(".")
        if name.startswith("_") or name == "Missing":
            raise AttributeError(name)
        if kind == "srv":
            made = _service(name)
        elif kind == "action":
            parts = {f"{part}Service": _service(part) for part in ("SendGoal", "GetResult")}
            made = type(name, (), {"Impl": type("Impl", (), parts)})
        else:
            made = type(name, (Message,), {"ros_type": f"{package}/msg/{name}"})
        setattr(self, name, made)
        return made


def modules():
    """What to put into sys.modules."""
    contents = {
        "rclpy": {"init": init},
        "rclpy.context": {"Context": Context},
        "rclpy.duration": {"Duration": Duration},
        "rclpy.executors": {"SingleThreadedExecutor": SingleThreadedExecutor},
        "rclpy.node": {"Node": Node},
        "rclpy.parameter": {"Parameter": Parameter},
        "rclpy.qos": {
            "DurabilityPolicy": DurabilityPolicy,
            "HistoryPolicy": HistoryPolicy,
            "QoSProfile": QoSProfile,
            "ReliabilityPolicy": ReliabilityPolicy,
        },
        "rclpy.serialization": {"deserialize_message": deserialize_message, "serialize_message": serialize_message},
        "rclpy.signals": {"SignalHandlerOptions": SignalHandlerOptions},
        "rcl_interfaces": {},
        "rcl_interfaces.msg": {"ParameterDescriptor": ParameterDescriptor},
    }
    found = {}
    for name, attributes in contents.items():
        found[name] = types.ModuleType(name)
        found[name].__dict__.update(attributes)
    for package in ("std_msgs", "sensor_msgs", "rosgraph_msgs", "std_srvs", "action_msgs", "control_msgs"):
        found[package] = types.ModuleType(package)
        for kind in ("msg", "srv", "action"):
            found[f"{package}.{kind}"] = _Interfaces(f"{package}.{kind}")
    for name, module in found.items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
    return found


def install(monkeypatch):
    """For one test: rclpy can be imported, and nobody is on the graph."""
    WORLD.nodes.clear()
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "robot_rl.hardware.ros2.rclpy_graph", raising=False)
