"""The supervisor node: by hand and clock in this process, and through real processes over DDS with injected faults."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from robot_rl.hardware import bindings
from robot_rl.hardware.nodes.supervisor_node import SupervisorBinding, SupervisorNode
from robot_rl.hardware.robot_file import FOLDER, RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.source import Source
from robot_rl.hardware.safety.supervisor_messages import (
    BOOL,
    DIAGNOSTIC,
    DIAGNOSTICS,
    JOINT_STATE,
    PROPOSAL,
    SOURCE,
    STATUS,
    STOP_REQUEST,
    TRANSITION,
    SourceWord,
    describe_actions,
    encode_proposal,
    encode_source,
    pairs,
)

DEADLINE = 60.0
ATTEMPTS = 5
WATCHDOG = {"observation": 0.8, "action": 0.8, "lease": 1.0, "skew": 0.05, "following_error": 0.5}  # busy machines


@cache
def panda(folder=None):
    """The Panda, ticked at 100 Hz and with patient watchdogs."""
    plain = yaml.safe_load((FOLDER / "panda.yaml").read_text())
    plain |= {"command_rate_hz": 500, "tick_rate_hz": 100, "homing_speed": 1.0, "watchdog": WATCHDOG}
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(plain))
    return RobotFile.load(path)


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    return panda(tmp_path_factory.mktemp("robot"))


class Monitor:
    """Every command that left the Supervisor, held against the limits."""

    def __init__(self, robot):
        self.robot, self.received = robot, []

    def take(self, message):
        points = bindings.decode_command(self.robot, self.robot.commands["joint_position"].topic, message)
        self.received.append(points)

    def check(self):
        """Position, velocity and acceleration of all points; between them the same and jerk, by finite differences."""
        limits, count, period = self.robot.limits, self.robot.periods, 1 / self.robot.command_rate_hz
        begin = np.array([points.start for points in self.received])
        runs = np.split(np.arange(len(begin)), np.nonzero(np.diff(begin) > 3.0)[0] + 1)
        for run in runs:
            parts = [self.received[index] for index in run]
            times = np.concatenate([points.start + points.times[:count] for points in parts])
            position, velocity, acceleration = (
                np.concatenate([getattr(points, key)[:count] for points in parts])
                for key in ("position", "velocity", "acceleration")
            )
            self.within(position, velocity, acceleration)
            for points in parts:
                self.within_jerk(points)
                self.within(points.position, points.velocity, points.acceleration)
                np.testing.assert_allclose(points.velocity[-1], 0, atol=1e-6)
            step = np.diff(times)[:, None]
            assert (step > 0).all()
            assert (np.abs(np.diff(position, axis=0)) <= limits.velocity * step * 1.001 + 1e-9).all()
            assert (np.abs(np.diff(velocity, axis=0)) <= limits.acceleration * step * 1.001 + 1e-9).all()
            # Acceleration is continuous, so its differences are bounded by the jerk across all joints of pieces, too.
            assert (np.abs(np.diff(acceleration, axis=0)) <= limits.jerk * step * 1.001 + 1e-6).all()
            even = np.abs(step[:-1] - period).max(1) + np.abs(step[1:] - period).max(1) < 1e-6
            second = np.diff(position, 2, axis=0)[even] / period**2
            assert (np.abs(second) <= limits.acceleration * 1.01 + 1e-6).all()

    def within(self, position, velocity, acceleration):
        limits = self.robot.limits
        assert ((position >= limits.lower - 1e-9) & (position <= limits.upper + 1e-9)).all()
        assert (np.abs(velocity) <= limits.velocity * 1.001).all()
        assert (np.abs(acceleration) <= limits.acceleration * 1.001).all()

    def within_jerk(self, points):
        """Also along the motion until rest, whose knots may be moved by the shortest time between points."""
        step = np.diff(points.times)[:, None] + 2 * bindings.NEAREST
        assert (np.abs(np.diff(points.acceleration, axis=0)) <= self.robot.limits.jerk * step * 1.001 + 1e-6).all()

    def speed_at(self, moment):
        """The largest joint speed commanded for a time [rad/s]."""
        newest = [points for points in self.received if points.start is not None and points.start < moment][-1]
        index = np.searchsorted(newest.start + newest.times, moment)
        return np.abs(newest.velocity[min(index, len(newest.velocity) - 1)]).max()


def word(robot, wish, token="t1", lease=0, kind="script", actions=None, reason="", name="tester"):
    actions = describe_actions(robot.contract) if actions is None else actions
    return encode_source(SourceWord(name, token, wish, kind, lease, actions, reason))


def proposal(robot, lease, sequence, stamp, arm, opening=0.04):
    return encode_proposal(Proposal(lease, sequence, stamp, np.append(arm, opening)), robot.contract.action_names)


class ByHand:
    """A node without a graph; the arm is where it was commanded."""

    def __init__(self, robot):
        self.node, self.robot, self.now = SupervisorNode(robot), robot, 50.0
        self.measured, self.monitor = np.array(robot.home), Monitor(robot)
        self.heard = []

    def tick(self, count=1, **values):
        for _ in range(count):
            self.now += 0.01
            values = {"joint_position": self.measured, "gripper_opening": np.array([0.04])} | values
            sent = bindings.encode_observations(self.robot, values, self.now)
            for feature, stream in self.node.streams.items():
                if stream.topic in sent:
                    self.node.observe(feature, sent[stream.topic], self.now)
            self.output = self.node.tick(self.now, self.now)
            self.heard += self.output.transitions
            for topic, message in self.output.commands.items():
                if topic == self.robot.commands["joint_position"].topic:
                    self.monitor.take(message)
                    self.measured = self.monitor.received[-1].position[self.robot.periods - 1]
        self.status = pairs(self.output.status.status[0])

    def ready(self):
        self.tick()
        assert self.node.request("home", self.now)[0]
        self.tick(30)
        assert self.status["state"] == "ready"
        return self


def test_a_source_is_granted_the_lease_and_followed_by_name(robot):
    hand = ByHand(robot).ready()
    hand.node.hear(word(robot, "acquire"), hand.now)
    hand.tick()
    assert (hand.status["holder"], hand.status["token"], hand.status["lease"]) == ("tester", "t1", "1")
    message = proposal(robot, 1, 1, hand.now, np.array(robot.home) + 0.02)
    order = list(reversed(range(8)))
    message.name, message.position = [message.name[k] for k in order], message.position[order]
    assert hand.node.propose(message, hand.now) is None
    hand.tick(20)
    assert hand.status["state"] == "running"
    assert hand.status["followed"] == "1/1"
    np.testing.assert_allclose(hand.measured, np.array(robot.home) + 0.02, atol=1e-4)
    hand.node.hear(word(robot, "release", lease=1, reason="camera stopped"), hand.now)
    hand.tick()
    assert hand.status["state"] == "ready"
    assert hand.output.status.status[0].message == "'tester': camera stopped"
    assert int(hand.status["commands"]) == 2 * len(hand.monitor.received)
    assert [pairs(change)["to"] for change in hand.heard] == ["homing", "ready", "running", "ready"]
    hand.monitor.check()


def test_what_cannot_be_read_or_executed_is_counted_by_reason(robot):
    hand = ByHand(robot).ready()
    hand.node.hear(word(robot, "acquire"), hand.now)
    hand.tick()
    home, now = np.array(robot.home), hand.now

    def changed(**fields):
        message = proposal(robot, 1, 5, now, home)
        for key, value in fields.items():
            setattr(message, key, value)
        return message

    names = robot.contract.action_names
    header = messages.make("std_msgs/msg/Header", frame_id="nonsense", stamp=messages.stamp(now))
    wrong = {
        "wrong_names": [changed(name=["x", *names[1:]]), changed(name=[names[1], *names[1:]])],
        "wrong_shape": [changed(position=np.zeros(3)), changed(position=np.zeros(0))],
        "malformed_frame": [changed(header=header)],
        "no_lease": [proposal(robot, 7, 1, now, home), proposal(robot, 0, 1, now, home)],
        "non_finite": [proposal(robot, 1, 5, now, home * np.nan), proposal(robot, 1, 5, now, home, np.inf)],
        "stale": [proposal(robot, 1, 5, now - 1, home)],
        "from_the_future": [proposal(robot, 1, 5, now + 1, home)],
    }
    for reason, cases in wrong.items():
        assert [hand.node.propose(message, now) for message in cases] == [reason] * len(cases)
    # Huge, but finite: there would be a motion, as far as the limits allow, but not out of the workspace.
    assert hand.node.propose(proposal(robot, 1, 6, now, home + 1e9), now) == "workspace"
    assert hand.node.propose(proposal(robot, 1, 6, now, home), now) == "out_of_order"
    hand.node.hear(word(robot, "acquire", token=""), now)
    hand.node.hear(word(robot, "dance"), now)
    hand.node.observe("joint_position", messages.make(JOINT_STATE, name=["panda_joint1"], position=[0.0]), now)
    hand.tick()
    counted = {key: int(value) for key, value in hand.status.items() if key.startswith("rejected.")}
    assert counted == {f"rejected.{reason}": len(cases) for reason, cases in wrong.items()} | {
        "rejected.workspace": 1, "rejected.out_of_order": 1, "rejected.source_without_token": 1,
        "rejected.malformed_source": 1, "rejected.observation_unreadable": 1,
    }  # fmt: skip
    assert hand.status["limited"] == "1"
    hand.monitor.check()


def test_a_refused_source_is_told_why(robot):
    hand = ByHand(robot).ready()
    hand.node.hear(word(robot, "acquire", token="a"), hand.now)
    hand.node.hear(word(robot, "acquire", token="b", name="other"), hand.now)
    hand.node.hear(word(robot, "acquire", token="c", actions="servo_ee_pose at 10 Hz: x", name="old"), hand.now)
    hand.tick()
    assert "'tester' (script) holds the lease" in hand.status["refused.b"]
    assert "contract mismatch: 'old' acts by 'servo_ee_pose at 10 Hz: x'" in hand.status["refused.c"]
    for number in range(50):
        hand.node.hear(word(robot, "acquire", token=f"x{number}"), hand.now)
    hand.tick()
    assert sum(key.startswith("refused.") for key in hand.status) <= 8
    hand.tick(105)
    assert not any(key.startswith("refused.") for key in hand.status)


def test_a_gripper_that_is_not_observed_holds_the_arm(robot):
    hand = ByHand(robot).ready()
    old = messages.make(
        JOINT_STATE, name=["panda_finger_joint1", "panda_finger_joint2"], position=[0.02, 0.02],
        header=messages.make("std_msgs/msg/Header", stamp=messages.stamp(hand.now)),
    )  # fmt: skip
    gripper = hand.robot.streams["gripper_opening"].topic
    real = bindings.encode_observations
    try:
        bindings.encode_observations = lambda *args: real(*args) | {gripper: old}
        hand.tick(100)
    finally:
        bindings.encode_observations = real
    assert hand.status["state"] == "held"
    assert hand.output.status.status[0].message == "observations stopped"


@pytest.fixture
def bound(robot, local_graph):
    return bind(local_graph(), robot, 5.0)


def bind(graph, robot, wait):
    """A node on a graph within this process, and what it published."""
    graph.endpoints = list
    graph.action_client = lambda *_: SimpleNamespace(ready=False)
    graph.time = 100.0
    binding = SupervisorBinding(graph, SupervisorNode(robot), wait)
    arm = robot.commands["joint_position"].topic
    state = SimpleNamespace(graph=graph, binding=binding, arm=arm, position=np.array(robot.home))

    def observe():
        sent = graph.published.get(arm, [])
        if sent:
            state.position = bindings.decode_command(robot, arm, sent[-1]).position[robot.periods - 1]
        values = {"joint_position": state.position, "gripper_opening": np.array([0.04])}
        for topic, message in bindings.encode_observations(robot, values, graph.time).items():
            graph.send(topic, message)

    graph.timer(0.01, observe)
    return state


def last_status(graph):
    return graph.published[STATUS][-1]


def test_a_source_on_the_graph_acquires_proposes_and_releases(bound, robot):
    graph = bound.graph
    source = Source(graph, "flow", "policy", robot.contract)
    graph.step(0.05)
    assert graph.call("supervisor/home").success
    source.acquire()
    assert source.lease is None
    graph.step(0.02)
    assert "no lease while homing" in source.reason
    graph.step(0.4)
    assert source.lease == 1
    assert source.propose(np.append(robot.home, 0.0), graph.now())
    graph.step(0.03)
    assert source.state == "running"
    with pytest.raises(ValueError, match="expected 8 numbers"):
        source.propose(np.zeros(3), graph.now())
    source.release("done")
    graph.step(0.02)
    assert (source.lease, source.state, source.reason) == (None, "ready", "'flow': done")
    source.acquire()
    graph.step(0.1)
    assert source.lease == 2
    graph.call("supervisor/emergency_stop")
    graph.step(0.02)
    assert (source.lease, source.state) == (None, "stopped")
    graph.step(0.5)
    assert graph.call("supervisor/clear").success
    assert source.lease is None


def test_a_forward_controller_is_led_to_rest_before_the_node_ends(local_graph, tmp_path):
    """It would stop where the last point was, at whatever speed; and nobody may take the arm meanwhile."""
    plain = yaml.safe_load((FOLDER / "panda.yaml").read_text())
    plain |= {"command_rate_hz": 100, "tick_rate_hz": 100, "watchdog": WATCHDOG}
    plain["commands"]["joint_position"]["type"] = "std_msgs/msg/Float64MultiArray"
    del plain["commands"]["joint_position"]["home_action"]
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(plain))
    robot = RobotFile.load(path)
    moved = bind(local_graph(), robot, 0.0)
    graph = moved.graph
    graph.spin = lambda until, timeout: any(graph.step(0.001) or until() for _ in range(round(1000 * timeout)))
    source = Source(graph, "flow", "policy", robot.contract)
    graph.step(0.05)
    graph.call("supervisor/home")
    source.acquire()
    graph.step(0.5)
    graph.timer(0.05, lambda: source.acquire() or source.propose(np.append(np.array(robot.home) + 0.3, 0), graph.now()))
    graph.step(0.3)
    assert source.state == "running"
    sent = graph.published[moved.arm]
    first = len(sent)
    moved.binding.close()
    places = np.array([message.data for message in sent[first - 2 :]])
    speed = np.abs(np.diff(places, axis=0)).max(1) / 0.01
    assert speed[0] > 0.3
    assert speed[-1] < 0.01
    assert (np.diff(speed) < 0.02).all()  # it only brakes


def test_a_tick_of_a_control_period_waits_for_the_proposal_of_that_time(bound, robot):
    graph = bound.graph
    source = Source(graph, "flow", "policy", robot.contract)
    graph.step(0.05)
    graph.call("supervisor/home")
    source.acquire()
    while source.lease is None:
        graph.step(0.01)
    while round(graph.time * 1000) % 50 != 0:
        graph.step(0.001)
    waiting = messages.seconds(last_status(graph).header.stamp)
    assert waiting == pytest.approx(graph.time - 0.01)
    source.propose(np.append(robot.home, 0.0), graph.time)
    assert messages.seconds(last_status(graph).header.stamp) == pytest.approx(graph.time)
    assert pairs(last_status(graph).status[0])["followed"] == "1/1"
    graph.step(0.05)
    assert messages.seconds(last_status(graph).header.stamp) == pytest.approx(graph.time - 0.01)
    graph.call("supervisor/emergency_stop")
    assert messages.seconds(last_status(graph).header.stamp) == pytest.approx(graph.time)


def test_a_proposal_that_comes_before_its_time_waits_for_it(bound, robot):
    graph = bound.graph
    source = Source(graph, "flow", "policy", robot.contract)
    graph.step(0.05)
    graph.call("supervisor/home")
    source.acquire()
    while source.lease is None or round(graph.time * 1000) % 50 != 45:
        graph.step(0.001)
    source.propose(np.append(robot.home, 0.0), graph.time + 0.005)
    assert pairs(last_status(graph).status[0])["followed"] == ""
    graph.step(0.005)
    values = pairs(last_status(graph).status[0])
    assert values["followed"] == "1/1"
    assert "rejected.from_the_future" not in values
    assert messages.seconds(last_status(graph).header.stamp) == pytest.approx(graph.time)
    source.propose(np.append(robot.home, 0.0), graph.time + 0.2)
    graph.step(0.01)
    assert pairs(last_status(graph).status[0])["rejected.from_the_future"] == "1"


def test_another_publisher_of_commands_holds_the_arm(bound, robot):
    graph = bound.graph
    graph.step(0.05)
    graph.call("supervisor/home")
    graph.step(0.5)
    other = SimpleNamespace(is_publisher=True, topic=bound.arm, node="/rogue")
    graph.endpoints = lambda: [other]
    graph.step(1.1)
    assert pairs(last_status(graph).status[0])["state"] == "held"
    assert f"/rogue publishes {bound.arm}, too" in last_status(graph).status[0].message


def test_a_contract_that_the_robot_does_not_offer_ends_the_start(tmp_path, ros_domain):
    contract = RobotFile.load("panda").contract.to_dict()
    contract["rate_hz"] = 10
    contract["action"] = {"joint_position": {"shape": [6], "unit": "rad"}}
    (tmp_path / "contract.json").write_text(yaml.safe_dump(contract))
    done = run(["-p", "robot:=panda", "-p", f"policy:={tmp_path}"])
    assert done.returncode == 1
    assert "rate_hz: 10.0 against 20.0" in done.stderr
    assert "action.joint_position.shape" in done.stderr
    assert "no contract at" in run(["-p", f"policy:={tmp_path / 'nowhere'}"]).stderr


def run(parameters):
    pytest.importorskip("cyclonedds")
    command = [sys.executable, "-m", "robot_rl.hardware.nodes.supervisor_node", "--ros-args", *parameters]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


# From here on: real processes over DDS.

ACTOR = """
import sys, numpy as np
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.graph import open_graph
from robot_rl.hardware.safety.source import Source

