"""The scripted person before a policy: watches, takes over when it does not come on, and gives the robot back."""

import numpy as np
import pytest

from robot_rl.hardware import bindings
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.safety.supervisor_messages import diagnostic, diagnostics
from robot_rl.hardware.teleop.device import DeviceError
from robot_rl.hardware.teleop.scripted import Scripted, sees

PERIOD = 0.05
PANDA = sees(RobotFile.load("panda"), ["cube"])


class Desk:
    """A robot that moves as told, or as the person does, and a cube before it."""

    def __init__(self, topics, **settings):
        self.graph, self.device = topics(), None
        self.device = Scripted(self.graph, PANDA, "lift", words=False, **settings)
        self.joints, self.leased = np.array(PANDA.home), False
        hand = PANDA.kinematics().forward(self.joints)
        # To the left, where the arm turns to with its first joint.
        self.cube = np.append(np.add(hand[:3], [-0.1, 0.4, -0.06]), [1.0, 0, 0, 0])

    def step(self, seconds, turning=0.0):
        """What the person does in each period, while the first joint turns [rad/s]."""
        said = []
        for _ in range(round(seconds / PERIOD)):
            self.graph.time += PERIOD
            self.joints[0] += turning * PERIOD
            state = {"joint_position": self.joints, "gripper_opening": np.array([0.08]), "cube_pose": self.cube}
            for topic, message in bindings.encode_observations(PANDA, state, self.graph.time).items():
                self.graph.send(topic, message)
            values = {"phase": "recording", "leased": self.leased, "busy": False, "state": "running"}
            status = diagnostics(self.graph.time, diagnostic("teleop", 0, "", values, "panda"))
            self.graph.send("teleop/status", status)
            reading = self.device.read(self.graph.time)
            said.append(bool(reading.buttons))
            assert said[-1] or not reading.twist.any()
        return said


def test_it_leaves_a_policy_alone_that_comes_on(topics):
    desk = Desk(topics, patience=0.5)
    assert not any(desk.step(0.8, turning=0.8))


def test_it_takes_over_when_the_robot_stands_still(topics):
    desk = Desk(topics, patience=0.5)
    said = desk.step(1.0)
    assert said.index(True) == pytest.approx(0.5 / PERIOD, abs=2)


def test_it_takes_over_when_the_robot_goes_astray(topics):
    assert any(Desk(topics, patience=0.5).step(1.0, turning=-0.8))


def test_it_gives_the_robot_back_after_the_correction(topics):
    desk = Desk(topics, patience=0.5, correction=0.4)
    assert any(desk.step(0.7))
    desk.leased = True
    said = desk.step(0.6)
    assert said.index(False) == pytest.approx(0.4 / PERIOD, abs=1)
    assert desk.device.events() == ["release"]
    assert not any(said[said.index(False) :])
    desk.leased = False
    # It watches anew.
    assert not any(desk.step(0.4))
    assert any(desk.step(0.4))


def test_without_patience_it_moves_from_the_beginning(topics):
    desk = Desk(topics)
    desk.step(0.1)
    desk.leased = True
    assert all(desk.step(0.5))


def test_it_needs_an_expert(topics):
    with pytest.raises(DeviceError, match="tool_hang"):
        Scripted(topics(), PANDA, "tool_hang")
