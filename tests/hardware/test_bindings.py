"""Bindings: against CDR that rosbags' own store serialises, against hand-made awkward messages, and there and back."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from robot_rl.datasets.contract import Feature
from robot_rl.hardware import bindings
from robot_rl.hardware.bindings import BindingError, ElsewhereError, GripperGoals, Tail
from robot_rl.hardware.robot_file import RobotFile, Scale, Stream
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.safety.supervisor_state import Command
from robot_rl.sim.servo import References

STORE = get_typestore(Stores.ROS2_JAZZY)
PANDA = RobotFile.load("panda")
ARM = PANDA.streams["joint_position"]
JOINTS = list(ARM.elements)
STAMP = 1_700_000_000.25


def message(kind, **fields):
    """A message as a driver would send it: built by hand from the type's definition, serialised by rosbags, decoded."""
    made = build(kind, fields)
    return messages.decode(bytes(STORE.serialize_cdr(made, kind)), kind)


def build(kind, fields):
    if kind == "std_msgs/msg/Header":
        time = STORE.types["builtin_interfaces/msg/Time"](1_700_000_000, 250_000_000)
        return STORE.types[kind](fields.get("stamp", time), fields.get("frame_id", ""))
    if "header" in STORE.types[kind].__dataclass_fields__:
        fields = {"header": build("std_msgs/msg/Header", {}), **fields}
    return STORE.types[kind](**fields)


def joint_state(names, position=(), velocity=(), effort=()):
    arrays = {"position": position, "velocity": velocity, "effort": effort}
    return message(
        "sensor_msgs/msg/JointState", name=list(names), **{key: np.array(v, float) for key, v in arrays.items()}
    )  # fmt: skip


def image(data, encoding, height, width, step, big=0):
    return message(
        "sensor_msgs/msg/Image", height=height, width=width, encoding=encoding, is_bigendian=big, step=step,
        data=np.frombuffer(data, np.uint8),
    )  # fmt: skip


def camera(shape, kind="image", type_="sensor_msgs/msg/Image"):
    dtype = "uint8" if kind == "image" else "uint16"
    return Stream(Feature("camera", shape, dtype, kind=kind), "/camera", type_)


def vector(x, y, z):
    return STORE.types["geometry_msgs/msg/Vector3"](x, y, z)


def quaternion(x, y, z, w):
    return STORE.types["geometry_msgs/msg/Quaternion"](x, y, z, w)


def pose_message(point, xyzw, frame="base"):
    pose = STORE.types["geometry_msgs/msg/Pose"](STORE.types["geometry_msgs/msg/Point"](*point), quaternion(*xyzw))
    header = build("std_msgs/msg/Header", {"frame_id": frame})
    return message("geometry_msgs/msg/PoseStamped", header=header, pose=pose)


POSE = Stream(
    Feature("cube_pose", (7,), frame="base", representation="position_quaternion"), "/cube_pose",
    "geometry_msgs/msg/PoseStamped", frame_id="base",
)  # fmt: skip


# Joint states


@settings(deadline=None)
@given(st.permutations([*JOINTS, "panda_finger_joint1", "elsewhere"]), st.sampled_from(["position", "velocity"]))
def test_joints_are_found_by_name(names, field) -> None:
    values = {name: float(index) for index, name in enumerate(sorted(names))}
    sent = joint_state(names, **{field: [values[name] for name in names]})
    decoded = bindings.decode(replace(ARM, field=field), sent)
    assert decoded.tolist() == [values[name] for name in JOINTS]


@pytest.mark.parametrize(
    ("names", "position", "problem"),
    [
        (JOINTS[:-1], range(6), "no joint panda_joint7; the message has panda_joint1"),
        (JOINTS, [], "7 joints, but 0 in position"),
        (JOINTS, range(8), "7 joints, but 8 in position"),
        (JOINTS, [0, 1, np.nan, 3, 4, np.inf, 6], "position of panda_joint3, panda_joint6 is not finite"),
        ([*JOINTS, "panda_joint1"], range(8), "panda_joint1 is named twice"),
    ],
)
def test_a_joint_state_that_lacks_something_is_refused(names, position, problem) -> None:
    with pytest.raises(BindingError, match=problem) as caught:
        bindings.decode(ARM, joint_state(names, position))
    assert not isinstance(caught.value, ElsewhereError)


