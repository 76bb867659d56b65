"""The graph over DDS against raw cyclonedds: round trips, throughput and two camera streams, in the same run.

    python tests/benchmarks/ros.py [--seconds 4] [--rounds 4]

A child process echoes, this one measures, on loopback in a domain of their own. Both ways use the same CDR codec and
types; "raw" is cyclonedds's writer, reader and waitset and nothing else. They take turns message by message, so that a
busy machine is busy for both. Latency: median of the round trips at the paced rate. Throughput: round trips per second
with several messages in flight, in the best of many short turns. Cameras: two streams of 640×480×3 at 30 Hz, from the
stamp before encoding to the callback.

The last line is JSON. Bars: the adapter takes at most 1.3 times as long and carries at least 1 / 1.3 as much; images
arrive within 5 ms (median), none is lost.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from machine import machine

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import open_graph
from robot_rl.hardware.ros2.qos import Qos

JOINTS, IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"
KINDS = {"joints": (JOINTS, 100.0, 8), "image": (IMAGE, 30.0, 2)}
"""Message type, paced rate [Hz], messages in flight."""
DEPTH = 50


class GraphPeer:
    """Through the adapter."""

    def __init__(self, name: str) -> None:
        self._graph = open_graph(name)

    def publisher(self, topic: str, message_type: str) -> Any:
        return self._graph.publisher(topic, message_type, Qos(depth=DEPTH))

    def subscribe(self, topic: str, message_type: str, callback: Callable[[Any], None]) -> None:
        self._graph.subscribe(topic, message_type, lambda received: callback(received.message), Qos(depth=DEPTH))

    def spin(self, until: Callable[[], bool], timeout: float) -> bool:
        done = self._graph.spin(until, timeout)
        if self._graph.stopped:
            sys.exit()
        return done


class RawSample:
    """CDR that cyclonedds passes through instead of coding it."""

    def __init__(self, cdr: bytes) -> None:
        self.cdr, self.sample_info = cdr, None

    def serialize(self, *args: Any, **kwargs: Any) -> bytes:
        return self.cdr

    @classmethod
    def deserialize(cls, data: bytes, *args: Any, **kwargs: Any) -> RawSample:
        return cls(data)


class RawPublisher:
    def __init__(self, entity: Any) -> None:
        self._entity = entity

    @property
    def matched(self) -> int:
        return len(self._entity.get_matched_subscriptions())

    def publish(self, message: Any) -> None:
        self._entity.write(RawSample(messages.encode(message)))


class RawPeer:
    """The same bytes and types by cyclonedds's DataWriter, DataReader and WaitSet."""

    def __init__(self, name: str) -> None:
        from cyclonedds.core import WaitSet
        from cyclonedds.domain import Domain, DomainParticipant

        from robot_rl.hardware.ros2 import dds_participant
        from robot_rl.hardware.ros2.dds_configuration import configuration

        settings = configuration()
        if settings.domain_id not in dds_participant._domains:
            dds_participant._domains[settings.domain_id] = Domain(settings.domain_id, settings.xml)
        self._participant = DomainParticipant(settings.domain_id)
        self._waitset = WaitSet(self._participant)
        self._readers: list[tuple[Any, Any, str, Callable[[Any], None]]] = []

    def publisher(self, topic: str, message_type: str) -> RawPublisher:
        from cyclonedds.pub import DataWriter

        writer = DataWriter(self._participant, self._topic(topic, message_type), self._qos())
        writer.data_type = RawSample
        return RawPublisher(writer)

    def subscribe(self, topic: str, message_type: str, callback: Callable[[Any], None]) -> None:
        from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState
        from cyclonedds.sub import DataReader

        reader = DataReader(self._participant, self._topic(topic, message_type), self._qos())
        reader.topic.data_type = RawSample
        condition = ReadCondition(reader, ViewState.Any | InstanceState.Any | SampleState.Any)
        self._waitset.attach(condition)
        self._readers.append((reader, condition, message_type, callback))

    def spin(self, until: Callable[[], bool], timeout: float) -> bool:
        end = time.monotonic() + timeout
        while not until():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._waitset.wait(int(min(left, 0.1) * 1e9))
            for reader, _, message_type, callback in self._readers:
                for sample in reader.take(64):
                    if sample.sample_info.valid_data:
                        callback(messages.decode(sample.cdr, message_type))
        return True

    def _topic(self, name: str, message_type: str) -> Any:
        from cyclonedds.topic import Topic

        from robot_rl.hardware.ros2.dds_types import idl_type

        return Topic(self._participant, name, idl_type(message_type))

    def _qos(self) -> Any:
        from cyclonedds.qos import Policy
        from cyclonedds.qos import Qos as DdsQos

        return DdsQos(Policy.Reliability.Reliable(10**7), Policy.History.KeepLast(DEPTH))


