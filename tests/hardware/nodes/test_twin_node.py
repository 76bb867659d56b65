"""The twin as a process of its own: what others on the graph see of it, faults included."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("cyclonedds")

from robot_rl import sim
from robot_rl.hardware import bindings
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import open_graph
from robot_rl.hardware.ros2.parameters import to_message
from robot_rl.hardware.ros2.qos import LATCHED, SENSOR
from robot_rl.hardware.safety.supervisor_state import Observation, State
from robot_rl.hardware.twin.topics import TwinTopics, make_twin, simulated

PANDA = RobotFile.load("panda")
JOINTS, GRIPPER = PANDA.streams["joint_position"], PANDA.streams["gripper_opening"]
TICK = 1.0 / PANDA.tick_rate_hz
DEADLINE = 60.0  # a start alone takes some seconds, more on a busy machine


@pytest.fixture
def domain(ros_domain):
    """A graph of its own for the test and its processes."""


@pytest.fixture
def launch(domain, tmp_path):
    """Starts a twin with parameters; whatever still runs at the end is killed."""
    processes = []

    def start(**parameters):
        arguments = [item for key, value in parameters.items() for item in ("-p", f"{key}:={value}")]
        log = (tmp_path / f"twin{len(processes)}.log").open("w")
        command = [sys.executable, "-m", "robot_rl.hardware.nodes.twin_node", "--ros-args", *arguments]
        processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path))
        log.close()
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def tester(domain):
    with open_graph("tester") as graph:
        yield Peer(graph)


class Peer:
    """A node that listens, sets parameters and calls services."""

    def __init__(self, graph):
        self.graph, self.heard = graph, {}

    def listen(self, topic, message_type, **qos):
        heard = self.heard[topic] = []
        self.graph.subscribe(topic, message_type, lambda received: heard.append(received.message), **qos)
        return heard

    def wait(self, condition):
        assert self.graph.spin(until=condition, timeout=DEADLINE), "nothing came in time"

    def call(self, name, service_type, request):
        client, answers = self.graph.client(name, service_type), []
        self.wait(lambda: client.ready)
        client.call(request, answers.append, timeout=DEADLINE)
        self.wait(lambda: answers)
        return answers[0]

    def reset(self):
        request = messages.make("std_srvs/srv/Trigger_Request")
        return self.call("twin/reset", "std_srvs/srv/Trigger", request)

    def set(self, **values):
        parameters = [
            messages.make("rcl_interfaces/msg/Parameter", name=name.replace("__", "."), value=to_message(value))
            for name, value in values.items()
        ]
        request = messages.make("rcl_interfaces/srv/SetParameters_Request", parameters=parameters)
        answer = self.call("/twin/set_parameters", "rcl_interfaces/srv/SetParameters", request)
        assert all(result.successful for result in answer.results), answer.results


def stamp(message):
    return messages.seconds(message.header.stamp)


@pytest.mark.slow
def test_is_a_robot_that_can_be_reset(launch, tester):
    joints = tester.listen(JOINTS.topic, JOINTS.type)
    cube = tester.listen("/cube_pose", "geometry_msgs/msg/PoseStamped")
    success = tester.listen("twin/success", "std_msgs/msg/Bool", qos=LATCHED)
    status = tester.listen("twin/status", "diagnostic_msgs/msg/DiagnosticArray", qos=LATCHED)
    twin = launch(seed=3)
    tester.wait(lambda: joints and cube and success and status)
    assert stamp(joints[-1]) == pytest.approx(time.time(), abs=5.0)
    assert success[-1].data is False
    for seed in (7, 8):
        if seed == 7:
            tester.set(seed=7)
        assert tester.reset().message == f"seed {seed}"
        cube.clear()
        tester.wait(lambda: cube)
        expected = sim.make("lift").reset(seed=seed)[0]["cube_pose"]
        point = cube[-1].pose.position
        np.testing.assert_allclose([point.x, point.y], expected[:2], atol=1e-3)
        assert {pair.key: pair.value for pair in status[-1].status[0].values}["seed"] == str(seed)
    tester.set(seed=-1)
    assert not tester.reset().success
    twin.send_signal(signal.SIGTERM)
    assert twin.wait(DEADLINE) == 0


def test_says_what_is_wrong_and_ends(launch, tmp_path):
    twin = launch(task="juggle")
    assert twin.wait(DEADLINE) == 1
    assert "no task 'juggle'; there are: " in (tmp_path / "twin0.log").read_text()


@pytest.mark.alone
def test_faults_and_losses_come_and_go_by_parameters(launch, tester):
    joints = tester.listen(JOINTS.topic, JOINTS.type)
    gripper = tester.listen(GRIPPER.topic, GRIPPER.type)
    cube = tester.listen("/cube_pose", "geometry_msgs/msg/PoseStamped")
    launch()
    tester.wait(lambda: joints and gripper and cube)
    tester.set(**{GRIPPER.topic.strip("/").replace("/", "__") + "__loss": 0.3})
    tester.graph.spin(timeout=0.5)
    gripper.clear()
    cube.clear()
    # Both have the same rate, however many ticks a busy machine leaves out.
    tester.wait(lambda: len(cube) >= 200)
    assert 0.55 < len(gripper) / len(cube) < 0.85
    tester.set(loss=1.0)
    tester.graph.spin(timeout=0.5)
    cube.clear()
    tester.graph.spin(timeout=0.5)
    assert not cube
    tester.set(**{"loss": 0.0, JOINTS.topic.strip("/").replace("/", "__") + "__fault": "drop"})
    tester.graph.spin(timeout=0.5)
    joints.clear()
    tester.graph.spin(timeout=0.5)
    assert not joints
    tester.set(**{JOINTS.topic.strip("/").replace("/", "__") + "__fault": "freeze"})
    tester.wait(lambda: len(joints) > 10)
    assert stamp(joints[-1]) == stamp(joints[0])
    tester.set(**{JOINTS.topic.strip("/").replace("/", "__") + "__fault": ""})
    tester.wait(lambda: stamp(joints[-1]) == pytest.approx(time.time(), abs=1.0))


@pytest.mark.alone
def test_comes_back_after_it_was_killed(launch, tester):
    joints = tester.listen(JOINTS.topic, JOINTS.type)
    twin = launch()
    tester.wait(lambda: len(joints) > 10)
    twin.kill()
    twin.wait()
    tester.graph.spin(timeout=0.5)
    count, last = len(joints), stamp(joints[-1])
    tester.graph.spin(timeout=0.5)
    assert len(joints) == count
    launch()
    tester.wait(lambda: len(joints) > count + 10)
    assert stamp(joints[count]) > last
    assert tester.reset().success


@pytest.mark.alone
@pytest.mark.render
def test_cameras_do_not_stop_the_joints(launch, tester):
    joints = tester.listen(JOINTS.topic, JOINTS.type)
    pictures = tester.listen("/agentview/image_raw", "sensor_msgs/msg/Image", qos=SENSOR)
    launch(cameras="agentview:240x320,robot0_eye_in_hand:84x84")
    tester.wait(lambda: len(pictures) > 3)
    joints.clear()
    pictures.clear()
    tester.wait(lambda: len(pictures) > 20)
    assert pictures[0].height == 240
    assert len({stamp(picture) for picture in pictures}) == len(pictures)
    # A picture takes the time of several ticks: had the loop waited for each, few samples would follow at once.
    between = np.diff([stamp(message) for message in joints])
    assert (between < 1.5 * TICK).mean() > 0.5


class StandIn:
    """A Supervisor core on a graph, with a wave for a policy: answers every tick."""

    def __init__(self, graph, answering=lambda: True):
        self.robot = PANDA.for_policy(PANDA.contract)
        self.core = self.robot.make_supervisor()
        self.newest, self.sent, self.ticks, self.trace = {}, 0, 0, []
        self.steady, self.last = 0, 0.0
        self.graph, self.answering = graph, answering
        for topic in {stream.topic: None for stream in self.robot.streams.values()}:
            graph.subscribe(topic, JOINTS.type, lambda received, topic=topic: self._hear(topic, received.message))
        self.publishers = {c.topic: graph.publisher(c.topic, c.type, c.qos) for c in self.robot.commands.values()}
        self.status = graph.publisher("supervisor/status", "diagnostic_msgs/msg/DiagnosticArray", LATCHED)
        self.timer = graph.timer(TICK, self._tick)

    def _hear(self, topic, message):
        self.newest[topic] = message

    def _tick(self):
        if not self.answering():
            return
        now, self.ticks = self.timer.time, self.ticks + 1
        # Until both sides have found each other, ticks may be left out.
        self.steady = self.steady + 1 if now - self.last < 1.5 * TICK else 0
        self.last = now
        if self.steady > 20 or self.trace:
            for topic, message in commands(self.core, self.robot, self.newest, now).items():
                self.sent += 1
                self.publishers[topic].publish(message)
            self.trace.append(np.append(stamp(self.newest[JOINTS.topic]), self.newest[JOINTS.topic].position))
        pair = messages.make("diagnostic_msgs/msg/KeyValue", key="commands", value=str(self.sent))
        entry = messages.make("diagnostic_msgs/msg/DiagnosticStatus", name="supervisor", values=[pair])
        header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(now))
        self.status.publish(messages.make("diagnostic_msgs/msg/DiagnosticArray", header=header, status=[entry]))


def commands(core, robot, newest, now):
    """What a Supervisor that goes home sends at a tick."""
    streams = {name: robot.streams[name] for name in ("joint_position", "gripper_opening")}
    if any(stream.topic not in newest for stream in streams.values()):
        return {}
    position, opening = (bindings.decode(stream, newest[stream.topic]) for stream in streams.values())
    seen = stamp(newest[streams["joint_position"].topic])
    command, status = core.tick(now, Observation(seen, position, float(opening[0])))
    if status.state is State.IDLE:
        core.home(now)
    return {} if command is None else bindings.encode_command(robot, command, now)


@pytest.mark.alone
def test_lockstep_gives_the_motion_that_no_network_would(launch, domain):
    """Going home in lockstep over DDS, against the same loop without any graph: equal to the last digits."""
    with open_graph("supervisor", ["--ros-args", "-p", "use_sim_time:=true"]) as graph:
        stand_in = StandIn(graph)
        launch(seed=6, real_time="false")
        assert graph.spin(until=lambda: stand_in.core.status.state is State.READY, timeout=DEADLINE)
        began, ticks = stand_in.graph.now(), stand_in.ticks
        assert graph.spin(until=lambda: stand_in.ticks > ticks + 200, timeout=DEADLINE)
        # No tick was left out, and none came twice.
        assert stand_in.graph.now() - began == pytest.approx((stand_in.ticks - ticks) * TICK, abs=1e-6)
        trace = np.array(stand_in.trace)

    robot, twin = PANDA.for_policy(PANDA.contract), make_twin(PANDA, "lift", "", 6)
    topics, core = TwinTopics(simulated(PANDA, twin.env.contract), twin, 1.0), PANDA.make_supervisor()
    first = stand_in.trace[0][0]
    newest, found, tick = {}, [], round(1.0 / TICK)
    while len(found) < len(trace):
        now = tick * TICK
        newest |= {topic: messages.decode(cdr, topics.types[topic][0]) for topic, cdr in topics.tick(now)}
        if stamp(newest[JOINTS.topic]) >= first - 1e-9:
            for topic, message in commands(core, robot, newest, now).items():
                topics.command(topic, message, now)
            found.append(np.append(stamp(newest[JOINTS.topic]), newest[JOINTS.topic].position))
        tick += 1
    np.testing.assert_allclose(trace, found, atol=1e-9)
    assert topics.counts["rejected"] == 0
    twin.close()


@pytest.mark.alone
def test_simulated_time_passes_as_on_the_wall_while_the_supervisor_is_silent(launch, domain):
    with open_graph("supervisor", ["--ros-args", "-p", "use_sim_time:=true"]) as graph:
        silent = []
        stand_in = StandIn(graph, answering=lambda: not silent)
        launch(real_time="false")
        assert graph.spin(until=lambda: stand_in.core.status.state is State.READY, timeout=DEADLINE)
        silent.append(True)
        graph.spin(timeout=1.0)
        began = graph.now()
        graph.spin(timeout=2.0)
        assert 0.2 < graph.now() - began < 2.2
        silent.clear()
        ticks = stand_in.ticks
        assert graph.spin(until=lambda: stand_in.ticks > ticks + 100, timeout=DEADLINE)