robot = RobotFile.load(sys.argv[1])
with open_graph("actor") as graph:
    source, step = Source(graph, "actor", "policy", robot.contract), [0]
    def act():
        if source.lease is not None:
            step[0] += 1
            arm = np.array(robot.home) + np.array([0.25, 0, 0, 0, 0.25, 0, 0.25]) * np.sin(0.15 * step[0])
            source.propose(np.append(arm, 0.02), graph.now())
        elif step[0] == 0:
            source.acquire()
    graph.timer(1 / robot.contract.rate_hz, act)
    graph.spin()
"""


class Rig:
    """The Supervisor and a source in processes of their own; the robot, which obeys, and the monitor in this one."""

    def __init__(self, robot, graph, folder):
        self.robot, self.graph, self.folder = robot, graph, folder
        self.processes, self.monitor = [], Monitor(robot)
        self.arm = robot.commands["joint_position"].topic
        self.measured, self.observing, self.shift = np.array(robot.home), True, 0.0
        self.states, self.status, self.transitions = [], {}, []
        names = {name: robot.streams[name].topic for name in ("joint_position", "gripper_opening")}
        self.observations = {topic: graph.publisher(topic, JOINT_STATE) for topic in names.values()}
        graph.subscribe(self.arm, robot.commands["joint_position"].type, self.on_command)
        graph.subscribe(STATUS, DIAGNOSTICS, self.on_status)
        graph.subscribe(TRANSITION, DIAGNOSTIC, lambda received: self.transitions.append(received.message))
        self.proposals = graph.publisher(PROPOSAL, JOINT_STATE)
        self.words = graph.publisher(SOURCE, DIAGNOSTIC)
        self.stop_request = graph.publisher(STOP_REQUEST, BOOL)
        graph.timer(0.01, self.observe)

    def observe(self):
        now = self.graph.now()
        while self.monitor.received[self.done :] and self.monitor.received[self.done].start <= now:
            self.measured = self.monitor.received[self.done].position[self.robot.periods - 1]
            self.done += 1
        if self.observing:
            values = {"joint_position": self.measured, "gripper_opening": np.array([0.04])}
            for topic, message in bindings.encode_observations(self.robot, values, now + self.shift).items():
                if topic in self.observations:
                    self.observations[topic].publish(message)

    done = 0

    def on_command(self, received):
        self.monitor.take(received.message)

    def on_status(self, received):
        self.status = pairs(received.message.status[0]) | {"reason": received.message.status[0].message}
        self.states.append((messages.seconds(received.message.header.stamp), self.status["state"]))

    def launch(self, *command):
        log = (self.folder / f"log{len(self.processes)}.txt").open("w")
        self.processes.append(subprocess.Popen([sys.executable, *command], stdout=log, stderr=subprocess.STDOUT))
        log.close()
        return self.processes[-1]

    def log(self, index):
        return (self.folder / f"log{index}.txt").read_text()

    def wait(self, condition, timeout=DEADLINE):
        assert self.graph.spin(until=condition, timeout=timeout), f"{self.status}\n{self.log(0)}"

    def state(self, state):
        self.wait(lambda: self.status.get("state") == state)

    def call(self, name):
        client, answers = self.graph.client(f"supervisor/{name}", "std_srvs/srv/Trigger"), []
        self.wait(lambda: client.ready)
        while not any(answers):  # on a machine that stood still, a response may have been lost
            assert len(answers) < 3, f"{name} was not answered"
            asked = len(answers)
            client.call(messages.make("std_srvs/srv/Trigger_Request"), answers.append, DEADLINE / 3)
            self.wait(lambda asked=asked: len(answers) > asked)
        return answers[-1]

    def start(self):
        path = str(self.robot.path)
        self.supervisor = self.launch(
            "-m", "robot_rl.hardware.nodes.supervisor_node", "--ros-args", "-p", f"robot:={path}"
        )
        self.state("idle")
        self.ready()
        return self

    def ready(self):
        """Bring the arm home; on a busy machine the observations may stop by themselves meanwhile."""
        while self.status["state"] != "ready":
            self.call("disengage")
            self.call("home")
            self.wait(lambda: self.status["state"] in ("ready", "held"))

    def act(self):
        """A source has the arm in motion; its process. One that was late on a busy machine is tried again."""
        for _ in range(ATTEMPTS):
            self.ready()
            actor = self.launch("-c", ACTOR, str(self.robot.path))
            self.wait(self.moves_or_is_held)
            if self.status["state"] == "running":
                return actor
            actor.kill()
        raise AssertionError(f"held {ATTEMPTS} times: {self.log(0)}")

    def moves_or_is_held(self):
        state, fast = self.status["state"], self.monitor.speed_at(self.graph.now()) > 0.3
        return state == "held" or (state == "running" and fast)

    def assert_safe(self, state, since, within):
        """The arm came to rest within its limits; detection and beginning of the braking were in time."""
        self.state(state)
        entered = next(stamp for stamp, name in self.states if stamp >= since - 0.05 and name == state)
        assert entered - since <= within
        self.graph.spin(timeout=1.0)
        control = 1 / self.robot.contract.rate_hz
        fast = self.monitor.speed_at(entered)
        assert fast < 0.05 or self.monitor.speed_at(entered + 2 * control) < 0.8 * fast
        assert self.monitor.speed_at(entered + 1.0) == pytest.approx(0, abs=1e-6)
        last = self.transitions[-1]
        assert (pairs(last)["to"], last.message) == (state, self.status["reason"])
        self.monitor.check()

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def rig(robot, tmp_path, ros_domain):
    pytest.importorskip("cyclonedds")
    from robot_rl.hardware.ros2.graph import open_graph

    with open_graph("tester") as graph:
        made = Rig(robot, graph, tmp_path)
        try:
            yield made.start()
        finally:
            made.close()


PATIENT = 0.5
"""What a busy machine may add to any of the time-outs [s]."""


@pytest.mark.alone
def test_without_a_lease_nothing_moves_and_malformed_proposals_are_rejected_over_the_wire(rig):
    robot, home = rig.robot, np.array(rig.robot.home)

    def counted(reason, message, at_least=1):
        rig.proposals.publish(message)
        rig.wait(lambda: int(rig.status.get(f"rejected.{reason}", 0)) >= at_least)

    rig.wait(lambda: rig.proposals.matched > 0 and rig.words.matched > 0)
    counted("no_lease", proposal(robot, 1, 1, rig.graph.now(), home + 0.3))
    assert rig.status["state"] == "ready"
    source = Source(rig.graph, "tester", "script", robot.contract)
    source.acquire()
    rig.wait(lambda: source.lease is not None)
    lease, now = source.lease, rig.graph.now
    counted("non_finite", proposal(robot, lease, 1, now(), home * np.nan))
    counted("non_finite", proposal(robot, lease, 2, now(), home + np.inf), 2)
    counted("workspace", proposal(robot, lease, 3, now(), home + 1e9))
    counted("stale", proposal(robot, lease, 4, now() - 5, home))
    names = messages.make(JOINT_STATE, header=proposal(robot, lease, 5, now(), home).header, name=["a"], position=[0.0])
    counted("wrong_names", names)
    short = proposal(robot, lease, 6, now(), home)
    short.position = short.position[:3]
    counted("wrong_shape", short)
    rig.proposals.publish(proposal(robot, lease, 8, now(), home))
    counted("out_of_order", proposal(robot, lease, 7, now(), home))
    rig.graph.spin(timeout=0.3)
    rig.monitor.check()
    moved = np.concatenate([points.position for points in rig.monitor.received]) - home
    assert np.abs(moved).max() < 1e-3


@pytest.mark.alone
def test_a_source_killed_in_motion_holds_the_arm_and_a_second_one_cannot_interfere(rig):
    actor = rig.act()
    second = Source(rig.graph, "second", "policy", rig.robot.contract)
    second.acquire()
    rig.wait(lambda: "'actor' (policy) holds the lease" in second.reason)
    rejected = int(rig.status.get("rejected.no_lease", 0))
    rig.proposals.publish(proposal(rig.robot, 999, 1, rig.graph.now(), np.zeros(7)))
    rig.wait(lambda: int(rig.status.get("rejected.no_lease", 0)) > rejected)
    assert rig.status["state"] == "running"
    second.release()
    actor.send_signal(signal.SIGKILL)
    killed = rig.graph.now()
    rig.assert_safe("held", killed, max(WATCHDOG["action"], WATCHDOG["lease"]) + PATIENT)
    assert rig.status["reason"] in ("actions stopped", "heartbeat of the lease stopped")
    second.acquire()
    rig.wait(lambda: second.lease is not None)
    rig.state("ready")


FAULTS = {
    "stop": lambda rig: setattr(rig, "observing", False),
    "go stale": lambda rig: setattr(rig, "shift", -5.0),
    "jump back": lambda rig: setattr(rig, "shift", -3600.0),
}


@pytest.mark.alone
@pytest.mark.parametrize("fault", FAULTS)
def test_observations_that_fail_in_motion_hold_the_arm(rig, fault):
    rig.act()
    since = rig.graph.now()
    FAULTS[fault](rig)
    rig.assert_safe("held", since, WATCHDOG["observation"] + PATIENT)
    assert rig.status["reason"] == "observations stopped"
    assert ("rejected.observation_out_of_order" in rig.status) == (fault != "stop")
    rig.observing, rig.shift = True, 0.0
    rig.graph.spin(timeout=0.3)
    assert rig.call("disengage").success
    assert rig.call("home").success
    rig.state("ready")


@pytest.mark.alone
@pytest.mark.parametrize("way", ["topic", "service"])
def test_an_emergency_stop_in_motion_is_latched(rig, way):
    rig.act()
    since = rig.graph.now()
    if way == "topic":
        rig.wait(lambda: rig.stop_request.matched > 0)
        since = rig.graph.now()
        rig.stop_request.publish(messages.make(BOOL, data=True))
    else:
        assert rig.call("emergency_stop").success
    rig.assert_safe("stopped", since, PATIENT)
    assert rig.status["reason"] == f"emergency stop: {way}"
    assert not rig.call("home").success
    assert rig.call("clear").success
    rig.state("idle")


@pytest.mark.alone
def test_a_supervisor_killed_in_motion_has_told_the_robot_how_to_come_to_rest(rig):
    rig.act()
    # Far from where the swing turns, whatever is still under way.
    rig.wait(lambda: np.abs(rig.monitor.received[-1].velocity[0]).max() > 0.6)
    rig.supervisor.send_signal(signal.SIGKILL)
    rig.supervisor.wait()
    rig.graph.spin(timeout=0.3)
    count = len(rig.monitor.received)
    rig.graph.spin(timeout=1.0)
    assert len(rig.monitor.received) == count
    last = rig.monitor.received[-1]
    assert np.abs(last.velocity[0]).max() > 0.1
    np.testing.assert_allclose(last.velocity[-1], 0, atol=1e-6)
    rig.monitor.check()
    between = np.diff(last.position, axis=0) / np.diff(last.times)[:, None]
    assert (np.abs(between) <= rig.robot.limits.velocity * 1.001).all()


@pytest.mark.alone
def test_a_supervisor_asked_to_end_brakes_and_ends_well(rig):
    rig.act()
    rig.supervisor.send_signal(signal.SIGTERM)
    assert rig.supervisor.wait(DEADLINE) == 0
    rig.wait(lambda: any(change.message == "the Supervisor was shut down" for change in rig.transitions))
    np.testing.assert_allclose(rig.monitor.received[-1].velocity[-1], 0, atol=1e-6)
    rig.monitor.check()


@pytest.mark.alone
def test_a_second_supervisor_does_not_begin(rig):
    """They have the same name, and would command the robot in turns."""
    second = rig.launch(*rig.supervisor.args[1:])
    rig.wait(lambda: second.poll() is not None)
    assert second.returncode == 1
    assert "another Supervisor publishes supervisor/status" in rig.log(1)
    assert rig.status["state"] == "ready"


@pytest.mark.alone
def test_of_supervisors_that_begin_at_once_one_does(robot, tmp_path, ros_domain):
    """Also where one is of an arm and the other of a vehicle."""
    pytest.importorskip("cyclonedds")
    nodes = ("supervisor_node", "robot", robot.path), ("px4_node", "robot", "px4")
    logs = [tmp_path / node for node, *_ in nodes]
    begun = []
    try:
        for log, (node, key, value) in zip(logs, nodes, strict=True):
            command = [sys.executable, "-m", f"robot_rl.hardware.nodes.{node}", "--ros-args", "-p", f"{key}:={value}"]
            begun.append(subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT))
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline and not all(re.search("supervises|another", log.read_text()) for log in logs):
            time.sleep(0.05)
        said = [log.read_text() for log in logs]
        assert sum("supervises" in each for each in said) == 1, said
        assert sum("another Supervisor publishes" in each for each in said) == 1, said
    finally:
        for process in begun:
            process.kill()
            process.wait()


@pytest.mark.alone
def test_any_key_in_the_terminal_is_an_emergency_stop(robot, tmp_path, ros_domain):
    pytest.importorskip("cyclonedds")
    import pty

    process, terminal = pty.fork()
    if process == 0:
        command = [sys.executable, "-m", "robot_rl.hardware.nodes.supervisor_node", "--ros-args"]
        os.execve(sys.executable, [*command, "-p", f"robot:={robot.path}"], {**os.environ})
    try:
        said, asked, deadline = "", False, time.monotonic() + DEADLINE
        while "stopped: emergency stop: keyboard" not in said and time.monotonic() < deadline:
            said += os.read(terminal, 4096).decode(errors="replace")
            if "any key in this terminal" in said and not asked:
                os.write(terminal, b"x")
                asked = True
        assert re.search("emergency stop: keyboard", said), said
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)
