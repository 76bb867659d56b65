"""A graph that only hands on messages, for devices that subscribe."""

import logging
from types import SimpleNamespace

import pytest

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Received


class Topics:
    def __init__(self, **parameters):
        self.log = logging.getLogger("device")
        self.given, self.declared, self.readers, self.time = parameters, {}, {}, 50.0

    def parameter(self, name, default, description, read_only=False):
        assert description
        self.declared[name] = self.given.get(name.replace(".", "_"), default)
        return SimpleNamespace(value=self.declared[name])

    def subscribe(self, topic, message_type, callback, qos=None):
        self.readers.setdefault(topic, []).append(callback)

    def send(self, topic, message):
        for callback in self.readers[topic]:
            callback(Received(messages.encode(message), topic, message.__msgtype__, self.time))


@pytest.fixture
def topics():
    return Topics
