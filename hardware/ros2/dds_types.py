"""Raw CDR through the cyclonedds wheel: its types made from the type store, its codec left out.

The type information that peers compare is true, but the bytes go straight to and from the wheel's C functions, because
its codec in Python needs 45 ms for an image. Those functions are not its public interface: the version range is
pinned and `test_dds_types.py` keeps watch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from cyclonedds._clayer import ddspy_take, ddspy_write
from cyclonedds.core import DDSException, InstanceState, SampleState, ViewState

from robot_rl.hardware.ros2 import messages

ANY = int(ViewState.Any | InstanceState.Any | SampleState.Any)
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


def write(writer: Any, cdr: bytes) -> bool:
    """Write a sample, CDR with its header of 4 bytes. False where a reliable reader held it up for too long.

    Raises MessageError for bytes that are not of the topic's type, DDSException for whatever else DDS says.
    """
    status: int = ddspy_write(writer._ref, cdr.ljust((len(cdr) + 3) & ~3, b"\0"))
    if status == DDSException.DDS_RETCODE_BAD_PARAMETER:
        raise messages.MessageError(f"{len(cdr)} bytes for {writer.topic.name} are no {writer.topic.typename}")
    if status < 0 and status != DDSException.DDS_RETCODE_TIMEOUT:
        raise DDSException(status, f"Occurred while writing {writer.topic.name}")
    return status >= 0


def take(reader: Any, count: int) -> list[tuple[bytes, Any]]:
    """Up to `count` (CDR, sample info) that wait; a writer that leaves yields one whose `valid_data` is not set."""
    samples: list[tuple[bytes, Any]] | int = ddspy_take(reader._ref, ANY, count)
    if isinstance(samples, int):
        raise DDSException(samples, f"Occurred while taking from {reader.topic.name}")
    return samples


@cache
def idl_type(message_type: str) -> Any:
    """The IdlStruct of a message type, for cyclonedds's Topic: final, XCDR1, the same names as in rosidl's IDL."""
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


def _annotation(description: Any) -> Any:
    import cyclonedds.idl.types as idl
    from rosbags.interfaces import Nodetype

    types: Any = idl  # typed as if they could not be indexed
    kind, detail = description
    if kind == Nodetype.NAME:
        return idl_type(detail)
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
