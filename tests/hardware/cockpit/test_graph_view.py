import logging
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")

from robot_rl.hardware import bindings
from robot_rl.hardware.cockpit.graph_view import GraphView
from robot_rl.hardware.cockpit.newest import WIDEST
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Received
from robot_rl.hardware.safety.supervisor_messages import diagnostic, diagnostics

SO101 = RobotFile.load("so101")


class OneProcessGraph:
    """Hands on what a test sends, and knows its endpoints."""

    log = logging.getLogger("view")

    def __init__(self):
        self.time, self.readers, self.known, self.timers = 10.0, {}, [], []

    def now(self):
        return self.time

    def subscribe(self, topic, message_type, callback, qos=None):
        self.readers[topic] = callback
        return SimpleNamespace(topic=topic)

    def timer(self, period, callback, clock="node"):
        self.timers.append(callback)

    def endpoints(self):
        return self.known

    def announce(self, topic, message_type):
        self.known.append(SimpleNamespace(topic=topic, message_type=message_type, is_publisher=True))

    def send(self, topic, message):
        self.readers[topic](Received(messages.encode(message), topic, message.__msgtype__, self.time))


@pytest.fixture
def graph():
    return OneProcessGraph()


def see_robot(graph, view):
    values = {
        "joint_position": np.array(SO101.home),
        "joint_velocity": np.zeros(5),
        "gripper_opening": np.array([0.05]),
    }
    for topic, message in bindings.encode_observations(SO101, values, graph.time).items():
        graph.send(topic, message)
    view._task = "none"  # there is no twin whose task is awaited
    deadline = time.monotonic() + 30
    while view.geometry() is None and time.monotonic() < deadline:
        graph.timers[0]()
        time.sleep(0.01)


def test_joint_states_become_poses(graph):
    view = GraphView(graph, SO101)
    assert view.poses() is None
    assert view.status()["silent"] == "no joint states yet"
    see_robot(graph, view)
    poses = view.poses()
    np.testing.assert_allclose(poses.values[-1, :3], SO101.kinematics().forward(np.array(SO101.home))[:3], atol=1e-5)
    assert view.poses() is poses
    status = view.status()
    assert status["opening"] == pytest.approx(0.05, abs=1e-3)
    np.testing.assert_allclose(status["position"], SO101.home, atol=1e-3)
    graph.time += 5
    assert view.status()["silent"] == "none for 5 s"


def test_objects_and_cameras_are_found_on_the_graph(graph):
    view = GraphView(graph, SO101)
    see_robot(graph, view)
    version = view.geometry()[0]
    graph.announce("/cup_pose", "geometry_msgs/msg/PoseStamped")
    graph.announce("/else/cup", "geometry_msgs/msg/PoseStamped")
    graph.announce("/wrist/image_raw", "sensor_msgs/msg/Image")
    graph.timers[0]()
    assert view.cameras() == ["wrist"]
    assert view.geometry()[0] == version + 1
    assert "/else/cup" not in graph.readers
    position = messages.make("geometry_msgs/msg/Point", x=0.2, y=0.1, z=0.05)
    pose = messages.make("geometry_msgs/msg/Pose", position=position)
    graph.send("/cup_pose", messages.make("geometry_msgs/msg/PoseStamped", pose=pose))
    see_robot(graph, view)
    np.testing.assert_allclose(view.poses().values[-2], [0.2, 0.1, 0.05, 1, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize(("width", "encoding"), [(84, "rgb8"), (1500, "bgr8")])
def test_pictures_are_encoded_once_and_no_larger_than_a_page_needs(graph, width, encoding):
    view = GraphView(graph, SO101)
    graph.announce("/wrist/image_raw", "sensor_msgs/msg/Image")
    graph.timers[0]()
    assert view.picture("wrist") is None
    pixels = np.full((60, width, 3), [200, 100, 50], np.uint8)
    data = pixels if encoding == "rgb8" else pixels[..., ::-1]
    graph.send("/wrist/image_raw", messages.make(
        "sensor_msgs/msg/Image", height=60, width=width, encoding=encoding, step=3 * width, data=data.tobytes()
    ))  # fmt: skip
    picture = view.picture("wrist")
    assert view.picture("wrist") is picture
    jpeg = picture.jpeg()
    assert picture.jpeg() is jpeg
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert shown.shape[1] <= WIDEST
    np.testing.assert_allclose(shown.mean((0, 1)), [200, 100, 50], atol=3)


def test_a_picture_that_cannot_be_read_is_empty(graph):
    view = GraphView(graph, SO101)
    graph.announce("/depth/image_raw", "sensor_msgs/msg/Image")
    graph.timers[0]()
    graph.send("/depth/image_raw", messages.make(
        "sensor_msgs/msg/Image", height=2, width=2, encoding="16UC1", step=4, data=bytes(8)
    ))  # fmt: skip
    assert view.picture("depth").jpeg() == b""


def test_status_of_everybody_is_shown_and_grows_old(graph):
    view = GraphView(graph, SO101)
    said = diagnostic("supervisor", 0, "at home", {"state": "ready", "accepted": 3})
    graph.send("supervisor/status", diagnostics(10.0, said))
    graph.send("recorder/status", diagnostic("recorder", 1, "the disk is full", {"state": "idle"}))
    graph.send("supervisor/transition", diagnostic("supervisor", 0, "at home", {"from": "homing", "to": "ready"}))
    graph.send("twin/success", messages.make("std_msgs/msg/Bool", data=True))
    status = view.status()
    expected = {"message": "at home", "level": 0, "old": False, "state": "ready", "accepted": "3"}
    assert status["supervisor"] == expected
    assert status["recorder"]["level"] == 1
    assert status["session"] is None
    assert status["success"] is True
    assert status["transitions"] == [(10.0, "ready: at home")]
    graph.time += 10
    assert view.status()["supervisor"]["old"] is True
