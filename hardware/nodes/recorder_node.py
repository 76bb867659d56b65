"""The `recorder` node: the black box of every run, and its episodes.

From its start to its end it records all streams of the robot's file, the Supervisor's status, transitions, proposals
and sources, the robot's commands (of a vehicle all topics of PX4 that its Supervisor knows), what the policy observed,
/clock and /diagnostics into a rosbag2 MCAP. Services `recorder/start`, `stop`, `success`, `failure` and `discard`
(std_srvs/srv/Trigger), or the same words on `recorder/command` (std_msgs/msg/String), with facts:
`start task=lift seed=7`, mark episodes in it; each closed one is imported into the dataset at once. A word after the
episode was closed is about the last one.

Published:

- `recorder/status` (diagnostic_msgs/msg/DiagnosticStatus, latched): `state` (`idle`, `recording`), `episode`, `bag`,
  `messages`, `megabytes`, `dropped`, `imported`, and the `problem` for which nothing is recorded any more; the message
  says what is wrong;
- `recorder/mark`: see `episode_mark`;
- `/diagnostics`: the same as the status.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from robot_rl.datasets import ContractError, StoreError
from robot_rl.hardware import observed_row
from robot_rl.hardware.nodes.command_line import node_main
from robot_rl.hardware.nodes.garbage import startup_spared
from robot_rl.hardware.px4 import px4_messages
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.recording import episode_mark
from robot_rl.hardware.recording.bag import BagError
from robot_rl.hardware.recording.bag_import import Imported, robot_for
from robot_rl.hardware.recording.black_box import BlackBoxError, Topic, recover
from robot_rl.hardware.recording.episode_mark import WORDS, Mark, MarkError, Word
from robot_rl.hardware.recording.recording import Recording, record
from robot_rl.hardware.robot_file import RobotFile, RobotFileError
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Endpoint, Graph, Received, Subscription, open_graph
from robot_rl.hardware.ros2.qos import LATCHED, RELIABLE, Qos
from robot_rl.hardware.safety import supervisor_messages

DEPTH = 200
"""Messages of a topic that may wait to be received."""

SETTLE_S = 0.25
"""An episode is closed at least so much later than asked, for what is still on its way [wall s]."""

_STATUS, _ARRAY = "diagnostic_msgs/msg/DiagnosticStatus", "diagnostic_msgs/msg/DiagnosticArray"
_STRING, _TRIGGER = "std_msgs/msg/String", "std_srvs/srv/Trigger"


def recorded_topics(robot: RobotFile | VehicleFile) -> dict[str, tuple[str, Qos]]:
    """Type and QoS of every topic that is recorded, by its name in the robot's file or relative to the namespace."""
    topics: dict[str, tuple[str, Qos]] = {
        supervisor_messages.STATUS: (supervisor_messages.DIAGNOSTICS, LATCHED),
        supervisor_messages.TRANSITION: (supervisor_messages.DIAGNOSTIC, RELIABLE),
        supervisor_messages.PROPOSAL: (supervisor_messages.JOINT_STATE, RELIABLE),
        supervisor_messages.SOURCE: (supervisor_messages.DIAGNOSTIC, RELIABLE),
        supervisor_messages.STOP_REQUEST: (supervisor_messages.BOOL, RELIABLE),
        observed_row.TOPIC: (observed_row.TYPE, RELIABLE),
        "policy/step": ("std_msgs/msg/Float64MultiArray", RELIABLE),
        "policy/status": (_STATUS, LATCHED),
        "twin/success": ("std_msgs/msg/Bool", LATCHED),
        "twin/status": (_ARRAY, LATCHED),
        "recorder/command": (_STRING, RELIABLE),
        "/clock": ("rosgraph_msgs/msg/Clock", Qos(reliability="best_effort")),
        "/diagnostics": (_ARRAY, RELIABLE),
    }
    for stream in robot.streams.values():
        topics[stream.topic] = stream.type, stream.qos
        if stream.camera_info:
            topics[stream.camera_info] = "sensor_msgs/msg/CameraInfo", stream.qos
    topics |= {command.topic: (command.type, command.qos) for command in robot.commands.values()}
    return topics


