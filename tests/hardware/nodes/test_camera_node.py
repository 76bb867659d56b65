"""The camera node: what readers of the robot's file get, and what is said of cameras that fail."""

import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

pytest.importorskip("cyclonedds")

from robot_rl.datasets import ContractError
from robot_rl.datasets.contract import Feature
from robot_rl.hardware import bindings
from robot_rl.hardware.cameras.camera import CameraError, Frame
from robot_rl.hardware.cameras.synthetic import SyntheticSource, draw, read_number
from robot_rl.hardware.nodes.camera_node import CameraNode, CameraPublisher, declared, stream_of
from robot_rl.hardware.robot_file import FOLDER, RobotFile
from robot_rl.hardware.ros2.graph import open_graph
from robot_rl.hardware.ros2.qos import LATCHED

TEMPLATE = FOLDER / "template.yaml"
PATIENCE = 60.0


@pytest.fixture
def robot(tmp_path):
    """The template, whose camera is calibrated, late by 20 ms, and has depth by a pattern."""
    plain = yaml.safe_load(TEMPLATE.read_text())
    camera = plain["observation"]["wrist_image"]
    camera |= {"shape": [48, 64, 3], "calibration": {"fx": 50.0, "fy": 51.0, "cx": 31.0, "cy": 24.0}}
    camera["stream"]["latency"] = 0.02
    plain["task_features"]["*_depth"] = {
        "kind": "depth", "dtype": "uint16",
        "stream": {"topic": "/{feature}", "type": "sensor_msgs/msg/Image", "max_age": 0.2},
    }  # fmt: skip
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(plain))
    return RobotFile.load(path)


def until(graph, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing came in time"
        graph.step(0.005)
        time.sleep(0.002)


def values(message, name):
    (status,) = [status for status in message.status if status.name == name]
    return {pair.key: pair.value for pair in status.values}, status.message


def test_a_picture_arrives_as_the_feature_with_its_stamp_and_calibration(local_graph, robot):
    graph = local_graph()
    publisher = CameraPublisher(graph, robot, "wrist_image", SyntheticSource(), depth=True)
    depth = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    publisher.deliver(Frame(draw((48, 64), 321, 0.0), 90.0, 90.1, 321, depth))
    graph.step(0.001)
    stream = robot.streams["wrist_image"]
    (message,) = graph.published[stream.topic]
    assert read_number(bindings.decode(stream, message)) == 321
    assert bindings.stamp_of(stream, message, 0.0) == pytest.approx(90.0 - 0.02)  # less what the file knows
    (info,) = graph.published[stream.camera_info]
    assert {key: bindings.calibration(stream, info)[key] for key in ("fx", "fy", "cx", "cy")} == {
        "fx": 50.0, "fy": 51.0, "cx": 31.0, "cy": 24.0,
    }  # fmt: skip
    (message,) = graph.published["/wrist_image_depth"]
    own = stream_of(robot, Feature("wrist_image_depth", (48, 64, 1), "uint16", kind="depth"))
    np.testing.assert_array_equal(bindings.decode(own, message)[..., 0], depth)


def test_the_cameras_own_calibration_counts_where_the_file_has_none_for_the_size(local_graph, robot):
    graph, source = local_graph(), SyntheticSource()
    source.calibration = {"fx": 7.0, "fy": 7.0, "cx": 1.0, "cy": 2.0}
    CameraPublisher(graph, robot, "wrist_image", source, depth=False).deliver(Frame(draw((24, 32), 1, 0.0), 90.0, 90.0))
    graph.step(0.001)
    (info,) = graph.published[robot.streams["wrist_image"].camera_info]
    assert (info.height, info.width, info.k[0]) == (24, 32, 7.0)


def test_the_status_tells_rate_losses_and_why_there_are_no_pictures(local_graph, robot):
    graph = local_graph()
    node = CameraNode(graph, robot, {"wrist_image": {"kind": "synthetic", "size": (48, 64), "rate": 200.0}})
    camera = node.cameras["wrist_image"]
    with camera:
        until(graph, lambda: camera.counts.frames > 10)
        node.report()
        told, problem = values(graph.published["camera/status"][-1], "wrist_image")
        assert (int(told["frames"]) > 10, float(told["rate [Hz]"]) > 0, problem) == (True, True, "")
        camera.source.fault = "disconnect"
        until(graph, lambda: camera.problem != "")
        node.report()
        assert "unplugged" in values(graph.published["camera/status"][-1], "wrist_image")[1]
        camera.source.fault = ""
        until(graph, lambda: camera.counts.reconnects == 1)


def test_settings_are_parameters_with_the_defaults_of_kind_and_file(local_graph, robot):
    graph = local_graph({"wrist_image.kind": "opencv", "side.kind": "synthetic", "side.drop": 0.1})
    found = declared(graph, robot, ["wrist_image", "side"])
    assert found["wrist_image"] == {
        "kind": "opencv", "device": "/dev/video0", "size": [48, 64], "rate": 30, "exposure": None, "fourcc": "",
    }  # fmt: skip
    assert (found["side"]["size"], found["side"]["drop"]) == ([480, 640], 0.1)


def test_a_camera_that_the_robot_does_not_have(local_graph, robot):
    with pytest.raises(ContractError, match="side"):
        CameraNode(local_graph(), robot, {"side": {"kind": "synthetic"}})
    with pytest.raises(CameraError, match="did you mean"):
        CameraNode(local_graph(), robot, {"wrist_image": {"kind": "synthetc"}})


@pytest.mark.slow
def test_as_a_process_it_feeds_whoever_reads_the_robots_file(ros_domain, tmp_path):
    panda = RobotFile.load("panda")
    stream = stream_of(panda, Feature("wrist", (84, 84, 3), "uint8", kind="image"))
    pictures, status = [], []
    arguments = [
        "robot:=panda",
        "cameras:=['wrist']",
        "wrist.kind:=synthetic",
        "wrist.size:=[96, 128]",
        "wrist.drop:=0.2",
    ]
    command = [sys.executable, "-m", "robot_rl.hardware.nodes.camera_node", "--ros-args"]
    command += [item for argument in arguments for item in ("-p", argument)]
    with open_graph("reader") as graph, (tmp_path / "log").open("w") as log:
        graph.subscribe(stream.topic, stream.type, pictures.append, stream.qos)
        graph.subscribe("camera/status", "diagnostic_msgs/msg/DiagnosticArray", status.append, LATCHED)
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            assert graph.spin(until=lambda: len(pictures) > 10 and len(status) > 2, timeout=PATIENCE)
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
    numbers = [read_number(bindings.picture(each.topic, each.message)) for each in pictures]
    assert numbers == sorted(numbers)
    picture = bindings.decode(stream, pictures[-1].message)
    assert picture.shape == (84, 84, 3)
    assert bindings.stamp_of(stream, pictures[-1].message, 0.0) <= pictures[-1].received
    told, problem = values(status[-1].message, "wrist")
    assert problem == ""
    assert int(told["dropped"]) > 0


def test_a_camera_that_is_missing_ends_the_process(ros_domain, tmp_path):
    command = [sys.executable, "-m", "robot_rl.hardware.nodes.camera_node", "--ros-args"]
    command += ["-p", "cameras:=['wrist']", "-p", "wrist.device:=/dev/video97"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert "/dev/video97: no such device" in done.stdout + done.stderr
