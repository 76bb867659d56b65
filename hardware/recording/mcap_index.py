"""What stands at the end of a rosbag2 MCAP file, so that readers find their way, and its metadata.yaml.

Records and their order: https://mcap.dev/spec; names and values of the metadata: rosbag2's version 9 (ROS 2 Jazzy).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from robot_rl.hardware.ros2.qos import Qos

if TYPE_CHECKING:
    from mcap.records import Channel, ChunkIndex, MetadataIndex, Schema

MAGIC = b"\x89MCAP0\r\n"

MessageIndex = dict[int, list[tuple[int, int]]]
"""By channel, the time [ns] of each message of a chunk and where it stands in the chunk."""

_UNLIMITED = {"sec": 9223372036, "nsec": 854775807}


class McapIndex:
    """Schemas, channels, chunks and counts of a file, as they were written or found."""

    def __init__(self) -> None:
        self.schemas: dict[int, Schema] = {}
        self.channels: dict[int, Channel] = {}
        self.counts: dict[int, int] = {}
        self.chunks: list[ChunkIndex] = []
        self.metadata: list[MetadataIndex] = []
        self.facts: dict[str, str] = {}

    def describe_chunk(self, start: int, end: int, size: int, messages: MessageIndex) -> tuple[ChunkIndex, list[bytes]]:
        """The index of a chunk in bytes `start` to `end` of the file, and the message indices that stand behind it.

        Args:
            size: of the chunk's content [byte].
        """
        from mcap.records import ChunkIndex
        from mcap.records import MessageIndex as Record

        records, offsets, where = [], {}, end
        for channel, found in messages.items():
            offsets[channel] = where
            records.append(encoded(Record(channel, found)))
            where += len(records[-1])
        times = [time for found in messages.values() for time, _ in found]
        index = ChunkIndex(
            chunk_length=end - start, chunk_start_offset=start, compression="", compressed_size=size,
            message_start_time=min(times, default=0), message_end_time=max(times, default=0),
            message_index_length=where - end, message_index_offsets=offsets, uncompressed_size=size,
        )  # fmt: skip
        return index, records

    def add_chunk(self, index: ChunkIndex, messages: MessageIndex) -> None:
        """Count a chunk that is written."""
        self.chunks.append(index)
        for channel, found in messages.items():
            self.counts[channel] = self.counts.get(channel, 0) + len(found)

    def ending(self, offset: int) -> bytes:
        """Everything behind the data, which end at `offset`: summary, footer and magic."""
        from mcap.opcode import Opcode
        from mcap.records import DataEnd, Footer, Statistics, SummaryOffset

        first, last = self.span
        statistics = Statistics(
            attachment_count=0, channel_count=len(self.channels), channel_message_counts=self.counts,
            chunk_count=len(self.chunks), message_count=sum(self.counts.values()), message_start_time=first,
            message_end_time=last, metadata_count=len(self.metadata), schema_count=len(self.schemas),
        )  # fmt: skip
        data_end = encoded(DataEnd(0))
        groups = {
            Opcode.SCHEMA: self.schemas.values(), Opcode.CHANNEL: self.channels.values(),
            Opcode.STATISTICS: [statistics], Opcode.CHUNK_INDEX: self.chunks, Opcode.METADATA_INDEX: self.metadata,
        }  # fmt: skip
        summary, pointers = bytearray(), bytearray()
        start = offset + len(data_end)
        for opcode, records in groups.items():
            if group := b"".join(map(encoded, records)):
                pointers += encoded(SummaryOffset(opcode, start + len(summary), len(group)))
                summary += group
        footer = Footer(start, start + len(summary), 0)
        summary += pointers
        footer.summary_crc = zlib.crc32(encoded(footer)[:-4], zlib.crc32(summary))
        return data_end + summary + encoded(footer) + MAGIC

    @property
    def span(self) -> tuple[int, int]:
        """Time of the first and of the last message [ns]; 0 and 0 without messages."""
        chunks = [chunk for chunk in self.chunks if chunk.message_index_offsets]
        first = min((chunk.message_start_time for chunk in chunks), default=0)
        return first, max((chunk.message_end_time for chunk in chunks), default=0)

    def information(self, file: str) -> str:
        """metadata.yaml of a bag that consists of this one file."""
        first, last = self.span
        span = {"starting_time": {"nanoseconds_since_epoch": first}, "duration": {"nanoseconds": last - first}}
        total = {**span, "message_count": sum(self.counts.values())}
        topics = [
            {
                "topic_metadata": {
                    "name": channel.topic,
                    "type": self.schemas[channel.schema_id].name,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": yaml.safe_load(channel.metadata["offered_qos_profiles"]),
                    "type_description_hash": channel.metadata["topic_type_hash"],
                },
                "message_count": self.counts.get(number, 0),
            }
            for number, channel in self.channels.items()
        ]
        about = {
            "version": 9, "storage_identifier": "mcap", **total, "topics_with_message_count": topics,
            "compression_format": "", "compression_mode": "", "relative_file_paths": [file],
            "files": [{"path": file, **total}], "custom_data": self.facts,
            "ros_distro": os.environ.get("ROS_DISTRO", "jazzy"),
        }  # fmt: skip
        return yaml.dump({"rosbag2_bagfile_information": about}, Dumper=_PlainDumper, sort_keys=False)


class _PlainDumper(yaml.SafeDumper):
    """Without anchors, which yaml-cpp reads but people do not."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def encoded(record: Any) -> bytes:
    """The bytes of a record of `mcap.records`."""
    from mcap.data_stream import RecordBuilder

    builder = RecordBuilder()
    record.write(builder)
    content: bytes = builder.end()
    return content


def offered_qos(profiles: Sequence[Qos]) -> str:
    """QoS profiles in rosbag2's words, as a channel keeps them."""
    return str(yaml.dump([_profile(qos) for qos in profiles], Dumper=_PlainDumper, sort_keys=False)).strip()


def write_metadata(folder: Path, text: str) -> None:
    """Put metadata.yaml in place, whole or not at all."""
    beside = folder / ".metadata.yaml.new"
    beside.write_text(text)
    beside.replace(folder / "metadata.yaml")


def _profile(qos: Qos) -> Mapping[str, Any]:
    deadline = _UNLIMITED
    if qos.deadline is not None:
        deadline = {"sec": int(qos.deadline), "nsec": round(qos.deadline % 1 * 1e9)}
    return {
        "history": "keep_last" if qos.depth else "keep_all", "depth": qos.depth, "reliability": qos.reliability,
        "durability": qos.durability, "deadline": deadline, "lifespan": _UNLIMITED, "liveliness": "automatic",
        "liveliness_lease_duration": _UNLIMITED, "avoid_ros_namespace_conventions": False,
    }  # fmt: skip
