"""A robot's file against a live ROS 2 graph: which topics, types, QoS, joints or rates do not match, and how much."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from robot_rl.hardware import bindings
from robot_rl.hardware.robot_file import JOINT_STATE, RobotFile, Stream
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Endpoint, Graph, Received
from robot_rl.hardware.ros2.qos import Qos, mismatches

SLOW = 0.8
"""Part of the stated rate below which a stream counts as too slow."""

ENOUGH = 5
"""Samples from which on a rate is told."""

ANY = Qos("best_effort", depth=100)


@dataclass(frozen=True)
class Finding:
    """One line of the report: `state` is `ok`, `note` or `FAIL`; `mend` says what to do."""

    part: str
    state: Literal["ok", "note", "FAIL"]
    text: str
    mend: str = ""


@dataclass
class Heard:
    """What was heard of a stream: receive times and stamps [s], and the last message; also one that was none of it."""

    received: list[float] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    message: Any = None
    elsewhere: Any = None

    def take(self, stream: Stream, sample: Received) -> None:
        """Note one more message; several devices may share a topic of joint states."""
        message = sample.message
        if stream.type == JOINT_STATE and not set(stream.elements) & set(message.name):
            self.elsewhere = message
            return
        self.message = message
        self.received.append(sample.received)
        self.stamps.append(messages.seconds(message.header.stamp))


def listen(graph: Graph, robot: RobotFile, seconds: float) -> tuple[dict[str, Heard], list[Endpoint]]:
    """Hear all streams of a robot for some time [wall s], by feature; also everything discovered until then.

    Subscribes as best effort and volatile, which hears every publisher: whether the file's QoS does is checked by rule.
    """
    heard = {name: Heard() for name in robot.streams}

    def take(topic: str, sample: Received) -> None:
        for name, stream in robot.streams.items():
            if stream.topic == topic:
                heard[name].take(stream, sample)

    for topic, kind in {stream.topic: stream.type for stream in robot.streams.values()}.items():
        graph.subscribe(topic, kind, partial(take, topic), ANY)
    graph.spin(timeout=seconds)
    return heard, [endpoint for endpoint in graph.endpoints() if endpoint.node != graph.name]


def is_live(robot: RobotFile, endpoints: Sequence[Endpoint]) -> bool:
    """Whether anything on the graph could be this robot: an endpoint of any type that its file names."""
    types = {stream.type for stream in robot.streams.values()} | {topic.type for topic in robot.commands.values()}
    return any(end.message_type in types for end in endpoints)


def findings(robot: RobotFile, heard: Mapping[str, Heard], endpoints: Sequence[Endpoint]) -> Iterator[Finding]:
    """Every stream and command of the file against the graph, in the file's order."""
    for name, stream in robot.streams.items():
        yield from _stream_findings(name, stream, heard.get(name, Heard()), endpoints)
    for name, command in robot.commands.items():
        part = f"commands.{name}"
        ends = [end for end in endpoints if end.topic == _absolute(command.topic)]
        readers, writers = [end for end in ends if not end.is_publisher], [end for end in ends if end.is_publisher]
        problems = list(_type_problems(part, command.topic, command.type, readers))
        problems += list(_qos_problems(part, [(end, mismatches(command.qos, end.qos)) for end in readers]))
        if not readers and command.action is None:
            known = [end.topic for end in endpoints if not end.is_publisher and end.message_type == command.type]
            yield Finding(part, "FAIL", f"nobody subscribes to {command.topic}", _closest(command.topic, known))
        elif not readers:
            action = command.action.name if command.action else ""
            yield Finding(part, "note", f"nobody subscribes to {command.topic}; goals go to the action {action}")
        elif not problems:
            yield Finding(part, "ok", f"{command.topic} is read by {', '.join(sorted({end.node for end in readers}))}")
        yield from problems
        for end in writers:
            mend = "stop it: only the Supervisor may command the robot"
            yield Finding(part, "FAIL", f"{end.node} publishes to {command.topic}, too", mend)


def _stream_findings(name: str, stream: Stream, heard: Heard, endpoints: Sequence[Endpoint]) -> Iterator[Finding]:
    part = f"observation.{name}"
    writers = [end for end in endpoints if end.topic == _absolute(stream.topic) and end.is_publisher]
    if not writers:
        known = [end.topic for end in endpoints if end.is_publisher and end.message_type == stream.type]
        yield Finding(part, "FAIL", f"nobody publishes {stream.topic}", _closest(stream.topic, known))
        return
    problems = list(_type_problems(part, stream.topic, stream.type, writers))
    problems += list(_qos_problems(part, [(end, mismatches(end.qos, stream.qos)) for end in writers]))
    yield from problems
    if problems:
        return
    if heard.message is None and heard.elsewhere is not None:
        names = list(heard.elsewhere.name)
        text = f"{stream.topic} has no joint {', '.join(stream.elements)}; it has {', '.join(names)}"
        yield Finding(part, "FAIL", text, _closest_joints(stream, names) or "correct elements in the file")
        return
    if heard.message is None:
        yield Finding(part, "FAIL", f"{stream.topic} is published, but no message came", "check the driver and QoS")
        return
    yield from _content_findings(part, stream, heard)
    yield from _rate_findings(part, stream, heard)
    yield from _clock_findings(part, stream, heard)


