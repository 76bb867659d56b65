"""The node on simulated servos: topics, torque, faults of servos and cables, the end."""

import logging
import time
from functools import partial

import numpy as np
import pytest

from robot_rl.hardware import bindings
from robot_rl.hardware.feetech import bus as buses
from robot_rl.hardware.feetech import registers
from robot_rl.hardware.feetech.bus import BusError
from robot_rl.hardware.feetech.calibration import CalibrationError
from robot_rl.hardware.nodes import feetech_node
from robot_rl.hardware.nodes.feetech_node import FeetechNode, connect
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Received
from robot_rl.hardware.safety.supervisor_state import Command

ARM, JAW = "/arm_controller/joint_trajectory", "/gripper_controller/commands"


class WallGraph:
    """A graph within one process, on the wall clock, whose timers a test runs."""

    def __init__(self):
        self.log, self.published, self.readers, self.timers = logging.getLogger("node"), {}, {}, []

    def now(self):
        return time.time()

    def publisher(self, topic, message_type, qos=None):
        from types import SimpleNamespace

        return SimpleNamespace(publish=lambda message: self.published.setdefault(topic, []).append(message))

    def subscribe(self, topic, message_type, callback, qos=None):
        self.readers[topic] = callback

    def timer(self, period, callback, clock="node"):
        self.timers.append((period, callback))

    def send(self, topic, message):
        self.readers[topic](Received(messages.encode(message), topic, message.__msgtype__, self.now()))


class Bench:
    def __init__(self, simulator, robot, path):
        self.simulator, self.robot, self.graph = simulator, robot, WallGraph()
        self.node = FeetechNode(self.graph, robot, partial(connect, robot, simulator.port, str(path)))

    def run(self, until=lambda: False, seconds=0.3):
        """The loop of the node, as fast as the machine can."""
        end = time.monotonic() + seconds
        while not until() and time.monotonic() < end:
            self.node.tick()
            time.sleep(0.002)
        return until()

    def command(self, joints, opening=None, seconds=0.2):
        zeros = np.zeros((1, 5))
        openings = None if opening is None else np.array([opening])
        command = Command(np.array([joints]), zeros, zeros, openings)
        for topic, message in bindings.encode_command(self.robot, command, time.time() + seconds).items():
            self.graph.send(topic, message)

    def take(self):
        """Engage the arm where it stands."""
        self.run(lambda: bool(self.states))
        self.command(self.joints)
        assert self.run(lambda: all(servo.torque for servo in self.simulator.servos), 3.0)

    @property
    def states(self):
        return self.graph.published.get("/joint_states", [])

    @property
    def joints(self):
        return bindings.decode(self.robot.streams["joint_position"], self.states[-1])

    @property
    def opening(self):
        return float(bindings.decode(self.robot.streams["gripper_opening"], self.states[-1])[0])

    @property
    def diagnostics(self):
        return self.graph.published["/diagnostics"][-1].status[0]


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(buses, "PATIENCE", 0.2)
    monkeypatch.setattr(buses, "GLANCE", 0.2)
    monkeypatch.setattr(feetech_node, "LOOK", 0.05)
    monkeypatch.setattr(feetech_node, "SINKING", 0.2)


@pytest.fixture
def bench(simulator, robot, calibration_file):
    made = Bench(simulator, robot, calibration_file)
    yield made
    if made.node._arm is not None:
        made.node._arm.bus.close()


def test_joint_states_are_published_with_true_stamps_and_nothing_moves(bench):
    bench.simulator[1].encoder += 200
    before = time.time()
    bench.run(seconds=0.5)
    state = bench.states[-1]
    assert list(state.name) == ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
    assert bench.joints[0] == pytest.approx(200 * registers.RADIANS)
    assert bench.opening == pytest.approx(0.0737, abs=0.002)  # half the jaw's way
    stamps = [messages.seconds(message.header.stamp) for message in bench.states]
    assert before < stamps[0]
    assert (np.diff(stamps) > 0).all()
    assert not any(servo.goals or servo.torque for servo in bench.simulator.servos)


def test_commands_move_arm_and_gripper(bench):
    bench.take()
    target, end = np.array([0.05, -0.05, 0.05, 0.0, 0.1]), time.monotonic() + 10.0
    while time.monotonic() < end and not (
        np.abs(bench.joints - target).max() < 0.01 and abs(bench.opening - 0.01) < 0.003
    ):
        bench.command(target, 0.01)
        bench.run(seconds=0.03)
    np.testing.assert_allclose(bench.joints, target, atol=0.01)
    assert bench.opening == pytest.approx(0.01, abs=0.003)
    bench.node.report()
    assert bench.diagnostics.level == 0


