"""`robots check`: each mismatch with a graph is found and measured, on made-up graphs and on a real one."""

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from robot_rl.hardware.robot_check import Finding, Heard, findings, is_live
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Endpoint
from robot_rl.hardware.ros2.qos import RELIABLE, Qos
from robot_rl.robots import main

ROBOT = RobotFile.load("ur5e")
JOINT_STATE = "sensor_msgs/msg/JointState"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
NAMES = [*ROBOT.joints, "robotiq_85_left_knuckle_joint"]
ARM = ROBOT.commands["joint_position"].topic
HAND = ROBOT.commands["gripper_opening"].topic


def publisher(topic="/joint_states", kind=JOINT_STATE, qos=RELIABLE, node="/driver"):
    return Endpoint(topic, kind, node, qos, True)


def reader(topic=ARM, kind=TRAJECTORY, qos=RELIABLE, node="/controller"):
    return Endpoint(topic, kind, node, qos, False)


GOOD = [publisher(), reader(), reader(HAND, "std_msgs/msg/Float64MultiArray")]


def hear(rate=100.0, age=0.001, names=NAMES, position=None, count=200):
    stamps = 1000.0 + np.arange(count) / rate
    values = np.full(len(names), 0.1) if position is None else np.array(position)
    message = messages.make(JOINT_STATE, name=list(names), position=values, velocity=np.zeros(len(names)))
    return {name: Heard((stamps + age).tolist(), stamps.tolist(), message) for name in ROBOT.streams}


def faults(heard, endpoints=GOOD, robot=ROBOT):
    return [finding for finding in findings(robot, heard, endpoints) if finding.state == "FAIL"]


def test_a_graph_that_fits_is_fine() -> None:
    found = list(findings(ROBOT, hear(), GOOD))
    assert {finding.state for finding in found} == {"ok"}
    assert Finding("observation.joint_position", "ok", "100.0 Hz, longest gap 10 ms") in found
    assert any("1.0 ms old" in finding.text for finding in found)
    assert is_live(ROBOT, GOOD)
    assert not is_live(ROBOT, [publisher("/rosout", "rcl_interfaces/msg/Log")])


@pytest.mark.parametrize(
    ("endpoints", "text", "mend"),
    [
        (
            [*GOOD[1:], publisher("/arm/joint_states")],
            "nobody publishes /joint_states",
            "did you mean /arm/joint_states",
        ),
        (GOOD[1:], "nobody publishes /joint_states", "start the driver"),
        (
            [*GOOD[1:], publisher(kind="std_msgs/msg/String")],
            "is std_msgs/msg/String at /driver, the file says",
            "type",
        ),
        ([*GOOD[1:], publisher(qos=Qos("best_effort"))], "the publisher is best effort", "change qos"),
        ([GOOD[0], GOOD[2]], f"nobody subscribes to {ARM}", "start the driver or the controller"),
        (
            [GOOD[0], GOOD[2], reader("/joint_trajectory_controller/joint_trajectory")],
            f"nobody subscribes to {ARM}",
            "did you mean /joint_trajectory_controller/joint_trajectory",
        ),
        ([GOOD[0], GOOD[2], reader(kind="std_msgs/msg/String")], f"{ARM} is std_msgs/msg/String", "correct the type"),
        ([GOOD[0], GOOD[2], reader(qos=Qos(durability="transient_local"))], "asks for transient local", "change qos"),
        (
            [*GOOD, publisher(ARM, TRAJECTORY, node="/moveit")],
            f"/moveit publishes to {ARM}, too",
            "only the Supervisor",
        ),
    ],
)
def test_a_topic_that_does_not_match_is_named(endpoints, text, mend) -> None:
    found = faults(hear(), endpoints)
    assert any(text in finding.text and mend in finding.mend for finding in found), found


