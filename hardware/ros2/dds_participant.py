"""A DDS participant that ROS 2 takes for one of its own: raw endpoints, user data, and the node's entry in the graph.

What rmw_cyclonedds puts on the wire, and so do we: topics `rt/<name>`, type hashes in the endpoints' user data (REP
2016), the enclave in the participant's, and the node's name with its endpoints on `ros_discovery_info`.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription
from cyclonedds.core import DDSException, GuardCondition, InstanceState, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.pub import Publisher as DdsPublisher
from cyclonedds.qos import Policy
from cyclonedds.qos import Qos as DdsQos
from cyclonedds.sub import DataReader, Subscriber
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.dds_configuration import DdsConfiguration, configuration
from robot_rl.hardware.ros2.dds_types import ANY, idl_type, ros_name, take, write
from robot_rl.hardware.ros2.graph import Endpoint, GraphError
from robot_rl.hardware.ros2.qos import Qos

DISCOVERY_TOPIC, DISCOVERY_TYPE = "ros_discovery_info", "rmw_dds_common/msg/ParticipantEntitiesInfo"
TAKE = 64
"""Samples taken from one reader at once."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""
_domains: dict[int, Domain] = {}
_making = threading.Lock()  # cyclonedds makes domains and types by one thread at a time


class Writer:
    """Writes the CDR of one topic."""

    def __init__(self, entity: Any) -> None:
        self.entity = entity

    def write(self, cdr: bytes) -> bool:
        """False if a reliable reader holds everything up, and the sample was not taken."""
        return write(self.entity, cdr)

    @property
    def matched(self) -> int:
        return len(self.entity.get_matched_subscriptions())


class Reader:
    """Hands the samples of one topic to `callback(cdr, sample_info)`."""

    def __init__(self, entity: Any, callback: Callable[[bytes, Any], None]) -> None:
        self.entity, self.callback = entity, callback
        self.condition = ReadCondition(entity, ANY)

    @property
    def matched(self) -> int:
        return len(self.entity.get_matched_publications())


class _Builtin:
    """The endpoints of one kind, kept up to date as they are discovered: to read all anew takes 0.2 ms for each."""

    def __init__(self, subscriber: Any, topic: Any, is_publisher: bool) -> None:
        self._reader = BuiltinDataReader(subscriber, topic)
        self._news = ReadCondition(self._reader, ViewState.Any | SampleState.NotRead | InstanceState.Any)
        self._is_publisher = is_publisher
        self._known: dict[bytes, Endpoint] = {}

    def endpoints(self) -> dict[bytes, Endpoint]:
        """Of ROS topics, by their key; their nodes are yet to be filled in."""
        for sample in self._reader.read(10_000, condition=self._news):
            key = sample.key.bytes
            if not sample.sample_info.valid_data or sample.sample_info.instance_state != InstanceState.Alive:
                self._known.pop(key, None)
            elif sample.topic_name.startswith("rt/"):
                name, message_type = sample.topic_name[2:], ros_name(sample.type_name)
                type_hash = user_value(sample.qos, "typehash")
                qos = _ros_qos(sample.qos)
                self._known[key] = Endpoint(name, message_type, "", qos, self._is_publisher, type_hash)
        return self._known

    def close(self) -> None:
        """Take no more."""
        self._news.__del__()
        self._reader.__del__()