def test_a_joint_state_of_another_device_is_told_apart() -> None:
    with pytest.raises(ElsewhereError, match="expected joints"):
        bindings.decode(ARM, joint_state(["panda_finger_joint1"], [0.01]))


def test_a_joint_that_is_not_asked_for_may_be_anything() -> None:
    sent = joint_state([*JOINTS, "wheel", "wheel"], [*range(7), np.nan, np.nan])
    assert bindings.decode(ARM, sent).tolist() == list(range(7))


def test_two_fingers_make_one_opening() -> None:
    stream = PANDA.streams["gripper_opening"]
    sent = joint_state(["panda_finger_joint2", "panda_finger_joint1"], [0.011, 0.013])
    np.testing.assert_allclose(bindings.decode(stream, sent), [0.024])


def test_a_knuckle_makes_an_opening() -> None:
    stream = RobotFile.load("ur5e").streams["gripper_opening"]
    for angle, opening in ((0.0, 0.085), (0.7929, 0.0), (0.7929 / 2, 0.0425), (0.9, 0.0)):
        sent = joint_state(["robotiq_85_left_knuckle_joint"], [angle])
        np.testing.assert_allclose(bindings.decode(stream, sent), [opening])


def test_features_of_one_topic_are_published_in_one_message() -> None:
    robot = RobotFile.load("ur5e")
    values = {
        "joint_position": np.arange(6.0), "joint_velocity": np.arange(6.0) / 10,
        "gripper_opening": np.array([0.02]), "cube_pose": np.zeros(7),
    }  # fmt: skip
    encoded = bindings.encode_observations(robot, values, STAMP)
    assert list(encoded) == ["/joint_states"]
    sent = messages.decode(messages.encode(encoded["/joint_states"]), "sensor_msgs/msg/JointState")
    assert messages.seconds(sent.header.stamp) == STAMP
    for name in ("joint_position", "joint_velocity", "gripper_opening"):
        np.testing.assert_allclose(bindings.decode(robot.streams[name], sent), values[name], atol=1e-12)


@pytest.mark.parametrize("name", ["panda", "ur5e", "so101"])
def test_observations_there_and_back(name) -> None:
    robot, generator = RobotFile.load(name), np.random.default_rng(0)
    for _ in range(20):
        values = {feature: generator.uniform(0.01, 0.08, s.feature.shape) for feature, s in robot.streams.items()}
        sent = bindings.encode_observations(robot, values, STAMP)
        for feature, stream in robot.streams.items():
            received = messages.decode(messages.encode(sent[stream.topic]), stream.type)
            np.testing.assert_allclose(bindings.decode(stream, received), values[feature], rtol=1e-9)
            assert bindings.stamp_of(stream, received, 0.0) == STAMP


def test_the_latency_of_a_stream_is_subtracted_once() -> None:
    stream = replace(ARM, latency=0.02)
    sent = bindings.encode_observation(stream, np.zeros(7), STAMP)
    assert messages.seconds(sent.header.stamp) == pytest.approx(STAMP + 0.02, abs=1e-6)
    assert bindings.stamp_of(stream, sent, 0.0) == pytest.approx(STAMP, abs=1e-6)
    assert bindings.stamp_of(replace(stream, clock="receive"), sent, 50.0) == 50.0 - 0.02


def test_a_header_without_stamp_is_refused_when_it_counts() -> None:
    sent = messages.make("sensor_msgs/msg/JointState", name=JOINTS, position=np.zeros(7))
    with pytest.raises(BindingError, match="clock: receive"):
        bindings.stamp_of(ARM, sent, STAMP)
    assert bindings.stamp_of(replace(ARM, clock="receive"), sent, STAMP) == STAMP


