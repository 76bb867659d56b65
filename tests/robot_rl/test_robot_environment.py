"""A robot as an environment, against the real Supervisor, on a graph within the test whose clock the test moves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robot_rl import robot_environment
from robot_rl.datasets import EpisodeStore
from robot_rl.deployment import Stopped
from robot_rl.hardware import bindings
from robot_rl.hardware.nodes.supervisor_node import SupervisorBinding, SupervisorNode
from robot_rl.hardware.nodes.twin_node import TwinBinding, _RealTime
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import GraphError
from robot_rl.hardware.safety.source import Source
from robot_rl.hardware.safety.supervisor_messages import pairs
from robot_rl.hardware.twin.topics import TwinTopics, make_twin, simulated
from robot_rl.rl.environments import AbandonedError
from robot_rl.rl.explorer import Explorer
from robot_rl.rl.success_detector import DetectedSuccess
from robot_rl.robot_environment import RobotEnvironment
from tests.hardware.nodes.conftest import LocalGraph

PANDA = RobotFile.load("panda")
ROBOT = PANDA.for_policy(PANDA.contract.select(["joint_position", "gripper_opening"]))
PERIOD = 1.0 / ROBOT.contract.rate_hz
HORIZON = 8


class SpunGraph(LocalGraph):
    """Whose time passes only while somebody spins it."""

    stopped = False

    def spin(self, until=lambda: False, timeout=0.0):
        end = self.time + timeout
        while not until():
            if self.stopped or self.time >= end:
                return False
            self.step(0.001)
        return True

    def endpoints(self):
        return []

    def action_client(self, name, action_type):
        raise GraphError("no actions here")


class Rig:
    """An arm that is where it was commanded to be, its Supervisor, and the environment."""

    def __init__(self, **settings):
        self.graph = graph = SpunGraph()
        self.supervisor = SupervisorBinding(graph, SupervisorNode(ROBOT))
        self.joints, self.opening, self.observing = np.array(PANDA.home) + 0.05, 0.08, True
        self.prepared = []
        for command in ROBOT.commands.values():
            graph.subscribe(command.topic, command.type, self.follow)
        graph.timer(0.005, self.observe)
        self.environment = RobotEnvironment(graph, ROBOT, ROBOT.contract, HORIZON, self.prepare, **settings)
        graph.step(0.1)

    def prepare(self, seed):
        self.prepared.append(seed)
        if not self.graph.call("supervisor/home").success:
            raise AbandonedError(f"it does not go home: it is {self.state}")
        assert self.graph.spin(lambda: self.state == "ready", 10.0)

    def follow(self, sample):
        points = bindings.decode_command(ROBOT, sample.topic, sample.message)
        if points.feature == "joint_position":
            self.joints = points.position[ROBOT.periods - 1]
        else:
            self.opening = float(points.position[-1, 0])

    def observe(self):
        if self.observing:
            state = {"joint_position": self.joints, "gripper_opening": np.array([self.opening])}
            for topic, message in bindings.encode_observations(ROBOT, state, self.graph.time).items():
                self.graph.send(topic, message)

    @property
    def status(self):
        return pairs(self.graph.published["supervisor/status"][-1].status[0])

    @property
    def state(self):
        return _state(self.graph)

    def act(self, change=0.01):
        """One step to a place near that where the arm is."""
        return self.environment.step(action_to(self.joints + change))


def action_to(joints, opening=0.04):
    return np.append(joints, opening).astype(np.float32)[None]


@pytest.fixture
def rig():
    return Rig()


def test_an_episode_is_what_the_supervisor_followed_and_what_came_of_it(rig):
    observation, info = rig.environment.reset(seed=3)
    assert (rig.prepared, info["seed"].tolist(), rig.state) == ([3], [3], "ready")
    np.testing.assert_allclose(observation["joint_position"][0], PANDA.home, atol=1e-3)
    began, proposed = rig.graph.time, []
    for step in range(HORIZON):
        action = action_to(rig.joints + 0.01)
        proposed.append(action)
        observation, reward, terminated, truncated, info = rig.environment.step(action)
        np.testing.assert_array_equal(info["executed"], action)
        assert (reward[0], terminated[0], truncated[0]) == (0, False, step == HORIZON - 1)
        assert observation["joint_position"].shape == (1, 7)
    assert rig.graph.time - began == pytest.approx(HORIZON * PERIOD, abs=0.01)
    assert observation["joint_position"][0, 0] > PANDA.home[0] + 0.01  # it has moved
    np.testing.assert_array_equal(info["final_obs"][0]["joint_position"], observation["joint_position"][0])
    assert info["reset_info"][0] == {"seed": 3}
    sent = rig.graph.published["supervisor/proposal"]
    assert [message.header.frame_id for message in sent] == [f"1/{number + 1}" for number in range(HORIZON)]
    rig.graph.step(0.2)
    assert rig.state == "ready"
    assert rig.status["holder"] == ""


def test_without_a_homed_robot_there_is_no_episode(rig, monkeypatch):
    monkeypatch.setattr(robot_environment, "GRANT", 0.3)
    rig.environment._prepare = lambda seed: None
    with pytest.raises(AbandonedError, match=r"grants no lease: idle .*home the arm first"):
        rig.environment.reset(seed=0)
    assert "supervisor/proposal" not in rig.graph.published


@pytest.mark.parametrize("when", ["before", "within"])
def test_an_emergency_stop_ends_it_and_nothing_goes_on_until_it_is_cleared(rig, when):
    rig.environment.reset(seed=0)
    rig.act()
    stop = messages.make("std_msgs/msg/Bool", data=True)
    if when == "before":
        rig.graph.send("supervisor/emergency_stop_request", stop)
        rig.graph.step(0.02)
    else:
        rig.graph.timer(0.021, lambda: rig.graph.send("supervisor/emergency_stop_request", stop))
    with pytest.raises(AbandonedError, match=r"lost the lease: the Supervisor is stopped \(emergency stop: topic\)"):
        rig.act()
    if when == "before":
        with pytest.raises(AbandonedError, match="does not go home: it is stopped"):
            rig.environment.reset(seed=1)
        rig.graph.step(1.0)
        assert rig.graph.call("supervisor/clear").success
        rig.environment.reset(seed=2)
        rig.act()
        assert rig.state == "running"


def test_a_person_who_takes_over_ends_it(rig):
    rig.environment.reset(seed=0)
    rig.act()
    person = Source(rig.graph, "spacemouse", "device", ROBOT.contract)
    person.acquire()
    with pytest.raises(AbandonedError, match="lost the lease: the Supervisor is intervening"):
        rig.act()
    person.release()


def test_a_person_may_take_over_and_give_back_within_an_episode():
    rig = Rig(shadow=True)
    rig.environment.reset(seed=0)
    rig.act()
    person = Source(rig.graph, "spacemouse", "device", ROBOT.contract)
    theirs = action_to(np.array(PANDA.home) - 0.02)[0]
    rig.graph.timer(0.02, lambda: person.propose(theirs, rig.graph.now()))
    person.acquire()
    intervened = []
    for step in range(HORIZON - 1):
        if step == 3:
            person.release()
        before = rig.joints
        action = action_to(before + 0.01)
        info = rig.environment.step(action)[4]
        intervened.append(bool(info["intervened"][0]))
        if intervened[-1]:
            np.testing.assert_array_equal(info["executed"][0], theirs)
        else:
            np.testing.assert_array_equal(info["executed"], action)
    assert intervened[:3] == [True] * 3
    assert intervened[-2:] == [False] * 2
    assert info["final_obs"][0] is not None  # one episode
    rig.graph.step(0.2)
    assert rig.status["holder"] == ""


def test_a_stop_ends_it_also_while_a_person_acts():
    rig = Rig(shadow=True)
    rig.environment.reset(seed=0)
    rig.act()
    Source(rig.graph, "spacemouse", "device", ROBOT.contract).acquire()
    rig.act()
    rig.graph.send("supervisor/emergency_stop_request", messages.make("std_msgs/msg/Bool", data=True))
    with pytest.raises(AbandonedError, match="lost the lease: the Supervisor is stopped"):
        rig.act()


def test_an_action_that_is_rejected_ends_it_by_its_reason(rig):
    rig.environment.reset(seed=0)
    rig.act()
    with pytest.raises(AbandonedError, match="did not follow an action: non_finite"):
        rig.act(np.nan)
    rig.graph.step(1.0)
    assert rig.status["holder"] == ""


def test_an_observation_that_is_stale_ends_it(rig):
    rig.environment.reset(seed=0)
    rig.observing = False
    with pytest.raises(AbandonedError, match=r"no observation: .* s old|lost the lease: .*observations stopped"):
        [rig.act() for _ in range(4)]


def test_an_action_that_comes_late_is_not_proposed(rig):
    rig.environment.reset(seed=0)
    rig.act()
    before = len(rig.graph.published["supervisor/proposal"])
    rig.graph.step(1.2 * PERIOD)
    with pytest.raises(AbandonedError, match=r"an action came 0\.06"):
        rig.act()
    assert len(rig.graph.published["supervisor/proposal"]) == before


def test_a_loop_that_falls_behind_ends_it(rig):
    rig.environment.reset(seed=0)
    rig.environment._timer.due = lambda now: False  # as if this process were stopped
    rig.graph.timer(0.001, lambda: setattr(rig.environment._timer, "time", rig.environment._tick + 2 * PERIOD))
    with pytest.raises(AbandonedError, match=r"0\.100 s between two control ticks, expected 0\.05 s"):
        rig.act()


def test_whoever_ends_the_program_ends_it(rig):
    rig.environment.reset(seed=0)
    rig.graph.stopped = True
    with pytest.raises(Stopped):
        rig.act()


def test_a_twin_knows_its_task():
    rig = Rig(twin=True, judged=True)
    rig.environment.reset(seed=0)
    assert not rig.act()[2][0]
    rig.graph.send("twin/success", messages.make("std_msgs/msg/Bool", data=True))
    _, reward, terminated, truncated, info = rig.act()
    assert (reward[0], terminated[0], truncated[0], info["success"][0]) == (1, True, False, True)
    rig.environment.reset(seed=1)
    assert not rig.act()[2][0]  # that was the last episode


def explorer(rig, environment, path):
    EpisodeStore.create(path, ROBOT.contract, {})
    writer = EpisodeStore.append(path, ROBOT.contract)
    policy = SimpleNamespace(
        contract=ROBOT.contract, obs_horizon=1, action_horizon=1, action_offset=0, prefix_max_length=0,
        correction=None, execute=None,
        encode=lambda observation: torch.zeros(1, 1, 1), decode=lambda chunk: chunk,
    )  # fmt: skip
    made = Explorer(policy, environment, 1, 5, writer, "lift", lazy=True)
    return made, writer, lambda context: torch.as_tensor(action_to(rig.joints + 0.01))[None]


def test_episodes_are_recorded_whole_or_not_at_all(rig, tmp_path):
    exploring, writer, act = explorer(rig, rig.environment, tmp_path / "own.zarr")
    assert rig.prepared == []  # nothing moves before somebody wants a step
    finished = [number for _ in range(HORIZON) for number, _ in exploring.step(act)]
    assert (finished, rig.prepared) == ([0], [5])
    for _ in range(3):
        exploring.step(act)
    rig.graph.send("supervisor/emergency_stop_request", messages.make("std_msgs/msg/Bool", data=True))
    for reason in ("lost the lease", "does not go home"):
        with pytest.raises(AbandonedError, match=reason):
            exploring.step(act)
    rig.graph.step(1.0)
    rig.graph.call("supervisor/clear")
    while len(finished) < 2:
        finished += [number for number, _ in exploring.step(act)]
    writer.close()
    store = EpisodeStore.open(tmp_path / "own.zarr")
    assert len(store) == 2
    assert all(episode.length == HORIZON for episode in store)
    assert store.facts(0)["seed"] == 5
    assert store.facts(1)["seed"] == 7  # that of 6 was abandoned
    for episode in store:
        np.testing.assert_array_equal(episode.action, episode.policy_action)
        assert bool(episode.truncated[-1])
        np.testing.assert_allclose(episode.observation["joint_position"][0], PANDA.home, atol=1e-3)


def test_a_detector_ends_episodes_of_a_robot(rig, tmp_path):
    seen = []

    def third(observation):
        seen.append(observation["joint_position"])
        return np.array([len(seen) % 3 == 0])

    detected = DetectedSuccess(rig.environment, third, 1, knows=False)
    exploring, writer, act = explorer(rig, detected, tmp_path / "own.zarr")
    finished = [number for _ in range(6) for number, _ in exploring.step(act)]
    writer.close()
    assert finished == [0, 1]
    assert len(rig.prepared) == 2
    for episode in EpisodeStore.open(tmp_path / "own.zarr"):
        assert (episode.success, episode.reward.tolist()) == (True, [0, 0, 1])
        assert episode.terminated.tolist() == [False, False, True]


def episode_on_the_twin():
    """Ten steps after a reset: what was observed, by feature. Physics, Supervisor and environment go by one clock."""
    graph = SpunGraph({"seed": 11})
    twin = make_twin(PANDA, "lift", "", 11)
    robot = simulated(PANDA, twin.env.contract)
    topics = TwinTopics(robot, twin, graph.time)
    driver = _RealTime(TwinBinding(graph, topics, graph.parameter("seed", 0, "of the next episode")))
    for topic in topics.command_topics:
        graph.subscribe(topic, "", lambda heard, topic=topic: driver.receive(topic, heard.message))
    robot = robot.for_policy(twin.env.contract)
    SupervisorBinding(graph, SupervisorNode(robot))

    def prepare(seed):
        graph.call("supervisor/disengage")
        graph.parameters["seed"].value = seed
        assert graph.call("twin/reset").success
        assert graph.spin(lambda: graph.call("supervisor/home").success, 2.0)
        graph.step(0.01)
        assert graph.spin(lambda: _state(graph) == "ready", 10.0)

    environment = RobotEnvironment(graph, robot, robot.contract, 10, prepare, twin=True, judged=True)
    graph.step(0.1)
    rows = [environment.reset(seed=12)[0]]
    for step in range(10):
        action = action_to(rows[0]["joint_position"][0] + 0.01 * step)
        observation, _, _, truncated, info = environment.step(action)
        np.testing.assert_array_equal(info["executed"], action)
        rows.append(observation)
    assert truncated[0]
    topics.close()
    return {name: np.concatenate([row[name] for row in rows]) for name in robot.contract.observation}


@pytest.mark.slow
def test_on_the_twin_the_same_seed_and_actions_give_the_same_episode():
    first, second = episode_on_the_twin(), episode_on_the_twin()
    assert "cube_pose" in first
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    gone = np.abs(first["joint_position"][-1] - first["joint_position"][0])
    assert (gone > 0.03).all()
    assert (gone < 0.1).all()


def _state(graph):
    return pairs(graph.published["supervisor/status"][-1].status[0])["state"]
