"""Imports against what a simulated policy node saw and did, from bags of this package's recorder and of others."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from robot_rl.datasets import Contract, ContractError, EpisodeStore
from robot_rl.datasets.check import check
from robot_rl.datasets.contract import Feature
from robot_rl.datasets.store import Episode
from robot_rl.hardware import bindings
from robot_rl.hardware.alignment import Alignment
from robot_rl.hardware.observed_row import TYPE as JOINT_STATE
from robot_rl.hardware.observed_row import encode_row
from robot_rl.hardware.recording import episode_mark
from robot_rl.hardware.recording.bag_import import Imported, import_bag, read_contract, robot_for
from robot_rl.hardware.recording.black_box import BlackBox, Topic
from robot_rl.hardware.recording.episode_mark import Mark, MarkError, Word, parse
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages

START = 1_700_000_000.0
STATUS = "diagnostic_msgs/msg/DiagnosticArray"


def panda() -> RobotFile:
    """As for a policy that observes joints, the pose of a cube and a small picture."""
    robot = RobotFile.load("panda")
    offered = robot.contract
    observation = {name: offered.observation[name] for name in ("joint_position", "gripper_opening", "ee_pose")}
    observation["cube_pose"] = Feature("cube_pose", (7,), frame="base", representation="position_quaternion")
    observation["wrist"] = Feature("wrist", (16, 20, 3), "uint8", "image")
    return robot.for_policy(Contract("test", offered.rate_hz, observation, offered.action, offered.controller))


@dataclass
class Sent:
    """A message, and when the recorder received it."""

    received: float
    topic: str
    message: Any


@dataclass
class Run:
    """What the nodes of a run publish, and what its policy observed and proposed."""

    robot: RobotFile
    sent: list[Sent] = field(default_factory=list)
    rows: dict[float, dict[str, np.ndarray]] = field(default_factory=dict)
    proposed: dict[float, np.ndarray] = field(default_factory=dict)
    sequence: int = 0

    def send(self, received: float, topic: str, message: Any) -> None:
        self.sent.append(Sent(received, topic, message))

    def mark(self, time: float, word: Word, episode: int = 1, **facts: Any) -> None:
        self.send(time, "/recorder/mark", episode_mark.encode(Mark(word, time, episode, facts)))

    def status(self, time: float, kind: str, lease: int, followed: str = "") -> None:
        pairs = {"state": "running", "kind": kind, "lease": str(lease), "followed": followed}
        values = [messages.make("diagnostic_msgs/msg/KeyValue", key=key, value=value) for key, value in pairs.items()]
        status = messages.make("diagnostic_msgs/msg/DiagnosticStatus", name="supervisor", values=values)
        self.send(time, "/supervisor/status", messages.make(STATUS, status=[status]))

    def propose(self, time: float, action: np.ndarray, kind: str, lease: int, follow: bool = True) -> None:
        self.sequence += 1
        token = f"{lease}/{self.sequence}"
        header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(time), frame_id=token)
        names = self.robot.contract.action_names[::-1]  # by name, in whatever order
        position = action[::-1].astype(float)
        message = messages.make(JOINT_STATE, header=header, name=names, position=position)
        self.send(time + 0.004, "/supervisor/proposal", message)
        holder = (kind, lease) if follow else ("device", lease + 1)
        self.status(time + 0.002, *holder, token if follow else "")  # overtakes the proposal

    def written(self, folder: Path, keep: Callable[[Sent], bool] = lambda _: True) -> Path:
        """The bag that the recorder of this package leaves."""
        notes = {"run": folder.name, "topics": "{}", "contract": self.robot.contract.to_json()}
        with BlackBox(folder, notes) as box:
            for sent in sorted(filter(keep, self.sent), key=lambda sent: sent.received):
                name = sent.message.__msgtype__
                text = messages.typestore().generate_msgdef(name, ros_version=2)[0]
                box.add_topic(Topic(sent.topic, name, text, messages.type_hash(name)))
                box.write(sent.topic, round(sent.received * 1e9), messages.encode(sent.message))
        return folder


def sampled(robot: RobotFile, until: float, rng: np.random.Generator) -> Iterator[tuple[float, float, str, Any]]:
    """Stamp, transport time, topic and message of every stream."""
    rates = {"/franka/joint_states": 100, "/panda_gripper/joint_states": 30, "/cube_pose": 30, "/wrist/image_raw": 30}
    for topic, rate in rates.items():
        features = [name for name, stream in robot.streams.items() if stream.topic == topic]
        for number in range(round(until * rate)):
            stamp = START + number / rate + rng.uniform(0, 1e-3)
            values = {name: value(robot.contract.observation[name], stamp - START, rng) for name in features}
            encoded = bindings.encode_observations(robot, values, stamp)
            yield stamp, rng.uniform(0.001, 0.008), topic, encoded[topic]


def value(feature: Feature, time: float, rng: np.random.Generator) -> np.ndarray:
    if feature.is_frame:
        return rng.integers(0, 256, feature.shape, np.uint8)
    if feature.name == "cube_pose":
        return np.array([0.5, 0.1 * time, 0.02, np.cos(time / 2), 0, 0, np.sin(time / 2)])
    return 0.01 * (1 + np.arange(feature.size)) * (1 + np.sin(time))


def act(robot: RobotFile, time: float) -> np.ndarray:
    target = np.append(np.array(robot.home) + 0.1 * np.sin(time - START), 0.04)
    return target.astype(np.float32)


def policy_run(robot: RobotFile, seconds: float = 3.0, seed: int = 0) -> Run:
    """A run whose policy node and recorder receive every message at times of their own."""
    rng, run, seen = np.random.default_rng(seed), Run(robot), list[tuple[float, str, Any]]()
    for stamp, transport, topic, message in sampled(robot, seconds, rng):
        seen.append((stamp + transport, topic, message))
        run.send(stamp + rng.uniform(0.001, 0.008), topic, message)
    seen.sort(key=lambda sample: sample[0])
    alignment = Alignment(robot)
    period = 1.0 / robot.contract.rate_hz
    first, last = round((START + 0.5) / period), round((START + seconds - 0.4) / period)
    for tick in range(first, last):
        time = tick / robot.contract.rate_hz
        while seen and seen[0][0] <= time:
            received, topic, message = seen.pop(0)
            alignment.take(topic, messages.decode(messages.encode(message), message.__msgtype__), received)
        observation, stamps = alignment.row(time)
        run.rows[time] = observation
        run.send(time + rng.uniform(0, 0.02), "/policy/observation",
                 encode_row(robot.contract, time, observation, stamps))  # fmt: skip
        if tick < last - 1:
            run.proposed[time] = act(robot, time)
            run.propose(time, run.proposed[time], "policy", 1)
    return run


def imported(path: Path, robot: RobotFile, output: Path, **options: Any) -> tuple[list[Imported], EpisodeStore]:
    done = list(import_bag(path, robot, output, encoding="png", **options))
    store = EpisodeStore.open(output)
    assert check(output) == []
    return done, store


def assert_equal(one: Episode, other: Episode) -> None:
    for name in one.observation:
        np.testing.assert_array_equal(one.observation[name], other.observation[name])
    for name in one.timestamp:
        np.testing.assert_array_equal(one.timestamp[name], other.timestamp[name])
    for key in ("action", "policy_action", "intervened", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(one, key), getattr(other, key))


def test_the_episode_is_what_the_policy_saw_and_did(tmp_path: Path) -> None:
    robot = panda()
    run = policy_run(robot)
    run.mark(START + 0.3, "start", task="lift", seed=7)
    run.mark(START + 2.9, "success")
    done, store = imported(run.written(tmp_path / "bag"), robot, tmp_path / "a.zarr")
    assert [(episode.number, episode.index, episode.steps) for episode in done] == [(1, 0, len(run.proposed))]
    episode = store[0]
    assert episode.length == len(run.proposed) == len(run.rows) - 1
    for name in robot.contract.observation:
        np.testing.assert_array_equal(episode.observation[name], np.array([row[name] for row in run.rows.values()]))
    np.testing.assert_array_equal(episode.action, np.array(list(run.proposed.values())))
    np.testing.assert_array_equal(episode.timestamp["control"], list(run.rows))
    assert (np.abs(episode.timestamp["joint_position"] - episode.timestamp["control"]) < 0.03).all()
    assert len(np.unique(episode.timestamp["wrist"])) > episode.length / 2  # true stamps, not ticks
    facts = episode.facts
    assert (facts["success"], facts["task"], facts["seed"], facts["source"]) == (True, "lift", 7, "policy")
    assert not {"stale_rows", "lost_samples", "filled_actions", "unfinished"} & set(facts)
    assert episode.terminated.tolist() == [False] * (episode.length - 1) + [True]

    _, again = imported(tmp_path / "bag", robot, tmp_path / "b.zarr")
    assert_equal(episode, again[0])


def test_without_a_published_observation_rows_are_those_of_a_policy(tmp_path: Path) -> None:
    robot = panda()
    run = policy_run(robot)
    run.mark(START + 0.3, "start")
    run.mark(START + 2.9, "stop")
    bag = run.written(tmp_path / "bag", lambda sent: sent.topic != "/policy/observation")
    _, store = imported(bag, robot, tmp_path / "a.zarr")
    alignment, rows = Alignment(robot, keep=10.0), []
    for sent in sorted(run.sent, key=lambda sent: sent.received):
        alignment.take(sent.topic, sent.message, round(sent.received * 1e9) * 1e-9)
    rows = [alignment.row(time)[0] for time in run.rows]
    for name in robot.contract.observation:
        np.testing.assert_array_equal(store[0].observation[name], np.array([row[name] for row in rows]))
    assert store[0].success is None
    assert store[0].truncated[-1]


def test_a_second_import_adds_nothing(tmp_path: Path) -> None:
    robot = panda()
    run = policy_run(robot, 2.0)
    run.mark(START + 0.3, "start")
    run.mark(START + 1.9, "failure")
    run.written(tmp_path / "bag")
    imported(tmp_path / "bag", robot, tmp_path / "a.zarr")
    done, store = imported(tmp_path / "bag", robot, tmp_path / "a.zarr")
    assert [episode.problem for episode in done] == ["the store has it already"]
    assert len(store) == 1
    assert store[0].success is False


def test_a_person_takes_over(tmp_path: Path) -> None:
    robot = panda()
    run = policy_run(robot)
    ticks = list(run.proposed)
    taken = ticks[10:20]
    # Ticks 8 and 9 pass between the leases; from 10 to 19 the person acts, at first twice a period, while the policy
    # goes on proposing under the lease that it lost. At 15 nothing of the person is followed.
    run.sent = [sent for sent in run.sent if sent.topic not in ("/supervisor/proposal", "/supervisor/status")]
    for tick in ticks:
        if tick in taken:
            follow = tick != ticks[15]
            run.propose(tick + 0.01, act(robot, tick) + 1, "device", 2, follow)
            run.propose(tick + 0.03, act(robot, tick) + 2, "device", 2, follow)
            run.propose(tick, act(robot, tick), "policy", 1, follow=False)
        elif tick not in ticks[8:10]:
            run.propose(tick, act(robot, tick), "policy", 1)
    run.mark(START + 0.3, "start")
    run.mark(START + 2.9, "success")
    _, store = imported(run.written(tmp_path / "bag"), robot, tmp_path / "a.zarr")
    episode = store[0]
    wanted = [act(robot, tick) + 2 if tick in taken else act(robot, tick) for tick in ticks]
    wanted[8:10] = [wanted[7]] * 2  # nobody said anything else
    wanted[15] = wanted[14]
    np.testing.assert_array_equal(episode.action, np.array(wanted))
    assert episode.intervened.tolist() == [tick in taken for tick in ticks]
    np.testing.assert_array_equal(episode.policy_action[10:20], np.array([act(robot, tick) for tick in taken]))
    np.testing.assert_array_equal(episode.policy_action[20:], episode.action[20:])
    acted = np.arange(10, 20) != 15
    np.testing.assert_allclose(episode.timestamp["action"][10:20][acted], np.array(taken)[acted] + 0.03, atol=1e-6)
    assert episode.facts["filled_actions"] == 3
    assert episode.facts["source"] == "intervention"


def test_what_the_supervisor_did_not_follow_is_no_action(tmp_path: Path) -> None:
    robot = panda()
    run = policy_run(robot, 2.0)
    time = list(run.proposed)[5]
    run.propose(time + 0.01, act(robot, time) + 9, "policy", 1, follow=False)
    run.mark(START + 0.3, "start")
    run.mark(START + 1.9, "stop")
    _, store = imported(run.written(tmp_path / "bag"), robot, tmp_path / "a.zarr")
    np.testing.assert_array_equal(store[0].action, np.array(list(run.proposed.values())))


def test_gaps_take_what_the_robot_was_commanded(tmp_path: Path) -> None:
    robot = panda()
    run = policy_run(robot, 2.0)
    lost = list(run.proposed)[5]
    run.sent = [
        sent for sent in run.sent
        if sent.topic != "/supervisor/proposal" or abs(messages.seconds(sent.message.header.stamp) - lost) > 1e-3
    ]  # fmt: skip
    commanded = np.array(robot.home) + 0.25
    for number in range(200):
        time = START + 0.3 + number / 100
        point = messages.make("trajectory_msgs/msg/JointTrajectoryPoint", positions=commanded,
                              time_from_start=messages.duration(0.01))  # fmt: skip
        arm = robot.commands["joint_position"]
        header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(time))
        run.send(time, arm.topic, messages.make(arm.type, header=header, joint_names=arm.elements, points=[point]))
        run.send(time, robot.commands["gripper_opening"].topic,
                 messages.make("std_msgs/msg/Float64MultiArray", data=[0.03]))  # fmt: skip
    run.mark(START + 0.3, "start")
    run.mark(START + 1.9, "stop")
    _, store = imported(run.written(tmp_path / "bag"), robot, tmp_path / "a.zarr")
    np.testing.assert_allclose(store[0].action[5], [*commanded, 0.06], atol=1e-6)
    assert store[0].length == len(run.proposed)  # the commands that go on afterwards belong to no episode


def test_several_episodes_verdicts_and_discards(tmp_path: Path) -> None:
    robot = panda()
    run = policy_run(robot, 4.4)
    first = list(run.proposed)
    for number, (begin, word, end) in enumerate(
        [(0.45, "success", 1.0), (1.05, "discard", 1.6), (1.65, "stop", 2.2), (2.8, "failure", 3.4)], 1
    ):
        run.mark(START + begin, "start", number, seed=number)
        run.mark(START + end, word, number)  # type: ignore[arg-type]
    run.mark(START + 2.25, "success", 3, notes="seen later")
    run.mark(START + 3.5, "start", 5)
    done, store = imported(run.written(tmp_path / "bag"), robot, tmp_path / "a.zarr")
    assert [(episode.number, episode.index) for episode in done] == [(1, 0), (2, None), (3, 1), (4, 2), (5, 3)]
    assert done[1].problem == "discarded"
    assert [store.facts(index)["seed"] for index in range(3)] == [1, 3, 4]
    assert [episode.success for episode in store] == [True, True, False, None]
    assert store.facts(1)["notes"] == "seen later"
    assert store.facts(3)["unfinished"]  # the recorder was killed before it ended
    for episode in store:
        control = episode.timestamp["control"]
        np.testing.assert_allclose(np.diff(control), 0.05, atol=1e-6)
        wanted = [run.proposed[min(first, key=lambda time, at=at: abs(time - at))] for at in control[:-1]]
        np.testing.assert_array_equal(episode.action, np.array(wanted))


def test_a_pause_divides_an_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robot_rl.hardware.recording.bag_import.PAUSE", 0.5)
    robot = panda()
    run = policy_run(robot, 4.0)
    quiet = (START + 1.5, START + 2.5)
    run.sent = [s for s in run.sent if s.topic != "/supervisor/proposal" or not quiet[0] < s.received < quiet[1]]
    run.mark(START + 0.3, "start", seed=3)
    run.mark(START + 3.9, "success")
    done, store = imported(run.written(tmp_path / "bag"), robot, tmp_path / "a.zarr")
    assert [(episode.number, episode.index) for episode in done] == [(1, 0), (1, 1)]
    assert [episode.success for episode in store] == [None, True]
    assert [episode.facts["recording"] for episode in store] == ["bag/1", "bag/1.2"]
    assert [episode.facts["seed"] for episode in store] == [3, 3]


def test_an_episode_may_begin_before_the_clock_does(tmp_path: Path) -> None:
    """On simulated time a recorder's clock says 0 until the first `/clock`."""
    robot = panda()
    run = policy_run(robot)
    run.mark(0.0, "start", seed=3)
    run.mark(START + 2.9, "success")
    done, store = imported(run.written(tmp_path / "bag"), robot, tmp_path / "a.zarr")
    assert [(episode.number, episode.index) for episode in done] == [(1, 0)]
    assert store[0].success
    np.testing.assert_array_equal(store[0].timestamp["control"], list(run.rows))
    np.testing.assert_array_equal(store[0].action, np.array(list(run.proposed.values())))


