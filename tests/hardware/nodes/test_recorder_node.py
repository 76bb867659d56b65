"""The recorder as a process on a DDS graph: what it leaves, live and afterwards, and when it is killed."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader

from robot_rl.datasets import EpisodeStore
from robot_rl.hardware.nodes.recorder_node import adapted, recorded_topics
from robot_rl.hardware.recording.bag import Bag
from robot_rl.hardware.recording.bag_import import import_bag
from robot_rl.hardware.recording.black_box import recover
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Graph, open_graph
from robot_rl.hardware.ros2.qos import LATCHED, RELIABLE, SENSOR, Qos

JOINT_STATE, IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"
STATUS = "diagnostic_msgs/msg/DiagnosticArray"
CLOCK = "rosgraph_msgs/msg/Clock"
DEADLINE = 60.0  # a start alone takes some seconds, more on a busy machine


@pytest.fixture
def graph(ros_domain: int) -> Iterator[Graph]:
    with open_graph("tester") as graph:
        yield graph


@pytest.fixture
def recorder() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []

    def start(**parameters: Any) -> subprocess.Popen[str]:
        given = [item for name, value in parameters.items() for item in ("-p", f"{name}:={value}")]
        command = [sys.executable, "-m", "robot_rl.hardware.nodes.recorder_node", "--ros-args", *given]
        processes.append(subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


def runs() -> ModuleType:
    """The simulated runs of the importer's tests."""
    spec = importlib.util.spec_from_file_location(
        "runs", Path(__file__).parents[1] / "recording" / "test_bag_import.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["runs"] = module
    spec.loader.exec_module(module)
    return module


def call(graph: Graph, word: str) -> Any:
    client, answers = graph.client(f"recorder/{word}", "std_srvs/srv/Trigger"), list[Any]()
    assert graph.spin(until=lambda: client.ready, timeout=DEADLINE)
    client.call(messages.make("std_srvs/srv/Trigger_Request"), answers.append, 10.0)
    assert graph.spin(until=lambda: bool(answers), timeout=DEADLINE)
    return answers[0]


def replayed(graph: Graph, sent: list[Any]) -> None:
    """Publish every message, and its time on /clock, at some twice the speed of an idle computer's clock."""
    publishers = {item.topic: graph.publisher(item.topic, item.message.__msgtype__, Qos(depth=1000)) for item in sent}
    clock = graph.publisher("/clock", CLOCK, Qos(depth=10))
    assert graph.spin(until=lambda: bool(clock.matched), timeout=DEADLINE)
    assert graph.spin(until=lambda: all(p.matched for p in publishers.values()), timeout=DEADLINE)
    command = graph.publisher("recorder/command", "std_msgs/msg/String")
    assert graph.spin(until=lambda: bool(command.matched), timeout=DEADLINE)
    ordered = sorted(sent, key=lambda item: item.received)
    heard = list[float]()  # the recorder's clock, which it tells every second
    graph.subscribe(
        "/diagnostics", STATUS, lambda sample: heard.append(messages.seconds(sample.message.header.stamp))
    )  # fmt: skip
    deadline = time.monotonic() + DEADLINE
    while not any(heard) and time.monotonic() < deadline:
        tick(clock, ordered[0].received)
        graph.spin(timeout=0.2)
    command.publish(messages.make("std_msgs/msg/String", data="start task=lift seed=7"))
    graph.spin(timeout=0.5)
    for item in ordered:
        tick(clock, item.received)
        publishers[item.topic].publish(item.message)
        graph.spin(timeout=0.002)
    graph.spin(timeout=0.5)


def tick(clock: Any, seconds: float) -> None:
    clock.publish(messages.make(CLOCK, clock=messages.stamp(seconds)))


def stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, text
    return text


@pytest.mark.alone
def test_live_and_later_imports_are_equal_and_what_the_policy_saw(
    tmp_path: Path, graph: Graph, recorder: Callable[..., subprocess.Popen[str]]
) -> None:
    simulated = runs()
    robot = simulated.panda()
    contract = tmp_path / "contract.json"
    contract.write_text(robot.contract.to_json())
    process = recorder(
        output=tmp_path / "bags", dataset=tmp_path / "live.zarr", policy=contract, use_sim_time="true"
    )  # fmt: skip
    assert not call(graph, "success").success  # nothing is open
    run = simulated.policy_run(robot, 2.5)
    replayed(graph, run.sent)
    assert call(graph, "success").success
    live = EpisodeStore.open(tmp_path / "live.zarr")
    deadline = time.monotonic() + DEADLINE
    while not len(live) and time.monotonic() < deadline:
        graph.spin(timeout=0.1)
        live.refresh()
    assert len(live) == 1, stop(process)  # while the recorder runs
    text = stop(process)
    assert "episode 1" in text

    (bag,) = (tmp_path / "bags").iterdir()
    (done,) = import_bag(bag, robot, tmp_path / "later.zarr")
    assert done.index == 0
    later = EpisodeStore.open(tmp_path / "later.zarr")
    simulated.assert_equal(live[0], later[0])
    assert live.facts(0) == later.facts(0)
    episode = live[0]
    assert (episode.success, episode.facts["seed"], episode.facts["task"]) == (True, 7, "lift")
    assert not {"lost_samples", "stale_rows"} & set(episode.facts)
    assert episode.length == len(run.proposed)
    for name in robot.contract.observation:
        seen = np.array([row[name] for row in run.rows.values()])
        if name != "wrist":  # JPEG; the frames are compared below
            np.testing.assert_array_equal(episode.observation[name], seen)
    np.testing.assert_array_equal(episode.action, np.array(list(run.proposed.values())))
    list(import_bag(bag, robot, tmp_path / "exact.zarr", encoding="png"))
    exact = EpisodeStore.open(tmp_path / "exact.zarr")[0]
    np.testing.assert_array_equal(exact.observation["wrist"], [row["wrist"] for row in run.rows.values()])

    about = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    counts = {entry["topic_metadata"]["name"]: entry["message_count"] for entry in about["topics_with_message_count"]}
    for topic in {item.topic for item in run.sent}:
        assert counts[topic] == sum(item.topic == topic for item in run.sent)
    with AnyReader([bag]) as reader:
        connections = [c for c in reader.connections if c.topic == "/wrist/image_raw"]
        pictures = [reader.deserialize(cdr, IMAGE).data for _, _, cdr in reader.messages(connections)]
    sent = [item.message.data for item in run.sent if item.topic == "/wrist/image_raw"]
    assert sorted(map(bytes, pictures)) == sorted(map(bytes, sent))


@pytest.mark.alone
def test_a_third_of_the_robots_packets_is_lost(
    tmp_path: Path, graph: Graph, recorder: Callable[..., subprocess.Popen[str]]
) -> None:
    """All that reaches the recorder is kept, and its episode tells how many samples are missing."""
    simulated = runs()
    robot = simulated.panda()
    contract = tmp_path / "contract.json"
    contract.write_text(robot.contract.to_json())
    run, generator = simulated.policy_run(robot, 2.5), np.random.default_rng(3)
    streams = {stream.topic for stream in robot.streams.values()}
    # The first of each stream come through, as publishers are matched by them.
    first = {topic: min(item.received for item in run.sent if item.topic == topic) for topic in streams}
    arrived = [
        item
        for item in run.sent
        if item.topic not in streams or item.received == first[item.topic] or generator.random() > 0.3
    ]
    process = recorder(
        output=tmp_path / "bags", dataset=tmp_path / "live.zarr", policy=contract, use_sim_time="true"
    )  # fmt: skip
    replayed(graph, arrived)
    assert call(graph, "success").success
    stop(process)
    (bag,) = (tmp_path / "bags").iterdir()
    about = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    counts = {entry["topic_metadata"]["name"]: entry["message_count"] for entry in about["topics_with_message_count"]}
    for topic in {item.topic for item in run.sent}:
        assert counts[topic] == sum(item.topic == topic for item in arrived)
    list(import_bag(bag, robot, tmp_path / "later.zarr"))
    live, later = EpisodeStore.open(tmp_path / "live.zarr"), EpisodeStore.open(tmp_path / "later.zarr")
    simulated.assert_equal(live[0], later[0])
    assert live.facts(0) == later.facts(0)
    episode = live[0]
    assert episode.length == len(run.proposed)
    np.testing.assert_array_equal(episode.action, np.array(list(run.proposed.values())))
    assert episode.facts["lost_samples"] > 0
    # What the policy saw is told by its own record, whatever of the streams went missing.
    np.testing.assert_array_equal(
        episode.observation["joint_position"], [row["joint_position"] for row in run.rows.values()]
    )


@pytest.mark.alone
def test_a_killed_recorder_loses_a_fraction_of_a_second(
    tmp_path: Path, graph: Graph, recorder: Callable[..., subprocess.Popen[str]]
) -> None:
    contract = tmp_path / "contract.json"
    contract.write_text(runs().panda().contract.to_json())
    process = recorder(output=tmp_path / "bags", policy=contract)
    assert call(graph, "start").success
    publisher = graph.publisher("/franka/joint_states", JOINT_STATE, Qos(depth=1000))
    assert graph.spin(until=lambda: bool(publisher.matched), timeout=DEADLINE)
    for number in range(100):
        publisher.publish(messages.make(JOINT_STATE, name=["a"], position=[float(number)]))
        graph.spin(timeout=0.01)
    graph.spin(timeout=0.5)
    for number in range(100, 110):
        publisher.publish(messages.make(JOINT_STATE, name=["a"], position=[float(number)]))
    process.kill()
    process.wait()
    (bag,) = (tmp_path / "bags").iterdir()

    def numbers() -> list[float]:
        read = Bag(bag)
        recorded = [message for message in read.read() if message.topic == "/franka/joint_states"]
        return [float(read.decode(message).position[0]) for message in recorded]

    assert numbers()[:100] == list(range(100))
    assert recover(bag)
    assert numbers()[:100] == list(range(100))
    with AnyReader([bag]) as reader:
        assert reader.message_count >= 100
    # The next recorder begins a bag of its own.
    process = recorder(output=tmp_path / "bags", policy=contract)
    call(graph, "start")
    stop(process)
    assert len(list((tmp_path / "bags").iterdir())) == 2


@pytest.mark.alone
def test_qos_follows_the_publishers(
    tmp_path: Path, graph: Graph, recorder: Callable[..., subprocess.Popen[str]]
) -> None:
    process = recorder(output=tmp_path / "bags", topics="['/mine']")
    # The robot's file expects a reliable topic; this driver offers best effort.
    publisher = graph.publisher("/franka/joint_states", JOINT_STATE, SENSOR)
    mine = graph.publisher("/mine", "std_msgs/msg/String", LATCHED)
    mine.publish(messages.make("std_msgs/msg/String", data="said before anybody listened"))
    assert graph.spin(until=lambda: bool(publisher.matched and mine.matched), timeout=DEADLINE)
    for number in range(20):
        publisher.publish(messages.make(JOINT_STATE, name=["a"], position=[float(number)]))
        graph.spin(timeout=0.01)
    graph.spin(timeout=0.3)
    stop(process)
    (bag,) = (tmp_path / "bags").iterdir()
    topics = [recorded.topic for recorded in Bag(bag).read()]
    assert topics.count("/franka/joint_states") > 0
    assert topics.count("/mine") == 1


def test_every_topic_of_the_run_is_known() -> None:
    robot = RobotFile.load("panda")
    topics = recorded_topics(robot)
    assert {"/clock", "/diagnostics", "supervisor/status", "supervisor/transition", "supervisor/proposal"} < set(topics)
    assert {stream.topic for stream in robot.streams.values()} < set(topics)
    assert {command.topic for command in robot.commands.values()} < set(topics)


def test_the_request_suits_every_publisher() -> None:
    assert adapted(SENSOR, []).reliability == "best_effort"
    assert adapted(SENSOR, [RELIABLE]).reliability == "reliable"
    assert adapted(RELIABLE, [RELIABLE, SENSOR]).reliability == "best_effort"
    assert adapted(LATCHED, [LATCHED, RELIABLE]).durability == "volatile"
    assert adapted(RELIABLE, [LATCHED]).durability == "transient_local"


@pytest.mark.alone
@pytest.mark.parametrize("wrong", [{"robot": "nobody"}, {"policy": "/nowhere"}])
def test_a_wrong_setting_ends_it_with_a_reason(
    tmp_path: Path, graph: Graph, recorder: Callable[..., subprocess.Popen[str]], wrong: dict[str, str]
) -> None:
    process = recorder(output=tmp_path / "bags", **wrong)
    text, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert next(iter(wrong.values())) in text
