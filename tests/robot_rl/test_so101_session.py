"""The whole path without hardware: a simulated leader moves a simulated follower, and an episode is recorded.

Follower and leader are servos at the level of packets, behind pseudo-terminals; driver, Supervisor and recorder are the
real processes, over DDS, on the wall clock.
"""

import json
import math
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from robot_rl import teleop
from robot_rl.datasets import EpisodeStore
from robot_rl.hardware.feetech.calibration import JointCalibration, save
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import open_graph

SO101 = RobotFile.load("so101")
SPAN = {"shoulder_pan": 2500, "shoulder_lift": 2270, "elbow_flex": 2200, "wrist_flex": 2160, "gripper": 1250}
HOME = np.array([*SO101.home, 0.78])
AMPLITUDE, PERIOD = 0.3, 3.0  # of the person's motion [rad], [s]


@contextmanager
def simulated_arm(folder, name, pose):
    """The process of an arm that stands at a pose [6] rad, and the path of its calibration."""
    joints = {}
    for joint, motor in SO101.driver.motors.items():
        half = SPAN.get(joint, 0) // 2
        low, high = (2047 - half, 2047 + half) if half else (0, 4095)
        joints[joint] = JointCalibration(motor.id, 0, 40 * motor.id, low, high)
    path = folder / f"{name}.json"
    save(joints, path)
    script = Path(__file__).with_name("so101_process.py")
    command = [sys.executable, str(script), str(folder), name, str(path), json.dumps(list(pose))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout.readline().strip() == str(folder / name)
        try:
            yield process, path
        finally:
            process.stdin.close()
            process.wait(10)


def ask(process):
    process.stdin.write("ask\n")
    return json.loads(process.stdout.readline())


class Person(threading.Thread):
    """Moves the leader, and says when to record."""

    def __init__(self, leader, done, graph):
        super().__init__(daemon=True)
        self.graph, self.words = graph, graph.publisher("teleop/command", "std_msgs/msg/String")
        graph.subscribe("teleop/status", "diagnostic_msgs/msg/DiagnosticArray", self.hear)
        graph.timer(0.02, self.act, "wall")
        self.leader, self.done, self.began, self.said = leader, done, None, {}
        self.phase, self.state, self.busy = "", "", True

    def run(self):
        self.graph.spin(until=self.done.is_set)

    def hear(self, received):
        values = {pair.key: pair.value for pair in received.message.status[0].values}
        self.phase, self.state, self.busy = values["phase"], values["state"], values["busy"] == "True"

    def act(self):
        if self.phase == "recording" and self.state != "held":
            self.began = self.began or time.monotonic()
            seconds = time.monotonic() - self.began
            wave = AMPLITUDE * math.sin(2 * math.pi * seconds / PERIOD)
            self.leader.stdin.write(json.dumps(list(HOME + wave * np.array([1, 0, 1, 0, 0, 1]))) + "\n")
            if seconds > 3 * PERIOD:
                self.say("success")
            return
        self.began = None
        if self.state == "held":
            self.say("discard" if self.phase == "recording" else "home")  # a busy machine lost the bus
        elif self.phase == "idle" and self.state == "ready" and not self.busy:
            self.say("record")

    def say(self, word):
        if time.monotonic() - self.said.get(word, -9.0) > 3.0:
            self.said[word] = time.monotonic()
            self.words.publish(messages.make("std_msgs/msg/String", data=word))


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(300)
def test_a_leader_moves_the_follower_and_an_episode_is_recorded(ros_domain, tmp_path, monkeypatch):
    pytest.importorskip("cyclonedds")
    from omegaconf import OmegaConf

    from robot_rl.cli import compose

    overrides = ["device=so101_leader", "robot=so101", "episodes=1", "countdown=0.5", "task=wave"]
    config = OmegaConf.to_container(compose("teleop", overrides), resolve=True)
    config.pop("hydra", None)
    away = HOME + np.array([0.2, 0.2, -0.1, -0.1, 0.0, -0.5])
    done = threading.Event()
    with (
        simulated_arm(tmp_path, "follower", away) as (follower, calibration),
        simulated_arm(tmp_path, "leader", HOME) as (leader, theirs),
        open_graph("person") as graph,
    ):
        config |= {
            "port": str(tmp_path / "follower"), "calibration": str(calibration), "output": str(tmp_path / "run"),
            "settings": {"so101_leader": {"port": str(tmp_path / "leader"), "calibration": str(theirs)}},
        }  # fmt: skip
        person = Person(leader, done, graph)
        person.start()
        try:
            assert teleop.run(config) == 0
        finally:
            done.set()
            person.join()
        assert not any(ask(follower)["torque"])  # taken away at the end
        assert not any(ask(leader)["goals"])
    store = EpisodeStore.open(tmp_path / "run" / "episodes.zarr")
    number = int(store.select(success=True)[0])
    episode = store[number]
    joints = episode.observation["joint_position"]
    for index in (0, 2):
        assert np.ptp(joints[:, index]) == pytest.approx(2 * AMPLITUDE, rel=0.15)
    np.testing.assert_allclose(joints[:, 1], SO101.home[1], atol=0.05)
    assert np.ptp(episode.observation["gripper_opening"]) > 0.03
    assert np.abs(episode.action[:, :5] - joints[1:]).max() < 0.25  # it follows
    assert np.abs(np.diff(joints, axis=0)).max() * SO101.contract.rate_hz < SO101.limits.velocity.max()
