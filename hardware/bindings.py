"""Between ROS 2 messages and arrays under a contract, in both directions; the only place that knows message layouts.

Robots publish observations and take commands; the twin does the reverse with the other two functions:

    decode(stream, message)                          observation message -> array
    encode_observations(robot, values, stamp)        arrays -> {topic: message}, what a robot would publish
    encode_command(robot, command, stamp)            Supervisor's command -> {topic: message}
    decode_command(robot, topic, message)            command message -> Setpoints, what a controller would follow

Conversions to the conventions of the contract happen here: joints by name, quaternions x y z w to w x y z and
canonical, any pixel order to RGB, metres of depth to millimetres, images to the contract's size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from robot_rl.datasets.contract import Feature
from robot_rl.hardware.robot_file import ARRAY, JOINT_STATE, TRAJECTORY, CommandTopic, RobotFile, Stream
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.safety.supervisor_state import Command
from robot_rl.sim.rotation import matrix_from_quaternion
from robot_rl.sim.servo import References

_RGB, _BGR, _GREY = slice(0, 3), slice(2, None, -1), [0, 0, 0]
_CHANNELS: dict[str, slice | list[int]] = {
    "rgb8": _RGB, "rgba8": _RGB, "bgr8": _BGR, "bgra8": _BGR, "8UC3": _BGR, "mono8": _GREY, "8UC1": _GREY,
}  # fmt: skip
"""Where red, green and blue stand in a pixel of each encoding (sensor_msgs/image_encodings.hpp)."""
_PIXEL_BYTES = {"rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1}
_DEPTHS = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
JPEG_QUALITY = 95
NEAREST = 1e-5
"""Shortest time between two points of a trajectory [s]: controllers refuse times that do not rise."""
UNIT = 0.01
"""How far the norm of a quaternion may be from one before it is no rotation."""


class BindingError(ValueError):
    """A message does not hold what the robot's file says; the message says what was expected and what came."""


class ElsewhereError(BindingError):
    """A JointState of other joints than those of the stream: several drivers may share one topic."""


class Setpoints(NamedTuple):
    """What a command message asks of a controller.

    Attributes:
        feature: `joint_position` or `gripper_opening`.
        start: the time that `times` count from [s]; None: from the arrival of the message.
        times: of the points [n] s, ascending.
        position: in the robot's joint order [n, dof] rad, or openings [n, 1] m.
        velocity, acceleration: [n, dof], where the message has them.
    """

    feature: str
    start: float | None
    times: np.ndarray
    position: np.ndarray
    velocity: np.ndarray | None
    acceleration: np.ndarray | None


class Tail(NamedTuple):
    """The motion after a command until rest: references [m, dof] at `times` [m] s after the command's last point.

    A trajectory controller that has it brings the arm to rest as planned when no further command arrives.
    """

    times: np.ndarray
    references: References


def decode(stream: Stream, message: Any) -> np.ndarray:
    """The value of a feature: float64 [size], or the image in the feature's shape and dtype.

    Raises:
        BindingError: the message lacks what the file promises, or holds numbers that are not finite.
    """
    if stream.frame_id and message.header.frame_id != stream.frame_id:
        raise BindingError(f"{stream.topic}: expected frame {stream.frame_id!r}, got {message.header.frame_id!r}")
    if stream.feature.is_frame:
        return _decode_image(stream, message)
    if stream.type == JOINT_STATE:
        return _decode_joints(stream, message)
    value = _decode_geometry(stream, message)
    if not np.isfinite(value).all():
        raise BindingError(f"{stream.topic}: numbers are not finite: {value.tolist()}")
    if stream.feature.rotation is not None:
        value[stream.feature.rotation] = canonical(stream.topic, value[stream.feature.rotation])
    return value