# Poses, twists, wrenches, IMU


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_a_pose_arrives_as_wxyz_of_the_same_rotation(numbers) -> None:
    xyzw = np.array(numbers) / np.linalg.norm(numbers)
    value = bindings.decode(POSE, pose_message((1.0, 2.0, 3.0), xyzw))
    assert value[:3].tolist() == [1.0, 2.0, 3.0]
    assert value[3:][np.argmax(np.abs(value[3:]))] > 0
    turned = Rotation.from_quat(xyzw).as_matrix()
    np.testing.assert_allclose(Rotation.from_quat(value[[4, 5, 6, 3]]).as_matrix(), turned, atol=1e-9)
    again = bindings.decode(POSE, bindings.encode_observation(POSE, value, STAMP))
    np.testing.assert_allclose(again, value, atol=1e-15)


@pytest.mark.parametrize(
    ("point", "xyzw", "frame", "problem"),
    [
        ((0, 0, 0), (0, 0, 0, 0), "base", "expected a unit quaternion"),
        ((0, 0, 0), (0, 0, 0, 1.1), "base", "expected a unit quaternion"),
        ((0, np.nan, 0), (0, 0, 0, 1), "base", "not finite"),
        ((0, 0, 0), (0, 0, 0, 1), "camera", "expected frame 'base', got 'camera'"),
    ],
)
def test_a_pose_that_is_none_is_refused(point, xyzw, frame, problem) -> None:
    with pytest.raises(BindingError, match=problem):
        bindings.decode(POSE, pose_message([float(x) for x in point], [float(x) for x in xyzw], frame))


def test_parts_of_poses_twists_and_wrenches() -> None:
    pose = pose_message((1.0, 2.0, 3.0), (0.0, 0.0, 0.6, 0.8))
    part = replace(POSE, field="position", feature=Feature("p", (3,), representation="position"))
    assert bindings.decode(part, pose).tolist() == [1, 2, 3]
    part = replace(POSE, field="orientation", feature=Feature("q", (4,), representation="quaternion"))
    np.testing.assert_allclose(bindings.decode(part, pose), [0.8, 0, 0, 0.6])
    for name, kind, keys in (
        ("twist", "TwistStamped", ("linear", "angular")),
        ("wrench", "WrenchStamped", ("force", "torque")),
    ):
        body = STORE.types[f"geometry_msgs/msg/{name.capitalize()}"](vector(1.0, 2.0, 3.0), vector(4.0, 5.0, 6.0))
        sent = message(f"geometry_msgs/msg/{kind}", **{name: body})
        whole = Stream(Feature(name, (6,)), f"/{name}", f"geometry_msgs/msg/{kind}")
        assert bindings.decode(whole, sent).tolist() == [1, 2, 3, 4, 5, 6]
        halves = [replace(whole, field=key, feature=Feature(key, (3,))) for key in keys]
        assert [bindings.decode(half, sent).tolist() for half in halves] == [[1, 2, 3], [4, 5, 6]]
        for stream in (whole, *halves):
            value = np.arange(stream.feature.size, dtype=float)
            assert (bindings.decode(stream, bindings.encode_observation(stream, value, STAMP)) == value).all()


