"""The teleop node against the real Supervisor, on a graph within the test; the arm is where it was commanded to be."""

from types import SimpleNamespace

import numpy as np
import pytest

from robot_rl.hardware import bindings
from robot_rl.hardware.nodes.supervisor_node import SupervisorBinding, SupervisorNode
from robot_rl.hardware.nodes.teleop_node import TeleopNode
from robot_rl.hardware.opened import Opened
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.graph import GraphError
from robot_rl.hardware.ros2.messages import make, seconds
from robot_rl.hardware.safety.source import Source
from robot_rl.hardware.safety.supervisor_messages import diagnostic, pairs
from robot_rl.hardware.teleop.device import Reading
from robot_rl.hardware.teleop.mapping import Mapping, Settings
from robot_rl.hardware.teleop.session import RecordingSession

PANDA = RobotFile.load("panda")
REST = np.zeros(6)
FORWARD = np.array([0.2, 0, 0, 0, 0, 0])


class Hand(Opened):
    name = "hand"

    def __init__(self):
        self.twist, self.buttons, self.lost, self.words = REST, frozenset(), False, []

    def read(self, now):
        return None if self.lost else Reading(now, twist=self.twist, buttons=self.buttons)

    def events(self):
        words, self.words = self.words, []
        return words


def no_actions(name, action_type):
    raise GraphError("no actions here")


class Rig:
    def __init__(self, graph, **settings):
        self.graph, self.hand, self.plugged = graph, Hand(), True
        graph.endpoints = list
        graph.action_client = no_actions
        graph.client = lambda name, _: SimpleNamespace(
            ready=True,
            call=lambda request, done, timeout=5.0: graph.call_soon(lambda: done(graph.services[name](request))),
        )
        self.supervisor = SupervisorBinding(graph, SupervisorNode(PANDA))
        self.joints, self.opening = np.array(PANDA.home), 0.08
        for command in PANDA.commands.values():
            graph.subscribe(command.topic, command.type, lambda sample: self.follow(sample))
        graph.timer(0.005, self.observe)
        mapping = Mapping(PANDA.contract, PANDA.kinematics(), Settings(), PANDA.gripper.opening)
        self.session = RecordingSession(countdown=0.2)
        self.node = TeleopNode(graph, PANDA, self.hand, mapping, self.session, **settings)
        graph.step(0.1)
        self.node.home()
        graph.step(1.0)
        assert self.state == "ready"

    def follow(self, sample):
        points = bindings.decode_command(PANDA, sample.topic, sample.message)
        if points.feature == "joint_position":
            self.joints = points.position[PANDA.periods - 1]
        else:
            self.opening = float(points.position[-1, 0])

    def observe(self):
        if not self.plugged:
            return
        state = {"joint_position": self.joints, "gripper_opening": np.array([self.opening])}
        for topic, message in bindings.encode_observations(PANDA, state, self.graph.time).items():
            self.graph.send(topic, message)

    @property
    def state(self):
        return pairs(self.graph.published["supervisor/status"][-1].status[0])["state"]

    @property
    def status(self):
        return pairs(self.graph.published["teleop/status"][-1].status[0])

    @property
    def marks(self):
        return [message.data.split()[0] for message in self.graph.published.get("recorder/command", [])]


@pytest.fixture
def rig(local_graph):
    return Rig(local_graph())


def test_moving_the_device_takes_the_robot_and_letting_go_keeps_it_still(rig):
    rig.hand.twist = FORWARD
    rig.graph.step(1.0)
    assert rig.state == "intervening"
    assert np.abs(rig.joints - PANDA.home).max() > 0.05
    rig.hand.twist = REST
    rig.graph.step(0.6)
    at_rest = rig.joints.copy()
    rig.graph.step(0.5)
    assert rig.state == "intervening"
    np.testing.assert_allclose(rig.joints, at_rest, atol=1e-4)
    rig.hand.words.append("release")
    rig.graph.step(0.2)
    assert rig.state == "ready"