def picture(topic: str, message: Any) -> np.ndarray:
    """The colour picture of an Image or CompressedImage in its own size, uint8 [height, width, 3] RGB.

    Raises:
        BindingError: there is none in the message.
    """
    kind = message.__msgtype__
    stream = Stream(Feature("picture", (1, 1, 3), "uint8", kind="image"), topic, kind)
    if kind == "sensor_msgs/msg/CompressedImage":
        return np.array(_decompress(stream, message, False)[..., ::-1], order="C")
    pixels = _read_colour(stream, message)
    return np.array(pixels[..., _CHANNELS[message.encoding]], order="C")


def stamp_of(stream: Stream, message: Any, received: float) -> float:
    """When a sample was measured [s]: by the stream's clock, less its latency.

    Raises:
        BindingError: the header's stamp counts, and is zero.
    """
    if stream.clock == "receive":
        return received - stream.latency
    stamp = messages.seconds(message.header.stamp)
    if stamp == 0.0 and received > 1.0:
        raise BindingError(f"{stream.topic}: the header has no stamp; mend the driver, or use `clock: receive`")
    return stamp - stream.latency


def calibration(stream: Stream, info: Any) -> dict[str, Any]:
    """Calibration of a camera feature, from the CameraInfo of its full picture, for the contract's size.

    Raises:
        BindingError: the camera is not calibrated, or shows a region of interest.
    """
    width, height = info.width // max(1, info.binning_x), info.height // max(1, info.binning_y)
    if not info.k[0] > 0 or not width or not height:
        raise BindingError(f"{stream.camera_info}: the camera is not calibrated (K[0] is {info.k[0]:g})")
    if info.roi.width not in (0, info.width) or info.roi.height not in (0, info.height):
        raise BindingError(f"{stream.camera_info}: a region of interest; publish the full picture")
    top, left, rows, columns = _crop(height, width, stream.feature.shape)
    x, y = stream.feature.shape[1] / columns, stream.feature.shape[0] / rows
    binned_x, binned_y = width / info.width, height / info.height
    return {
        "fx": float(info.k[0] * binned_x * x),
        "fy": float(info.k[4] * binned_y * y),
        # Pixel centres have whole coordinates (sensor_msgs/CameraInfo).
        "cx": float(((info.k[2] + 0.5) * binned_x - left) * x - 0.5),
        "cy": float(((info.k[5] + 0.5) * binned_y - top) * y - 0.5),
        "distortion": [float(number) for number in info.d],
    }


def encode_observations(robot: RobotFile, values: Mapping[str, np.ndarray], stamp: float) -> dict[str, Any]:
    """What the robot would publish: one message per topic. Features that share a topic share the message.

    Args:
        values: by feature; features without a stream are left out.
        stamp: when the values were measured [s].
    """
    found: dict[str, Any] = {}
    joints: dict[str, list[tuple[Stream, np.ndarray]]] = {}
    for name, value in values.items():
        stream = robot.streams.get(name)
        if stream is None:
            continue
        if stream.type == JOINT_STATE:
            joints.setdefault(stream.topic, []).append((stream, value))
        else:
            found[stream.topic] = encode_observation(stream, value, stamp)
    return found | {topic: _encode_joints(parts, stamp) for topic, parts in joints.items()}


def encode_observation(stream: Stream, value: np.ndarray, stamp: float) -> Any:
    """The message of one feature, whose `decode` gives the value back."""
    stamp = stamp + stream.latency
    if stream.type == JOINT_STATE:
        return _encode_joints([(stream, value)], stamp - stream.latency)
    if stream.feature.is_frame:
        return _encode_image(stream, value, _header(stream.frame_id or stream.feature.name, stamp))
    header = _header(stream.frame_id or stream.feature.frame, stamp)
    return messages.make(stream.type, header=header, **_encode_geometry(stream, np.asarray(value, float)))


