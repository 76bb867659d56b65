"""Devices that are topics: frames, signs, and messages that make no sense; and the leader arm."""

import numpy as np
import pytest

from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.messages import make
from robot_rl.hardware.teleop.device import LINEAR_SPEED, DeviceError
from robot_rl.hardware.teleop.devices import DEVICES, make_device
from robot_rl.hardware.teleop.leader import Leader

PANDA, SO101 = RobotFile.load("panda"), RobotFile.load("so101")


def header(frame="hand"):
    return make("std_msgs/msg/Header", frame_id=frame)


def vector(*values, kind="Vector3"):
    return make(f"geometry_msgs/msg/{kind}", **dict(zip("xyzw", map(float, values), strict=False)))


def test_a_twist_is_taken_as_it_is(topics):
    graph = topics(twist_frame_id="hand")
    device = make_device("twist", graph, PANDA)
    assert device.read(50.0) is None
    twist = make("geometry_msgs/msg/Twist", linear=vector(1, 2, 3), angular=vector(4, 5, 6))
    graph.send("/twist", make("geometry_msgs/msg/TwistStamped", header=header(), twist=twist))
    reading = device.read(51.0)
    np.testing.assert_array_equal(reading.twist, [1, 2, 3, 4, 5, 6])
    assert reading.stamp == 50.0
    wrong = make("geometry_msgs/msg/Twist", linear=vector(9, 9, 9))
    graph.send("/twist", make("geometry_msgs/msg/TwistStamped", header=header("world"), twist=wrong))
    broken = make("geometry_msgs/msg/Twist", linear=vector(np.nan, 0, 0))
    graph.send("/twist", make("geometry_msgs/msg/TwistStamped", header=header(), twist=broken))
    np.testing.assert_array_equal(device.read(51.0).twist, [1, 2, 3, 4, 5, 6])


def test_a_pose_has_its_quaternion_turned_round_and_its_clutch(topics):
    graph = topics(pose_clutch="/clutch")
    device = make_device("pose", graph, PANDA)
    pose = make("geometry_msgs/msg/Pose", position=vector(1, 2, 3, kind="Point"),
                orientation=vector(0.1, 0.2, 0.3, 0.9, kind="Quaternion"))  # fmt: skip
    graph.send("/hand_pose", make("geometry_msgs/msg/PoseStamped", header=header(), pose=pose))
    reading = device.read(50.0)
    np.testing.assert_allclose(reading.pose, [1, 2, 3, 0.9, 0.1, 0.2, 0.3])
    assert reading.buttons == set()
    graph.send("/clutch", make("std_msgs/msg/Bool", data=True))
    assert device.read(50.0).buttons == {"clutch"}
    zero = make("geometry_msgs/msg/Pose", orientation=vector(0, 0, 0, 0, kind="Quaternion"))
    graph.send("/hand_pose", make("geometry_msgs/msg/PoseStamped", header=header(), pose=zero))
    assert device.read(50.0).pose[0] == 1.0


def test_a_joystick_moves_and_speaks(topics):
    graph = topics()
    device = make_device("joy", graph, PANDA)
    axes, buttons = np.zeros(8, np.float32), np.zeros(11, np.int32)
    axes[1], buttons[0], buttons[7] = 1.0, 1, 1
    for _ in range(2):
        graph.send("/joy", make("sensor_msgs/msg/Joy", header=header(), axes=axes, buttons=buttons))
    reading = device.read(50.0)
    np.testing.assert_allclose(reading.twist, [LINEAR_SPEED, 0, 0, 0, 0, 0])
    assert reading.buttons == {"gripper"}
    assert device.events() == ["record"]


def test_a_leader_by_name_sign_and_zero(topics):
    graph = topics()
    device = Leader(graph, "/leader", ("a", "b"), (1.0, -1.0), (0.5, 0.0), "jaw", closed=-1.0, opened=1.0)
    graph.send("/leader", make("sensor_msgs/msg/JointState", name=["jaw", "b", "a"], position=[0.0, 0.2, 0.1]))
    reading = device.read(50.0)
    np.testing.assert_allclose(reading.joint_position, [0.6, -0.2])
    assert reading.gripper == pytest.approx(0.5)
    graph.send("/leader", make("sensor_msgs/msg/JointState", name=["a"], position=[9.0]))
    np.testing.assert_allclose(device.read(50.0).joint_position, [0.6, -0.2])
    with pytest.raises(DeviceError, match="2 signs"):
        Leader(graph, "/leader", ("a", "b"), (1.0, 2.0))


def test_a_device_that_does_not_exist_is_told(topics):
    with pytest.raises(DeviceError, match="did you mean spacemouse"):
        make_device("spacemose", topics(), PANDA)


@pytest.mark.parametrize("name", sorted(set(DEVICES) - {"web"}))
def test_every_device_is_made_with_documented_parameters(topics, name):
    robot = SO101 if name == "so101_leader" else PANDA
    assert make_device(name, topics(), robot).name == name
