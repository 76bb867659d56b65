"""Messages: defaults, codes and hashes against values that ROS 2 itself gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rosbags")

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.messages import MessageError, make


def test_every_type_is_made_coded_and_decoded():
    for name in messages.typestore().types:
        if "/" in name:
            message = make(name)
            assert messages.encode(messages.decode(messages.encode(message), name)) == messages.encode(message)


def test_defaults_are_those_of_a_fresh_message():
    pose = make("geometry_msgs/msg/PoseStamped")
    assert pose.pose.orientation.w == 1.0
    assert make("sensor_msgs/msg/Imu").orientation_covariance.tolist() == [0.0] * 9
    assert make("sensor_msgs/msg/JointState").name == []


def test_fields_take_what_numpy_takes():
    image = make("sensor_msgs/msg/Image", data=np.ones((2, 3, 3), np.uint8))
    assert image.data.shape == (18,)
    assert make("sensor_msgs/msg/Image", data=b"abc").data.tolist() == [97, 98, 99]
    assert make("sensor_msgs/msg/JointState", position=range(3)).position.dtype == np.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make("sensor_msgs/msg/JointState", positions=[1.0]), "its fields are"),
        (lambda: make("nowhere/msg/Nothing"), "unknown message type"),
        (lambda: make("sensor_msgs/msg/Imu", orientation_covariance=[1.0]), "has 9 elements, not 1"),
        (lambda: messages.decode(b"\0\1\0\0\1", "std_msgs/msg/Float64"), "5 bytes are not a"),
        (lambda: messages.encode(make("std_msgs/msg/Header", stamp=3)), "cannot be encoded"),
        (lambda: messages.register("std_msgs/msg/Bool", "float64 data"), "different definition"),
    ],
)
def test_errors_name_the_type(call, message):
    with pytest.raises(MessageError, match=message):
        call()


def test_cdr_is_that_of_xcdr1():
    cdr = messages.encode(make("std_msgs/msg/String", data="hello"))
    assert cdr == b"\0\1\0\0" + b"\x06\0\0\0hello\0" + b"\0\0"  # little endian, length with its zero, padded to 4


# As `ros2 topic info --verbose` and `ros2 interface` of ROS 2 Jazzy print them.
HASHES = {
    "sensor_msgs/msg/JointState": "a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e",
    "std_msgs/msg/String": "df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
    "rcl_interfaces/msg/Log": "e28ce254ca8abc06abf92773b74602cdbf116ed34fbaf294fb9f81da9f318eac",
}


@pytest.mark.parametrize("name", HASHES)
def test_type_hashes_are_those_of_rosidl(name):
    assert messages.type_hash(name) == f"RIHS01_{HASHES[name]}"


def test_types_of_services_and_actions_keep_their_names():
    request = make("std_srvs/srv/SetBool_Request", data=True)
    assert request.__msgtype__ == "std_srvs/srv/SetBool_Request"
    goal = make("control_msgs/action/FollowJointTrajectory_SendGoal_Request").goal
    assert goal.__msgtype__ == "control_msgs/action/FollowJointTrajectory_Goal"


def test_a_type_can_be_registered():
    messages.register("test_msgs_of_ours/msg/Pair", "float64 left\nstd_msgs/Header header")
    pair = make("test_msgs_of_ours/msg/Pair", left=2)
    assert messages.decode(messages.encode(pair), pair.__msgtype__).left == 2.0


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 10**9 - 1))
def test_stamps_come_back(whole, nanoseconds):
    time = messages.type_of("builtin_interfaces/msg/Time")(whole, nanoseconds)
    value = messages.seconds(time)
    assert messages.seconds(messages.stamp(value)) == value
    assert 0 <= messages.stamp(value).nanosec < 10**9


def test_stamps_of_control_ticks_are_exact():
    for tick in range(2000):
        assert messages.seconds(messages.stamp(tick * 0.05)) == pytest.approx(tick * 0.05, abs=1e-12)
        assert messages.seconds(messages.stamp(tick / 20)) == tick / 20