def encode_camera_info(stream: Stream, stamp: float) -> Any:
    """The CameraInfo of a camera that shows pictures of the contract's size, by the feature's calibration."""
    known = stream.feature.calibration
    height, width = stream.feature.shape[:2]
    fx, fy, cx, cy = (float(known.get(key, 0.0)) for key in ("fx", "fy", "cx", "cy"))
    return messages.make(
        "sensor_msgs/msg/CameraInfo",
        header=_header(stream.frame_id or stream.feature.name, stamp + stream.latency),
        height=height, width=width, distortion_model="plumb_bob",
        d=np.array(known.get("distortion", [0.0] * 5), float),
        k=[fx, 0, cx, 0, fy, cy, 0, 0, 1], r=np.eye(3), p=[fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0],
    )  # fmt: skip


def encode_command(robot: RobotFile, command: Command, stamp: float, tail: Tail | None = None) -> dict[str, Any]:
    """The messages of one tick of the Supervisor, by topic.

    A trajectory's points lie 1, 2, … n command periods after `stamp`. joint_trajectory_controller takes a stamp as the
    absolute begin, leaves out points that are past, and drops a trajectory that is past as a whole; a stamp of zero
    begins on arrival, so that the transport's jitter becomes the arm's (ros2_controllers, `Trajectory::sample`). Hence
    the default is the tick's stamp, which asks for clocks that agree; `stamp: zero` in the file is for others.
    """
    found = {}
    for name, topic in robot.commands.items():
        if name == "joint_position":
            found[topic.topic] = _encode_arm(robot, topic, command, stamp, tail)
        elif command.gripper_opening is not None:
            found[topic.topic] = _encode_gripper(robot, topic, command.gripper_opening, stamp)
    return found


def decode_command(robot: RobotFile, topic: str, message: Any) -> Setpoints:
    """What a command message asks for, as the robot's controller would read it.

    Raises:
        BindingError: joints are missing, unknown or named twice, lengths do not fit, or numbers are not finite.
    """
    name = next((name for name, command in robot.commands.items() if command.topic == topic), None)
    if name is None:
        raise BindingError(f"{topic}: no command topic of {robot.name!r}")
    command = robot.commands[name]
    if command.type == ARRAY:
        width = max(1, len(command.elements))
        if len(message.data) != width:
            raise BindingError(f"{topic}: expected {width} numbers, got {len(message.data)}")
        rows: list[np.ndarray | None] = [np.array(message.data, float)[None], None, None]
        times, start = np.zeros(1), None
    else:
        stamp = messages.seconds(message.header.stamp)
        start = stamp or None
        order = _order(topic, message.joint_names, command.elements)
        if len(message.joint_names) != len(command.elements) or not message.points:
            raise BindingError(
                f"{topic}: expected points of {list(command.elements)}, got {len(message.points)} "
                f"of {list(message.joint_names)}"
            )
        times = np.array([messages.seconds(point.time_from_start) for point in message.points])
        rows = [_rows(topic, message.points, key, order) for key in ("positions", "velocities", "accelerations")]
    position, velocity, acceleration = rows
    if position is None or not all(np.isfinite(row).all() for row in rows if row is not None):
        raise BindingError(f"{topic}: expected finite positions of every point")
    if not (np.diff(times) > 0).all():
        raise BindingError(f"{topic}: expected ascending times, got {times.tolist()}")
    if command.scale is not None:
        position, velocity, acceleration = command.scale.to_value(position), None, None
    return Setpoints(name, start, times, position, velocity, acceleration)


def gripper_goal(robot: RobotFile, opening: float) -> Any:
    """The goal of a control_msgs/action/GripperCommand that opens the gripper to `opening` [m].

    Raises:
        BindingError: the robot's gripper has no action.
    """
    command = robot.commands.get("gripper_opening")
    if command is None or command.action is None:
        raise BindingError(f"{robot.name!r}: commands.gripper_opening.action is missing in the robot's file")
    position = opening if command.scale is None else float(command.scale.to_graph(opening))
    part = messages.make("control_msgs/msg/GripperCommand", position=position, max_effort=command.action.max_effort)
    return messages.make("control_msgs/action/GripperCommand_Goal", command=part)