def test_an_imu_in_parts() -> None:
    covariance = np.zeros(9)
    sent = {
        "orientation": quaternion(0.0, 0.0, -0.6, -0.8), "orientation_covariance": covariance,
        "angular_velocity": vector(1.0, 2.0, 3.0), "angular_velocity_covariance": covariance,
        "linear_acceleration": vector(4.0, 5.0, 6.0), "linear_acceleration_covariance": covariance,
    }  # fmt: skip
    expected = {
        "orientation": [0.8, 0, 0, 0.6], "angular_velocity": [1, 2, 3], "linear_acceleration": [4, 5, 6],
    }  # fmt: skip
    for field, value in expected.items():
        kind = "quaternion" if field == "orientation" else "vector"
        feature = Feature(field, (len(value),), representation=kind)
        stream = Stream(feature, "/imu", "sensor_msgs/msg/Imu", field)
        np.testing.assert_allclose(bindings.decode(stream, message("sensor_msgs/msg/Imu", **sent)), value)
        encoded = bindings.encode_observation(stream, np.array(value, float), STAMP)
        np.testing.assert_allclose(bindings.decode(stream, encoded), value)
    unknown = message("sensor_msgs/msg/Imu", **{**sent, "orientation_covariance": np.r_[-1.0, np.zeros(8)]})
    stream = Stream(Feature("o", (4,), representation="quaternion"), "/imu", "sensor_msgs/msg/Imu", "orientation")
    with pytest.raises(BindingError, match="does not tell its orientation"):
        bindings.decode(stream, unknown)


# Images


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_every_encoding_arrives_as_rgb(encoding, padding) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    if encoding == "mono8":
        rgb[:] = rgb[..., :1]
    pixels = {
        "rgb8": rgb, "bgr8": rgb[..., ::-1], "mono8": rgb[..., :1],
        "rgba8": np.dstack([rgb, np.full((4, 6), 7, np.uint8)]),
        "bgra8": np.dstack([rgb[..., ::-1], np.full((4, 6), 7, np.uint8)]),
    }[encoding]  # fmt: skip
    rows = pixels.reshape(4, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    decoded = bindings.decode(camera((4, 6, 3)), image(rows.tobytes(), encoding, 4, 6, rows.shape[1]))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, rgb)


@pytest.mark.parametrize("big", [0, 1])
@pytest.mark.parametrize("padding", [0, 3])
def test_depth_in_either_byte_order_and_unit(big, padding) -> None:
    depth = np.random.default_rng(0).integers(0, 5000, (4, 6), np.uint16)
    order = ">" if big else "<"
    for encoding, pixels in (("16UC1", depth.astype(f"{order}u2")), ("32FC1", (depth / 1000).astype(f"{order}f4"))):
        rows = np.pad(pixels.view(np.uint8).reshape(4, -1), ((0, 0), (0, padding)))
        sent = image(rows.tobytes(), encoding, 4, 6, rows.shape[1], big)
        decoded = bindings.decode(camera((4, 6, 1), "depth"), sent)
        assert decoded.dtype == np.uint16
        np.testing.assert_array_equal(decoded[..., 0], depth)


def test_depth_that_is_not_there_is_zero() -> None:
    metres = np.array([[np.nan, np.inf, 1.0, 100.0]], "<f4")
    decoded = bindings.decode(camera((1, 4, 1), "depth"), image(metres.tobytes(), "32FC1", 1, 4, 16))
    assert decoded.ravel().tolist() == [0, 0, 1000, 65535]


@pytest.mark.parametrize(
    ("size", "encoding", "step", "problem"),
    [(71, "rgb8", 18, "needs steps of 18 or more and 72 bytes, got 71"), (72, "rgb8", 17, "in steps of 17"),
     (72, "yuv422", 18, "got 'yuv422'"), (0, "rgb8", 18, "got 0")],
)  # fmt: skip
def test_a_malformed_picture_is_refused(size, encoding, step, problem) -> None:
    with pytest.raises(BindingError, match=problem):
        bindings.decode(camera((4, 6, 3)), image(bytes(size), encoding, 4, 6, step))


def test_a_picture_is_cropped_to_its_middle_and_scaled() -> None:
    sent = np.zeros((480, 640, 3), np.uint8)
    sent[:, 80:560] = 200  # the square in the middle
    sent[:240, 80:560, 0] = 100
    decoded = bindings.decode(camera((84, 84, 3)), image(sent.tobytes(), "rgb8", 480, 640, 1920))
    assert decoded.shape == (84, 84, 3)
    assert decoded.flags.c_contiguous
    assert (decoded[..., 1:] == 200).all()
    assert (decoded[:42, :, 0] == 100).all()
    assert (decoded[42:, :, 0] == 200).all()
    # Scaling is the mean over what becomes one pixel.
    fine = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    mean = fine.reshape(4, 2, 4, 2, 3).mean((1, 3))
    decoded = bindings.decode(camera((4, 4, 3)), image(fine.tobytes(), "rgb8", 8, 8, 24))
    np.testing.assert_allclose(decoded, mean, atol=0.51)


