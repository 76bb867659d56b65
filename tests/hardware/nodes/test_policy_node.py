"""The policy node on a graph within the test, with the real Supervisor node's messages and a policy that is a table."""

import logging

import numpy as np
import pytest

from robot_rl.hardware.alignment import Alignment
from robot_rl.hardware.bindings import encode_observations
from robot_rl.hardware.inference import Answer, Description, Failure, Ready
from robot_rl.hardware.nodes.policy_node import STEP, PolicyNode, main
from robot_rl.hardware.observed_row import decode_row
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.safety.supervisor_messages import diagnostic, diagnostics

PANDA = RobotFile.load("panda")
ROBOT = PANDA.for_policy(PANDA.contract.select(["joint_position", "gripper_opening", "ee_pose"]))
PERIOD = 1.0 / ROBOT.contract.rate_hz
HOME = np.array(PANDA.home)


class Table:
    """An inference that answers at once: chunk k is filled with k + 1."""

    policy = Description(ROBOT.contract, 1, 4, 0, 0)

    def __init__(self, wake):
        self.wake = wake
        self.seeds, self.observations, self.pending, self.silent = [], [], [], False

    def begin(self, seed):
        self.seeds.append(seed)

    def submit(self, request_id, observation, prefix):
        self.observations.append(observation)
        chunk = np.full((1, 4, ROBOT.contract.action_dim), len(self.observations), np.float32)
        if not self.silent:
            self.pending.append(Answer(request_id, chunk, 0.004))
            self.wake()

    def events(self):
        events, self.pending = self.pending, []
        return events


class Robot:
    """Publishes observations and plays the Supervisor: it grants every lease."""

    def __init__(self, graph):
        self.graph, self.token, self.lease, self.state = graph, "", 0, "ready"
        graph.subscribe("supervisor/source", "", self.hear)
        graph.timer(0.01, self.publish)
        self.observing = True

    def hear(self, sample):
        wish, token = sample.message.message, sample.message.hardware_id
        if wish == "acquire" and self.state == "ready":
            self.token, self.lease = token, self.lease + 1
        elif wish == "release":
            self.token = ""

    def publish(self):
        values = {"state": self.state, "token": self.token, "lease": self.lease if self.token else 0}
        status = diagnostic("supervisor", 0, "test", values)
        self.graph.send("supervisor/status", diagnostics(self.graph.time, status))
        if self.observing:
            state = {"joint_position": HOME + 1e-3 * self.graph.time, "gripper_opening": np.array([0.04])}
            for topic, message in encode_observations(ROBOT, state, self.graph.time).items():
                self.graph.send(topic, message)


@pytest.fixture
def running(local_graph):
    graph = local_graph({"execute": 2, "seed": 5})
    inference = Table(lambda: graph.call_soon(lambda: node.advance()))
    node, robot = PolicyNode(graph, inference, ROBOT), Robot(graph)
    graph.step(0.1)
    assert graph.call("policy/start").success
    graph.step(0.02)
    return graph, inference, node, robot


def state_of(graph):
    status = graph.published["policy/status"][-1]
    return status.values[0].value, status.message


def test_it_proposes_an_action_in_every_period_under_its_lease(running):
    graph, inference, _, _ = running
    graph.step(6 * PERIOD)
    assert state_of(graph)[0] == "running"
    assert inference.seeds == [5]
    assert graph.parameters["seed"].value == 6
    proposals = graph.published["supervisor/proposal"]
    assert [p.header.frame_id for p in proposals] == [f"1/{number}" for number in range(1, len(proposals) + 1)]
    assert proposals[0].name == ROBOT.contract.action_names
    assert [p.position[0] for p in proposals[:6]] == [1, 1, 2, 2, 3, 3]
    stamps = [messages.seconds(p.header.stamp) for p in proposals]
    np.testing.assert_allclose(np.diff(stamps), PERIOD, atol=2e-3)


def test_it_publishes_exactly_what_the_policy_observed(running):
    graph, inference, _, _ = running
    graph.step(6 * PERIOD)
    rows = [decode_row(ROBOT.contract, message) for message in graph.published["policy/observation"]]
    asked = rows[::2]  # a chunk is asked for in every second step
    for (_, observed, _), given in zip(asked, inference.observations, strict=False):
        for name, value in given.items():
            np.testing.assert_array_equal(observed[name], value[0, -1])
    again = Alignment(ROBOT)
    for topic in again.topics:
        for message in graph.published[topic]:
            again.take(topic, message, messages.seconds(message.header.stamp))
    for tick, observed, stamps in rows:
        row = again.row(tick)
        assert stamps == pytest.approx(row.stamps, abs=1e-6)
        for name, value in row.observation.items():
            np.testing.assert_array_equal(observed[name], value)