class DdsParticipant:
    """One node on the graph. `wait` and `wake` may be called from two threads, everything else from one."""

    def __init__(self, namespace: str, name: str) -> None:
        self.configuration = configuration()
        self._builtin: list[_Builtin] = []
        self._node = (namespace, name)
        with _making:
            self._participant = _join(self.configuration)
        self._publisher, self._subscriber = DdsPublisher(self._participant), Subscriber(self._participant)
        self._topics: dict[str, Any] = {}
        self._readers: list[Reader] = []
        self._writers: list[Writer] = []
        self._waitset = WaitSet(self._participant)
        self._guard = GuardCondition(self._participant)
        self._waitset.attach(self._guard)
        self._nodes: dict[bytes, str] = {}
        self._closed = self._woken = False
        self.identities = 0
        latched = Qos(durability="transient_local", depth=1)
        self._announcements = self._write(DISCOVERY_TOPIC, DISCOVERY_TYPE, latched, "")
        everything = Qos(durability="transient_local", depth=0)
        self._discovery = self._listen(DISCOVERY_TOPIC, DISCOVERY_TYPE, everything, "", self._on_nodes)
        self._announce()

    @property
    def gid(self) -> bytes:
        gid: bytes = self._participant.guid.bytes
        return gid

    def writer(self, topic: str, message_type: str, qos: Qos, user_data: str = "", lifespan: float = 0.0) -> Writer:
        """`topic` with its prefix (`rt`, `rq`, `rr`); `user_data` stands before the type's hash."""
        writer = self._write(topic, message_type, qos, _user_data(message_type, user_data), lifespan)
        self._writers.append(writer)
        self._announce()
        return writer

    def reader(
        self, topic: str, message_type: str, qos: Qos, callback: Callable[[bytes, Any], None], user_data: str = ""
    ) -> Reader:
        reader = self._listen(topic, message_type, qos, _user_data(message_type, user_data), callback)
        self._readers.append(reader)
        self._announce()
        return reader

    def remove(self, endpoint: Reader | Writer) -> None:
        if self._closed:
            return
        if isinstance(endpoint, Reader) and endpoint in self._readers:
            self._readers.remove(endpoint)
            self._waitset.detach(endpoint.condition)
            endpoint.condition.__del__()
        elif isinstance(endpoint, Writer) and endpoint in self._writers:
            self._writers.remove(endpoint)
        else:
            return
        endpoint.entity.__del__()
        self._announce()

    def wait(self, seconds: float) -> list[tuple[int, Reader, bytes, Any]]:
        """Block until something came, `wake` or the end of the time; what came, in the order in which it was sent.

        Readers are taken from in the order of their making. A sample that was sent before one which is in the result
        is in it too, if its reader was made later: so whoever makes the reader of /clock first never sees a time
        before the observations that were sent ahead of it.
        """
        self._waitset.wait(int(seconds * 1e9))
        if self._woken:
            self._woken = False
            self._guard.set(False)
        came = []
        for reader in (*self._readers, self._discovery):
            for cdr, info in take(reader.entity, TAKE):
                if info.valid_data:
                    came.append((info.source_timestamp, reader, cdr, info))
        came.sort(key=itemgetter(0))
        return came

    def wake(self) -> None:
        """From any thread: end the `wait` that runs, or the next one."""
        if not self._closed:
            self._guard.set(True)
            self._woken = True

    def endpoints(self) -> list[Endpoint]:
        """Every ROS topic's endpoints that were discovered, ourselves included, services left out."""
        for cdr, info in take(self._discovery.entity, 10_000):
            if info.valid_data:
                self._on_nodes(cdr, info)
        if not self._builtin:
            self._builtin = [
                _Builtin(self._subscriber, BuiltinTopicDcpsPublication, True),
                _Builtin(self._subscriber, BuiltinTopicDcpsSubscription, False),
            ]
        found = [
            replace(endpoint, node=self._nodes.get(key, ""))
            for builtin in self._builtin
            for key, endpoint in builtin.endpoints().items()
        ]
        return sorted(found, key=lambda endpoint: (endpoint.topic, not endpoint.is_publisher, endpoint.node))

    def refused(self) -> list[tuple[str, str]]:
        """(topic, policy) of the endpoints with which ours did not match since the last call."""
        looks = [(reader.entity, reader.entity.get_requested_incompatible_qos_status) for reader in self._readers]
        looks += [(writer.entity, writer.entity.get_offered_incompatible_qos_status) for writer in self._writers]
        found = ((entity.topic.name, look()) for entity, look in looks)
        return [
            (name.removeprefix("rt"), POLICIES.get(status.last_policy_id, f"policy {status.last_policy_id}"))
            for name, status in found
            if status.total_count_change > 0
        ]

    def close(self) -> None:
        """Leave the graph; others see it at once."""
        if not self._closed:
            self._closed = True
            for builtin in self._builtin:
                builtin.close()
            self._waitset.__del__()
            self._participant.__del__()

    def _write(self, topic: str, message_type: str, qos: Qos, user_data: str, lifespan: float = 0.0) -> Writer:
        policies: list[Any] = [Policy.WriterDataLifecycle(autodispose=False)]
        if lifespan:
            policies.append(Policy.Lifespan(duration(seconds=lifespan)))
        entity = DataWriter(self._publisher, self._topic(topic, message_type), _dds_qos(qos, user_data, *policies))
        return Writer(entity)

    def _listen(
        self, topic: str, message_type: str, qos: Qos, user_data: str, callback: Callable[[bytes, Any], None]
    ) -> Reader:
        entity = DataReader(self._subscriber, self._topic(topic, message_type), _dds_qos(qos, user_data))
        reader = Reader(entity, callback)
        self._waitset.attach(reader.condition)
        return reader

    def _topic(self, name: str, message_type: str) -> Any:
        with _making:
            kind = idl_type(message_type)
            if name not in self._topics:
                self._topics[name] = Topic(self._participant, name, kind)
        topic = self._topics[name]
        if topic.data_type is not kind:
            raise GraphError(f"{name} is a {ros_name(topic.typename)} in this node already, not a {message_type}")
        return topic

    def _announce(self) -> None:
        def gids(endpoints: Any) -> list[Any]:
            return [_gid(endpoint.entity.guid.bytes) for endpoint in endpoints]

        namespace, name = self._node
        node = messages.make(
            "rmw_dds_common/msg/NodeEntitiesInfo",
            node_namespace=namespace,
            node_name=name,
            reader_gid_seq=gids(self._readers),
            writer_gid_seq=gids(self._writers),
        )
        info = messages.make(DISCOVERY_TYPE, gid=_gid(self.gid), node_entities_info_seq=[node])
        self._announcements.write(messages.encode(info))

    def _on_nodes(self, cdr: bytes, info: Any) -> None:
        for node in messages.decode(cdr, DISCOVERY_TYPE).node_entities_info_seq:
            name = f"{node.node_namespace.rstrip('/')}/{node.node_name}"
            for gid in (*node.reader_gid_seq, *node.writer_gid_seq):
                self._nodes[gid.data.tobytes()] = name