@pytest.mark.parametrize("offset", [0.012, *(pytest.param(value, marks=pytest.mark.slow) for value in (0.027, 0.043))])
def test_a_motion_that_begins_or_ends_does_not_wait_for_the_control_period(rig, offset):
    graph = rig.graph

    def proposals():
        return graph.published.get("supervisor/proposal", [])

    rig.hand.buttons = frozenset({"takeover"})
    graph.step(0.2)
    rig.hand.buttons = frozenset()
    graph.step(0.2)
    graph.step(0.05 - graph.time % 0.05 + offset)
    before = len(proposals())
    rig.hand.twist = FORWARD
    graph.step(0.011)
    assert len(proposals()) > before
    assert graph.time - seconds(proposals()[-1].header.stamp) < 0.011
    graph.step(0.4)
    way = rig.joints - PANDA.home
    assert np.abs(way).max() > 0.01
    graph.step(0.05 - graph.time % 0.05 + offset)
    moving = proposals()[-1]
    rig.hand.twist = REST
    graph.step(0.011)
    assert proposals()[-1] is not moving
    assert graph.time - seconds(proposals()[-1].header.stamp) < 0.011


def test_steps_between_control_periods_do_not_move_the_target_faster(rig, monkeypatch):
    passed = []
    step = rig.node._mapping.step
    monkeypatch.setattr(rig.node._mapping, "step", lambda *given: passed.append(given[-1]) or step(*given))
    began = rig.graph.time
    for _ in range(10):
        rig.hand.twist = FORWARD
        rig.graph.step(0.033)
        rig.hand.twist = REST
        rig.graph.step(0.016)
    assert len(passed) > 15
    assert sum(passed) <= rig.graph.time - began + 0.05


def test_with_a_lost_device_the_robot_holds_until_it_has_been_at_rest(rig):
    rig.hand.twist = FORWARD
    rig.graph.step(0.5)
    rig.hand.lost = True
    rig.graph.step(0.6)
    held = rig.joints.copy()
    assert rig.state == "ready"
    assert "lost" in rig.status["cue"]
    rig.hand.lost = False
    rig.graph.step(0.5)
    np.testing.assert_allclose(rig.joints, held, atol=1e-6)
    rig.hand.twist = REST
    rig.graph.step(0.1)
    rig.hand.twist = FORWARD
    rig.graph.step(0.5)
    assert rig.state == "intervening"


def test_an_emergency_stop_is_not_undone_by_moving(rig):
    rig.hand.twist = FORWARD
    rig.graph.step(0.3)
    rig.hand.words.append("stop")
    rig.graph.step(1.0)
    assert rig.state == "stopped"
    rig.hand.words.append("clear")
    rig.graph.step(0.3)
    assert rig.state == "idle"
    rig.hand.twist = REST
    rig.hand.words.append("home")
    rig.graph.step(6.0)
    assert rig.state == "ready"
    np.testing.assert_allclose(rig.joints, PANDA.home, atol=1e-3)


def test_clearing_what_is_not_stopped_does_not_undo_the_next_stop(rig):
    rig.hand.words.append("clear")
    rig.graph.step(2.0)
    assert rig.status["cue"].startswith("clear: it is ready")
    rig.hand.words.append("stop")
    rig.graph.step(5.0)
    assert rig.state == "stopped"
    rig.hand.words += ["clear", "stop"]
    rig.graph.step(5.0)
    assert rig.state == "stopped"
    rig.hand.words.append("clear")
    rig.graph.step(0.5)
    assert rig.state == "idle"


@pytest.mark.slow
def test_an_arm_that_comes_back_late_does_not_go_where_it_was_sent_before(rig):
    rig.hand.twist = FORWARD
    rig.graph.step(1.0)
    rig.hand.twist = REST
    rig.plugged = False
    rig.graph.step(0.5)
    assert rig.state == "held"
    rig.hand.words.append("home")
    rig.graph.step(10.0)
    assert "cannot home without a fresh observation" in rig.status["cue"]
    before = rig.joints.copy()
    rig.plugged = True
    rig.graph.step(2.0)
    assert rig.state == "held"
    np.testing.assert_allclose(rig.joints, before, atol=1e-6)
    rig.hand.words.append("home")
    rig.graph.step(4.0)
    assert rig.state == "ready"


