"""Reads what was recorded: rosbag2 folders and their files, finished, being written, or left by a killed recorder.

    bag = Bag("runs/deploy/bag")
    for recorded in bag.read():
        message = bag.decode(recorded)

MCAP is read from front to back, in the order in which messages came, without its index: so what is read while it is
being written, and afterwards, is the same. SQLite and compressed bags are read by `rosbags`. Types are those that the
bag itself defines, so robots with message packages of their own need nothing installed.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from robot_rl.hardware.recording.mcap_index import MAGIC
from robot_rl.hardware.ros2 import messages

if TYPE_CHECKING:
    from mcap.records import Channel, Schema

HEADER, SCHEMA, CHANNEL, MESSAGE, CHUNK, METADATA, DATA_END = 0x01, 0x03, 0x04, 0x05, 0x06, 0x0C, 0x0F

NOTES = "robot_rl"
"""Name of the metadata record in which this package's recorder notes what it knows about a run."""

_RECORD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_log = logging.getLogger(__name__)


class BagError(RuntimeError):
    """The bag cannot be read; the message says what was expected and what to do."""


class Recorded(NamedTuple):
    """One message: resolved topic, type (`pkg/msg/Name`), when it was received [ns], and its CDR with header."""

    topic: str
    message_type: str
    received: int
    cdr: bytes | memoryview


class Definition(NamedTuple):
    """How a type is defined in the bag: `ros2msg`, `ros2idl` or, when unknown, empty."""

    encoding: str
    text: str


