"""Cameras that a session starts: their parameters, mistakes told early, and the process that they become."""

from pathlib import Path

import pytest

from robot_rl import deploy, teleop
from robot_rl.camera_devices import CameraDevicesError, camera_parameters, recorded_sizes
from robot_rl.cli import compose
from robot_rl.datasets import ContractError
from robot_rl.datasets.contract import Feature
from robot_rl.hardware.cameras.camera import CameraError
from robot_rl.hardware.nodes.camera_node import stream_of
from robot_rl.hardware.robot_file import FOLDER, RobotFile

DEVICES = "camera_devices={wrist: {kind: synthetic, device: 0, size: [48, 64], rate: 20}, side: {device: /dev/video2}}"


def plain(command, *overrides):
    from omegaconf import OmegaConf

    composed = OmegaConf.to_container(compose(command, list(overrides)), resolve=True)
    composed.pop("hydra", None)
    return composed


def test_they_become_parameters_of_one_node_started_before_the_supervisor():
    expected = {
        "robot": "panda", "cameras": ["wrist", "side"], "wrist.kind": "synthetic", "wrist.device": "0",
        "wrist.size": [48, 64], "wrist.rate": 20, "side.device": "/dev/video2",
    }  # fmt: skip
    for nodes in (
        deploy.node_parameters(plain("deploy", "policy=runs/demo", DEVICES), Path("out"), None),
        teleop.node_parameters(plain("teleop", DEVICES), Path("out"), "contract.json"),
    ):
        assert nodes["camera"] == expected
        assert list(nodes).index("camera") < list(nodes).index("supervisor")
    assert "camera" not in teleop.node_parameters(plain("teleop"), Path("out"), "contract.json")


def test_teleoperation_records_them_in_their_size_unless_told_otherwise():
    assert recorded_sizes(plain("teleop")) is None
    assert recorded_sizes(plain("teleop", DEVICES)) == {"wrist": [48, 64], "side": [480, 640]}
    assert recorded_sizes(plain("teleop", DEVICES, "cameras={wrist: [84, 84]}")) == {"wrist": [84, 84]}
    session = plain("teleop", DEVICES)
    contract = teleop.observed({**session, "cameras": recorded_sizes(session)}).contract
    assert {name: camera.shape for name, camera in contract.cameras.items()} == {
        "wrist": (48, 64, 3), "side": (480, 640, 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (["twin=true", "camera_devices={wrist: {}}"], CameraDevicesError, "renders its own"),
        (["camera_devices={wrist: /dev/video0}"], CameraDevicesError, "expected settings such as"),
        (["camera_devices={wrist: {fps: 30}}"], CameraError, "no setting 'fps'"),
        ([f"robot={FOLDER / 'template.yaml'}", "camera_devices={side: {}}"], ContractError, "side"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(tmp_path, overrides, error, words):
    with pytest.raises(error, match=words):
        camera_parameters(plain("teleop", *overrides))
    with pytest.raises(error, match=words):
        teleop.run(plain("teleop", *overrides, f"output={tmp_path / 'run'}"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_process_publishes_what_the_session_reads(ros_domain, tmp_path):
    pytest.importorskip("cyclonedds")
    from robot_rl.hardware.ros2.graph import open_graph
    from robot_rl.node_process import NodeProcess

    devices = "camera_devices={wrist: {kind: synthetic, size: [48, 64], rate: 20, exposure: null}}"
    parameters = camera_parameters(plain("teleop", devices))
    stream = stream_of(RobotFile.load("panda"), Feature("wrist", (48, 64, 3), "uint8", kind="image"))
    said, heard = [], []
    with open_graph("reader") as graph:
        graph.subscribe(stream.topic, stream.type, heard.append, stream.qos)
        process = NodeProcess("camera", parameters, tmp_path / "camera.log", said.append)
        process.start()
        try:
            assert graph.spin(until=lambda: len(heard) > 3, timeout=60.0), said
        finally:
            process.stop()
    assert heard[-1].message.height == 48
