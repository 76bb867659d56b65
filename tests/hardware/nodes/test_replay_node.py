"""Recorded actions come to the robot in order, after a start that is approached gently."""

import numpy as np
import pytest

from robot_rl.datasets import Contract, Feature
from robot_rl.hardware.bindings import encode_observations
from robot_rl.hardware.nodes.px4_node import encode_ros_odometry
from robot_rl.hardware.nodes.replay_node import SETTLE, ReplayNode, approach, for_actions, resting_action
from robot_rl.hardware.px4.flight_state import Odometry
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.robot_file import RobotFile, RobotFileError
from robot_rl.hardware.safety.supervisor_messages import diagnostic, diagnostics
from robot_rl.sim.rotation import matrix_from_6d, quaternion_from_matrix

PANDA = RobotFile.load("panda")
ROBOT = for_actions(PANDA, PANDA.contract)
PERIOD = 1.0 / PANDA.contract.rate_hz
HOME = np.append(PANDA.home, 0.04).astype(np.float32)


def test_the_way_to_the_start_keeps_its_speeds_and_ends_there() -> None:
    goal = HOME + np.array([0.8, -0.3, 0, 0, 0, 0, 0.1, 0.03], np.float32)
    way = approach(ROBOT.contract, HOME, goal, joint_speed=0.5)
    np.testing.assert_allclose(way[-1], goal, atol=1e-6)
    steps = np.abs(np.diff(np.vstack([HOME, way]), axis=0)) / PERIOD
    assert 0.45 < steps[:, :7].max() <= 0.5 + 1e-3  # as slow as asked, but no slower
    assert steps[:, 7].max() <= 0.05 + 1e-3
    assert steps[0].max() < 0.05  # begins gently
    assert steps[-1].max() < 0.05
    assert len(approach(ROBOT.contract, HOME, HOME, 0.5)) == 1


def test_to_rest_is_to_go_where_the_robot_is() -> None:
    observation = {"joint_position": HOME[:7], "gripper_opening": HOME[7:]}
    np.testing.assert_array_equal(resting_action(ROBOT.contract, observation), HOME)


def test_poses_are_turned_into_actions_of_their_representation() -> None:
    action = {
        "ee_pose": Feature("ee_pose", (9,), kind="action", representation="position_rotation_6d"),
        "gripper_opening": Feature("gripper_opening", (1,), kind="action"),
    }
    contract = Contract("poses", 20.0, {}, action, "servo_ee_pose")
    pose = np.array([0.4, 0.1, 0.3, 0.5, 0.5, -0.5, 0.5])
    rest = resting_action(contract, {"ee_pose": pose, "gripper_opening": np.array([0.02])})
    np.testing.assert_allclose(rest[:3], pose[:3], atol=1e-6)
    np.testing.assert_allclose(quaternion_from_matrix(matrix_from_6d(rest[3:9].astype(float))), pose[3:], atol=1e-6)
    goal = rest + np.eye(10, dtype=np.float32)[0] * 0.2
    way = approach(contract, rest, goal, 0.5)
    assert np.abs(np.diff(way[:, 0])).max() <= 0.1 * PERIOD + 1e-4


class Robot:
    """Moves to where it is told, and plays the Supervisor."""

    def __init__(self, graph):
        self.graph, self.token, self.state, self.action = graph, "", "ready", HOME.astype(float)
        graph.subscribe("supervisor/source", "", self.hear)
        graph.subscribe("supervisor/proposal", "", self.follow)
        graph.timer(0.01, self.publish)

    def hear(self, sample):
        wish = sample.message.message
        self.token = "" if wish == "release" or self.state != "ready" else sample.message.hardware_id

    def follow(self, sample):
        self.action = np.array(sample.message.position)

    def publish(self):
        values = {"state": self.state, "token": self.token, "lease": 1 if self.token else 0}
        self.graph.send("supervisor/status", diagnostics(self.graph.time, diagnostic("supervisor", 0, "test", values)))
        state = {"joint_position": self.action[:7], "gripper_opening": self.action[7:]}
        for topic, message in encode_observations(ROBOT, state, self.graph.time).items():
            self.graph.send(topic, message)


@pytest.fixture
def recorded():
    return (HOME + 0.2 * np.sin(0.1 + np.arange(30)[:, None] / 10)).clip(None, [*PANDA.limits.upper, 0.08]).astype("f4")


def test_all_actions_follow_the_approach_in_every_period(local_graph, recorded) -> None:
    graph = local_graph()
    node, robot = ReplayNode(graph, ROBOT, recorded), Robot(graph)
    graph.step(10.0)
    assert node.complete
    assert robot.token == ""
    proposed = np.array([message.position for message in graph.published["supervisor/proposal"]])
    np.testing.assert_array_equal(proposed[-30:], recorded)
    settled = round(SETTLE / PERIOD)
    np.testing.assert_array_equal(proposed[-30 - settled : -30], np.repeat(recorded[:1], settled, axis=0))
    assert np.abs(np.diff(proposed[:-30], axis=0))[:, :7].max() <= PANDA.homing_speed * PERIOD + 1e-4