POLICIES = {2: "durability", 4: "deadline", 6: "ownership", 8: "liveliness", 11: "reliability"}


def user_value(qos: Any, key: str) -> str:
    """The value of `key` in user data of the form `key=value;key=value;`, or an empty string."""
    data = qos[Policy.Userdata].data if Policy.Userdata in qos else b""
    pairs = (pair.split("=", 1) for pair in data.decode("ascii", "replace").split(";") if "=" in pair)
    return next((value for name, value in pairs if name == key), "")


def _user_data(message_type: str, first: str) -> str:
    return f"{first}typehash={messages.type_hash(message_type)};"


def _gid(data: bytes) -> Any:
    return messages.make("rmw_dds_common/msg/Gid", data=data)


def _dds_qos(qos: Qos, user_data: str, *more: Any) -> Any:
    history = Policy.History.KeepLast(qos.depth) if qos.depth else Policy.History.KeepAll
    policies = [history, *more]
    if qos.reliability == "reliable":
        # Not infinite as ROS 2's: a control loop must not stand still behind a reader that hangs.
        policies.append(Policy.Reliability.Reliable(duration(milliseconds=10)))
    else:
        policies.append(Policy.Reliability.BestEffort)
    if qos.durability == "transient_local":
        policies += [Policy.Durability.TransientLocal, Policy.DurabilityService(0, history, -1, -1, -1)]
    if qos.deadline is not None:
        policies.append(Policy.Deadline(duration(seconds=qos.deadline)))
    if user_data:
        policies.append(Policy.Userdata(user_data.encode()))
    return DdsQos(*policies)


def _ros_qos(qos: Any) -> Qos:
    found = {policy.__scope__: policy for policy in qos}
    deadline = found["Deadline"].deadline * 1e-9 if "Deadline" in found else 0.0
    return Qos(
        reliability="reliable" if isinstance(found.get("Reliability"), Policy.Reliability.Reliable) else "best_effort",
        durability="volatile" if found.get("Durability") in (None, Policy.Durability.Volatile) else "transient_local",
        depth=getattr(found.get("History"), "depth", 0),
        deadline=deadline if 0 < deadline < 1e9 else None,
    )


def _join(settings: DdsConfiguration) -> Any:
    _keep_memory()
    before = _sockets()
    try:
        if settings.domain_id not in _domains:  # one configuration per domain and process
            _domains[settings.domain_id] = Domain(settings.domain_id, settings.xml)
        participant = DomainParticipant(settings.domain_id, DdsQos(Policy.Userdata(b"enclave=/;")))
    except DDSException as error:
        raise GraphError(
            f"cannot join ROS domain {settings.domain_id} by DDS: {error}. Check CYCLONEDDS_URI"
        ) from error
    if settings.on_loopback:
        for descriptor in _sockets() - before:
            _bind_to_loopback(descriptor)
    return participant


def _keep_memory() -> None:
    """Let glibc keep what it frees: an image is some buffers of 1 MB, and new pages cost more than its transport."""
    with suppress(OSError, AttributeError):  # not glibc
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(option, 32 * 2**20)


def _sockets() -> set[int]:
    folder, found = Path("/proc/self/fd"), set()
    for entry in folder.iterdir() if folder.exists() else ():
        with suppress(OSError):  # the descriptor that lists the folder is gone already
            if str(entry.readlink()).startswith("socket:"):
                found.add(int(entry.name))
    return found


def _bind_to_loopback(descriptor: int) -> None:
    """Cyclone binds to every address even where its only interface is loopback: let the kernel refuse the others."""
    with socket.socket(fileno=os.dup(descriptor)) as own, suppress(OSError):  # before Linux 5.7 only root may
        own.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