class GripperGoals:
    """Decides when a gripper that is commanded by action gets a new goal; every goal interrupts the one before."""

    def __init__(self, robot: RobotFile) -> None:
        self._robot = robot
        self._sent: tuple[float, float] | None = None

    def next(self, target: float, now: float) -> Any | None:
        """The goal to send now for an opening target [m], or None."""
        action = self._robot.commands["gripper_opening"].action
        if action is None:
            return None
        if self._sent is not None:
            opening, since = self._sent
            if abs(target - opening) < action.deadband or 0 <= now - since < action.period:
                return None
        self._sent = (target, now)
        return gripper_goal(self._robot, target)


def home_goal(robot: RobotFile, way: Tail) -> Any:
    """The goal of a control_msgs/action/FollowJointTrajectory that goes a whole way to rest, beginning on arrival.

    joint_trajectory_controller joins its points by quintics, which are the way itself.
    """
    kept = _spaced(way.times)
    rows = (reference[kept] for reference in way.references)
    points = [_point(*row) for row in zip(*rows, way.times[kept].tolist(), strict=True)]
    elements = list(robot.commands["joint_position"].elements)
    trajectory = messages.make(TRAJECTORY, joint_names=elements, points=points)
    return messages.make("control_msgs/action/FollowJointTrajectory_Goal", trajectory=trajectory)


def canonical(topic: str, quaternion: np.ndarray) -> np.ndarray:
    """The unit quaternion [4] whose largest component is positive, as in `sim.rotation`.

    Raises:
        BindingError: it is far from a unit quaternion; zeros come from drivers that never set it.
    """
    norm = float(np.sqrt(quaternion @ quaternion))
    if abs(norm - 1.0) > UNIT:
        raise BindingError(f"{topic}: expected a unit quaternion, got {quaternion.tolist()} (w x y z)")
    unit: np.ndarray = quaternion / (norm * np.sign(quaternion[np.argmax(np.abs(quaternion))]))
    return unit


def _decode_joints(stream: Stream, message: Any) -> np.ndarray:
    if not any(name in stream.elements for name in message.name):
        raise ElsewhereError(f"{stream.topic}: expected joints {list(stream.elements)}, got {list(message.name)}")
    values = np.asarray(getattr(message, stream.field), float)
    if len(values) != len(message.name):
        raise BindingError(f"{stream.topic}: {len(message.name)} joints, but {len(values)} in {stream.field}")
    picked = values[_order(stream.topic, message.name, stream.elements)]
    if not np.isfinite(picked).all():
        wrong = [name for name, value in zip(stream.elements, picked, strict=True) if not np.isfinite(value)]
        raise BindingError(f"{stream.topic}: {stream.field} of {', '.join(wrong)} is not finite")
    if stream.weights:
        picked = np.array([picked @ np.array(stream.weights)])
    return picked if stream.scale is None else stream.scale.to_value(picked)


