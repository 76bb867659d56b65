import json
import struct
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rosbags")

from robot_rl.hardware.cockpit.flight_scene import BODIES, FlightScene
from robot_rl.hardware.cockpit.flight_view import FlightView
from robot_rl.hardware.nodes.px4_node import FlightNode, encode_ros_odometry
from robot_rl.hardware.px4.flight_state import Odometry, VehicleState
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.ros2 import messages
from tests.hardware.cockpit.test_graph_view import OneProcessGraph

PX4 = VehicleFile.load("px4").with_controller("px4_velocity")
LEFT = np.array([np.cos(np.pi / 4), 0.0, 0.0, np.sin(np.pi / 4)])  # the nose to the north


def odometry(stamp, position, velocity=(0.0, 0.0, 0.0), attitude=LEFT):
    return encode_ros_odometry(Odometry(stamp, np.array(position), np.array(velocity), attitude, np.zeros(3)))


@pytest.fixture
def graph():
    return OneProcessGraph()


def test_odometry_becomes_poses_and_numbers(graph):
    view = FlightView(graph, PX4)
    assert view.poses() is None
    assert view.status()["flight"] is None
    assert view.status()["silent"] == "no odometry yet"
    graph.send("odometry", odometry(10.0, [1.0, 2.0, 0.3]))
    assert view.status()["flight"]["height"] == 0.0
    graph.send("odometry", odometry(10.01, [1.0, 2.0, 1.5], [0.0, 3.0, 4.0]))
    poses = view.poses()
    assert poses.values.shape == (len(BODIES) + 1, 7)
    np.testing.assert_allclose(poses.values[0], [1.0, 2.0, 1.5, *LEFT], atol=1e-6)
    np.testing.assert_allclose(poses.values[1, :3], [1.0, 2.0, 0.305], atol=1e-6)  # the shadow, where it stood first
    np.testing.assert_allclose(poses.values[2, :3], PX4.plan.home)
    assert view.poses() is poses
    assert view.status()["flight"] == {"height": 1.2, "speed": 5.0, "place": [1.0, 2.0], "heading": 90}
    graph.send("odometry", odometry(10.02, [np.nan, 2.0, 1.5]))
    assert view.poses() is poses
    json.dumps(view.status(), allow_nan=False)
    graph.time += 5
    assert view.status()["silent"] == "none for 5 s"


def test_the_status_tells_what_is_done_with_the_vehicle(graph):
    node, view = FlightNode(PX4), FlightView(graph, PX4)
    node.decoder.telemetry = node.decoder.telemetry._replace(status=VehicleState(10.0, True, 14), battery=0.876)
    graph.send("supervisor/status", node.tick(10.0, 10.0).status)
    said = view.status()["supervisor"]
    assert {key: said[key] for key in ("state", "phase", "mode", "armed", "battery")} == {
        "state": "idle", "phase": "grounded", "mode": "offboard", "armed": "True", "battery": "0.88",
    }  # fmt: skip
    hello = view.hello()
    assert hello["flies"] is True
    assert hello["silence"] == PX4.plan.patience.silence


def test_cameras_on_the_graph_are_shown(graph):
    view = FlightView(graph, PX4)
    graph.announce("/onboard/image_raw", "sensor_msgs/msg/Image")
    graph.announce("/cup_pose", "geometry_msgs/msg/PoseStamped")
    graph.timers[0]()
    assert view.cameras() == ["onboard"]
    pixels = np.zeros((4, 4, 3), np.uint8)
    graph.send("/onboard/image_raw", messages.make(
        "sensor_msgs/msg/Image", height=4, width=4, encoding="rgb8", step=12, data=pixels.tobytes()
    ))  # fmt: skip
    assert view.picture("onboard").jpeg()[:2] == b"\xff\xd8"


@pytest.mark.parametrize("vehicle", ["x500", "cf2x"])
def test_a_small_vehicle_is_seen_within_its_fence(vehicle):
    robot = replace(PX4, vehicle=vehicle)
    geometry = FlightScene(robot).geometry()
    (size,) = struct.unpack_from("<I", geometry)
    header = json.loads(geometry[4 : 4 + size])
    assert header["bodies"] == list(BODIES)
    assert {part["body"] for part in header["parts"]} == {0, 1, 2}
    assert header["workspace"] == [list(corner) for corner in robot.plan.limits.fence]
    vertices = np.frombuffer(geometry, "<f4", 3 * header["vertices"], 4 + size).reshape(-1, 3)
    ours = [vertices[first : first + count] for part in header["parts"] if part["body"] == 0
            for first, count in [part["vertices"]]]  # fmt: skip
    assert 0.3 < np.abs(np.concatenate(ours)).max() < 1.0