PEERS: dict[str, Any] = {"graph": GraphPeer, "raw": RawPeer}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement in each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--child", nargs=2, metavar=("ROLE", "PEER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        role, peer = options.child
        {"echo": echo, "camera": camera}[role](peer, options.seconds)
        return 0
    os.environ["ROS_DOMAIN_ID"] = str(100 + os.getpid() % 130)
    os.environ["ROBOT_RL_ROS"] = "dds"
    result: dict[str, Any] = {}
    measure_round_trips(options.seconds, options.rounds, result)
    measure_cameras(options.seconds, options.rounds, result)
    about = machine("cyclonedds", "rosbags", "numpy")
    print(json.dumps({"benchmark": "ros", "result": result, "machine": about}))
    return 0


def measure_round_trips(seconds: float, rounds: int, result: dict[str, Any]) -> None:
    latencies: dict[tuple[str, str], list[float]] = {(kind, name): [] for kind in KINDS for name in PEERS}
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in latencies}
    with child("echo", "graph"), child("echo", "raw"):
        lines = {(kind, name): Line(PEERS[name], name, kind) for name in PEERS for kind in KINDS}
        for _ in range(rounds):
            for kind in KINDS:
                paced({name: lines[kind, name] for name in PEERS}, seconds, latencies, kind)
                for _ in range(10):
                    for name in PEERS:
                        rates[kind, name].append(lines[kind, name].full(seconds / 20))
    for kind in KINDS:
        values: dict[str, float] = {}
        for name in PEERS:
            values[f"{name}_ms"] = 1e3 * statistics.median(latencies[kind, name])
            values[f"{name}_p99_ms"] = 1e3 * float(np.quantile(latencies[kind, name], 0.99))
            values[f"{name}_per_s"] = max(rates[kind, name])
        values["latency_ratio"] = values["graph_ms"] / values["raw_ms"]
        values["throughput_ratio"] = values["raw_per_s"] / values["graph_per_s"]
        result[kind] = {name: round(value, 3) for name, value in values.items()}
        print(
            f"{kind:7} round trip {values['graph_ms']:.2f} ms against {values['raw_ms']:.2f} raw "
            f"({values['latency_ratio']:.2f} times); {values['graph_per_s']:.0f}/s against {values['raw_per_s']:.0f} "
            f"({values['throughput_ratio']:.2f} times)"
        )


def measure_cameras(seconds: float, rounds: int, result: dict[str, Any]) -> None:
    ages: dict[str, list[float]] = {name: [] for name in PEERS}
    lost = dict.fromkeys(PEERS, 0)
    for turn in range(rounds):
        for name in PEERS if turn % 2 else reversed(PEERS):
            came, missing = watch(PEERS[name], name, seconds)
            ages[name] += came
            lost[name] += missing
    result["cameras"] = {}
    for name in PEERS:
        values = {
            "median_ms": 1e3 * statistics.median(ages[name]),
            "p99_ms": 1e3 * float(np.quantile(ages[name], 0.99)),
        }
        result["cameras"][name] = {key: round(value, 3) for key, value in values.items()}
        result["cameras"][name] |= {"images": len(ages[name]), "lost": lost[name]}
        print(
            f"two cameras, {name}: {len(ages[name])} images, {lost[name]} lost, transport {values['median_ms']:.2f} ms "
            f"(99 of 100 within {values['p99_ms']:.2f})"
        )


def paced(lines: dict[str, Line], seconds: float, latencies: dict[tuple[str, str], list[float]], kind: str) -> None:
    """Round trips at the kind's rate, one by each peer in each period, in turns first."""
    rate = KINDS[kind][1]
    begin = time.monotonic()
    for index in range(max(10, int(seconds * rate))):
        for name in sorted(lines, reverse=bool(index % 2)):
            latencies[kind, name].append(lines[name].round_trip())
        lines[name].wait(begin + (index + 1) / rate - time.monotonic())


