"""The stream of commands on the wire, at each robot's own rate: never beyond its limits, whatever the targets.

That the limits of the files are within the data sheets is tested in `test_robot_file`.
"""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.hardware import bindings
from robot_rl.hardware.bindings import Tail
from robot_rl.hardware.joint_reference import JointReference
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.safety.supervisor_state import Command
from robot_rl.sim.servo import Servo

START = 1000.0


@cache
def loaded(name, with_kinematics=False):
    robot = RobotFile.load(name)
    return robot, robot.kinematics() if with_kinematics else None


class Stream:
    """Servo, encoding, wire and decoding, tick by tick, as the Supervisor's process sends and a controller reads."""

    def __init__(self, name, with_kinematics=False):
        self.robot, kinematics = loaded(name, with_kinematics)
        rate = self.robot.command_rate_hz
        self.servo = Servo(self.robot.limits, 1 / rate, 1 / self.robot.contract.rate_hz, kinematics)
        self.servo.reset(np.array(self.robot.home))
        self.ticks, self.points = 0, [np.array(self.robot.home)[None]] * 4
        self.topic = self.robot.commands["joint_position"]

    def run(self, ticks):
        for _ in range(ticks):
            references = self.servo.trajectory(self.robot.periods)
            knots = self.servo.knots
            tail = Tail(knots, self.servo.preview(knots)) if len(knots) else None
            now = START + self.ticks / self.robot.tick_rate_hz
            sent = bindings.encode_command(self.robot, Command(*references, None), now, tail)
            wire = messages.decode(messages.encode(sent[self.topic.topic]), self.topic.type)
            self.before = getattr(self, "setpoints", None)
            self.setpoints = bindings.decode_command(self.robot, self.topic.topic, wire)
            self.points.append(self.setpoints.position[: self.robot.periods])
            self.ticks += 1

    def control_periods(self, count=1):
        self.run(count * round(self.robot.tick_rate_hz / self.robot.contract.rate_hz))

    def check(self):
        position, limits = np.concatenate(self.points), self.robot.limits
        assert (position >= limits.lower - 1e-9).all()
        assert (position <= limits.upper + 1e-9).all()
        rate = self.robot.command_rate_hz
        for order, key in enumerate(("velocity", "acceleration", "jerk"), start=1):
            # A motion whose derivatives are bounded has finite differences with the same bounds.
            rounding = 4e-16 * np.abs(position).max() * (2 * rate) ** order
            differences = np.abs(np.diff(position, order, axis=0)) * rate**order
            assert (differences <= getattr(limits, key) * (1 + 1e-6) + rounding).all(), (key, differences.max(0))


kinds = st.sampled_from(["near", "far", "limits", "same", "silence", "late", "flood"])


@pytest.mark.parametrize("name", ["panda", "ur5e", "so101"])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), plan=st.lists(kinds, min_size=3, max_size=12))
def test_no_joint_target_makes_the_stream_leave_the_limits(name, seed, plan) -> None:
    stream, generator = Stream(name), np.random.default_rng(seed)
    limits = stream.robot.limits
    middle, half = (limits.upper + limits.lower) / 2, (limits.upper - limits.lower) / 2
    target = np.array(stream.robot.home)
    for kind in plan:
        if kind == "near":
            target = target + generator.normal(0, 0.1, limits.dof)
        elif kind == "far":
            target = middle + 3 * half * generator.uniform(-1, 1, limits.dof)
        elif kind == "limits":
            target = middle + half * generator.choice([-1, 1], limits.dof)
        if kind != "silence":
            stream.servo.set_target(target)
        if kind == "flood":
            for _ in range(4):
                stream.servo.set_target(target + generator.normal(0, 1, limits.dof))
                stream.run(1)
        if kind == "late":
            stream.run(1)
        stream.control_periods()
    stream.control_periods(8)
    stream.check()


@pytest.mark.parametrize("name", ["panda", "ur5e"])
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10**6), plan=st.lists(st.sampled_from(["step", "turn", "jump", "away"]), min_size=3, max_size=8)
)
def test_no_pose_target_makes_the_stream_leave_the_limits(name, seed, plan) -> None:
    stream, generator = Stream(name, with_kinematics=True), np.random.default_rng(seed)
    pose = loaded(name, True)[1].forward(np.array(stream.robot.home))
    for kind in plan:
        pose = pose.copy()
        if kind == "step":
            pose[:3] += generator.normal(0, 0.03, 3)
        elif kind == "turn":
            pose[3:] = generator.normal(size=4)
        elif kind == "jump":
            pose[:3] = generator.uniform(-0.8, 0.8, 3)
        else:  # nowhere near
            pose[:3] = generator.normal(0, 5, 3)
        stream.servo.set_pose_target(pose)
        stream.control_periods(2)
    stream.control_periods(6)
    stream.check()


@pytest.mark.parametrize(
    ("name", "singular"),
    [
        ("panda", [-0.02, 1.23, 0.96, -0.43, -1.57, 1.95, 1.35]),
        ("panda", [-1.66, 0.0, 0.09, -0.45, 0.61, 1.82, 0.59]),
        ("ur5e", [2.26, 1.46, 0.0, -1.01, -1.74, 2.43]),  # elbow stretched
        ("ur5e", [-0.73, 0.81, 2.27, 1.51, -2.01, -0.08]),  # wrist above the base's axis
        ("ur5e", [-1.5, -1.46, 1.07, -1.41, 0.0, 2.21]),  # axes of the wrist in line
    ],
)
def test_poses_around_a_singularity_keep_the_limits(name, singular) -> None:
    stream = Stream(name, with_kinematics=True)
    kinematics = loaded(name, True)[1]
    singular = np.array(singular)
    assert np.linalg.svd(kinematics.jacobian(singular), compute_uv=False)[-1] < 0.02
    middle = kinematics.forward(singular)
    stream.servo.set_target(singular)
    stream.control_periods(40)
    for k in range(30):  # circles through it, in all directions
        pose = middle.copy()
        pose[:3] += 0.1 * np.array([np.sin(0.3 * k), np.sin(0.7 * k), np.cos(0.5 * k) - 1])
        stream.servo.set_pose_target(pose)
        stream.control_periods()
    stream.check()


@pytest.mark.parametrize("name", ["panda", "ur5e", "so101"])
def test_a_controller_that_hears_no_more_comes_to_rest_within_the_limits(name) -> None:
    """The message before the Supervisor died, played by a model of joint_trajectory_controller at 1 kHz."""
    stream = Stream(name)
    limits = stream.robot.limits
    stream.servo.set_target(np.where(np.array(stream.robot.home) > 0, limits.lower, limits.upper))
    stream.control_periods(3)
    assert np.abs(stream.servo.reference.velocity).max() > 0.1
    controller = JointReference(stream.before.position[0])
    for message in (stream.before, stream.setpoints):
        controller.follow(message.start, message.start + message.times, *message[3:])
        now = message.start + stream.robot.periods / stream.robot.command_rate_hz
        controller.sample(np.array([now]))
    played = controller.sample(now + np.arange(1, 3000) / 1000)
    assert (played.velocity[-1] == 0).all()
    assert (played.position >= limits.lower - 1e-6).all()
    assert (played.position <= limits.upper + 1e-6).all()
    assert (np.abs(played.velocity) <= limits.velocity * 1.001).all()
    assert (np.abs(played.acceleration) <= limits.acceleration * 1.001).all()
    np.testing.assert_allclose(played.position[-1], stream.servo.preview(np.array([10.0])).position[0], atol=1e-6)