def test_a_policy_does_not_go_on_because_the_person_who_took_over_has_lost_the_device(local_graph):
    rig = Rig(local_graph(), handback=0.5, acts=True)
    policy = Source(rig.graph, "policy", "policy", PANDA.contract)

    def watch():
        if policy.state == "ready":
            policy.acquire()
        policy.propose(np.append(PANDA.home, 0.04), rig.graph.time)

    rig.hand.twist = FORWARD
    rig.graph.step(1.0)
    rig.graph.timer(0.05, watch)
    rig.hand.lost = True
    rig.graph.step(1.0)
    assert rig.state == "held"
    held = rig.joints.copy()
    rig.hand.lost = False
    rig.graph.step(1.0)
    np.testing.assert_allclose(rig.joints, held, atol=1e-6)  # though the hand still pushes
    rig.hand.twist = REST
    rig.graph.step(0.2)
    rig.hand.twist = FORWARD
    rig.graph.step(0.5)
    assert (rig.state, policy.lease) == ("intervening", None)


def test_an_episode_is_marked_and_the_robot_waits_at_the_start_meanwhile(rig):
    rig.hand.twist = FORWARD
    rig.graph.step(0.5)
    rig.graph.send("teleop/command", make("std_msgs/msg/String", data="record"))
    rig.graph.step(4.0)
    assert rig.marks == ["start"]
    assert rig.status["phase"] == "recording"
    np.testing.assert_allclose(rig.joints, PANDA.home, atol=1e-3)  # though the hand still pushes
    assert "let go" in rig.graph.published["teleop/status"][-1].status[0].message
    rig.hand.words.append("success")
    rig.graph.step(5.0)
    assert rig.marks == ["start", "success"]
    assert (rig.status["phase"], rig.status["counted"], rig.state) == ("idle", "1", "ready")


def recorder_says(rig, bag, problem=""):
    values = {"state": "idle", "bag": bag, "problem": problem}
    rig.graph.send("recorder/status", diagnostic("recorder", 2 if problem else 0, problem, values))


@pytest.mark.parametrize("told", [("bags/two", ""), ("bags/one", "No space left on device")])
def test_an_episode_that_the_recorder_has_lost_does_not_count(rig, told):
    recorder_says(rig, "bags/one")
    rig.hand.words.append("record")
    rig.graph.step(2.0)
    assert rig.marks == ["start"]
    recorder_says(rig, *told)
    rig.graph.step(0.1)
    assert rig.status["cue"].startswith("the episode is lost: ")
    rig.hand.words.append("success")  # too late
    rig.graph.step(2.0)
    assert rig.marks == ["start", "discard"]
    assert (rig.session.counted, rig.status["phase"]) == (0, "idle")
    rig.hand.words.append("record")
    rig.graph.step(2.0)
    assert rig.marks[2:] == ([] if told[1] else ["start"])


def test_taking_over_keeps_what_the_gripper_holds_and_handing_back_frees_the_robot(local_graph):
    rig = Rig(local_graph(), handback=0.3)
    policy = Source(rig.graph, "policy", "policy", PANDA.contract)
    policy.acquire()
    rig.graph.timer(0.05, lambda: policy.propose(np.append(PANDA.home, 0.0), rig.graph.time))
    rig.graph.step(0.5)
    assert rig.state == "running"
    rig.opening = 0.04  # the cube between the fingers
    rig.hand.buttons = frozenset({"takeover"})
    rig.graph.step(0.3)
    assert (rig.state, policy.lease) == ("intervening", None)
    mine = rig.graph.published["supervisor/proposal"][-1]
    assert mine.position[mine.name.index("gripper_opening")] == 0.0
    before = rig.joints.copy()
    rig.hand.buttons = frozenset()
    rig.graph.step(0.6)
    assert rig.state == "ready"
    np.testing.assert_allclose(rig.joints, before, atol=1e-3)
    policy.acquire()
    rig.graph.step(0.3)
    assert rig.state == "running"


def test_a_word_that_does_not_exist_changes_nothing(rig):
    rig.graph.send("teleop/command", make("std_msgs/msg/String", data="succes"))
    assert rig.marks == []


def test_before_the_session_is_ready_only_an_emergency_stop_is_heard(rig):
    rig.node.listens = False
    rig.hand.words = ["record"]
    rig.graph.step(0.5)
    assert (rig.status["phase"], rig.status["cue"], rig.status["busy"]) == ("idle", "record: not ready yet", "True")
    rig.hand.words = ["stop"]
    rig.graph.step(0.1)
    assert rig.state == "stopped"