@pytest.mark.parametrize(
    ("heard", "text", "mend"),
    [
        (hear(rate=60), "60.0 Hz, longest gap 17 ms: 40 % less than the 100 Hz of the file", "raise the driver's rate"),
        (hear(age=0.25), "stamps are 250 ms old on arrival (max_age 100 ms)", "synchronise the clocks"),
        (hear(age=-3), "stamps are -3000 ms old", "use_sim_time"),
        (hear(names=[f"left_{name}" for name in NAMES]), "expected joints", "did you mean left_shoulder_pan_joint"),
        (
            {name: Heard(elsewhere=messages.make(JOINT_STATE, name=["ur5e_elbow_joint"])) for name in ROBOT.streams},
            "/joint_states has no joint shoulder_pan_joint, ",
            "elbow_joint: did you mean ur5e_elbow_joint?",
        ),
        (hear(names=NAMES[1:]), "no joint shoulder_pan_joint", ""),
        (hear(position=[np.nan] * 7), "is not finite", "mend"),
        ({}, "no message came", "check the driver and QoS"),
    ],
)
def test_messages_that_do_not_match_are_measured(heard, text, mend) -> None:
    found = faults(heard)
    assert any(text in finding.text and mend in finding.mend for finding in found), found


def test_stamps_and_gaps() -> None:
    heard = hear()
    record = heard["joint_position"]
    record.stamps[10:20] = record.stamps[5:15]
    assert any("stamps went back 1 times" in finding.text for finding in faults(heard))
    record.stamps[:] = [0.0] * len(record.stamps)
    assert any("no stamp" in finding.text and "clock: receive" in finding.mend for finding in faults(heard))
    heard = hear()
    record = heard["joint_position"]
    record.received[100:] = [time + 0.15 for time in record.received[100:]]
    assert any("longest gap 160 ms: longer than max_age 100 ms" in finding.text for finding in faults(heard))
    few = list(findings(ROBOT, hear(count=2), GOOD))
    assert any(finding.state == "note" and "only 2 messages" in finding.text for finding in few)


def test_values_out_of_bounds_and_grippers_by_action_are_noted() -> None:
    feature = replace(ROBOT.streams["joint_position"].feature, lower=(-1.0,) * 6, upper=(1.0,) * 6)
    stream = replace(ROBOT.streams["joint_position"], feature=feature)
    robot = replace(ROBOT, streams={"joint_position": stream})
    found = list(findings(robot, hear(position=[90.0] * 7), GOOD[:2]))
    notes = [finding.text for finding in found if finding.state == "note"]
    assert any("lies outside" in text for text in notes)
    assert any("goals go to the action /robotiq_gripper_controller/gripper_cmd" in text for text in notes)


def test_the_command_line(capsys, monkeypatch, tmp_path) -> None:
    assert main(["list"]) == 0
    assert "panda" in capsys.readouterr().out
    assert main(["check", "so101", "--offline"]) == 0
    out = capsys.readouterr().out
    assert "/arm_controller/joint_trajectory" in out
    assert "computed by forward_kinematics" in out


DRIVER = """
import sys
import numpy as np
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import open_graph
with open_graph("driver") as graph:
    graph.subscribe(sys.argv[2], "trajectory_msgs/msg/JointTrajectory", print)
    states = graph.publisher("/joint_states", "sensor_msgs/msg/JointState")
    names = sys.argv[1].split(",")
    def publish():
        header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(graph.now()))
        zeros = np.zeros(len(names))
        states.publish(messages.make(
            "sensor_msgs/msg/JointState", header=header, name=names, position=zeros, velocity=zeros))
    graph.timer(0.05, publish)
    print("up", flush=True)
    graph.spin(timeout=60)
"""


@pytest.mark.alone
def test_a_live_graph(capsys, ros_domain) -> None:
    """A driver in another process, at half the rate and without the gripper's joint."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, ",".join(ROBOT.joints), ARM], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "up\n"
        deadline = time.monotonic() + 30
        while True:
            status = main(["check", "ur5e", "--seconds", "2"])
            out = capsys.readouterr().out
            if "no robot is on it" not in out or time.monotonic() > deadline:
                break
    finally:
        driver.terminate()
        driver.wait(10)
    assert status == 1
    assert "% less than the 100 Hz of the file" in out
    assert "has no joint robotiq_85_left_knuckle_joint" in out
    assert "is read by /driver" in out
    assert "goals go to the action" in out