def _content_findings(part: str, stream: Stream, heard: Heard) -> Iterator[Finding]:
    try:
        value = bindings.decode(stream, heard.message)
    except bindings.BindingError as error:
        mend = _closest_joints(stream, list(heard.message.name)) if stream.type == JOINT_STATE else ""
        yield Finding(part, "FAIL", str(error), mend or "mend the driver, or the file")
        return
    feature = stream.feature
    text = f"{list(value.shape)} {value.dtype}" if feature.is_frame else np.array2string(value, precision=3)
    yield Finding(part, "ok", f"{stream.topic}: {text}")
    if feature.lower and feature.upper and (np.any(value < feature.lower) or np.any(value > feature.upper)):
        bounds = f"{list(feature.lower)} to {list(feature.upper)}"
        yield Finding(part, "note", f"{value.tolist()} lies outside {bounds}", "check units and zero positions")


def _rate_findings(part: str, stream: Stream, heard: Heard) -> Iterator[Finding]:
    times = np.array(heard.received)
    if len(times) < ENOUGH or not times[-1] > times[0]:
        yield Finding(part, "note", f"only {len(times)} messages came: too few to tell a rate", "listen longer")
        return
    gaps = np.diff(times)
    rate, longest = float(len(gaps) / (times[-1] - times[0])), float(gaps.max())
    text = f"{rate:.1f} Hz, longest gap {1e3 * longest:.0f} ms"
    if stream.rate_hz is not None and rate < SLOW * stream.rate_hz:
        missing = f"{text}: {100 * (1 - rate / stream.rate_hz):.0f} % less than the {stream.rate_hz:g} Hz of the file"
        yield Finding(part, "FAIL", missing, "raise the driver's rate, or lower rate_hz")
    elif longest > stream.max_age:
        yield Finding(part, "FAIL", f"{text}: longer than max_age {1e3 * stream.max_age:.0f} ms", "raise max_age")
    else:
        yield Finding(part, "ok", text)


def _clock_findings(part: str, stream: Stream, heard: Heard) -> Iterator[Finding]:
    if stream.clock == "receive":
        return
    stamps, received = np.array(heard.stamps), np.array(heard.received)
    backward = int((np.diff(stamps) < 0).sum())
    age = float(np.median(received - stamps))
    if not stamps.all():
        yield Finding(part, "FAIL", "headers have no stamp", "mend the driver, or use `clock: receive`")
    elif backward:
        yield Finding(part, "FAIL", f"stamps went back {backward} times", "look for a second publisher or clock")
    elif not -0.005 <= age <= stream.max_age:
        text = f"stamps are {1e3 * age:.0f} ms old on arrival (max_age {1e3 * stream.max_age:.0f} ms)"
        yield Finding(part, "FAIL", text, "synchronise the clocks (chrony), or check use_sim_time")
    else:
        yield Finding(part, "ok", f"stamps are {1e3 * age:.1f} ms old on arrival")


def _type_problems(part: str, topic: str, wanted: str, ends: Sequence[Endpoint]) -> Iterator[Finding]:
    for end in ends:
        if end.message_type != wanted:
            yield Finding(part, "FAIL", f"{topic} is {end.message_type} at {end.node}, the file says {wanted}",
                          "correct the type in the file, or the topic")  # fmt: skip


def _qos_problems(part: str, reasons: Sequence[tuple[Endpoint, list[str]]]) -> Iterator[Finding]:
    for end, texts in reasons:
        for text in texts:
            yield Finding(part, "FAIL", f"QoS against {end.node}: {text}", "change qos in the file")


def _closest_joints(stream: Stream, names: Sequence[str]) -> str:
    closest = [(joint, _close(joint, names)) for joint in stream.elements if joint not in names]
    return "; ".join(f"{joint}: did you mean {found}?" for joint, found in closest if found)


def _absolute(topic: str) -> str:
    return topic if topic.startswith("/") else f"/{topic}"


def _closest(topic: str, known: Sequence[str]) -> str:
    if found := _close(topic, known):
        return f"did you mean {found}?"
    return f"topics of this type: {', '.join(sorted(set(known)))}" if known else "start the driver or the controller"


def _close(word: str, known: Sequence[str]) -> str:
    """The most similar of the known words; a prefix or a namespace more or less does not matter."""
    ending = [name for name in known if name.endswith(word.lstrip("/")) or word.endswith(name.lstrip("/"))]
    found = ending or difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else ""
