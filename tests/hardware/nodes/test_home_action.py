"""Going home by the controller's action: by hand and clock, and through a node with a stand-in server."""

from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from robot_rl.hardware import bindings
from robot_rl.hardware.nodes.supervisor_node import SupervisorBinding, SupervisorNode
from robot_rl.hardware.robot_file import FOLDER, RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.safety.supervisor import SupervisorError
from robot_rl.hardware.safety.supervisor_messages import STATUS, pairs
from robot_rl.hardware.safety.supervisor_state import Observation

FOLLOW = "control_msgs/action/FollowJointTrajectory"
AWAY = np.array([0.3, -0.2, 0.1, 0.2, 0.1, -0.2, 0.3])


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    plain = yaml.safe_load((FOLDER / "panda.yaml").read_text())
    plain |= {"command_rate_hz": 500, "tick_rate_hz": 100, "homing_speed": 1.0}
    path = tmp_path_factory.mktemp("robot") / "robot.yaml"
    path.write_text(yaml.safe_dump(plain))
    return RobotFile.load(path)


class Arm:
    """A Supervisor by hand and clock; the arm goes the route, or what it is commanded."""

    def __init__(self, robot):
        self.supervisor, self.now, self.measured = robot.make_supervisor(), 10.0, np.array(robot.home) + AWAY
        self.obeys, self.begin, self.rows = True, None, []
        self.tick()
        self.supervisor.home(self.now, as_route=True)
        self.route = self.supervisor.route

    def tick(self, count=1):
        for _ in range(count):
            self.now += 0.01
            if self.begin is not None and self.obeys and self.supervisor.route is not None:
                when = min(self.now - self.begin, self.route.duration)
                self.measured = np.array([np.interp(when, self.route.times, row) for row in self.route.references[0].T])
            command, self.status = self.supervisor.tick(self.now, Observation(self.now, self.measured, 0.04))
            self.command = command
            if command is not None:
                self.measured = command.position[-1]
                self.rows.append(command)

    def accept(self):
        self.supervisor.route_begins()
        self.begin = self.now


@pytest.mark.slow
def test_the_route_keeps_the_limits_and_ends_at_rest_at_home(robot):
    route, limits = Arm(robot).route, robot.limits
    np.testing.assert_allclose(route.references.position[-1], robot.home, atol=1e-9)
    np.testing.assert_allclose(route.references.velocity[-1], 0, atol=1e-9)
    assert (np.diff(route.times) > 0).all()
    position, velocity, acceleration = route.references
    assert (np.abs(velocity) <= np.minimum(limits.velocity, 1.3 * robot.homing_speed)).all()
    assert np.abs(velocity).max() > 0.5 * robot.homing_speed
    assert (np.abs(acceleration) <= limits.acceleration * (1 + 1e-6)).all()
    step = np.diff(route.times)[:, None]
    assert (np.abs(np.diff(position, axis=0)) <= limits.velocity * step + 1e-9).all()
    assert (np.abs(np.diff(acceleration, axis=0)) <= limits.jerk * step * 1.001 + 1e-6).all()


def test_ready_once_the_controller_is_there_and_nothing_is_commanded_before(robot):
    arm = Arm(robot)
    arm.tick(30)
    assert arm.status.state == "homing"  # it waits for the controller
    arm.accept()
    arm.tick(int(arm.route.duration * 100) + 20)
    assert arm.status.state == "homing"
    assert not arm.rows
    arm.supervisor.route_ends()
    arm.tick()
    assert (arm.status.state, arm.status.reason) == ("ready", "home")
    np.testing.assert_allclose(arm.command.position[-1], robot.home, atol=1e-9)
    assert arm.supervisor.route is None


def test_ticks_that_were_left_out_do_not_lead_astray(robot):
    arm = Arm(robot)
    arm.accept()
    arm.tick(30)
    arm.now += 0.05
    when = arm.now + 0.01 - arm.begin
    arm.measured = np.array([np.interp(when, arm.route.times, row) for row in arm.route.references[0].T])
    arm.now += 0.01
    arm.supervisor.tick(arm.now, Observation(arm.now, arm.measured, 0.04), missed=5)
    np.testing.assert_allclose(arm.supervisor._servo.reference.position, arm.measured, atol=2e-3)


def test_an_emergency_stop_brakes_from_where_the_route_is(robot):
    arm = Arm(robot)
    arm.accept()
    arm.tick(40)
    arm.supervisor.emergency_stop("test")
    assert arm.supervisor.route is None
    before = arm.measured
    arm.tick(60)
    first, last = arm.rows[0], arm.rows[-1]
    assert np.abs(first.velocity[0]).max() > 0.2
    assert (np.abs(first.position[0] - before) <= robot.limits.velocity * 0.02).all()
    assert arm.status.state == "stopped"
    np.testing.assert_allclose(last.velocity[-1], 0, atol=1e-9)
    for rows in arm.rows:
        assert (np.abs(rows.acceleration) <= robot.limits.acceleration * (1 + 1e-6)).all()


def test_a_controller_that_does_not_move_the_arm_or_never_answers_holds_it_where_it_is(robot):
    still = Arm(robot)
    still.obeys = False
    start = still.measured
    still.accept()
    still.tick()
    while still.status.state == "homing":
        still.tick()
    assert "away from where it was commanded" in still.status.reason
    still.tick(5)
    np.testing.assert_allclose(np.concatenate([row.position for row in still.rows]) - start, 0, atol=1e-9)
    silent = Arm(robot)
    silent.tick(int((silent.route.duration + 4.9) * 100))
    assert silent.status.state == "homing"
    silent.tick(30)
    assert silent.status.reason == "way home by the controller: was not begun in time"