def adapted(wanted: Qos, publishers: Sequence[Qos]) -> Qos:
    """What to ask for so that every publisher is heard, and the past of those that keep it (as `ros2 bag record`)."""
    offered = publishers or [wanted]
    return Qos(
        reliability="reliable" if all(qos.reliability == "reliable" for qos in offered) else "best_effort",
        durability="transient_local" if all(qos.durability == "transient_local" for qos in offered) else "volatile",
        depth=DEPTH,
    )


class RecorderNode:
    """Binds a `Recording` to a graph.

    Args:
        graph: of this process.
        robot: whose streams and commands are recorded.
        further: names of other topics to record, as soon as somebody publishes or hears them.
    """

    def __init__(self, graph: Graph, robot: RobotFile | VehicleFile, further: Sequence[str] = ()) -> None:
        self._graph, self._further = graph, set(further)
        self._vehicle, self._registered = robot if isinstance(robot, VehicleFile) else None, set[str]()
        self._wanted = recorded_topics(robot)
        self._subscriptions: dict[str, tuple[Subscription, Qos]] = {}
        self._recording: Recording | None = None
        self._episode, self._open = 0, False
        self._closing: Mark | None = None
        self._imported, self._trouble = 0, ""
        self._marks = graph.publisher(episode_mark.TOPIC, episode_mark.TYPE, Qos(depth=100))
        self._status = graph.publisher("recorder/status", _STATUS, LATCHED)
        self._diagnostics = graph.publisher("/diagnostics", _ARRAY)
        for topic, (_, qos) in self._wanted.items():
            self._subscribe(topic, adapted(qos, ()))
        graph.subscribe("recorder/command", _STRING, self._on_command)
        for word in WORDS:
            graph.service(f"recorder/{word}", _TRIGGER, partial(self._serve, word))

    @property
    def topics(self) -> dict[str, str]:
        """Where each topic of the robot's file and of our nodes is on this graph."""
        return {topic: subscription.topic for topic, (subscription, _) in self._subscriptions.items()}

    def begin(self, recording: Recording) -> None:
        """Record from now on."""
        self._recording = recording
        self._mark_topic = _topic(self._marks.topic, episode_mark.TYPE, Qos(depth=100))
        self._graph.timer(1.0, self._look, "wall")
        self._graph.timer(SETTLE_S, self._settle, "wall")
        self._report()

    def mark(self, word: Word, facts: Mapping[str, Any]) -> tuple[bool, str]:
        """Do what a word says: whether that could be, and the message for people."""
        now, recording = self._graph.now(), self._recording
        assert recording is not None
        if word == "start":
            if recording.problem:
                return False, f"nothing is recorded: {recording.problem}"
            self._finish_closing()
            self._episode, self._open = self._episode + 1, True
            self._write(Mark(word, now, self._episode, facts))
            return True, f"episode {self._episode} is recorded"
        if not self._episode:
            return False, f"no episode to {word}; call recorder/start first"
        mark = Mark(word, now, self._episode, facts)
        if self._open:
            self._open, self._closing = False, mark
            self._closing_since = 0
            return True, f"episode {self._episode} is closed: {word}"
        self._finish_closing()
        self._write(mark)
        return True, f"episode {self._episode} was closed before; it is said of it: {word}"

    def imported(self, episode: Imported | str) -> None:
        """An episode was imported, or there will be no more."""
        if isinstance(episode, str):
            self._trouble = f"episodes are not imported: {episode}; later: robot-rl data import"
            self._graph.log.error("%s", self._trouble)
        elif episode.index is None:
            self._graph.log.log(20 if episode.problem == "discarded" else 30,
                                "episode %d is not in the dataset: %s", episode.number, episode.problem)  # fmt: skip
        else:
            self._imported += 1
            verdict = {True: "success", False: "failure", None: "no verdict"}[episode.facts.get("success")]
            self._graph.log.info("episode %d: %d steps, %s, number %d of the dataset", episode.number, episode.steps,
                                 verdict, episode.index)  # fmt: skip
        self._report()

    def end(self) -> None:
        """Close what is open. The recording itself stays open."""
        if self._open:
            self.mark("stop", {"unfinished": True})
        self._finish_closing()

    def _take(self, topic: str, qos: Qos, sample: Received) -> None:
        if self._recording is not None:
            described = _topic(sample.topic, sample.message_type, qos)
            self._recording.put(described, round(sample.received * 1e9), sample.cdr)

    def _on_command(self, sample: Received) -> None:
        if self._recording is None:
            return
        try:
            done, text = self.mark(*episode_mark.parse(sample.message.data))
        except MarkError as error:
            done, text = False, str(error)
        self._graph.log.log(20 if done else 30, "%s", text)

    def _serve(self, word: Word, _: Any) -> Any:
        done, text = (False, "not ready yet") if self._recording is None else self.mark(word, {})
        self._graph.log.log(20 if done else 30, "%s", text)
        return messages.make(f"{_TRIGGER}_Response", success=done, message=text)

    def _settle(self) -> None:
        if self._closing is not None:
            self._closing_since += 1
            if self._closing_since > 1:  # a whole period has passed
                self._finish_closing()

    def _finish_closing(self) -> None:
        mark, self._closing = self._closing, None
        if mark is not None:
            self._write(mark)

    def _write(self, mark: Mark) -> None:
        assert self._recording is not None
        message = episode_mark.encode(mark)
        self._recording.put(self._mark_topic, round(self._graph.now() * 1e9), messages.encode(message))
        if mark.word != "start":
            self._recording.sync()
        self._marks.publish(message)
        self._report()

    def _subscribe(self, topic: str, qos: Qos) -> None:
        message_type = self._wanted[topic][0]
        subscription = self._graph.subscribe(topic, message_type, partial(self._take, topic, qos), qos)
        self._subscriptions[topic] = subscription, qos

    def _look(self) -> None:
        """Follow the publishers that are there by now, and say how it goes."""
        offered: dict[str, list[Endpoint]] = {}
        if self._vehicle is not None:
            self._find(self._vehicle)
        for endpoint in self._graph.endpoints():
            if endpoint.is_publisher:
                offered.setdefault(endpoint.topic, []).append(endpoint)
        for topic in self._further & offered.keys() - self._wanted.keys():
            self._wanted[topic] = offered[topic][0].message_type, offered[topic][0].qos
            try:
                self._subscribe(topic, adapted(offered[topic][0].qos, ()))
            except messages.MessageError as error:
                self._graph.log.warning("%s is not recorded: %s", topic, error)
        for topic, (subscription, qos) in list(self._subscriptions.items()):
            publishers = [endpoint.qos for endpoint in offered.get(subscription.topic, [])]
            if publishers and (better := adapted(qos, publishers)) != qos:
                subscription.close()
                self._subscribe(topic, better)
        self._report()

    def _find(self, vehicle: VehicleFile) -> None:
        """Add the topics that PX4 offers by now, in their versions."""
        versions, _ = px4_messages.detect(self._graph.endpoints(), vehicle.namespace)
        topics = px4_messages.table(versions, vehicle.namespace)
        try:
            px4_messages.register(versions, vehicle.px4_msgs, versions.keys() - self._registered)
        except (px4_messages.Px4MessageError, messages.MessageError) as error:
            self._graph.log.warning("%s", error)
        self._registered |= versions.keys()
        self._further |= {topic.name for topic in topics.values() if topic.type.rpartition("/")[2] in versions}

    def _report(self) -> None:
        recording = self._recording
        assert recording is not None
        lost = f"{recording.dropped} messages were lost: the disk is too slow or full" if recording.dropped else ""
        wrong = [text for text in (recording.problem, lost, self._trouble) if text]
        values = {
            "state": "recording" if self._open else "idle", "episode": self._episode, "bag": recording.path,
            "messages": recording.messages, "megabytes": f"{recording.size / 1e6:.1f}", "dropped": recording.dropped,
            "imported": self._imported, "problem": recording.problem or "",
        }  # fmt: skip
        level = 2 if recording.problem or lost else 1 if wrong else 0
        text = "; ".join(wrong) or ("records an episode" if self._open else "records the run")
        status = supervisor_messages.diagnostic(self._graph.name, level, text, values)
        self._status.publish(status)
        self._diagnostics.publish(supervisor_messages.diagnostics(self._graph.now(), status))


