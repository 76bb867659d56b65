"""The black box: a rosbag2 folder with one MCAP file that stays readable whatever happens to its writer.

    box = BlackBox(Path("runs/deploy/bag"))
    box.add_topic(Topic("/joint_states", "sensor_msgs/msg/JointState", definition, type_hash, SENSOR))
    box.write("/joint_states", received, cdr)      # gathered in a chunk
    box.flush()                                    # the chunk is in the file: a killed process does not lose it
    box.close()                                    # index, footer and metadata.yaml: `ros2 bag info` and `play` read it

The file grows by whole chunks, each with its checksum. What a killed writer leaves is a valid beginning: `bag.Bag`
reads it as it stands, and `recover` writes the index that is missing. Messages stay raw CDR; nothing is compressed,
since a robot computer's time is scarcer than its disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

from robot_rl.hardware.recording.bag import (
    CHANNEL,
    CHUNK,
    DATA_END,
    HEADER,
    MESSAGE,
    METADATA,
    NOTES,
    SCHEMA,
    McapFile,
    chunk_content,
    records_of_chunk,
)  # fmt: skip
from robot_rl.hardware.recording.mcap_index import MAGIC, McapIndex, MessageIndex, encoded, offered_qos, write_metadata
from robot_rl.hardware.ros2.qos import RELIABLE, Qos

CHUNK_BYTES = 1 << 20
"""A chunk is written when it has grown to this, at the latest."""

_LARGE = 1 << 16  # messages above are written from where they lie, without a copy
_CHUNK = struct.Struct("<BQQQQIIQ")  # opcode, length; first, last time, size, CRC-32, no compression, size
_MESSAGE = struct.Struct("<BQHIQQ")  # opcode, length; channel, sequence, received, published

Bytes = bytes | bytearray | memoryview
PWritev = Callable[[int, Sequence[Bytes], int], int]


class BlackBoxError(RuntimeError):
    """The file cannot be written; what was flushed before is whole, and what was not is kept for the next flush."""


@dataclass(frozen=True)
class Topic:
    """A recorded topic: its resolved name, type (`pkg/msg/Name`), definition (ros2msg text), RIHS hash, offered QoS."""

    name: str
    message_type: str
    definition: str
    type_hash: str
    qos: Qos = RELIABLE


class BlackBox:
    """Writes one bag; for one thread.

    Args:
        folder: of the bag, which must not exist.
        facts: kept in the file and in `custom_data` of metadata.yaml.
        pwritev: for tests.

    Attributes:
        path: of the MCAP file.

    Raises:
        BlackBoxError: the folder exists or cannot be written.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str] | None = None, pwritev: PWritev = os.pwritev) -> None:
        from mcap.records import Header, Metadata, MetadataIndex

        self.path = folder / f"{folder.name}_0.mcap"
        try:
            folder.mkdir(parents=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError as error:
            raise BlackBoxError(f"{folder} exists already: give every recording a folder of its own") from error
        except OSError as error:
            raise _explained(folder, error) from error
        fcntl.flock(fd, fcntl.LOCK_EX)
        self._file, self._index, self._chunk = _Tail(self.path, fd, 0, pwritev), McapIndex(), _Chunk()
        self._topics: dict[str, int] = {}
        self._sequences: dict[int, int] = {}
        self._index.facts = dict(facts or {})
        header = MAGIC + encoded(Header("ros2", f"{NOTES} {version('robot_rl')}"))
        about = encoded(Metadata(NOTES, self._index.facts))
        self._file.append([header, about])
        self._index.metadata.append(MetadataIndex(len(header), len(about), NOTES))

    @property
    def size(self) -> int:
        """Bytes in the file, always up to the end of a record."""
        return self._file.size

    def add_topic(self, topic: Topic) -> None:
        """Make a topic known; again is nothing: its first type and QoS count. Raises `BlackBoxError`."""
        from mcap.records import Channel, Schema

        if topic.name in self._topics:
            return
        index = self._index
        number, schemas, records = len(index.channels) + 1, dict(index.schemas), list[bytes]()
        schema = next((key for key, known in schemas.items() if known.name == topic.message_type), 0)
        if not schema:
            schema = len(schemas) + 1
            schemas[schema] = Schema(schema, topic.definition.encode(), "ros2msg", topic.message_type)
            records.append(encoded(schemas[schema]))
        about = {"offered_qos_profiles": offered_qos([topic.qos]), "topic_type_hash": topic.type_hash}
        channel = Channel(number, topic.name, "cdr", about, schema)
        # Outside of the chunks: one that is damaged takes nobody's definition with it.
        self._file.append([*records, encoded(channel)])
        index.schemas, index.channels[number], self._topics[topic.name] = schemas, channel, number

    def write(self, topic: str, received: int, cdr: bytes) -> None:
        """Record a message.

        Args:
            topic: one that was added.
            received: nanoseconds on the recorder's clock.
            cdr: the message with its CDR header; not copied when it is large, so it must not change.

        Raises:
            BlackBoxError: the chunk was full and could not be written; the message is kept.
        """
        channel, received = self._topics[topic], max(received, 0)
        sequence = self._sequences[channel] = self._sequences.get(channel, 0) + 1
        self._chunk.messages.setdefault(channel, []).append((received, self._chunk.size))
        length = _MESSAGE.size - 9 + len(cdr)
        self._chunk.add(_MESSAGE.pack(MESSAGE, length, channel, sequence & 0xFFFFFFFF, received, received))
        self._chunk.add(cdr)
        if self._chunk.size >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> int:
        """Hand everything to the operating system; returns `size`.

        Raises:
            BlackBoxError: it could not be written, and is kept for the next time.
        """
        chunk = self._chunk
        if chunk.messages:
            record = chunk.record()
            end = self.size + sum(map(len, record))
            index, behind = self._index.describe_chunk(self.size, end, chunk.size, chunk.messages)
            self._file.append([*record, *behind])
            self._index.add_chunk(index, chunk.messages)
            self._chunk = _Chunk()
        return self.size

    def sync(self) -> None:
        """Wait until everything flushed is on the drive, so that a power cut does not lose it."""
        os.fdatasync(self._file.fd)

    def close(self) -> None:
        """Write what is left, the index and metadata.yaml; again is nothing.

        Raises:
            BlackBoxError: there is no room; the file is whole up to its last chunk, and `recover` finishes it.
        """
        if self._file.fd < 0:
            return
        try:
            self.flush()
            _finish(self._file, self._index)
        finally:
            self._file.close()

    def __enter__(self) -> BlackBox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def recover(path: Path) -> bool:
    """Finish the file of a recorder that was killed: cut off what is torn, write the index and metadata.yaml.

    Args:
        path: the MCAP file, or its bag's folder.

    Returns:
        Whether there was anything to do.

    Raises:
        BlackBoxError: it is being written, was not written by this package, or the disk is full.
        BagError: it is no MCAP file.
    """
    if path.is_dir():
        return max(map(recover, sorted(path.glob("*.mcap"))), default=False)
    if (path.parent / "metadata.yaml").exists():
        return False
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        index, end, behind = _found(path)
        file = _Tail(path, fd, end)
        os.ftruncate(fd, end)
        file.append(behind)
        _finish(file, index)
    except BlockingIOError:
        raise BlackBoxError(f"{path} is still being written; stop its recorder first") from None
    finally:
        os.close(fd)
    return True


def _found(path: Path) -> tuple[McapIndex, int, list[bytes]]:
    """The index of a file without one, where its last whole chunk ends, and the message indices to put there."""
    from mcap.data_stream import ReadDataStream
    from mcap.records import Channel, Header, Metadata, MetadataIndex, Schema

    index, end, behind = McapIndex(), len(MAGIC), list[bytes]()
    for opcode, start, body in McapFile(path).records():
        stream, stop = ReadDataStream(BytesIO(body)), start + 9 + len(body)
        if opcode == HEADER:
            if not Header.read(stream).library.startswith(NOTES):
                raise BlackBoxError(f"{path} is of another recorder: use `ros2 bag reindex` or `mcap recover`")
            end = stop
        elif opcode == METADATA and (about := Metadata.read(stream)).name == NOTES:
            index.facts, end = about.metadata, stop
            index.metadata.append(MetadataIndex(start, stop - start, NOTES))
        elif opcode in (METADATA, DATA_END):
            break
        elif opcode == SCHEMA:
            schema = Schema.read(stream)
            index.schemas[schema.id], end, behind = schema, stop, []
        elif opcode == CHANNEL:
            channel = Channel.read(stream)
            index.channels[channel.id], end, behind = channel, stop, []
        elif opcode == CHUNK and (content := chunk_content(body)) is not None:
            messages: MessageIndex = {}
            for inner, at, payload in records_of_chunk(content):
                if inner == MESSAGE:
                    number, _, received = struct.unpack_from("<HIQ", payload)
                    messages.setdefault(number, []).append((received, at))
            described, behind = index.describe_chunk(start, stop, len(content), messages)
            index.add_chunk(described, messages)
            end = stop
    return index, end, behind


def _finish(file: _Tail, index: McapIndex) -> None:
    from mcap.records import Metadata, MetadataIndex

    text = index.information(file.path.name)
    about = encoded(Metadata("rosbag2", {"serialized_metadata": text}))
    index.metadata.append(MetadataIndex(file.size, len(about), "rosbag2"))
    file.append([about, index.ending(file.size + len(about))])
    try:
        os.fdatasync(file.fd)
        write_metadata(file.path.parent, text)
    except OSError as error:
        raise _explained(file.path, error) from error


class _Chunk:
    """What becomes the next chunk: small records in one piece, large messages as they are."""

    def __init__(self) -> None:
        self.messages: MessageIndex = {}
        self.size = 0
        self._pieces: list[Bytes] = []
        self._checksum = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self._checksum = zlib.crc32(data, self._checksum)
        if len(data) >= _LARGE:
            self._pieces.append(data)
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += data
        else:
            self._pieces.append(bytearray(data))

    def record(self) -> list[Bytes]:
        times = [time for found in self.messages.values() for time, _ in found]
        length = _CHUNK.size - 9 + self.size
        head = _CHUNK.pack(CHUNK, length, min(times), max(times), self.size, self._checksum, 0, self.size)
        return [head, *self._pieces]


class _Tail:
    """The end of the file: what is appended is there as a whole, or not at all."""

    def __init__(self, path: Path, fd: int, size: int, pwritev: PWritev = os.pwritev) -> None:
        self.path, self.fd, self.size, self._pwritev = path, fd, size, pwritev

    def append(self, parts: Sequence[Bytes]) -> None:
        left = [memoryview(part) for part in parts]
        end = self.size
        try:
            while left:
                written = self._pwritev(self.fd, left, end)
                end += written
                while left and written >= len(left[0]):
                    written -= len(left.pop(0))
                if left:
                    left[0] = left[0][written:]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self.fd, self.size)
            raise _explained(self.path, error) from error
        self.size = end

    def close(self) -> None:
        os.close(self.fd)
        self.fd = -1


def _explained(path: Path, error: OSError) -> BlackBoxError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "the disk (or the quota) is full: free some space; what was recorded until now is kept"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "choose a folder that this user may write"
    else:
        advice = "look at the drive (`dmesg`); what was recorded until now is kept"
    return BlackBoxError(f"{path}: recording failed: {error.strerror or error}: {advice}")