def test_a_route_is_refused_in_motion_and_where_it_is_blocked(robot):
    arm = Arm(robot)
    arm.accept()
    arm.tick(40)
    arm.supervisor.hold("test")
    with pytest.raises(SupervisorError, match="still moves"):
        arm.supervisor.home(arm.now, as_route=True)
    blocked = robot.make_supervisor()
    blocked._checks = (lambda path: "wall" if np.abs(path - robot.home).max(1).min() < 0.1 else None,)
    blocked.tick(10.0, Observation(10.0, np.array(robot.home) + AWAY, 0.04))
    with pytest.raises(SupervisorError, match="way home blocked: wall"):
        blocked.home(10.0, as_route=True)
    assert blocked.tick(10.01, Observation(10.01, np.array(robot.home) + AWAY, 0.04))[0] is None
    assert blocked.status.state == "idle"


class Server:
    """Stands in for a controller's action, at once a client of it; the arm follows its goal, or the topic."""

    def __init__(self, graph, robot):
        self.graph, self.robot, self.ready = graph, robot, True
        self.measured, self.goals, self.cancelled = np.array(robot.home) + AWAY, [], 0
        self.refuse, self.goal = False, None
        graph.endpoints = list
        graph.action_client = lambda _, kind: self if kind == FOLLOW else SimpleNamespace(ready=False)
        graph.timer(0.01, self.observe)

    def send(self, goal, done, timeout, accepted):
        self.goals.append(messages.decode(messages.encode(goal), goal.__msgtype__))
        if self.refuse:
            self.graph.call_soon(lambda: done("rejected", None))
        else:
            self.goal, self.done, self.begin = self.goals[-1].trajectory.points, done, self.graph.time
            self.graph.call_soon(accepted)

    def cancel(self):
        self.cancelled, self.goal = self.cancelled + 1, None

    def end(self, ending, **result):
        self.goal = None
        self.done(ending, messages.make(f"{FOLLOW}_Result", **result))

    def observe(self):
        sent = self.graph.published.get(self.robot.commands["joint_position"].topic, [])
        if self.goal is not None:
            times = [messages.seconds(point.time_from_start) for point in self.goal]
            rows = np.array([point.positions for point in self.goal])
            when = self.graph.time - self.begin
            self.measured = np.array([np.interp(when, times, row) for row in rows.T])
        elif sent:
            topic = self.robot.commands["joint_position"].topic
            self.measured = bindings.decode_command(self.robot, topic, sent[-1]).position[self.robot.periods - 1]
        values = {"joint_position": self.measured, "gripper_opening": np.array([0.04])}
        for topic, message in bindings.encode_observations(self.robot, values, self.graph.time).items():
            self.graph.send(topic, message)


@pytest.fixture
def rig(robot, local_graph):
    graph = local_graph()
    server = Server(graph, robot)
    SupervisorBinding(graph, SupervisorNode(robot, homing="action"))
    graph.step(0.05)
    commands = robot.commands["joint_position"].topic

    def status():
        message = graph.published[STATUS][-1].status[0]
        return pairs(message)["state"], message.message

    return SimpleNamespace(graph=graph, server=server, status=status, sent=lambda: graph.published.get(commands, []))


def test_one_goal_takes_the_arm_home(rig, robot):
    assert rig.graph.call("supervisor/home").success
    rig.graph.step(3.0)
    assert rig.status()[0] == "homing"
    assert not rig.sent()
    np.testing.assert_allclose(rig.server.measured, robot.home, atol=1e-9)
    rig.server.end("succeeded")
    rig.graph.step(0.05)
    assert rig.status() == ("ready", "home")
    assert len(rig.server.goals) == 1
    assert rig.sent()


@pytest.mark.parametrize(("ending", "result", "said"), [
    ("aborted", {"error_code": -4, "error_string": "path tolerance"}, "goal aborted, error -4: path tolerance"),
    ("succeeded", {"error_code": -1}, "goal succeeded, error -1"),
])  # fmt: skip
def test_a_goal_that_fails_holds_the_arm_with_its_reason(rig, ending, result, said):
    rig.graph.call("supervisor/home")
    rig.graph.step(0.4)
    rig.server.end(ending, **result)
    place = rig.server.measured
    rig.graph.step(0.1)
    assert rig.status() == ("held", f"way home by the controller: {said}")
    np.testing.assert_allclose(rig.server.measured, place, atol=0.02)


def test_a_refusing_and_a_missing_server(rig):
    rig.server.refuse = True
    rig.graph.call("supervisor/home")
    rig.graph.step(0.1)
    assert rig.status() == ("held", "way home by the controller: goal rejected")
    rig.server.ready = False
    answer = rig.graph.call("supervisor/home")
    assert not answer.success
    assert "no server of the action /joint_trajectory_controller/follow_joint_trajectory" in answer.message


def test_an_emergency_stop_cancels_the_goal_and_brakes(rig):
    rig.graph.call("supervisor/home")
    rig.graph.step(0.4)
    rig.graph.call("supervisor/emergency_stop")
    rig.graph.step(0.02)
    assert rig.server.cancelled == 1
    assert rig.sent()
    rig.graph.step(0.6)
    assert rig.status()[0] == "stopped"
    np.testing.assert_allclose(rig.sent()[-1].points[-1].velocities, 0, atol=1e-9)


def test_homing_by_action_needs_an_action(robot):
    with pytest.raises(SupervisorError, match="expected servo or action"):
        SupervisorNode(robot, homing="fly")