def test_compressed_pictures() -> None:
    rgb = np.full((20, 20, 3), (200, 60, 10), np.uint8)
    for suffix, tolerance in ((".jpg", 6), (".png", 0)):
        data = cv2.imencode(suffix, rgb[..., ::-1])[1]
        sent = message("sensor_msgs/msg/CompressedImage", format="bgr8; jpeg compressed bgr8", data=data.ravel())
        decoded = bindings.decode(camera((20, 20, 3), type_="sensor_msgs/msg/CompressedImage"), sent)
        np.testing.assert_allclose(decoded.astype(int), rgb, atol=tolerance)
    depth = np.random.default_rng(0).integers(0, 5000, (4, 6), np.uint16)
    data = cv2.imencode(".png", depth)[1].ravel()
    stream = camera((4, 6, 1), "depth", "sensor_msgs/msg/CompressedImage")
    for form, header in (("16UC1; png compressed", b""), ("16UC1; compressedDepth png", bytes(12))):
        whole = np.frombuffer(header + data.tobytes(), np.uint8)
        sent = message("sensor_msgs/msg/CompressedImage", format=form, data=whole)
        np.testing.assert_array_equal(bindings.decode(stream, sent)[..., 0], depth)
    broken = message("sensor_msgs/msg/CompressedImage", format="jpeg", data=np.arange(9, dtype=np.uint8))
    with pytest.raises(BindingError, match="are no picture"):
        bindings.decode(stream, broken)


@pytest.mark.parametrize("kind", ["image", "depth"])
@pytest.mark.parametrize("type_", ["sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"])
def test_pictures_there_and_back(kind, type_) -> None:
    stream = camera((6, 8, 3 if kind == "image" else 1), kind, type_)
    value = np.full(stream.feature.shape, 123, stream.feature.dtype)
    sent = messages.decode(messages.encode(bindings.encode_observation(stream, value, STAMP)), type_)
    decoded = bindings.decode(stream, sent)
    assert decoded.shape == value.shape
    assert decoded.dtype == value.dtype
    np.testing.assert_allclose(decoded.astype(int), value, atol=2 if "Compressed" in type_ and kind == "image" else 0)


def test_calibration_follows_crop_and_scale() -> None:
    """The projection of a point through the scaled camera is the scaled projection of the point."""
    k = np.array([600.0, 0, 310.0, 0, 610.0, 250.0, 0, 0, 1])
    info = messages.make("sensor_msgs/msg/CameraInfo", height=480, width=640, k=k, d=[0.1, 0.2, 0, 0, 0])
    found = bindings.calibration(camera((84, 84, 3)), info)
    x, y = 0.05, -0.1
    u, v = 600 * x + 310, 610 * y + 250
    # Pixel edges: the crop begins 80 pixels from the left, each new pixel is 480 / 84 old ones wide.
    assert found["fx"] * x + found["cx"] + 0.5 == pytest.approx((u + 0.5 - 80) * 84 / 480)
    assert found["fy"] * y + found["cy"] + 0.5 == pytest.approx((v + 0.5) * 84 / 480)
    assert found["distortion"] == [0.1, 0.2, 0, 0, 0]
    feature = Feature("camera", (84, 84, 3), "uint8", kind="image", calibration=found)
    again = bindings.encode_camera_info(replace(camera((84, 84, 3)), feature=feature), STAMP)
    restored = bindings.calibration(camera((84, 84, 3)), again)
    assert restored.pop("distortion") == found.pop("distortion")
    assert restored == pytest.approx(found)
    with pytest.raises(BindingError, match="not calibrated"):
        bindings.calibration(camera((84, 84, 3)), messages.make("sensor_msgs/msg/CameraInfo", height=480, width=640))


