"""TwinTopics: exactly the robot's topics, read back by the robot's bindings; impairments, faults and refusals."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from robot_rl import sim
from robot_rl.hardware import bindings
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervisor_state import Observation, State
from robot_rl.hardware.twin.stream import JUMP, Impairment
from robot_rl.hardware.twin.topics import TwinTopics, make_twin, simulated
from robot_rl.sim.spec import SpecError

PANDA = RobotFile.load("panda")
TICK = 1.0 / PANDA.tick_rate_hz
ARM = PANDA.commands["joint_position"].topic
JOINTS = PANDA.streams["joint_position"].topic


@pytest.fixture(scope="module")
def twin():
    twin = make_twin(PANDA, "lift", "", 0)
    yield twin
    twin.close()


class Rig:
    """The topics of a twin, and what came from them."""

    def __init__(self, twin, seed=0):
        self.begin = 100.0
        self.topics = TwinTopics(simulated(PANDA, twin.env.contract), twin, self.begin - twin.time)
        self.topics.reset(seed)
        self.robot, self.twin = self.topics.robot, twin
        self.ticks, self.count, self.last = 0, Counter(), {}

    @property
    def now(self):
        return self.begin + self.ticks * TICK

    def tick(self, count=1):
        for _ in range(count):
            self.ticks += 1
            for topic, cdr in self.topics.tick(self.now):
                self.count[topic] += 1
                self.last[topic] = messages.decode(cdr, self.topics.types[topic][0])

    def value(self, feature):
        stream = self.robot.streams[feature]
        return bindings.decode(stream, self.last[stream.topic])

    def stamp(self, topic=JOINTS):
        return messages.seconds(self.last[topic].header.stamp)

    def impair(self, topic=JOINTS, **values):
        self.topics.impairments[topic] = Impairment(**values)


@pytest.fixture
def rig(twin):
    return Rig(twin)


def test_publishes_the_topics_of_the_file_at_their_rates_and_what_it_says_is_read_back(rig, twin):
    rig.tick(round(1.0 / TICK))
    assert set(rig.robot.streams) == {"joint_position", "joint_velocity", "gripper_opening", "cube_pose"}
    for name, stream in rig.robot.streams.items():
        assert rig.count[stream.topic] == pytest.approx(min(stream.rate_hz, 1 / TICK), abs=1), stream.topic
        assert rig.topics.types[stream.topic] == (stream.type, stream.qos)
        np.testing.assert_allclose(rig.value(name), twin.state()[name], atol=1e-12)
    assert rig.stamp() == pytest.approx(rig.now, abs=1e-9)


def test_tracks_like_the_simulation_through_the_robots_own_file_and_messages(twin):
    """Supervisor, file, bindings and topics of the Panda together, against `sim`."""
    env = sim.make("lift")
    env.reset(seed=7)
    rig = Rig(twin, seed=7)
    # Home where the arm stands, so that both begin alike.
    home = env.state()["joint_position"]
    robot = replace(PANDA.for_policy(env.contract), home=tuple(home), workspace=None)
    supervisor = robot.make_supervisor()

    def tick():
        observation = Observation(rig.stamp(), rig.value("joint_position"), float(rig.value("gripper_opening")[0]))
        command, _ = supervisor.tick(rig.now, observation)
        if command is not None:
            for topic, message in bindings.encode_command(robot, command, rig.now).items():
                rig.topics.command(topic, messages.decode(messages.encode(message), message.__msgtype__), rig.now)
        rig.tick()

    def until(condition):
        while not condition():
            tick()

    rig.tick(10)
    tick()
    supervisor.home(rig.now)
    until(lambda: supervisor.status.state is State.READY)
    until(lambda: rig.ticks % 10 == 0)
    lease = supervisor.acquire("test", "script", rig.now)
    farthest = 0.0
    for k in range(60):
        swing = 0.2 * np.sin(0.1 * k * np.array([1.0, 0.8, 1.1, 0.9, 1.2, 0.7, 1.3])) * min(1.0, k / 10)
        action = np.append(home + swing, 0.04)
        env.step(action)
        assert supervisor.propose(Proposal(lease.id, k, rig.now, action), rig.now) is None
        supervisor.heartbeat(lease.id, rig.now)
        for _ in range(10):
            tick()
        there, here = env.state()["ee_pose"], twin.state()["ee_pose"]
        farthest = max(farthest, float(np.linalg.norm(there[:3] - here[:3])))
        assert 2 * np.degrees(np.arccos(min(1.0, abs(there[3:] @ here[3:])))) < 1.0
    assert farthest < 0.002
    assert rig.topics.counts["rejected"] == 0
    env.close()


def test_follows_commands_as_the_controllers_would_and_counts_those_it_refuses(rig, twin):
    rig.tick(10)
    start = twin.state()["joint_position"]
    supervisor_names = list(PANDA.commands["joint_position"].elements)

    def send(names=supervisor_names, position=start, stamp=None, after=0.1):
        point = messages.make(
            "trajectory_msgs/msg/JointTrajectoryPoint", positions=position, time_from_start=messages.duration(after)
        )
        header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(rig.now if stamp is None else stamp))
        kind = "trajectory_msgs/msg/JointTrajectory"
        rig.topics.command(ARM, messages.make(kind, header=header, joint_names=names, points=[point]), rig.now)

    send(position=start + 0.05)
    rig.tick(round(0.3 / TICK))
    np.testing.assert_allclose(twin.state()["joint_position"], start + 0.05, atol=2e-3)
    send(names=supervisor_names[::-1], position=start[::-1], stamp=0.0)  # by name, and from arrival on
    rig.tick(round(0.3 / TICK))
    np.testing.assert_allclose(twin.state()["joint_position"], start, atol=2e-3)
    assert rig.topics.counts["rejected"] == 0
    for wrong, reason in (
        ({"names": ["joint_x", *supervisor_names[1:]]}, "panda_joint1"),
        ({"position": start * np.nan}, "finite"),
        ({"stamp": rig.now - 1.0}, "ended 0.9"),
        ({"position": start[:3]}, "positions"),
    ):
        before = rig.topics.counts["rejected"]
        send(**wrong)
        assert rig.topics.counts["rejected"] == before + 1
        assert reason in rig.topics.problem
    rig.tick(20)
    np.testing.assert_allclose(twin.state()["joint_position"], start, atol=2e-3)


def test_moves_the_gripper(rig, twin):
    topic = PANDA.commands["gripper_opening"].topic
    rig.tick()
    # Half of the opening for each finger, as the real driver takes it.
    rig.topics.command(topic, messages.make("std_msgs/msg/Float64MultiArray", data=[0.01]), rig.now)
    rig.tick(round(0.6 / TICK))
    assert twin.state()["gripper_opening"] == pytest.approx(0.02, abs=2e-3)


def test_latency_of_observations_and_commands(rig, twin):
    rig.impair(latency=0.03)
    rig.tick(40)
    assert rig.now - rig.stamp() == pytest.approx(0.03, abs=TICK)
    rig.impair(ARM, latency=0.1)
    start = twin.state()["joint_position"]
    point = messages.make("trajectory_msgs/msg/JointTrajectoryPoint", positions=start + 0.08)
    names = list(PANDA.commands["joint_position"].elements)
    point.time_from_start = messages.duration(0.02)
    kind = "trajectory_msgs/msg/JointTrajectory"
    rig.topics.command(ARM, messages.make(kind, joint_names=names, points=[point]), rig.now)
    rig.tick(round(0.09 / TICK))
    np.testing.assert_allclose(twin.state()["joint_position"], start, atol=1e-3)
    rig.tick(round(0.3 / TICK))
    np.testing.assert_allclose(twin.state()["joint_position"], start + 0.08, atol=2e-3)


def test_loss_jitter_and_noise_are_those_of_the_seed(twin):
    def run(seed):
        rig = Rig(twin, seed)
        rig.impair(loss=0.3, jitter=0.01)
        rig.topics.noise["joint_position"] = 0.01
        # What is drawn belongs to the episode: it begins with the reset.
        rig.topics.reset(seed)
        stamps, values = [], []
        for _ in range(300):
            rig.tick()
            if JOINTS in rig.last:
                stamps.append(rig.stamp() - rig.begin)
                values.append(rig.value("joint_position"))
        return rig.count[JOINTS], np.array(stamps), np.array(values)

    count, stamps, values = run(3)
    assert count / 300 == pytest.approx(0.7, abs=0.1)
    again = run(3)
    assert again[0] == count
    np.testing.assert_allclose(again[1], stamps, atol=1e-6)
    np.testing.assert_allclose(again[2], values, atol=1e-9)
    assert np.std(values[:, 0] - values[:, 0].mean()) == pytest.approx(0.01, rel=0.25)
    assert run(4)[1].shape != stamps.shape or not np.allclose(run(4)[1], stamps)


def test_faults_for_tests(rig):
    rig.tick(20)
    before, count = rig.stamp(), rig.count[JOINTS]
    rig.impair(fault="freeze")
    rig.tick(10)
    assert rig.count[JOINTS] > count
    assert rig.stamp() == pytest.approx(before, abs=1e-9)
    rig.impair(fault="back")
    rig.tick(2)
    assert rig.stamp() == pytest.approx(rig.now - JUMP, abs=TICK)
    rig.impair(fault="nan")
    rig.tick(2)
    assert np.isnan(rig.last[JOINTS].position).all()
    with pytest.raises(bindings.BindingError, match="not finite"):
        rig.value("joint_position")
    rig.impair(fault="drop")
    count = rig.count[JOINTS]
    rig.tick(20)
    assert rig.count[JOINTS] == count
    rig.impair()
    rig.tick(2)
    assert rig.stamp() == pytest.approx(rig.now, abs=TICK)


def test_success_is_seen_at_the_control_rate_and_ends_with_a_reset(rig, twin):
    rig.tick(20)
    assert not rig.topics.success
    address = twin.env.model.joint("cube_joint0").qposadr[0]
    twin.env.data.qpos[address + 2] += 0.2
    twin.env.refresh()
    rig.tick(10)
    assert rig.topics.success
    rig.topics.reset(1)
    assert not rig.topics.success


def test_a_clock_that_jumped_leaves_time_out(rig, twin):
    rig.tick(10)
    simulated_time = twin.time
    rig.topics.leave_out(rig.now + 60.0)
    rig.ticks += round(60.0 / TICK)
    rig.tick(2)
    assert twin.time - simulated_time == pytest.approx(2 * TICK, abs=0.002)
    assert rig.stamp() == pytest.approx(rig.now, abs=0.002)


@pytest.mark.render
def test_cameras_at_their_rate_with_calibration():
    twin = make_twin(PANDA, "lift", "agentview:48x64", 0)
    rig = Rig(twin)
    rig.tick(round(0.5 / TICK))
    stream = rig.robot.streams["agentview"]
    assert rig.count[stream.topic] == pytest.approx(0.5 * stream.rate_hz, abs=1)
    assert rig.count[stream.camera_info] == rig.count[stream.topic]
    # The last picture is of the last control tick: render that state once more, by the environment itself.
    picture = rig.value("agentview")
    assert picture.shape == (48, 64, 3)
    assert np.mean(np.abs(picture.astype(float) - twin.env.observe()["agentview"])) < 1.0
    found = bindings.calibration(stream, rig.last[stream.camera_info])
    assert found["fx"] == pytest.approx(twin.env.contract.observation["agentview"].calibration["fx"])
    twin.close()


@pytest.mark.render
def test_pictures_from_beside_the_loop_are_the_same():
    twin = make_twin(PANDA, "lift", "agentview:48x64", 0)
    robot = simulated(PANDA, twin.env.contract)
    topics = TwinTopics(robot, twin, -twin.time, render=True)
    topic = robot.streams["agentview"].topic
    found, ticks = [], 0
    while not found:
        ticks += 1
        found = [cdr for name, cdr in topics.tick(TICK * ticks) if name == topic]
    picture = bindings.decode(robot.streams["agentview"], messages.decode(found[0], "sensor_msgs/msg/Image"))
    # The arm holds still, but the cube settles.
    assert np.mean(np.abs(picture.astype(float) - sim.make(twin.env.specification).reset(seed=0)[0]["agentview"])) < 1.0
    topics.close()


def test_its_scene_is_randomised_as_in_the_simulation():
    twin = make_twin(PANDA, "lift", "", 5, "wide")
    cubes = []
    for seed in (5, 6):
        twin.reset(seed)
        env = sim.make({"task": "lift", "randomization": "wide"})
        observation, _ = env.reset(seed=seed)
        env.close()
        cubes.append(twin.state()["cube_pose"])
        np.testing.assert_allclose(cubes[-1], observation["cube_pose"], atol=1e-6)
    assert np.abs(cubes[0] - make_twin(PANDA, "lift", "", 5).state()["cube_pose"]).max() > 0.01


@pytest.mark.parametrize(
    ("robot", "task", "cameras", "word"),
    [
        (PANDA, "lift", "agentview", "HEIGHTxWIDTH"),
        (PANDA, "lift", "nowhere:8x8", "no camera"),
        (PANDA, "juggle", "", "no task"),
        (PANDA, "two_arm_lift", "", "2 arms"),
        (replace(PANDA, model=None), "lift", "", "no simulation"),
    ],
)
def test_says_what_cannot_be_simulated(robot, task, cameras, word):
    with pytest.raises(SpecError, match=word):
        make_twin(robot, task, cameras, 0)