class Bag:
    """A rosbag2 folder, or one `.mcap` or `.db3` file.

    Attributes:
        path: as given.
        definitions: by type name, as far as the bag was read.
        damage: what could not be read so far, a line each.

    Raises:
        BagError: there is no bag.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.definitions: dict[str, Definition] = {}
        self.damage: list[str] = []
        self._decoders: dict[str, Any] = {}
        files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.mcap"), key=_number)
        self._files = [McapFile(file, self.definitions, self.damage) for file in files if file.suffix == ".mcap"]
        if not (self._files or self.path.suffix == ".db3" or any(self.path.glob("*.db3*") or self.path.glob("*.zstd"))):
            raise BagError(f"{self.path}: expected a rosbag2 folder, an .mcap or a .db3 file")

    @property
    def facts(self) -> dict[str, str]:
        """What this package noted about the run when it wrote the bag; empty for bags of other recorders."""
        from mcap.data_stream import ReadDataStream
        from mcap.records import Metadata

        for file in self._files[:1]:
            for opcode, _, content in islice(McapFile(file.path).records(), 2):
                if opcode == METADATA and (about := Metadata.read(ReadDataStream(BytesIO(content)))).name == NOTES:
                    facts: dict[str, str] = about.metadata
                    return facts
        return self._custom_data()

    def read(self, stop: int | None = None) -> Iterator[Recorded]:
        """Messages from where the last call stopped, in the order of recording.

        Args:
            stop: byte of a growing MCAP file up to which it is read, the end of a record; by default all.
        """
        if not self._files:
            return self._read_by_rosbags()
        return (recorded for file in self._files for recorded in file.read(stop))

    def decode(self, recorded: Recorded) -> Any:
        """The message as a dataclass with the fields of its definition in the bag.

        Raises:
            BagError: neither the bag nor ROS 2 Jazzy defines the type, or the bytes are not of it.
        """
        name = recorded.message_type
        decode = self._decoders.get(name)
        if decode is None:
            decode = self._decoders[name] = _decoder(name, self.definitions.get(name, Definition("", "")))
        try:
            return decode(recorded.cdr, name)
        except Exception as error:
            raise BagError(f"{self.path}: a message of {recorded.topic} is no {name}: {error}") from error

    def _custom_data(self) -> dict[str, str]:
        file = (self.path if self.path.is_dir() else self.path.parent) / "metadata.yaml"
        try:
            about = yaml.safe_load(file.read_text())["rosbag2_bagfile_information"].get("custom_data")
        except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
            return {}
        return about if isinstance(about, dict) and "run" in about else {}

    def _read_by_rosbags(self) -> Iterator[Recorded]:
        from sqlite3 import DatabaseError

        from rosbags.interfaces import MessageDefinitionFormat
        from rosbags.rosbag2 import Reader, ReaderError

        encodings = {MessageDefinitionFormat.MSG: "ros2msg", MessageDefinitionFormat.IDL: "ros2idl"}
        try:
            with Reader(self.path) as reader:
                for connection in reader.connections:
                    encoding = encodings.get(connection.msgdef.format, "")
                    self.definitions.setdefault(connection.msgtype, Definition(encoding, connection.msgdef.data))
                try:
                    for connection, received, cdr in reader.messages():
                        yield Recorded(connection.topic, connection.msgtype, received, cdr)
                except (DatabaseError, ReaderError) as error:
                    self.damage.append(f"{self.path.name} cannot be read further: {error}")
                    _log.warning("%s", self.damage[-1])
        except (DatabaseError, ReaderError, FileNotFoundError) as error:
            files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.db3"), key=_number)
            if not files:
                raise BagError(f"{self.path}: {error}") from error
            _log.warning("%s; reading what is whole", error)
            yield from self._salvaged(files)

    def _salvaged(self, files: Sequence[Path]) -> Iterator[Recorded]:
        from sqlite3 import DatabaseError

        from robot_rl.hardware.recording.sqlite_salvage import salvage

        for file in files:
            try:
                for found in salvage(file, self.damage):
                    yield Recorded(*found)
            except DatabaseError as error:
                raise BagError(f"{file}: {error}") from error


class McapFile:
    """One MCAP file, read record by record; reading goes on where it stopped, also while the file grows.

    Args:
        definitions: where types are noted.
        damage: where chunks are noted that cannot be read.
    """

    def __init__(
        self, path: Path, definitions: dict[str, Definition] | None = None, damage: list[str] | None = None
    ) -> None:
        self.path = path
        self._definitions = definitions if definitions is not None else {}
        self._damage = damage if damage is not None else []
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._offset = len(MAGIC)
        self._file = path.open("rb", buffering=0)
        if self._file.read(len(MAGIC)) != MAGIC:
            raise BagError(f"{path} is no MCAP file: it does not begin with MCAP's magic bytes")

    def records(self, stop: int | None = None) -> Iterator[tuple[int, int, bytes]]:
        """Opcode, position and content of each whole record, those in chunks apart. A torn last one is left out."""
        fd = self._file.fileno()
        stop = os.fstat(fd).st_size if stop is None else stop
        while len(head := os.pread(fd, _RECORD.size, self._offset)) == _RECORD.size:
            opcode, length = _RECORD.unpack(head)
            end = self._offset + _RECORD.size + length
            if end > stop or not opcode:
                return
            start, self._offset = self._offset, end
            yield opcode, start, os.pread(fd, length, start + _RECORD.size)
            if opcode == DATA_END:
                self._offset = start
                return

    def read(self, stop: int | None = None) -> Iterator[Recorded]:
        """Messages up to the byte `stop`; see `Bag.read`."""
        for opcode, start, content in self.records(stop):
            if opcode == CHUNK:
                inside = chunk_content(content)
                if inside is None:
                    self._damage.append(f"the chunk at byte {start} of {self.path.name} is damaged")
                    _log.warning("%s and left out", self._damage[-1])
                for inner, _, payload in records_of_chunk(inside or b""):
                    yield from self._note(inner, payload)
            else:
                yield from self._note(opcode, memoryview(content))

    def _note(self, opcode: int, content: memoryview) -> Iterator[Recorded]:
        from mcap.data_stream import ReadDataStream
        from mcap.records import Channel, Schema

        if opcode == MESSAGE:
            number, _, received, _ = _MESSAGE.unpack_from(content)
            channel = self._channels.get(number)
            if channel is None:
                raise BagError(f"{self.path}: a message of channel {number}, which nothing describes: it is damaged")
            yield Recorded(channel.topic, self._schemas[channel.schema_id].name, received, content[_MESSAGE.size :])
        elif opcode == SCHEMA:
            schema = Schema.read(ReadDataStream(BytesIO(content)))
            self._schemas[schema.id] = schema
            self._definitions.setdefault(schema.name, Definition(schema.encoding, schema.data.decode()))
        elif opcode == CHANNEL:
            found = Channel.read(ReadDataStream(BytesIO(content)))
            if found.message_encoding != "cdr":
                raise BagError(f"{self.path}: {found.topic} is encoded as {found.message_encoding!r}; expected 'cdr'")
            self._channels[found.id] = found


def records_of_chunk(content: bytes) -> Iterator[tuple[int, int, memoryview]]:
    """Opcode, position and content of each record in an uncompressed chunk."""
    view, offset = memoryview(content), 0
    while offset < len(view):
        opcode, length = _RECORD.unpack_from(view, offset)
        start = offset + _RECORD.size
        yield opcode, offset, view[start : start + length]
        offset = start + length


def chunk_content(record: bytes) -> bytes | None:
    """The records within a chunk, decompressed; None when they do not have the chunk's checksum."""
    from mcap.data_stream import ReadDataStream
    from mcap.records import Chunk

    chunk = Chunk.read(ReadDataStream(BytesIO(record)))
    try:
        content = _decompress(chunk.compression, chunk.data, chunk.uncompressed_size)
    except (RuntimeError, OSError, ValueError):
        return None
    intact = len(content) == chunk.uncompressed_size and chunk.uncompressed_crc in (0, zlib.crc32(content))
    return content if intact else None


def _decompress(compression: str, data: bytes, size: int) -> bytes:
    if compression == "zstd":
        import zstandard

        data = zstandard.decompress(data, size)
    elif compression == "lz4":
        import lz4.frame  # type: ignore[import-untyped]

        data = lz4.frame.decompress(data)
    elif compression:
        raise BagError(f"chunks are compressed by {compression!r}; expected lz4, zstd or none")
    return data


def _decoder(name: str, definition: Definition) -> Any:
    """A function of CDR and type name, from the definition in the bag, or else from the types known here."""
    from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

    known = messages.typestore()
    if name in known.types and definition.text in ("", known.generate_msgdef(name, ros_version=2)[0]):
        return known.deserialize_cdr
    store = get_typestore(Stores.EMPTY)
    if definition.encoding == "ros2msg":
        store.register(get_types_from_msg(definition.text, name))
    elif definition.encoding == "ros2idl":
        store.register(get_types_from_idl(definition.text))
    else:
        raise BagError(f"the bag does not define {name}, and it is no type that ROS 2 Jazzy or this package knows")
    return store.deserialize_cdr


def _number(file: Path) -> tuple[str, int]:
    """Sort `run_2.mcap` before `run_10.mcap`."""
    name, _, number = file.stem.rpartition("_")
    return (name, int(number)) if number.isdigit() else (file.stem, 0)
