"""`robot-rl data import` on a bag of this package's recorder and on what is none."""

from pathlib import Path

import numpy as np
import pytest

from robot_rl.cli import main
from robot_rl.datasets import EpisodeStore
from robot_rl.hardware import bindings
from robot_rl.hardware.recording.bag_import import robot_for
from robot_rl.hardware.recording.black_box import BlackBox, Topic
from robot_rl.hardware.recording.episode_mark import TYPE, Mark, encode
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages


def record(folder: Path, close: bool) -> None:
    """Two seconds of a panda whose joints and gripper follow commands."""
    offered = RobotFile.load("panda").contract
    contract = offered.select(["joint_position", "gripper_opening"])
    robot = robot_for("panda", contract)
    arm, gripper = robot.commands["joint_position"], robot.commands["gripper_opening"]
    sent = [(0.95, "/recorder/mark", encode(Mark("start", 0.95, 1, {"task": "reach"})))]
    for number in range(100, 300):
        time = number / 100
        values = {"joint_position": np.full(7, time), "gripper_opening": np.full(1, 0.04)}
        sent += [(time, topic, m) for topic, m in bindings.encode_observations(robot, values, time).items()]
        point = messages.make("trajectory_msgs/msg/JointTrajectoryPoint", positions=np.full(7, time))
        sent += [(time, arm.topic, messages.make(arm.type, joint_names=arm.elements, points=[point]))]
        sent += [(time, gripper.topic, messages.make(gripper.type, data=[0.02]))]
    sent += [(3.0, "/recorder/mark", encode(Mark("success", 3.0, 1)))]
    assert sent[0][2].__msgtype__ == TYPE
    box = BlackBox(folder, {"run": "r", "robot": "panda", "contract": contract.to_json(), "topics": "{}"})
    for time, topic, message in sent:
        name = message.__msgtype__
        text = messages.typestore().generate_msgdef(name, ros_version=2)[0]
        box.add_topic(Topic(topic, name, text, messages.type_hash(name)))
        box.write(topic, round(time * 1e9), messages.encode(message))
    if close:
        box.close()
    else:
        box.flush()
        box._file.close()  # as when it is killed


@pytest.mark.parametrize("close", [True, False])
def test_a_bag_of_ours_needs_nothing_but_an_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], close: bool
) -> None:
    record(tmp_path / "bag", close)
    output = tmp_path / "store.zarr"
    assert main(["data", "import", str(tmp_path / "bag"), f"output={output}", "operator=me"]) == 0
    said = capsys.readouterr().out
    assert "episode 1: number 0 of the store" in said
    assert ("recovered" in said) is not close
    facts = EpisodeStore.open(output).facts(0)
    assert (facts["success"], facts["task"], facts["operator"]) == (True, "reach", "me")
    assert (tmp_path / "bag" / "metadata.yaml").exists()
    assert main(["data", "import", str(tmp_path / "bag"), f"output={output}"]) == 0
    assert "the store has it already" in capsys.readouterr().out
    assert len(EpisodeStore.open(output)) == 1


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "bag", close=True)
    for arguments, reason in (
        ([str(tmp_path / "bag"), "task=lift"], "output= is missing"),
        ([str(tmp_path), f"output={tmp_path / 'x.zarr'}"], "expected a rosbag2 folder"),
        ([str(tmp_path / "bag"), "output"], "expected key=value"),
        ([str(tmp_path / "bag"), f"output={tmp_path / 'x.zarr'}", "robot=nobody"], "no such file"),
    ):
        assert main(["data", "import", *arguments]) == 1
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_bags_are_converted_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str], storage: str) -> None:
    record(tmp_path / "bag", close=True)
    first, again, second = tmp_path / "first.zarr", tmp_path / "again", tmp_path / "second.zarr"
    assert main(["data", "convert", str(tmp_path / "bag"), str(first)]) == 0
    words = [str(first), str(again), "--to", "rosbag2", "--storage", storage]
    assert main(["data", "convert", *words]) == 1
    assert "--robot is missing" in capsys.readouterr().err
    assert main(["data", "convert", *words, "--robot", "panda"]) == 0
    assert main(["data", "convert", str(again), str(second)]) == 0
    assert main(["data", "diff", str(first), str(second)]) == 0
    assert "the stores hold the same" in capsys.readouterr().out
    assert main(["data", "import", str(again), f"output={tmp_path / 'x.zarr'}"]) == 1
    assert "data convert" in capsys.readouterr().err