def test_a_clock_that_is_set_forward_divides_an_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A computer without a battery for its clock begins in 1970, until a time server tells it the date."""
    robot = panda()
    run = policy_run(robot, seed=1)
    with monkeypatch.context() as earlier:
        earlier.setattr(sys.modules[__name__], "START", 1000.0)
        before = policy_run(robot)
    run.sent += before.sent
    run.mark(1000.3, "start", seed=3)
    run.mark(START + 2.9, "success")
    done, store = imported(run.written(tmp_path / "bag"), robot, tmp_path / "a.zarr")
    assert [(episode.number, episode.index) for episode in done] == [(1, 0), (1, 1)]
    assert [episode.success for episode in store] == [None, True]
    for episode, part in zip(store, (before, run), strict=True):
        np.testing.assert_array_equal(episode.timestamp["control"], list(part.rows))
        np.testing.assert_array_equal(episode.action, np.array(list(part.proposed.values())))
    assert "no message for 60 s" in store.facts(0)["notes"]


def test_lost_messages_are_counted_and_the_policys_numbers_stand(tmp_path: Path) -> None:
    robot = panda()
    run = policy_run(robot)
    run.mark(START + 0.3, "start")
    run.mark(START + 2.9, "success")
    rng = np.random.default_rng(1)
    streams = {stream.topic for stream in robot.streams.values()}
    bag = run.written(tmp_path / "bag", lambda sent: sent.topic not in streams or rng.uniform() > 0.3)
    _, store = imported(bag, robot, tmp_path / "a.zarr")
    episode = store[0]
    assert episode.length == len(run.proposed)
    for name, feature in robot.contract.observation.items():
        if not feature.is_frame:
            wanted = np.array([row[name] for row in run.rows.values()])
            np.testing.assert_array_equal(episode.observation[name], wanted)
    np.testing.assert_array_equal(episode.action, np.array(list(run.proposed.values())))
    assert 0 < episode.facts["lost_samples"] <= len(run.rows)


def test_a_stream_that_stops_leaves_stale_rows_with_true_stamps(tmp_path: Path) -> None:
    robot = panda()
    run = policy_run(robot)
    run.mark(START + 0.3, "start")
    run.mark(START + 2.9, "success")
    bag = run.written(
        tmp_path / "bag",
        lambda s: s.topic != "/policy/observation" and not (s.topic == "/cube_pose" and 1.0 < s.received - START < 2.0),
    )
    _, store = imported(bag, robot, tmp_path / "a.zarr")
    episode = store[0]
    age = episode.timestamp["control"] - episode.timestamp["cube_pose"]
    assert episode.length == len(run.proposed)
    assert 0.9 < age.max() < 1.1
    assert episode.facts["stale_rows"] == pytest.approx(16, abs=1)


def test_a_clock_that_begins_anew_ends_the_episode(tmp_path: Path) -> None:
    robot = panda()
    run, again = policy_run(robot, 2.0), policy_run(robot, 2.0)
    run.mark(START + 0.3, "start")
    again.mark(START + 0.3, "start", 2)
    again.mark(START + 1.9, "success", 2)
    notes = {"run": "r", "topics": "{}"}
    with BlackBox(tmp_path / "bag", notes) as box:
        for part, offset in ((run, 10.0), (again, 0.0)):
            for sent in sorted(part.sent, key=lambda sent: sent.received):
                name = sent.message.__msgtype__
                text = messages.typestore().generate_msgdef(name, ros_version=2)[0]
                box.add_topic(Topic(sent.topic, name, text, messages.type_hash(name)))
                box.write(sent.topic, round((sent.received + offset) * 1e9), messages.encode(sent.message))
    done, store = imported(tmp_path / "bag", robot, tmp_path / "a.zarr")
    assert [episode.number for episode in done] == [1, 2]
    assert store[len(store) - 1].success is True
    assert store[len(store) - 1].length == len(again.proposed)


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_a_foreign_bag_is_one_episode_of_what_was_commanded(tmp_path: Path, storage: StoragePlugin) -> None:
    robot = RobotFile.load("panda").for_policy(
        (offered := RobotFile.load("panda").contract).select(["joint_position", "gripper_opening"])
    )
    assert offered.rate_hz == 20
    store_of_types = get_typestore(Stores.ROS2_JAZZY)
    store_of_types.register(get_types_from_msg("float64 x\nstring note", "my_robot/msg/Own"))
    own = store_of_types.types["my_robot/msg/Own"]
    arm, gripper = robot.commands["joint_position"], robot.commands["gripper_opening"]
    sent: list[tuple[float, str, str, Any]] = []
    for number in range(300):
        time = START + number / 100
        joints = bindings.encode_observations(robot, {"joint_position": np.full(7, number / 100)}, time)
        hand = bindings.encode_observations(robot, {"gripper_opening": np.full(1, 0.04)}, time)
        for topic, message in {**joints, **hand}.items():
            sent.append((time + 0.001, topic, message.__msgtype__, message))
        sent.append((time, "/unrelated", "my_robot/msg/Own", own(1.0, "ours")))
        if number % 5 == 0 and 100 <= number < 200:
            point = messages.make("trajectory_msgs/msg/JointTrajectoryPoint", positions=np.full(7, number / 50),
                                  time_from_start=messages.duration(0.05))  # fmt: skip
            header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(time))
            message = messages.make(arm.type, header=header, joint_names=arm.elements[::-1], points=[point])
            sent.append((time + 0.002, "/arm/" + arm.topic.lstrip("/"), arm.type, message))
            message = messages.make(gripper.type, data=[0.02])
            sent.append((time + 0.002, gripper.topic, gripper.type, message))
    with Writer(tmp_path / "bag", version=9, storage_plugin=storage) as writer:
        connections: dict[str, Any] = {}
        for time, topic, name, message in sorted(sent, key=lambda item: item[0]):
            topic = topic.removeprefix("/arm")
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, name, typestore=store_of_types)
            writer.write(connections[topic], round(time * 1e9), store_of_types.serialize_cdr(message, name))
    done, store = imported(tmp_path / "bag", robot, tmp_path / "a.zarr", facts={"task": "reach", "source": "teleop"})
    assert len(done) == len(store) == 1
    episode = store[0]
    assert (episode.facts["task"], episode.facts["source"], episode.success) == ("reach", "teleop", None)
    begin = int(np.argmax(episode.action[:, 0] > 2.0))
    np.testing.assert_allclose(episode.action[begin : begin + 19, 0], 2.1 + 0.1 * np.arange(19), atol=1e-6)
    np.testing.assert_allclose(episode.action[:, 7], 0.04, atol=1e-6)
    assert np.abs(episode.observation["joint_position"][:, 0] - (episode.timestamp["control"] - START)).max() < 0.03


def test_a_bag_without_actions_says_so(tmp_path: Path) -> None:
    robot = panda()
    run = policy_run(robot, 2.0)
    run.mark(START + 0.3, "start")
    run.mark(START + 1.9, "success")
    kept = ("/supervisor/proposal", "/supervisor/status")
    done, store = imported(run.written(tmp_path / "bag", lambda s: s.topic not in kept), robot, tmp_path / "a.zarr")
    assert len(store) == 0
    assert done[0].problem == "no action was executed"
    streams = {stream.topic for stream in robot.streams.values()}
    bag = run.written(tmp_path / "other", lambda s: s.topic not in (*streams, "/policy/observation"))
    done, _ = imported(bag, robot, tmp_path / "a.zarr")
    assert done[0].problem == "the streams did not give a single whole row"


def test_contracts_come_from_wherever_they_stand(tmp_path: Path) -> None:
    robot = panda()
    (tmp_path / "run" / "checkpoints" / "best").mkdir(parents=True)
    for file in (tmp_path / "run" / "checkpoints" / "best" / "contract.json", tmp_path / "contract.json"):
        file.write_text(robot.contract.to_json())
    EpisodeStore.create(tmp_path / "store.zarr", robot.contract)
    (tmp_path / "c.yaml").write_text(json.dumps(robot.contract.to_dict()))
    for path in ("run", "run/checkpoints/best", "store.zarr", "c.yaml", "contract.json"):
        assert read_contract(tmp_path / path) == robot.contract
    assert robot_for("panda", tmp_path / "run").contract.to_dict() == robot.contract.to_dict()
    assert robot_for("panda", None).contract == RobotFile.load("panda").contract
    with pytest.raises(ContractError):
        list(import_bag(Run(robot).written(tmp_path / "bag"), RobotFile.load("panda"), tmp_path / "store.zarr"))


def test_commands_to_the_recorder() -> None:
    assert parse("start task=lift seed=7 text=no_json") == ("start", {"task": "lift", "seed": 7, "text": "no_json"})
    assert parse(" success ") == ("success", {})
    for wrong in ("", "begin", "start lift", "start =3"):
        with pytest.raises(MarkError, match="expected"):
            parse(wrong)
    mark = Mark("failure", 1.25, 3, {"tags": ["slow"]})
    assert episode_mark.decode(episode_mark.encode(mark)) == mark
    with pytest.raises(MarkError, match="no mark"):
        episode_mark.decode(messages.make(episode_mark.TYPE, message="success"))
    with pytest.raises(MarkError, match="no mark"):
        episode_mark.decode(episode_mark.encode(Mark("success", np.inf, 1)))