# Commands


def command(count=5, dof=7, gripper=True, seed=0):
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(3, count, dof))
    return Command(*rows, np.linspace(0.01, 0.07, count) if gripper else None)


def over_the_wire(robot, sent):
    kinds = {topic.topic: topic.type for topic in robot.commands.values()}
    return {topic: messages.decode(messages.encode(made), kinds[topic]) for topic, made in sent.items()}


@pytest.mark.parametrize("name", ["panda", "ur5e", "so101"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_commands_there_and_back(name, seed) -> None:
    robot = RobotFile.load(name)
    sent = command(robot.periods, len(robot.joints), seed=seed)
    wire = over_the_wire(robot, bindings.encode_command(robot, sent, STAMP))
    assert set(wire) == {topic.topic for topic in robot.commands.values()}
    points = bindings.decode_command(
        robot, robot.commands["joint_position"].topic, wire[robot.commands["joint_position"].topic]
    )
    assert points.feature == "joint_position"
    assert points.start == STAMP
    np.testing.assert_allclose(points.times, np.arange(1, robot.periods + 1) / robot.command_rate_hz, atol=1e-9)
    for got, wanted in zip(points[3:], sent[:3], strict=True):
        np.testing.assert_array_equal(got, wanted)
    topic = robot.commands["gripper_opening"].topic
    opening = bindings.decode_command(robot, topic, wire[topic])
    assert opening.feature == "gripper_opening"
    assert opening.position[-1] == pytest.approx(sent.gripper_opening[-1])


def test_a_trajectory_goes_on_to_rest() -> None:
    sent, rest = command(), References(*np.random.default_rng(1).normal(size=(3, 4, 7)))
    wire = over_the_wire(PANDA, bindings.encode_command(PANDA, sent, STAMP, Tail(0.01 * np.arange(1, 5), rest)))
    points = bindings.decode_command(
        PANDA, "/joint_trajectory_controller/joint_trajectory", wire["/joint_trajectory_controller/joint_trajectory"]
    )
    np.testing.assert_allclose(points.times, [0.001, 0.002, 0.003, 0.004, 0.005, 0.015, 0.025, 0.035, 0.045])
    np.testing.assert_array_equal(points.velocity, np.concatenate([sent.velocity, rest.velocity]))


def test_a_trajectory_without_stamp_begins_on_arrival() -> None:
    arm = replace(PANDA.commands["joint_position"], stamp="zero")
    robot = replace(PANDA, commands={**PANDA.commands, "joint_position": arm})
    made = bindings.encode_command(robot, command(), STAMP)[arm.topic]
    assert (made.header.stamp.sec, made.header.stamp.nanosec) == (0, 0)
    assert bindings.decode_command(robot, arm.topic, made).start is None


def test_forward_controllers_get_the_last_point() -> None:
    arm = replace(PANDA.commands["joint_position"], type="std_msgs/msg/Float64MultiArray")
    robot = replace(PANDA, commands={"joint_position": arm})
    sent = command()
    made = over_the_wire(robot, bindings.encode_command(robot, sent, STAMP))[arm.topic]
    assert made.data.tolist() == sent.position[-1].tolist()
    points = bindings.decode_command(robot, arm.topic, made)
    assert points.start is None
    assert points.times.tolist() == [0.0]
    assert points.position.tolist() == [sent.position[-1].tolist()]


def test_a_gripper_may_take_a_trajectory() -> None:
    grip = replace(
        PANDA.commands["gripper_opening"], type="trajectory_msgs/msg/JointTrajectory", elements=("knuckle",),
        scale=Scale((0.0, 0.8), (0.085, 0.0)),
    )  # fmt: skip
    robot = replace(PANDA, commands={**PANDA.commands, "gripper_opening": grip})
    sent = command()
    made = over_the_wire(robot, bindings.encode_command(robot, sent, STAMP))[grip.topic]
    np.testing.assert_allclose(
        [point.positions[0] for point in made.points], 0.8 * (1 - sent.gripper_opening / 0.085), rtol=1e-12
    )  # fmt: skip
    np.testing.assert_allclose(bindings.decode_command(robot, grip.topic, made).position[:, 0], sent.gripper_opening)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m: m.joint_names.reverse(), None),
        (lambda m: m.joint_names.__setitem__(0, "panda_joint8"), "no joint panda_joint1"),
        (lambda m: m.joint_names.append("panda_joint8"), "expected points of"),
        (lambda m: m.points.clear(), "expected points of"),
        (
            lambda m: setattr(m.points[2], "positions", np.zeros(6)),
            r"expected 7 positions in every point, got \[6, 7\]",
        ),
        (lambda m: setattr(m.points[2], "positions", np.zeros(0)), "finite positions"),
        (lambda m: m.points[1].positions.__setitem__(3, np.nan), "finite positions"),
        (lambda m: m.points.reverse(), "ascending times"),
    ],
)
def test_a_command_is_read_by_joint_name_or_refused(change, problem) -> None:
    sent = command()
    topic = PANDA.commands["joint_position"].topic
    made = bindings.encode_command(PANDA, sent._replace(position=sent.position.copy()), STAMP)[topic]
    change(made)
    if problem is None:
        points = bindings.decode_command(PANDA, topic, made)
        np.testing.assert_array_equal(points.position, sent.position[:, ::-1])
    else:
        with pytest.raises(BindingError, match=problem):
            bindings.decode_command(PANDA, topic, made)


