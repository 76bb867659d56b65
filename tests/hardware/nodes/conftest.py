"""A graph within one process, whose clocks stand still until a test moves them."""

import logging
import sys
import time
from types import SimpleNamespace

import pytest

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Received
from robot_rl.hardware.ros2.spin_loop import LoopTimer


class LocalGraph:
    """What the nodes use of a `Graph`. Messages arrive at once, encoded and decoded on the way."""

    def __init__(self, parameters=None):
        self.name, self.log = "/node", logging.getLogger("node")
        self.time, self.overrides = 100.0, parameters or {}
        self.published, self.parameters, self.services = {}, {}, {}
        self._readers, self._timers, self._calls = {}, [], []

    def now(self):
        return self.time

    def parameter(self, name, default, description, read_only=False):
        assert description
        assert name not in self.parameters
        self.parameters[name] = SimpleNamespace(value=self.overrides.get(name, default))
        return self.parameters[name]

    def publisher(self, topic, message_type, qos=None):
        return SimpleNamespace(
            topic=topic, publish=lambda message: self.send(topic, message),
            publish_cdr=lambda cdr: self.send(topic, messages.decode(cdr, message_type)),
        )  # fmt: skip

    def subscribe(self, topic, message_type, callback, qos=None):
        self._readers.setdefault(topic, []).append(callback)

    def service(self, name, service_type, handler):
        self.services[name] = handler

    def timer(self, period, callback, clock="node"):
        timer = LoopTimer(period, callback, clock)
        timer.due(self.time)
        self._timers.append(timer)
        return timer

    def call_soon(self, callback):
        self._calls.append(callback)

    def send(self, topic, message):
        """A message, of this node or of another one."""
        sample = Received(messages.encode(message), topic, message.__msgtype__, self.time)
        self.published.setdefault(topic, []).append(sample.message)
        for callback in self._readers.get(topic, []):
            callback(sample)

    def step(self, seconds):
        """Let time pass, in milliseconds."""
        for _ in range(round(seconds * 1000)):
            self.time = round(self.time + 0.001, 6)
            for timer in self._timers:
                if not timer.cancelled and timer.due(self.time):
                    timer.callback()
            calls, self._calls = self._calls, []
            for callback in calls:
                callback()

    def call(self, name):
        """Call a Trigger service."""
        return self.services[name](messages.make("std_srvs/srv/Trigger_Request"))


@pytest.fixture
def local_graph(monkeypatch):
    """Makes a `LocalGraph`, by whose time the nodes wait as well, so that a slow machine changes nothing."""

    def make(parameters=None):
        graph = LocalGraph(parameters)
        clock = SimpleNamespace(monotonic=lambda: graph.time)
        for name, module in list(sys.modules.items()):
            if name.startswith("robot_rl.hardware.nodes.") and getattr(module, "time", None) is time:
                monkeypatch.setattr(module, "time", clock)
        return graph

    return make
