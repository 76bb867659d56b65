"""An external pose on its way to PX4: frames by rotations of SciPy, time by PX4's clock, and what is left out."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robot_rl.hardware.nodes.px4_node import FlightNode
from robot_rl.hardware.px4 import px4_messages
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.ros2 import messages

px4_messages.register()

NOW, BOOT = 1.7e9, 40.0
"""Our clock, and PX4's at the same time [s]."""

EAST, NORTH, UP = np.eye(3)  # in ENU
NED = np.stack([NORTH, EAST, -UP])  # rows: axes of NED, in ENU


@pytest.fixture
def node():
    made = FlightNode(VehicleFile.load("px4"))
    sample = messages.make(
        "px4_msgs/msg/VehicleOdometry", timestamp=round(BOOT * 1e6), timestamp_sample=round(BOOT * 1e6), pose_frame=1,
        velocity_frame=1, q=[1.0, 0.0, 0.0, 0.0],
    )  # fmt: skip
    made.hear_vehicle("vehicle_odometry", sample, NOW)
    return made


def pose(rotation, position=(1.0, 2.0, 3.0), rates=(0.1, 0.2, 0.3), stamp=NOW, variances=(0.01,) * 6):
    x, y, z, w = rotation.as_quat()
    vector, point = "geometry_msgs/msg/Vector3", "geometry_msgs/msg/Point"
    covariance = np.diag(variances).reshape(-1)
    placed = messages.make(
        "geometry_msgs/msg/Pose", position=messages.make(point, **dict(zip("xyz", position, strict=True))),
        orientation=messages.make("geometry_msgs/msg/Quaternion", w=w, x=x, y=y, z=z),
    )  # fmt: skip
    turning = messages.make(
        "geometry_msgs/msg/Twist", angular=messages.make(vector, **dict(zip("xyz", rates, strict=True)))
    )
    return messages.make(
        "nav_msgs/msg/Odometry", header=messages.make("std_msgs/msg/Header", stamp=messages.stamp(stamp)),
        pose=messages.make("geometry_msgs/msg/PoseWithCovariance", pose=placed, covariance=covariance),
        twist=messages.make("geometry_msgs/msg/TwistWithCovariance", twist=turning),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_directions_are_the_same_in_both_frames(node, seed):
    flu = Rotation.random(rng=np.random.default_rng(seed))
    sent = node.external_pose(pose(flu), NOW)
    assert (sent.pose_frame, sent.velocity_frame) == (1, 1)
    np.testing.assert_allclose(sent.position, NED @ [1.0, 2.0, 3.0], atol=1e-6)
    told = Rotation.from_quat(np.asarray(sent.q, float), scalar_first=True)
    # Each axis of the body points where it did: forward; right, against left; down, against up.
    for frd, axis in zip(np.eye(3), np.diag([1.0, -1.0, -1.0]), strict=True):
        np.testing.assert_allclose(told.apply(frd), NED @ flu.apply(axis), atol=1e-6)
    np.testing.assert_allclose(sent.angular_velocity, [0.1, -0.2, -0.3], atol=1e-6)
    assert np.isnan(sent.velocity).all()  # PX4 takes what is finite


def test_variances_belong_to_px4s_axes(node):
    """North is our second axis, east our first; no variance is below 1e-4."""
    sent = node.external_pose(pose(Rotation.identity(), variances=(0.25, 4.0, 9.0, 0.01, 0.04, 0.0)), NOW)
    np.testing.assert_allclose(sent.position_variance, [4.0, 0.25, 9.0])
    np.testing.assert_allclose(sent.orientation_variance, [0.04, 0.01, 1e-4], rtol=1e-6)


def test_a_clock_that_is_a_little_ahead_is_believed(node):
    assert node.external_pose(pose(Rotation.identity(), stamp=NOW + 0.002), NOW) is not None


def test_level_and_facing_north_is_no_rotation_for_px4(node):
    sent = node.external_pose(pose(Rotation.from_euler("z", math.pi / 2)), NOW)
    np.testing.assert_allclose(np.abs(sent.q), [1, 0, 0, 0], atol=1e-6)


def test_the_time_is_that_of_px4s_clock(node):
    sent = node.external_pose(pose(Rotation.identity(), stamp=NOW + 0.25), NOW + 0.3)
    assert sent.timestamp_sample == pytest.approx((BOOT + 0.25) * 1e6, abs=2)


@pytest.mark.parametrize(
    "given",
    [{"position": (math.nan, 0.0, 0.0)}, {"stamp": NOW - 1.0}, {"stamp": NOW + 1.0}],
    ids=["no number", "old", "from the future"],
)
def test_what_makes_no_sense_is_left_out_and_counted(node, given):
    assert node.external_pose(pose(Rotation.identity(), **given), NOW) is None
    assert node.supervisor.status.rejected["external_pose"] == 1