def _order(topic: str, names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where each wanted joint stands among `names`."""
    places = {name: index for index, name in enumerate(names)}
    if missing := [name for name in wanted if name not in places]:
        raise BindingError(f"{topic}: no joint {', '.join(missing)}; the message has {', '.join(names)}")
    if len(places) != len(names):
        twice = sorted({name for name in wanted if list(names).count(name) > 1})
        if twice:
            raise BindingError(f"{topic}: joint {', '.join(twice)} is named twice")
    return [places[name] for name in wanted]


def _encode_joints(parts: Sequence[tuple[Stream, np.ndarray]], stamp: float) -> Any:
    names = list(dict.fromkeys(name for stream, _ in parts for name in stream.elements))
    columns: dict[str, np.ndarray] = {}
    for stream, value in parts:
        # What no stream tells of a joint is not known; JointState wants one number for each joint, or none at all.
        column = columns.setdefault(stream.field, np.full(len(names), np.nan))
        numbers = np.asarray(value, float)
        numbers = numbers if stream.scale is None else stream.scale.to_graph(numbers)
        if stream.weights:
            weights = np.array(stream.weights)
            numbers = weights / (weights @ weights) * numbers[0]
        column[[names.index(name) for name in stream.elements]] = numbers
    header = _header("", stamp + parts[0][0].latency)
    return messages.make(JOINT_STATE, header=header, name=names, **columns)


def _decode_geometry(stream: Stream, message: Any) -> np.ndarray:
    kind, part = stream.type.rsplit("/", 1)[1], stream.field
    if kind == "Imu":
        if part == "orientation" and message.orientation_covariance[0] == -1:
            raise BindingError(f"{stream.topic}: this IMU does not tell its orientation (covariance[0] is -1)")
        value = getattr(message, part)
        return _wxyz(value) if part == "orientation" else _xyz(value)
    if kind == "Odometry" and part == "linear":
        # nav_msgs tells it in the frame of the body.
        turn = matrix_from_quaternion(_wxyz(message.pose.pose.orientation))
        return np.asarray(turn @ _xyz(message.twist.twist.linear))
    if kind == "PoseStamped" or (kind == "Odometry" and part in ("position", "orientation")):
        pose = message.pose if kind == "PoseStamped" else message.pose.pose
        parts: dict[str, Callable[[], np.ndarray]] = {
            "position": lambda: _xyz(pose.position), "orientation": lambda: _wxyz(pose.orientation)
        }  # fmt: skip
    else:
        body = message.wrench if kind == "WrenchStamped" else message.twist
        body = body.twist if kind == "Odometry" else body
        keys = ("force", "torque") if kind == "WrenchStamped" else ("linear", "angular")
        parts = {keys[0]: lambda: _xyz(getattr(body, keys[0])), keys[1]: lambda: _xyz(getattr(body, keys[1]))}
    return parts[part]() if part else np.concatenate([read() for read in parts.values()])


def _encode_geometry(stream: Stream, value: np.ndarray) -> dict[str, Any]:
    kind, part = stream.type.rsplit("/", 1)[1], stream.field
    if kind == "Imu":
        if part == "orientation":
            return {"orientation": _quaternion(value)}
        unknown = np.zeros(9)
        unknown[0] = -1
        return {part: _vector(value), "orientation_covariance": unknown}
    if kind == "PoseStamped":
        point = value[:3] if part != "orientation" else np.zeros(3)
        rotation = value[-4:] if part != "position" else np.array([1.0, 0, 0, 0])
        position = messages.make("geometry_msgs/msg/Point", x=point[0], y=point[1], z=point[2])
        return {"pose": messages.make("geometry_msgs/msg/Pose", position=position, orientation=_quaternion(rotation))}
    name = "twist" if kind == "TwistStamped" else "wrench"
    keys = ("linear", "angular") if kind == "TwistStamped" else ("force", "torque")
    halves = dict(zip(keys, (value[:3], value[-3:]), strict=True)) if not part else {part: value}
    vectors = {key: _vector(half) for key, half in halves.items()}
    return {name: messages.make(f"geometry_msgs/msg/{name.capitalize()}", **vectors)}


def _decode_image(stream: Stream, message: Any) -> np.ndarray:
    depth = stream.feature.kind == "depth"
    channels: slice | list[int] = _BGR
    if stream.type == "sensor_msgs/msg/CompressedImage":
        picture = _decompress(stream, message, depth)
    elif depth:
        picture = _read_depth(stream, message)
    else:
        picture, channels = _read_colour(stream, message), _CHANNELS[message.encoding]
    # The picture is small by now: to sort its channels costs little.
    picture = _fit(picture, stream.feature.shape, depth).reshape(*stream.feature.shape[:2], -1)
    return np.array(picture if depth else picture[..., channels], order="C")


def _read_colour(stream: Stream, message: Any) -> np.ndarray:
    if message.encoding not in _CHANNELS:
        raise BindingError(f"{stream.topic}: expected an encoding of {', '.join(_CHANNELS)}; got {message.encoding!r}")
    size = _PIXEL_BYTES[message.encoding]
    return _pixels(stream, message, size).reshape(message.height, message.width, size)


def _read_depth(stream: Stream, message: Any) -> np.ndarray:
    if message.encoding not in _DEPTHS:
        raise BindingError(f"{stream.topic}: expected an encoding of {', '.join(_DEPTHS)}; got {message.encoding!r}")
    dtype = np.dtype((">" if message.is_bigendian else "<") + _DEPTHS[message.encoding])
    pixels = np.ascontiguousarray(_pixels(stream, message, dtype.itemsize)).view(dtype)
    if dtype.kind == "u":
        return pixels.astype(np.uint16)
    # REP 118: metres, NaN where there is none; millimetres here, 0 where there is none.
    millimetres = np.nan_to_num(pixels.astype(float) * 1000.0, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(np.rint(millimetres), 0, 65535).astype(np.uint16)


def _pixels(stream: Stream, message: Any, size: int) -> np.ndarray:
    """The bytes of a picture [height, width · size], without the padding at the end of the rows."""
    width = message.width * size
    needed = message.step * (message.height - 1) + width
    if message.step < width or len(message.data) < needed or not message.height * message.width:
        raise BindingError(
            f"{stream.topic}: {message.height} x {message.width} {message.encoding} in steps of {message.step} needs "
            f"steps of {width} or more and {max(needed, 1)} bytes, got {len(message.data)}"
        )
    data = np.asarray(message.data, np.uint8)
    return np.lib.stride_tricks.as_strided(data, (message.height, width), (message.step, 1))


def _decompress(stream: Stream, message: Any, depth: bool) -> np.ndarray:
    import cv2

    data = np.asarray(message.data, np.uint8)
    if "compressedDepth" in message.format:
        data = data[12:]  # the header of compressed_depth_image_transport
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED if depth else cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise BindingError(f"{stream.topic}: {len(message.data)} bytes of format {message.format!r} are no picture")
    if depth and (picture.dtype != np.uint16 or picture.ndim != 2):
        raise BindingError(f"{stream.topic}: expected 16 bits per pixel, got {picture.dtype} {list(picture.shape)}")
    return picture


def _crop(height: int, width: int, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the largest central part of a picture with the proportions of `shape`."""
    rows = min(height, round(width * shape[0] / shape[1]))
    columns = min(width, round(height * shape[1] / shape[0]))
    return (height - rows) // 2, (width - columns) // 2, max(rows, 1), max(columns, 1)


def _fit(picture: np.ndarray, shape: Sequence[int], depth: bool) -> np.ndarray:
    """The middle of a picture, scaled to the feature's size; any channels."""
    top, left, rows, columns = _crop(picture.shape[0], picture.shape[1], shape)
    picture = picture[top : top + rows, left : left + columns]
    if picture.shape[:2] != tuple(shape[:2]):
        import cv2

        # Mean over the pixels that become one; mixing depths would invent surfaces.
        kind = cv2.INTER_NEAREST if depth else cv2.INTER_AREA if shape[0] < rows else cv2.INTER_LINEAR
        picture = cv2.resize(np.ascontiguousarray(picture), (shape[1], shape[0]), interpolation=kind)
    return picture


def _encode_image(stream: Stream, value: np.ndarray, header: Any) -> Any:
    height, width = value.shape[:2]
    depth = stream.feature.kind == "depth"
    if stream.type == "sensor_msgs/msg/CompressedImage":
        import cv2

        suffix, options = (".png", []) if depth else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        _, data = cv2.imencode(suffix, value if depth else value[..., ::-1], options)
        form = "16UC1; png compressed" if depth else "rgb8; jpeg compressed bgr8"
        return messages.make(stream.type, header=header, format=form, data=data)
    encoding, size = ("16UC1", 2) if depth else ("rgb8", 3)
    data = np.ascontiguousarray(value, "<u2" if depth else np.uint8).view(np.uint8).reshape(-1)
    return messages.make(
        stream.type, header=header, height=height, width=width, encoding=encoding, step=width * size, data=data
    )


def _encode_arm(robot: RobotFile, topic: CommandTopic, command: Command, stamp: float, tail: Tail | None) -> Any:
    if topic.type == ARRAY:
        return messages.make(ARRAY, data=command.position[-1])
    times = _times(robot, len(command.position))
    rows = [command.position, command.velocity, command.acceleration]
    if tail is not None and len(tail.times):
        kept = _spaced(tail.times)
        times = np.append(times, times[-1] + np.maximum(tail.times[kept], NEAREST))
        rows = [np.concatenate([row, more[kept]]) for row, more in zip(rows, tail.references, strict=True)]
    position, velocity, acceleration = rows
    points = [_point(position[i], velocity[i], acceleration[i], time) for i, time in enumerate(times.tolist())]
    header = _header("", stamp if topic.stamp == "tick" else 0.0)
    return messages.make(TRAJECTORY, header=header, joint_names=list(topic.elements), points=points)


def _encode_gripper(robot: RobotFile, topic: CommandTopic, openings: np.ndarray, stamp: float) -> Any:
    numbers = openings if topic.scale is None else topic.scale.to_graph(openings)
    if topic.type == ARRAY:
        return messages.make(ARRAY, data=numbers[-1:])
    empty = np.zeros(0)
    times = _times(robot, len(numbers)).tolist()
    points = [_point(numbers[row : row + 1], empty, empty, time) for row, time in enumerate(times)]
    header = _header("", stamp if topic.stamp == "tick" else 0.0)
    return messages.make(TRAJECTORY, header=header, joint_names=list(topic.elements), points=points)


def _spaced(times: np.ndarray) -> list[int]:
    """Which of the ascending times are far enough from the one before; the last one, at rest, always is."""
    kept = [len(times) - 1]
    for index in range(len(times) - 2, -1, -1):
        if times[kept[-1]] - times[index] >= NEAREST and times[index] >= NEAREST:
            kept.append(index)
    return kept[::-1]


def _times(robot: RobotFile, count: int) -> np.ndarray:
    return np.arange(1, count + 1) / robot.command_rate_hz


def _point(position: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray, time: float) -> Any:
    # As `messages.make`, without its checks of every field: there may be a hundred points 200 times a second.
    kind = messages.type_of("trajectory_msgs/msg/JointTrajectoryPoint")
    return kind(position, velocity, acceleration, np.zeros(0), messages.duration(time))


def _rows(topic: str, points: Sequence[Any], key: str, order: Sequence[int]) -> np.ndarray | None:
    """One field of all points [n, dof] in the robot's order, or None where any point lacks it."""
    lengths = {len(getattr(point, key)) for point in points}
    if 0 in lengths:
        return None
    if lengths != {len(order)}:
        raise BindingError(f"{topic}: expected {len(order)} {key} in every point, got {sorted(lengths)}")
    return np.array([getattr(point, key) for point in points], float)[:, order]


def _header(frame_id: str, stamp: float) -> Any:
    return messages.make("std_msgs/msg/Header", frame_id=frame_id, stamp=messages.stamp(stamp))


def _xyz(value: Any) -> np.ndarray:
    return np.array([value.x, value.y, value.z], float)


def _wxyz(value: Any) -> np.ndarray:
    return np.array([value.w, value.x, value.y, value.z], float)


def _vector(value: np.ndarray) -> Any:
    return messages.make("geometry_msgs/msg/Vector3", x=value[0], y=value[1], z=value[2])


def _quaternion(value: np.ndarray) -> Any:
    return messages.make("geometry_msgs/msg/Quaternion", w=value[0], x=value[1], y=value[2], z=value[3])
