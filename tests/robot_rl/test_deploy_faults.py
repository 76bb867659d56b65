"""Whole deployments in which something breaks: the twin, Supervisor, recorder and policy in processes of their own.

Simulated time goes in lockstep, so that what a fault brings does not depend on how busy the machine is. What sources
may do to the Supervisor, in real time, stands in `hardware/nodes/test_supervisor_node.py`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robot_rl import sim
from robot_rl.datasets import Contract
from robot_rl.datasets.statistics import merge, summarise
from robot_rl.deploy import node_parameters
from robot_rl.hardware import bindings
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.qos import Qos
from robot_rl.node_process import NodeProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PANDA = RobotFile.load("panda")
ARM = PANDA.commands["joint_position"].topic
PERIOD = 1.0 / PANDA.contract.rate_hz
WATCHDOG = PANDA.watchdog
MANY = Qos(depth=2000)


def wild_policy(folder: Path, cameras: dict[str, list[int]]) -> Path:
    """A policy without training: it swings the arm around its home pose."""
    from robot_rl.policies import build_policy, save_policy

    spec = {"task": "lift", "robot": "panda", "controller": "joint_position", "cameras": cameras}
    env = sim.make(spec)
    contract: Contract = env.contract.select(["joint_position", "gripper_opening", *cameras])
    env.close()
    rows = np.random.default_rng(0).uniform(-0.1, 0.1, (200, 8)) + np.append(PANDA.home, 0.04)
    rows[:, 7] = rows[:, 7].clip(0.0, 0.08)
    parts = {"action": rows, "joint_position": rows[:, :7], "gripper_opening": rows[:, 7:]}
    statistics = {
        name: merge({key: value[None] for key, value in summarise(part).items()}) for name, part in parts.items()
    }
    encoder = {"name": "cnn", "channels": [8], "keypoints": 4, "features": 8} if cameras else {"name": "low_dim"}
    config = {"denoiser": {"name": "mlp", "width": 16, "depth": 1, "time_features": 8}, "encoder": encoder}
    return save_policy(build_policy(config, contract, statistics), folder, {"environment": spec})


class Watch:
    """Hears what the robot is commanded, observes and is told about; checks every command against the limits."""

    def __init__(self, graph):
        self.transitions, self.commands, self.tokens = [], [], []
        self.last = None
        self.newest = {"joints": 0.0, "proposal": 0.0}
        graph.subscribe("supervisor/transition", "diagnostic_msgs/msg/DiagnosticStatus", self.on_transition, MANY)
        graph.subscribe(ARM, PANDA.commands["joint_position"].type, self.on_command, MANY)
        joints = PANDA.streams["joint_position"]
        graph.subscribe(joints.topic, joints.type, self.on_joints, MANY)
        graph.subscribe("supervisor/proposal", joints.type, self.on_proposal, MANY)

    def on_joints(self, sample):
        if np.isfinite(sample.message.position).all():
            self.newest["joints"] = max(self.newest["joints"], messages.seconds(sample.message.header.stamp))

    def on_proposal(self, sample):
        self.newest["proposal"] = messages.seconds(sample.message.header.stamp)
        self.tokens.append(sample.message.header.frame_id)

    def on_transition(self, sample):
        values = {pair.key: pair.value for pair in sample.message.values}
        self.transitions.append((float(values["stamp"]), values["to"], sample.message.message))

    def on_command(self, sample):
        points = bindings.decode_command(PANDA, ARM, sample.message)
        self.commands.append((points.start, points))
        limits = PANDA.limits
        assert (points.position >= limits.lower - 1e-6).all()
        assert (points.position <= limits.upper + 1e-6).all()
        assert (np.abs(points.velocity) <= limits.velocity + 1e-6).all()
        assert (np.abs(points.acceleration) <= limits.acceleration + 1e-6).all()

        count = PANDA.periods
        times, rows = points.start + points.times, points.acceleration
        self.within_jerk(times, rows)
        if self.last is not None and self.last[0] < times[0]:  # else time or the Supervisor has begun anew
            self.within_jerk(np.array([self.last[0], times[0]]), np.stack([self.last[1], rows[0]]))
        self.last = times[count - 1], rows[count - 1]

    def within_jerk(self, times, acceleration):
        """By differences; knots may be moved by the shortest time between points."""
        step = np.diff(times)[:, None] + 2 * bindings.NEAREST
        assert (np.abs(np.diff(acceleration, axis=0)) <= PANDA.limits.jerk * step * 1.001 + 1e-6).all()

    def speed(self, time):
        """Commanded speed of the fastest joint at a time, by the last command before it."""
        start, points = [entry for entry in self.commands if entry[0] <= time][-1]
        return float(np.abs(points.velocity[np.argmin(np.abs(start + points.times - time))]).max())


class Run:
    """A deployment and its watch."""

    def __init__(self, folder, cameras=None, **changes):
        from robot_rl.deployment import Deployment
        from robot_rl.hardware.ros2.graph import open_graph

        self.graph = open_graph("tester")
        policy = wild_policy(folder / "policy", cameras or {})
        plain = {
            "policy": policy, "robot": "panda", "real_time": False, "first_seed": 1, "impairments": {},
            "record": True, "mode": "receding_horizon", "execute": None, "delay": 0, "guidance": None,
            "device": "cpu", "threads": 1, "homing": "servo",
        }  # fmt: skip
        spec = {"task": "lift", "cameras": cameras or {}}
        self.folder, self.lines = folder, []
        nodes = node_parameters(plain | changes, folder, spec)
        self.processes = {
            name: NodeProcess(name, parameters, folder / f"{name}.log", self.lines.append)
            for name, parameters in nodes.items()
        }
        self.watch = Watch(self.graph)
        self.deployment = Deployment(self.graph, list(self.processes.values()), 20.0, True, True, True)
        try:
            self.deployment.start()
        except BaseException:
            self.close()
            raise

    def move(self, seed=1):
        """Let the policy swing the arm."""
        self.deployment.prepare(seed)
        self.watch.commands.clear()
        self.watch.newest["joints"] = 0.0
        assert self.deployment.call("policy/start")[0]
        self.wait(lambda: self.deployment.state == "running" and len(self.watch.commands) > 100)

    def wait(self, condition):
        assert self.graph.spin(until=condition, timeout=120.0), "\n".join(self.lines[-30:])

    def camera_topic(self, camera):
        contract = Contract.from_dict(json.loads((self.folder / "policy" / "contract.json").read_text()))
        return PANDA.for_policy(contract).streams[camera].topic

    def fault(self, topic, kind):
        self.deployment.set_parameter("twin", f"{topic.strip('/').replace('/', '.')}.fault", kind)

    def assert_safe(self, state, reason, since, within):
        """The arm was brought to rest in time, and the reason is known."""
        self.wait(lambda: self.deployment.state == state)
        self.wait(lambda: self.watch.transitions[-1][1] == state)
        stamp, _, said = self.watch.transitions[-1]
        assert reason in said
        assert stamp - since <= within + 2 * PERIOD + 1e-6
        self.wait(lambda: self.watch.commands[-1][0] > stamp + 1.0)
        fast = self.watch.speed(stamp)
        assert fast < 0.05 or self.watch.speed(stamp + 2 * PERIOD) < fast
        assert self.watch.speed(stamp + 1.0) < 1e-9

    def close(self):
        try:
            self.deployment.wind_down()
        finally:
            for process in self.processes.values():
                process.stop(0.0)
            self.graph.close()


@pytest.fixture(scope="module")
def domain(new_ros_domain):
    pytest.importorskip("cyclonedds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(new_ros_domain()))
        patch.setenv("ROBOT_RL_ROS", "dds")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def shared(domain, tmp_path_factory):
    made = Run(tmp_path_factory.mktemp("run"))
    yield made
    made.close()


@pytest.fixture
def run(shared):
    """The same processes for all tests; what died is started again."""
    yield shared
    for process in shared.processes.values():
        if not process.running:
            shared.deployment.restart(process)


def test_a_policy_killed_by_sigkill(run):
    run.move()
    os.kill(run.processes["policy"].pid, signal.SIGKILL)
    run.wait(lambda: not run.processes["policy"].running)
    last = run.watch.newest["proposal"]
    run.assert_safe("held", "stopped", last, max(WATCHDOG.action, WATCHDOG.lease))
    run.deployment.restart(run.processes["policy"])
    run.move(2)


def test_an_inference_process_killed_by_sigkill(run):
    run.move()
    children = Path(f"/proc/{run.processes['policy'].pid}/task").glob("*/children")
    (child,) = (int(text) for path in children for text in path.read_text().split())
    os.kill(child, signal.SIGKILL)
    run.assert_safe("ready", "SIGKILL", run.watch.newest["proposal"], 0.5)
    run.wait(lambda: run.deployment.call("policy/start")[0])  # it has started another one


def test_a_supervisor_killed_by_sigkill(run):
    run.move()
    os.kill(run.processes["supervisor"].pid, signal.SIGKILL)
    run.wait(lambda: not run.processes["supervisor"].running)
    start, points = run.watch.commands[-1]
    assert np.abs(points.velocity[-1]).max() < 1e-9  # the robot knows how to come to rest
    last = start + points.times[-1]
    run.wait(lambda: run.watch.newest["joints"] > last + 0.5)
    run.deployment.restart(run.processes["supervisor"])
    run.move(2)


def test_a_twin_killed_and_started_again(run):
    run.move()
    os.kill(run.processes["twin"].pid, signal.SIGKILL)
    run.wait(lambda: not run.processes["twin"].running)
    before = len(run.watch.transitions)
    run.deployment.restart(run.processes["twin"])
    run.wait(lambda: len(run.watch.transitions) > before)
    assert run.watch.transitions[before][1:] == ("held", "clock went back")
    run.move(2)


@pytest.mark.parametrize("kind", ["drop", "freeze", "back", "nan"])
def test_observations_that_stop_go_stale_jump_back_or_are_no_numbers(run, kind):
    run.move()
    topic = PANDA.streams["joint_position"].topic
    try:
        run.fault(topic, kind)
        run.wait(lambda: run.deployment.state == "held")
        last = run.watch.newest["joints"]  # that was worth anything
        run.assert_safe("held", "observations stopped", last, WATCHDOG.observation)
    finally:
        run.fault(topic, "")


def test_an_emergency_stop_in_motion_is_latched(run):
    run.move()
    assert run.deployment.call("supervisor/emergency_stop")[0]
    run.assert_safe("stopped", "emergency stop", run.watch.newest["proposal"], PERIOD)
    assert not run.deployment.call("supervisor/home")[0]
    run.move(2)  # clears it first


def test_a_third_of_all_packets_is_lost(run):
    try:
        run.deployment.set_parameter("twin", "loss", 0.3)
        run.deployment.prepare(3)
        attempt = run.deployment.run(3, 60, {"task": "lift"}, lambda: None)
        assert attempt.steps >= 60 or "held" in attempt.reason
    finally:
        run.deployment.set_parameter("twin", "loss", 0.0)


def test_recordings_hold_all_that_happened(run):
    """Runs last: every proposal and transition that was heard on the wire is in the black box."""
    from robot_rl.hardware.recording.bag import Bag

    run.move(4)
    run.deployment.call("policy/stop")
    run.processes["recorder"].stop(60.0)
    (folder,) = (run.folder / "bags").iterdir()
    bag = Bag(folder)
    found = {"/supervisor/proposal": [], "/supervisor/transition": []}
    for recorded in bag.read():
        if recorded.topic in found:
            found[recorded.topic].append(bag.decode(recorded))
    assert {message.header.frame_id for message in found["/supervisor/proposal"]} >= set(run.watch.tokens)
    reasons = [message.message for message in found["/supervisor/transition"]]
    assert len(reasons) >= len(run.watch.transitions)
    assert {said for _, _, said in run.watch.transitions} <= set(reasons)


@pytest.mark.render
def test_images_that_stop(domain, tmp_path, ros_domain):
    camera = "robot0_eye_in_hand"
    run = Run(tmp_path, {camera: [32, 32]})
    try:
        run.move()
        run.fault(run.camera_topic(camera), "drop")
        run.wait(lambda: run.deployment.state == "held")
        run.assert_safe("held", "actions stopped", run.watch.newest["proposal"], WATCHDOG.action)
        run.wait(lambda: any(f"no observation: {camera}" in line for line in run.lines))
    finally:
        run.close()


def test_a_policy_of_another_robot_is_refused_with_every_difference(domain, tmp_path):
    policy = wild_policy(tmp_path / "policy", {})
    text = (policy / "contract.json").read_text()
    (policy / "contract.json").write_text(
        text.replace('"joint7"', '"joint8"').replace('"rate_hz": 20.0', '"rate_hz": 10.0')
    )
    lines: list[str] = []
    process = NodeProcess("policy", {"policy": str(policy), "robot": "panda"}, tmp_path / "log", lines.append)
    process.start()
    deadline = time.monotonic() + 120
    while process.running and time.monotonic() < deadline:
        time.sleep(0.1)
    ended = process.ended
    assert "exit code 1" in ended
    assert "rate_hz: 10.0 against 20.0" in ended
    assert "observation.joint_position.names" in ended
    assert "action.joint_position.names" in ended


def test_a_killed_deployment_leaves_no_process(domain, tmp_path, ros_domain):
    policy = wild_policy(tmp_path / "policy", {})
    command = [
        sys.executable, "-m", "robot_rl.cli", "deploy", f"policy={policy}", "twin=true", "compare=false", "episodes=50",
        f"output={tmp_path / 'out'}",
    ]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        deploy = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=tmp_path)
    try:
        logs = tmp_path / "out" / "logs"
        wait(lambda: (logs / "policy.log").exists() and "running" in (logs / "policy.log").read_text())
        children = descendants(deploy.pid)
        assert len(children) >= 5  # twin, Supervisor, recorder, policy and its inference
    finally:
        deploy.kill()
        deploy.wait()
    wait(lambda: not [pid for pid in children if Path(f"/proc/{pid}").exists()], 30.0)


def descendants(pid):
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found += [child, *descendants(child)]
    return found


def wait(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