def test_it_ends_when_the_lease_is_lost(local_graph, recorded) -> None:
    graph = local_graph()
    node, robot = ReplayNode(graph, ROBOT, recorded), Robot(graph)
    graph.step(0.5)
    robot.state, robot.token = "stopped", ""
    graph.step(0.2)
    assert node.ended == "lost the lease: the Supervisor is stopped (test)"
    assert not node.complete
    before = len(graph.published["supervisor/proposal"])
    graph.step(0.5)
    assert len(graph.published["supervisor/proposal"]) == before


def test_it_waits_until_the_supervisor_grants_the_lease(local_graph, recorded) -> None:
    graph = local_graph()
    node, robot = ReplayNode(graph, ROBOT, recorded), Robot(graph)
    robot.state = "idle"
    graph.step(1.0)
    assert node.ended is None
    assert "supervisor/proposal" not in graph.published
    robot.state = "ready"
    graph.step(1.0)
    assert graph.published["supervisor/proposal"]


@pytest.mark.parametrize("state", ["held", "running", "intervening"])
def test_it_does_not_wait_for_long_once_the_robot_is_home(local_graph, recorded, state) -> None:
    graph = local_graph()
    node, robot = ReplayNode(graph, ROBOT, recorded), Robot(graph)
    robot.state = state
    graph.step(4.0)
    assert node.ended is None
    graph.step(2.0)
    assert node.ended == f"no lease: the Supervisor is {state} (test); replay again later"
    robot.state = "ready"
    graph.step(1.0)
    assert "supervisor/proposal" not in graph.published


def test_it_does_not_wait_for_a_stop_to_be_cleared(local_graph, recorded) -> None:
    graph = local_graph()
    node, robot = ReplayNode(graph, ROBOT, recorded), Robot(graph)
    robot.state = "stopped"
    graph.step(0.5)
    assert node.ended == "no lease: the Supervisor is stopped (test); replay again later"
    robot.state = "ready"
    graph.step(1.0)
    assert (robot.token, node.complete) == ("", False)
    assert "supervisor/proposal" not in graph.published


class Vehicle(Robot):
    """Holds its position, and follows from the tenth proposal on."""

    def __init__(self, graph):
        super().__init__(graph)
        self.followed = []
        self.proposed = 0

    def follow(self, sample):
        self.proposed += 1
        if self.proposed >= 10:
            self.followed.append(sample.message)

    def publish(self):
        last = self.followed[-1].header.frame_id if self.followed else ""
        values = {"state": self.state, "token": self.token, "lease": 1 if self.token else 0, "followed": last}
        self.graph.send("supervisor/status", diagnostics(self.graph.time, diagnostic("supervisor", 0, "test", values)))
        upright = np.array([1.0, 0, 0, 0])
        told = Odometry(self.graph.time, np.array([0.0, 0.0, 1.5]), np.zeros(3), upright, np.zeros(3))
        self.graph.send("odometry", encode_ros_odometry(told))


@pytest.fixture
def velocities():
    return np.cumsum(np.full((30, 4), 0.01, np.float32), axis=0)


def test_a_vehicle_is_given_every_action_once_it_follows(local_graph, velocities) -> None:
    graph = local_graph()
    vehicle = VehicleFile.load("px4")
    robot = for_actions(vehicle, vehicle.with_controller("px4_velocity").contract)
    node, plays = ReplayNode(graph, robot, velocities, np.array([0.1, 0.0, 1.4])), Vehicle(graph)
    graph.step(3.0)
    assert node.complete
    assert plays.token == ""
    followed = np.array([message.position for message in plays.followed])
    # A second time, where the next period begins before it is heard of.
    twice = len(followed) - len(velocities)
    assert twice in (0, 1)
    np.testing.assert_allclose(followed[twice:], velocities, rtol=1e-6)
    np.testing.assert_allclose(followed[0], velocities[0], rtol=1e-6)


def test_a_vehicle_elsewhere_is_left_alone(local_graph, velocities) -> None:
    graph = local_graph()
    vehicle = VehicleFile.load("px4")
    robot = for_actions(vehicle, vehicle.with_controller("px4_velocity").contract)
    node, plays = ReplayNode(graph, robot, velocities, np.array([0.0, 2.0, 1.5])), Vehicle(graph)
    graph.step(1.0)
    assert node.ended == "the vehicle is 2.0 m from where the recording begins; let it hold its position there"
    assert not node.complete
    assert plays.proposed == 0


def test_a_vehicle_does_not_execute_the_actions_of_an_arm() -> None:
    with pytest.raises(RobotFileError, match="controller: expected one of"):
        for_actions(VehicleFile.load("px4"), PANDA.contract)
