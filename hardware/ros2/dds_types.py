"""Raw CDR through the cyclonedds wheel: its types generated from the type store, its codec left out.

The type information that peers compare is generated truly; `serialize` and `deserialize` pass the bytes through,
because the wheel's own codec needs 45 ms for an image. That leans on duck typing inside cyclonedds-python: the
version range is pinned and `test_dds_types.py` keeps watch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from robot_rl.hardware.ros2 import messages

SERVICE_HEADER = ("client_guid", "sequence_number")
"""rmw_cyclonedds puts two integers of 8 bytes before every request and response."""


def dds_name(message_type: str) -> str:
    """`sensor_msgs/msg/Image` is `sensor_msgs::msg::dds_::Image_` on the wire."""
    package, kind, name = message_type.split("/")
    return f"{package}::{kind}::dds_::{name}_"


def ros_name(type_name: str) -> str:
    """The inverse of `dds_name`; other names stay as they are."""
    parts = type_name.split("::")
    if len(parts) == 4 and parts[2] == "dds_" and parts[3].endswith("_"):
        return f"{parts[0]}/{parts[1]}/{parts[3][:-1]}"
    return type_name


@cache
def raw_type(message_type: str) -> Any:
    """A class whose instances hold the CDR of one sample, for `Topic`, `write` and `take` of cyclonedds."""
    struct = _struct(message_type)
    struct.__init__ = _init
    struct.serialize = _serialize
    struct.deserialize = classmethod(_deserialize)
    # Of the key, nothing, in the sample that tells that a writer has left.
    struct.deserialize_key = classmethod(_deserialize)
    return struct


def _init(self: Any, cdr: bytes) -> None:
    self.cdr, self.sample_info = cdr, None


def _serialize(self: Any, *args: Any, **kwargs: Any) -> bytes:
    return self.cdr


def _deserialize(cls: Any, data: bytes, *args: Any, **kwargs: Any) -> Any:
    return cls(data)


def _struct(message_type: str) -> Any:
    """The IdlStruct of a message type: final, XCDR1, the same names as in rosidl's IDL."""
    from cyclonedds.idl import make_idl_struct
    from cyclonedds.idl.types import int64, uint64

    fields: dict[str, Any] = {}
    if message_type.endswith(("_Request", "_Response")):
        fields |= dict(zip(SERVICE_HEADER, (uint64, int64), strict=True))
    messages.type_of(message_type)
    for name, description in messages.typestore().fielddefs[message_type][1]:
        fields[name] = _annotation(description)
    name = dds_name(message_type)
    return make_idl_struct(name.replace("::", "__"), name.replace("::", "."), fields, dataclassify=False)


@cache
def _nested(message_type: str) -> Any:
    return _struct(message_type)


def _annotation(description: Any) -> Any:
    from cyclonedds.idl import types
    from rosbags.interfaces import Nodetype

    kind, detail = description
    if kind == Nodetype.NAME:
        return _nested(detail)
    if kind == Nodetype.BASE:
        name, bound = detail
        if name == "string":
            return types.bounded_str[bound] if bound else str
        return {"bool": bool, "byte": types.uint8, "char": types.uint8, "octet": types.uint8}.get(name) or getattr(
            types, name
        )
    element, length = _annotation(detail[0]), detail[1]
    if kind == Nodetype.ARRAY:
        return types.array[element, length]
    return types.sequence[element, length] if length else types.sequence[element]