def test_other_topics_and_lengths_are_refused() -> None:
    with pytest.raises(BindingError, match="no command topic of 'panda'"):
        bindings.decode_command(PANDA, "/elsewhere", None)
    array = messages.make("std_msgs/msg/Float64MultiArray", data=[0.1, 0.2])
    with pytest.raises(BindingError, match="expected 1 numbers, got 2"):
        bindings.decode_command(PANDA, "/panda_gripper/commands", array)


def test_a_gripper_gets_a_goal_when_its_target_moves() -> None:
    goals = GripperGoals(PANDA)
    first = goals.next(0.08, 10.0)
    assert first.command.position == pytest.approx(0.04)  # of one finger
    assert first.command.max_effort == 20.0
    assert goals.next(0.0, 10.05) is None  # too soon after the last
    assert goals.next(0.0795, 11.0) is None  # hardly moved
    assert goals.next(0.0, 11.0).command.position == 0.0
    assert goals.next(0.0, 12.0) is None
    messages.encode(first)


def test_the_goal_that_goes_home_is_the_planned_way() -> None:
    from robot_rl.hardware.safety.supervisor_state import Observation

    supervisor = PANDA.make_supervisor()
    supervisor.tick(1.0, Observation(1.0, np.array(PANDA.home) + 0.2, 0.04))
    supervisor.home(1.0, as_route=True)
    route = supervisor.route
    assert route is not None
    goal = bindings.home_goal(PANDA, bindings.Tail(route.times, route.references))
    trajectory = messages.decode(messages.encode(goal), goal.__msgtype__).trajectory
    assert trajectory.joint_names == JOINTS
    assert messages.seconds(trajectory.header.stamp) == 0.0  # begins on arrival
    times = np.array([messages.seconds(point.time_from_start) for point in trajectory.points])
    assert (np.diff(times) > 0).all()
    for point, moment in ((trajectory.points[-1], route.times[-1]), (trajectory.points[0], times[0])):
        np.testing.assert_allclose(point.positions, route.references.position[np.argmin(np.abs(route.times - moment))])
    np.testing.assert_allclose(trajectory.points[-1].positions, PANDA.home, atol=1e-9)
    np.testing.assert_allclose(trajectory.points[-1].velocities, 0, atol=1e-9)