def test_a_command_elsewhere_is_refused_and_told(bench):
    bench.run(lambda: bool(bench.states), 3.0)
    bench.command(bench.joints + 0.5)
    bench.run()
    bench.node.report()
    assert "start where it stands" in bench.diagnostics.message
    assert not any(servo.goals or servo.torque for servo in bench.simulator.servos)


@pytest.mark.parametrize(
    ("bits", "word"),
    [(4, "overheated"), *(pytest.param(*each, marks=pytest.mark.slow) for each in [(32, "overload"), (1, "voltage")])],
)
def test_an_error_of_a_servo_stops_the_arm_and_asks_for_an_emergency_stop(bench, bits, word):
    bench.take()
    bench.simulator[3].errors = bits
    assert bench.run(lambda: bench.node.driver.mode == "fault", 3.0)
    assert bench.graph.published["supervisor/emergency_stop_request"][-1].data
    assert bench.diagnostics.level == 2
    assert bench.diagnostics.message == f"elbow_flex: {word}"
    goals = [servo.get(registers.GOAL_POSITION) for servo in bench.simulator.servos]
    bench.command(bench.joints + 0.05)
    bench.run()
    np.testing.assert_allclose([servo.get(registers.GOAL_POSITION) for servo in bench.simulator.servos], goals, atol=2)
    bench.simulator[3].errors = 0
    assert bench.run(lambda: bench.node.driver.mode == "holding", 5.0)


def test_a_servo_that_lost_its_power_stays_without_torque(bench):
    bench.take()
    bench.simulator[2].power_up()
    assert bench.run(lambda: bench.node.driver.mode == "fault", 3.0)
    bench.run()
    assert not bench.simulator[2].torque
    assert bench.simulator[1].torque


def test_damaged_packets_do_no_harm(bench):
    bench.take()
    count = len(bench.states)
    for _ in range(5):
        bench.simulator.corrupt, bench.simulator.drop = 1, 1
        bench.run(seconds=0.05)
    bench.run(lambda: len(bench.states) > count + 5, 5.0)
    assert len(bench.states) > count
    assert np.abs(bench.joints).max() < 0.01
    assert bench.node._arm.bus.counts["corrupted"] >= 1


def test_a_pulled_cable_ends_the_joint_states_and_comes_back(bench):
    bench.take()
    bench.simulator.unplug()
    assert bench.run(lambda: bench.node._arm is None, 3.0)
    assert bench.diagnostics.level == 2
    assert "the port is gone" in bench.diagnostics.message
    count = len(bench.states)
    bench.run()
    assert len(bench.states) == count
    bench.simulator[1].encoder += 300
    bench.simulator[1].set(registers.GOAL_POSITION, 2347)
    bench.simulator.plug_in()
    assert bench.run(lambda: len(bench.states) > count, 5.0)
    goals = bench.simulator[1].goals
    bench.command(np.zeros(5))
    bench.run()
    assert bench.simulator[1].goals == goals  # it has to begin where the arm stands now
    bench.command(bench.joints)
    assert bench.run(lambda: bench.simulator[1].goals > goals, 3.0)


def test_a_missing_servo_is_a_lost_bus(bench):
    bench.take()
    bench.simulator.missing = {5}
    assert bench.run(lambda: bench.node._arm is None, 10.0)
    assert "servo 5 does not answer" in bench.diagnostics.message


def test_at_the_end_the_torque_goes_slowly(bench):
    bench.take()
    bench.node.close()
    assert not any(servo.torque for servo in bench.simulator.servos)
    limits = [packet for packet in bench.simulator.heard if packet[4] == 0x83 and packet[5] == 48]
    assert len(limits) > 20


def test_an_arm_that_is_to_hold_holds_at_the_end(simulator, robot, calibration_file):
    from dataclasses import replace

    bench = Bench(simulator, replace(robot, driver=replace(robot.driver, at_exit="hold")), calibration_file)
    bench.take()
    bench.node.close()
    assert all(servo.torque for servo in simulator.servos)


def test_what_cannot_be_driven_is_told(simulator, robot, calibration_file, tmp_path):
    with pytest.raises(CalibrationError, match="not calibrated"):
        connect(robot, simulator.port, str(tmp_path / "none.json"))
    simulator.missing = {1}
    with pytest.raises(BusError, match=r"5 of 6 servos answer; missing: shoulder_pan \(1\)"):
        connect(robot, simulator.port, str(calibration_file))
    simulator.missing = set()
    simulator[1].set(registers.HOMING_OFFSET, 77)
    with pytest.raises(CalibrationError, match="another arm"):
        connect(robot, simulator.port, str(calibration_file))
    simulator[1].set(registers.HOMING_OFFSET, -250)
    connect(robot, simulator.port, str(calibration_file)).bus.close()  # no refusal left the port in use
