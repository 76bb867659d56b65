"""ROS 2 messages without ROS 2: the types of Jazzy and more, made with defaults, encoded to CDR and back.

A message is a dataclass of the `rosbags` type store, numeric arrays are NumPy arrays. Names are those of ROS 2:
`sensor_msgs/msg/JointState`, `std_srvs/srv/Trigger_Request`, `control_msgs/action/GripperCommand_Goal`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_rl.hardware.ros2.interfaces import ACTIONS, MESSAGES, SERVICES

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

DTYPES = {"bool": "bool_", "byte": "uint8", "char": "uint8", "octet": "uint8"}
# What an action's own interfaces add to its three parts (ROS 2 design, "Actions"; rosidl makes the same types).
ACTION_PARTS = {
    "SendGoal_Request": "unique_identifier_msgs/UUID goal_id\n{name}_Goal goal",
    "SendGoal_Response": "bool accepted\nbuiltin_interfaces/Time stamp",
    "GetResult_Request": "unique_identifier_msgs/UUID goal_id",
    "GetResult_Response": "int8 status\n{name}_Result result",
    "FeedbackMessage": "unique_identifier_msgs/UUID goal_id\n{name}_Feedback feedback",
}


class MessageError(ValueError):
    """A message that does not fit its type; the message says which field, what was expected and what came."""


@cache
def typestore() -> Typestore:
    """The types of ROS 2 Jazzy and those of `interfaces`, shared by everyone in this process."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for name, text in MESSAGES.items():
        types |= _parse(name, text)
    for name, text in SERVICES.items():
        for part, definition in zip(("Request", "Response"), _sections(text), strict=True):
            types |= _parse(f"{name}_{part}", definition)
    for name, text in ACTIONS.items():
        for part, definition in zip(("Goal", "Result", "Feedback"), _sections(text), strict=True):
            types |= _parse(f"{name}_{part}", definition)
        for part, definition in ACTION_PARTS.items():
            types |= _parse(f"{name}_{part}", definition.format(name=name.rsplit("/", 1)[1]))
    store.register(types)
    return store


def register(message_type: str, definition: str) -> None:
    """Make a message known by the text of its `.msg` file; MessageError if it stands in conflict with a known one."""
    from rosbags.typesys import TypesysError

    try:
        typestore().register(_parse(message_type, definition))
    except TypesysError as error:
        raise MessageError(f"{message_type}: {error}") from error


def make(message_type: str, **fields: Any) -> Any:
    """A message with the given fields, the others as in a fresh ROS 2 message (zero, empty, the unit quaternion).

    Numeric sequences may be anything that NumPy takes (flattened), `bytes` included. Raises MessageError for a type
    or field that does not exist and for a fixed array of the wrong length.
    """
    makers = _makers(message_type)
    unknown = fields.keys() - makers.keys()
    if unknown:
        raise MessageError(f"{message_type} has no {sorted(unknown)}; its fields are {sorted(makers)}")
    return type_of(message_type)(**{
        name: convert(fields[name]) if name in fields else default() for name, (default, convert) in makers.items()
    })


def type_of(message_type: str) -> Any:
    """The dataclass of a message type; its constants are class attributes. Raises MessageError if it is unknown."""
    try:
        return typestore().types[message_type]
    except KeyError:
        raise MessageError(
            f"unknown message type {message_type!r}: give it as package/msg/Name, or register its definition"
        ) from None


def encode(message: Any) -> bytes:
    """CDR of a message: little endian, with its header of 4 bytes, padded to a multiple of 4 bytes."""
    message_type = getattr(message, "__msgtype__", "")
    try:
        cdr = bytes(typestore().serialize_cdr(message, message_type))
    except Exception as error:  # the generated code fails in as many ways as there are fields
        raise MessageError(f"{message_type or type(message).__name__} cannot be encoded: {error}") from error
    return cdr.ljust((len(cdr) + 3) & ~3, b"\0")


def decode(cdr: bytes | memoryview, message_type: str) -> Any:
    """The message in `cdr`. Raises MessageError when the bytes are not a `message_type`."""
    type_of(message_type)
    try:
        return typestore().deserialize_cdr(cdr, message_type)
    except Exception as error:  # whatever bytes come, one error goes out
        raise MessageError(f"{len(cdr)} bytes are not a {message_type}: {error}") from error