def test_steps_tell_when_they_began_and_what_they_saw(running):
    graph, _, _, _ = running
    graph.step(4 * PERIOD)
    step = dict(zip(STEP, graph.published["policy/step"][-1].data, strict=True))
    assert step["tick"] == pytest.approx(graph.time, abs=PERIOD)
    assert step["began"] == pytest.approx(step["tick"], abs=0.002)
    assert step["oldest_stamp"] <= step["newest_stamp"] <= step["tick"] + 1e-6
    assert [d.label for d in graph.published["policy/step"][-1].layout.dim] == list(STEP)


def test_stopping_releases_the_lease_and_says_so(running):
    graph, _, _, robot = running
    graph.step(2 * PERIOD)
    assert graph.call("policy/stop").success
    graph.step(0.05)
    assert state_of(graph) == ("stopped", "asked to stop")
    assert robot.token == ""
    before = len(graph.published["supervisor/proposal"])
    graph.step(4 * PERIOD)
    assert len(graph.published["supervisor/proposal"]) == before
    graph.call("policy/start")
    graph.step(3 * PERIOD)
    assert state_of(graph)[0] == "running"


def test_a_lost_lease_stops_it_for_good_with_the_supervisors_reason(running):
    graph, _, _, robot = running
    graph.step(2 * PERIOD)
    robot.token, robot.state = "", "held"
    graph.step(2 * PERIOD)
    assert state_of(graph) == ("stopped", "lost the lease: the Supervisor is held (test)")
    robot.state = "ready"
    graph.step(4 * PERIOD)
    assert state_of(graph)[0] == "stopped"


@pytest.mark.parametrize(("state", "seconds"), [("stopped", 0.1), ("held", 6.0)])
def test_a_lease_that_is_not_granted_is_not_waited_for(running, state, seconds):
    graph, _, _, robot = running
    graph.call("policy/stop")
    robot.state = state
    graph.step(0.05)
    assert graph.call("policy/start").success
    graph.step(seconds)
    assert state_of(graph) == ("stopped", f"no lease: the Supervisor is {state} (test)")
    robot.state = "ready"  # the stop was cleared, or the cable plugged in
    graph.step(1.0)
    assert (state_of(graph)[0], robot.token) == ("stopped", "")


def test_a_failed_inference_stops_it_until_it_is_ready_again(running):
    graph, inference, node, robot = running
    graph.step(2 * PERIOD)
    inference.silent = True
    inference.pending = [Failure(9, "the inference process died: SIGKILL")]
    node.advance()
    assert state_of(graph) == ("stopped", "inference failed: the inference process died: SIGKILL")
    assert robot.token == ""
    answer = graph.call("policy/start")
    assert not answer.success
    assert "SIGKILL" in answer.message
    node.report()
    diagnostic_status = graph.published["/diagnostics"][-1].status[0]
    assert int.from_bytes(bytes([diagnostic_status.level])) == 2
    inference.pending, inference.silent = [Ready()], False
    node.advance()
    assert graph.call("policy/start").success


def test_without_observations_nothing_is_proposed_and_the_reason_stands_in_the_diagnostics(running):
    graph, _, node, robot = running
    graph.step(2 * PERIOD)
    robot.observing = False
    graph.step(0.3)
    before = len(graph.published["supervisor/proposal"])
    graph.step(4 * PERIOD)
    assert len(graph.published["supervisor/proposal"]) == before
    node.report()
    assert "joint_position" in graph.published["/diagnostics"][-1].status[0].message
    robot.observing = True
    graph.step(4 * PERIOD)
    assert len(graph.published["supervisor/proposal"]) > before


def test_diagnostics_hold_jitter_age_inference_time_and_seams(running):
    graph, _, node, _ = running
    graph.step(8 * PERIOD)
    node.report()
    values = {pair.key: pair.value for pair in graph.published["/diagnostics"][-1].status[0].values}
    for name in ("loop jitter", "observation age", "inference time"):
        assert float(values[f"{name} median [ms]"]) <= float(values[f"{name} p99 [ms]"])
    assert float(values["chunk seam max [1/s]"]) > 0


def test_without_a_policy_main_fails_with_a_reason(monkeypatch, caplog):
    pytest.importorskip("cyclonedds")
    monkeypatch.setenv("ROBOT_RL_ROS", "dds")
    with caplog.at_level(logging.ERROR):
        assert main([]) == 1