class Line:
    """One kind of message to the echo and back."""

    def __init__(self, peer: Any, name: str, kind: str) -> None:
        self._type, _, self._in_flight = KINDS[kind]
        self._peer = peer(f"measure_{kind}")
        self._publisher = self._peer.publisher(f"/{name}/{kind}/ping", self._type)
        self._message, self._back = sample(self._type), 0
        self._peer.subscribe(f"/{name}/{kind}/pong", self._type, self._on_pong)
        self._sent = 0
        while not self._back:  # until both directions are matched
            self._send()
            self._peer.spin(lambda: self._back > 0, 0.2)
        self._peer.spin(lambda: False, 0.3)
        self._sent = self._back = 0

    def wait(self, seconds: float) -> None:
        self._peer.spin(lambda: False, max(0.0, seconds))

    def round_trip(self) -> float:
        """Seconds."""
        begin = time.perf_counter()
        self._send()
        self._peer.spin(lambda: self._back >= self._sent, 2.0)
        return time.perf_counter() - begin

    def full(self, seconds: float) -> float:
        """Round trips per second with several in flight."""
        begin, first = time.perf_counter(), self._back
        while time.perf_counter() - begin < seconds:
            while self._sent - self._back < self._in_flight:
                self._send()
            here = self._back
            if not self._peer.spin(lambda: self._back > here, 1.0):  # noqa: B023
                self._sent = self._back
        rate = (self._back - first) / (time.perf_counter() - begin)
        self._peer.spin(lambda: self._back >= self._sent, 1.0)
        self._sent = self._back
        return rate

    def _send(self) -> None:
        self._sent += 1
        self._publisher.publish(self._message)

    def _on_pong(self, message: Any) -> None:
        self._back += 1


def watch(peer: Any, name: str, seconds: float) -> tuple[list[float], int]:
    """Ages [s] of the images that came from two cameras, and how many did not come."""
    ages: list[float] = []
    last, lost = {}, 0

    def on_image(message: Any) -> None:
        nonlocal lost
        camera, number = message.header.frame_id.split("/")
        ages.append(time.time() - messages.seconds(message.header.stamp))
        lost += int(number) - last.get(camera, int(number) - 1) - 1
        last[camera] = int(number)

    watcher = peer("watch")
    for index in range(2):
        watcher.subscribe(f"/{name}/camera{index}", IMAGE, on_image)
    with child("camera", name):
        watcher.spin(lambda: len(ages) > 0, 20.0)
        watcher.spin(lambda: False, seconds)
    return ages[10:], lost  # the first ones meet cold caches


def echo(peer: str, seconds: float) -> None:
    node = PEERS[peer](f"echo_{peer}")
    for kind, (message_type, _, _) in KINDS.items():
        node.subscribe(
            f"/{peer}/{kind}/ping", message_type, node.publisher(f"/{peer}/{kind}/pong", message_type).publish
        )
    node.spin(lambda: False, 3600.0)


def camera(peer: str, seconds: float) -> None:
    node = PEERS[peer](f"camera_{peer}")
    publishers = [node.publisher(f"/{peer}/camera{index}", IMAGE) for index in range(2)]
    node.spin(lambda: all(publisher.matched for publisher in publishers), 20.0)
    node.spin(lambda: False, 0.5)
    image, start = sample(IMAGE), time.monotonic()
    for number in range(30 * 3600):
        node.spin(lambda: False, max(0.0, start + number / 30.0 - time.monotonic()))
        for index, publisher in enumerate(publishers):
            image.header.stamp, image.header.frame_id = messages.stamp(time.time()), f"{index}/{number}"
            publisher.publish(image)


def sample(message_type: str) -> Any:
    if message_type == IMAGE:
        pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        return messages.make(IMAGE, height=480, width=640, encoding="rgb8", step=1920, data=pixels)
    numbers = np.arange(7.0)
    names = [f"joint{index}" for index in range(7)]
    return messages.make(JOINTS, name=names, position=numbers, velocity=numbers, effort=numbers)


@contextmanager
def child(role: str, peer: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, __file__, "--child", role, peer])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