def stamp(seconds: float) -> Any:
    """`builtin_interfaces/msg/Time` of a time [s]."""
    whole, nanoseconds = divmod(round((seconds - math.floor(seconds)) * 1e9), 10**9)
    return type_of("builtin_interfaces/msg/Time")(math.floor(seconds) + whole, nanoseconds)


def duration(seconds: float) -> Any:
    """`builtin_interfaces/msg/Duration` of a time span [s]."""
    time = stamp(seconds)
    return type_of("builtin_interfaces/msg/Duration")(time.sec, time.nanosec)


def seconds(time: Any) -> float:
    """Seconds of a Time or Duration: the float next to it, so that whole nanoseconds come back from `stamp` equal."""
    value: float = (time.sec * 10**9 + time.nanosec) / 10**9
    return value


@cache
def type_hash(message_type: str) -> str:
    """The type's RIHS01 hash (REP 2016), as rosidl computes it: there a `char` of a .msg file is a uint8."""
    from rosbags.interfaces import Nodetype
    from rosbags.typesys.store import Typestore

    def as_rosidl(description: Any) -> Any:
        kind, detail = description
        if kind == Nodetype.BASE:
            return (kind, ("uint8", 0)) if detail[0] == "char" else description
        return description if kind == Nodetype.NAME else (kind, (as_rosidl(detail[0]), detail[1]))

    type_of(message_type)
    store = Typestore()
    for name, (constants, fields) in typestore().fielddefs.items():
        store.fielddefs[name] = (constants, [(field, as_rosidl(description)) for field, description in fields])
    return store.hash_rihs01(message_type)


def _sections(text: str) -> list[str]:
    return [section.strip() for section in dedent(text).split("---")]


def _parse(name: str, definition: str) -> dict[str, Any]:
    """Field definitions of one interface. `rosbags` writes every name as package/msg/…: put the true ones back."""
    from rosbags.typesys import get_types_from_msg

    package, kind, short = name.split("/")
    parsed = get_types_from_msg(dedent(definition).strip() + "\n", f"{package}/msg/{short}")
    (constants, fields) = parsed[f"{package}/msg/{short}"]
    if kind == "action":
        part = f"{package}/msg/{short.split('_')[0]}_"
        fields = [
            (field, _moved(description, part, part.replace("/msg/", "/action/"))) for field, description in fields
        ]
    return {name: (constants, fields)}


def _moved(description: Any, old: str, new: str) -> Any:
    kind, detail = description
    return (kind, detail.replace(old, new)) if isinstance(detail, str) else description


@cache
def _makers(message_type: str) -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """Of each field: what makes its default, and what turns a given value into the one that the encoder wants."""
    type_of(message_type)
    makers: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {}
    for name, description in typestore().fielddefs[message_type][1]:
        if message_type == "geometry_msgs/msg/Quaternion" and name == "w":
            makers[name] = (lambda: 1.0, float)  # the one default that a common .msg file sets
        else:
            makers[name] = _maker(f"{message_type}.{name}", description)
    return makers


def _maker(name: str, description: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    from rosbags.interfaces import Nodetype

    kind, detail = description
    if kind == Nodetype.NAME:
        return (lambda: make(detail)), _same
    if kind == Nodetype.BASE:
        python: Any = {"string": str, "bool": bool}.get(detail[0], float if detail[0].startswith("float") else int)
        return python, (python if python is not str else _same)
    (inner_kind, inner), length = detail
    fixed = length if kind == Nodetype.ARRAY else 0
    if inner_kind == Nodetype.BASE and inner[0] != "string":
        dtype = np.dtype(DTYPES.get(inner[0], inner[0]))
        return (lambda: np.zeros(fixed, dtype)), (lambda value: _array(name, value, dtype, fixed))
    if inner_kind == Nodetype.NAME:
        return (lambda: [make(inner) for _ in range(fixed)]), list
    return (lambda: [""] * fixed), list


def _same(value: Any) -> Any:
    return value


def _array(name: str, value: Any, dtype: np.dtype, fixed: int) -> np.ndarray:
    if isinstance(value, bytes | bytearray | memoryview):
        array = np.frombuffer(value, dtype)
    else:
        array = np.ascontiguousarray(value, dtype).reshape(-1)
    if fixed and len(array) != fixed:
        raise MessageError(f"{name} has {fixed} elements, not {len(array)}")
    return array
