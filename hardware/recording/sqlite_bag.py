"""A rosbag2 folder with one SQLite file, for tools that do not read MCAP; written by `rosbags`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robot_rl.hardware.recording.black_box import Topic
from robot_rl.hardware.recording.mcap_index import offered_qos
from robot_rl.hardware.ros2.qos import Qos


class SqliteBag:
    """Writes one bag.

    Args:
        folder: of the bag, which must not exist.
        facts: kept in `custom_data` of metadata.yaml.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str]) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        folder.parent.mkdir(parents=True, exist_ok=True)
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3)
        for key, value in facts.items():
            self._writer.set_custom_data(key, value)
        self._writer.open()
        self._connections: dict[str, Any] = {}

    def add_topic(self, topic: Topic) -> None:
        """Make a topic known."""
        self._connections[topic.name] = self._writer.add_connection(
            topic.name, topic.message_type, msgdef=topic.definition, rihs01=topic.type_hash,
            offered_qos_profiles=_profiles(topic.qos),
        )  # fmt: skip

    def write(self, topic: str, received: int, cdr: bytes) -> None:
        """Add a message received at `received` [ns]."""
        self._writer.write(self._connections[topic], received, cdr)

    def close(self) -> None:
        """Finish the file and metadata.yaml."""
        self._writer.close()


@functools.cache
def _profiles(qos: Qos) -> list[Any]:
    """The profile as `rosbags` has it."""
    from rosbags.rosbag2.metadata import parse_qos

    return list(parse_qos(offered_qos([qos])))