def _topic(name: str, message_type: str, qos: Qos) -> Topic:
    key = (name, message_type)
    if key not in _TOPICS:
        text = messages.typestore().generate_msgdef(message_type, ros_version=2)[0]
        _TOPICS[key] = Topic(name, message_type, text, messages.type_hash(message_type), replace(qos, depth=10))
    return _TOPICS[key]


_TOPICS: dict[tuple[str, str], Topic] = {}


@node_main
def main(argv: Sequence[str]) -> int:
    """Run the node until a signal ends it. Returns the exit status."""
    with open_graph("recorder", argv) as graph:
        name = _setting(graph, "robot", "panda", "name of a robot, or path of its file")
        policy = _setting(
            graph, "policy", "", "whose features are recorded: a run, checkpoint, export or contract; empty: all"
        )
        output = Path(_setting(graph, "output", "runs/record/bags", "folder for the black boxes"))
        dataset = _setting(graph, "dataset", "", "store that closed episodes are imported into; empty: none")
        memory = _setting(graph, "memory", 512, "for messages that wait to be written [MB]")
        further = _setting(graph, "topics", [""], "absolute names of further topics to record")
        try:
            robot = robot_for(name, policy or None)
            node = RecorderNode(graph, robot, [topic for topic in further if topic])
            _recover(graph, output)
            notes = {
                "run": secrets.token_hex(8), "robot": name, "contract": json.dumps(robot.contract.to_dict()),
                "topics": json.dumps(node.topics),
            }  # fmt: skip
            recording = record(
                _folder(output), notes, int(memory * 1e6), name, robot.contract, Path(dataset) if dataset else None,
                lambda episode: graph.call_soon(partial(node.imported, episode)),
            )  # fmt: skip
        except (RobotFileError, ContractError, BlackBoxError, StoreError, ValueError, OSError) as error:
            for line in str(error).splitlines():
                graph.log.error("%s", line)
            return 1
        node.begin(recording)
        graph.log.info("records into %s", recording.path)
        with startup_spared():
            graph.spin()
        node.end()
        try:
            recording.close()
        except BlackBoxError as error:
            graph.log.error("%s", error)
            return 1
        finally:
            graph.spin(until=lambda: True, timeout=0.0)
    return 0


def _recover(graph: Graph, output: Path) -> None:
    """Finish what recorders that were killed have left."""
    for file in sorted(output.glob("*/*.mcap")):
        with suppress(BlackBoxError, BagError, OSError):
            if recover(file):
                graph.log.warning("%s was not closed: recovered; robot-rl data import reads its episodes", file.parent)


def _folder(output: Path) -> Path:
    """A new folder, named by the time."""
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    tries = [output / name, *(output / f"{name}_{number}" for number in range(2, 100))]
    return next(folder for folder in tries if not folder.exists())


def _setting(graph: Graph, name: str, default: Any, description: str) -> Any:
    return graph.parameter(name, default, description, read_only=True).value


if __name__ == "__main__":
    sys.exit(main())
