"""Pictures of a ROS topic as a camera, over DDS."""

import threading
import time

import numpy as np
import pytest

pytest.importorskip("cyclonedds")

from robot_rl.datasets.contract import Feature
from robot_rl.hardware import bindings
from robot_rl.hardware.cameras import topic as module
from robot_rl.hardware.cameras.camera import Camera, CameraError
from robot_rl.hardware.cameras.synthetic import draw, read_number
from robot_rl.hardware.cameras.topic import TopicSource
from robot_rl.hardware.robot_file import Stream
from robot_rl.hardware.ros2.graph import open_graph
from robot_rl.hardware.ros2.qos import SENSOR

PATIENCE = 30.0


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(module, "DISCOVERY", PATIENCE)


class Driver:
    """Publishes the synthetic camera's pictures from a thread of its own."""

    def __init__(self, topic, kind, delay=0.0, stamped=True):
        self._stream = Stream(Feature("picture", (48, 64, 3), "uint8", kind="image"), topic, kind)
        self._delay, self._stamped = delay, stamped
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        with open_graph("driver") as graph:
            publisher, number = graph.publisher(self._stream.topic, self._stream.type, SENSOR), 0
            while not self._ending.wait(0.02):
                number += 1
                stamp = time.time() - self._delay if self._stamped else 0.0
                publisher.publish(bindings.encode_observation(self._stream, draw((48, 64), number, 0.0), stamp))

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._ending.set()
        self._thread.join()


@pytest.mark.parametrize("kind", module.TYPES)
def test_pictures_come_with_the_stamp_of_their_header(ros_domain, kind):
    with Driver("/wrist/image_raw", kind, delay=0.5), Camera(TopicSource("wrist/image_raw")) as camera:
        first = camera.wait(None, PATIENCE)
        second = camera.wait(first, PATIENCE)
    assert first.picture.shape == (48, 64, 3)
    assert read_number(second.picture) > read_number(first.picture)
    red, _, blue = second.picture[10:20, 56:].mean(axis=(0, 1))
    assert red > blue
    assert second.received - second.stamp >= 0.5


def test_a_driver_that_does_not_stamp_and_one_that_ends(ros_domain, monkeypatch):
    monkeypatch.setattr(module, "SILENT", 0.5)
    with Driver("/a", module.TYPES[0], stamped=False):
        source = TopicSource("/a")
        source.open()
        frame = source.read()
        assert frame.stamp == frame.received
    with pytest.raises(CameraError, match="no picture for"):
        _ = [source.read() for _ in range(1000)]
    source.close()


def test_a_topic_that_is_not_there_is_told_with_those_that_are(ros_domain, monkeypatch):
    monkeypatch.setattr(module, "DISCOVERY", 2.0)
    with Driver("/front/image_raw", module.TYPES[0]), pytest.raises(CameraError, match="on /front/image_raw"):
        TopicSource("/front").open()
    with open_graph("other") as graph:
        graph.publisher("/b", "std_msgs/msg/Bool")
        with pytest.raises(CameraError, match="it is std_msgs/msg/Bool"):
            TopicSource("/b").open()


def test_a_damaged_picture_is_an_error_of_the_camera():
    message = bindings.messages.make("sensor_msgs/msg/Image", height=4, width=4, step=12, encoding="rgb8", data=[1, 2])
    with pytest.raises(bindings.BindingError, match="bytes, got 2"):
        bindings.picture("/a", message)
    grey = bindings.messages.make(
        "sensor_msgs/msg/Image", height=1, width=2, step=2, encoding="mono8", data=np.array([7, 9], np.uint8)
    )
    assert bindings.picture("/a", grey).tolist() == [[[7, 7, 7], [9, 9, 9]]]
