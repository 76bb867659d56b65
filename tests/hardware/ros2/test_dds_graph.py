"""The DDS adapter between processes on loopback: unlike quality, late joiners, killed peers, signals, native looks."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("cyclonedds")

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsParticipant, BuiltinTopicDcpsPublication
from cyclonedds.core import Qos as DdsQos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.dds_graph import DdsGraph
from robot_rl.hardware.ros2.dds_participant import user_value
from robot_rl.hardware.ros2.dds_types import dds_name, idl_type
from robot_rl.hardware.ros2.qos import LATCHED, RELIABLE, SENSOR, Qos

JOINTS, IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"
PEER = Path(__file__).with_name("graph_peer.py")


@pytest.fixture
def peers(domain):
    """Start `graph_peer.py` with arguments; every process is gone afterwards."""
    processes = []

    def start(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, str(PEER), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "ROBOT_RL_ROS": "dds", **environment},
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def graph(domain):
    with DdsGraph("test") as opened:
        yield opened


class Listener:
    """Numbers that come on a topic."""

    def __init__(self, graph, topic, qos=RELIABLE):
        self.numbers = []
        self.subscription = graph.subscribe(topic, JOINTS, self._on_message, qos)

    def _on_message(self, received):
        self.numbers.append(received.message.position[0])


def test_quality_of_service_matches_as_in_ros(peers, graph):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    graph.log.addHandler(handler)
    peers("talker")
    listeners = {
        "reliable hears reliable": Listener(graph, "reliable"),
        "sensor hears reliable": Listener(graph, "reliable", SENSOR),
        "sensor hears best effort": Listener(graph, "best_effort", SENSOR),
        "volatile hears latched, but not its past": Listener(graph, "latched"),
        "latched hears latched": Listener(graph, "latched", LATCHED),
        "reliable does not hear best effort": Listener(graph, "best_effort"),
        "latched does not hear volatile": Listener(graph, "reliable", LATCHED),
        "no deadline is not a deadline": Listener(graph, "reliable", Qos(deadline=0.1)),
    }
    hearing = ("reliable hears reliable", "sensor hears reliable", "sensor hears best effort", "latched hears latched")
    assert graph.spin(lambda: all(listeners[name].numbers for name in hearing), 20.0)
    graph.spin(timeout=0.3)
    assert {name for name, listener in listeners.items() if listener.numbers} == set(hearing)
    assert listeners["latched hears latched"].numbers == [42.0]
    heard = listeners["reliable hears reliable"].numbers
    assert heard == list(np.arange(heard[0], heard[0] + len(heard)))
    assert graph.spin(lambda: len(lines) >= 3, 10.0), "a mismatch must not be silent"
    assert "/best_effort: a peer's reliability does not match ours" in "".join(lines)


def test_who_comes_late_gets_the_kept_depth(peers, graph):
    peers("talker")
    first = Listener(graph, "deep", Qos(durability="transient_local", depth=100))
    assert graph.spin(lambda: len(first.numbers) == 20, 20.0)
    late = Listener(graph, "deep", Qos(durability="transient_local", depth=100))
    assert graph.spin(lambda: len(late.numbers) == 20, 20.0)
    assert late.numbers == list(range(20))


def test_three_processes_with_remappings(peers, graph):
    peers("echo", "--ros-args", "-r", "ping:=/a", "-r", "pong:=/b", "-r", "__node:=first")
    peers("echo", "--ros-args", "-r", "ping:=/b", "-r", "/right/pong:=c", "-r", "__ns:=/right")
    publisher, listener = graph.publisher("/a", JOINTS), Listener(graph, "/right/c")
    message = messages.make(JOINTS, position=[7.0])
    graph.timer(0.05, lambda: publisher.publish(message))
    assert graph.spin(lambda: bool(listener.numbers), 20.0)
    nodes = {endpoint.node for endpoint in graph.endpoints()}
    assert {"/test", "/first", "/right/peer"} <= nodes


def test_domains_do_not_hear_each_other(peers, graph, domain, new_ros_domain):
    peers("talker", ROS_DOMAIN_ID=str(new_ros_domain()))
    stranger = Listener(graph, "reliable", SENSOR)
    graph.spin(timeout=1.0)
    assert stranger.numbers == []
    assert {endpoint.node for endpoint in graph.endpoints()} == {"/test"}


@pytest.mark.alone
def test_a_killed_peer_is_missed_and_its_return_is_noticed(peers, graph):
    process = peers("talker")
    listener = Listener(graph, "reliable")
    assert graph.spin(lambda: bool(listener.numbers), 20.0)
    assert listener.subscription.matched == 1
    process.send_signal(signal.SIGKILL)
    assert graph.spin(lambda: listener.subscription.matched == 0, 30.0)
    count = len(listener.numbers)
    peers("talker")
    assert graph.spin(lambda: len(listener.numbers) > count, 20.0)


@pytest.mark.alone
def test_a_reader_that_was_killed_or_hangs_does_not_block_a_writer(peers, graph):
    """640×480×3 images at 30 Hz to a reader that is stopped: the writer goes on."""
    process = peers("echo", "--ros-args", "-r", "ping:=joints")
    joints, image = graph.publisher("joints", JOINTS), messages.make(IMAGE, data=bytes(640 * 480 * 3))
    stuck = subprocess.Popen([sys.executable, "-c", _READ_IMAGES], stdout=subprocess.PIPE, text=True)
    try:
        publisher = graph.publisher("image", IMAGE)
        assert graph.spin(lambda: publisher.matched and joints.matched, 20.0)
        stuck.send_signal(signal.SIGSTOP)
        process.kill()
        waited = 0.0
        for _ in range(120):
            begin = time.monotonic()
            publisher.publish(image)
            joints.publish(messages.make(JOINTS))
            waited += time.monotonic() - begin
            graph.spin(timeout=1 / 30)
    finally:
        stuck.kill()
        stuck.wait()
        stuck.stdout.close()
    # Writers that wait for their readers wait for ever, or at each image for as long as they may.
    assert waited < 3.0


_READ_IMAGES = """
from robot_rl.hardware.ros2.dds_graph import DdsGraph
with DdsGraph("stuck") as graph:
    graph.subscribe("image", "sensor_msgs/msg/Image", lambda received: None)
    graph.spin()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_node_cleanly(peers, graph, number):
    process = peers("talker")
    listener = Listener(graph, "reliable")
    assert graph.spin(lambda: bool(listener.numbers), 20.0)
    process.send_signal(number)
    process.send_signal(number)  # as launchers do, which pass on what the terminal has sent already
    assert process.wait(10.0) == 0
    assert process.stdout.read() == "closed\n"
    assert graph.spin(lambda: listener.subscription.matched == 0, 2.0), "it left without a word"


def test_nothing_is_bound_beyond_loopback(peers, graph):
    process = peers("talker")
    own = psutil.Process().net_connections("inet")
    other = psutil.Process(process.pid).net_connections("inet")
    assert own
    assert other
    assert all(connection.type == socket.SOCK_DGRAM for connection in other), "a node listens on no TCP port"
    devices = set()
    for connection in own:
        if connection.laddr.ip in ("0.0.0.0", "::"):  # Cyclone binds so; the kernel holds it to the device
            with socket.socket(fileno=os.dup(connection.fd)) as copy:
                devices.add(copy.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0"))
        else:
            assert connection.laddr.ip == "127.0.0.1"
    assert devices == {b"lo"}


def test_it_looks_like_a_native_node(peers, domain):
    """Read by plain cyclonedds: user data, type hashes and ros_discovery_info, as rmw_cyclonedds expects them."""
    with DdsGraph("watcher"):  # joins the domain with the configuration of loopback
        participant = DomainParticipant(domain)
        peers("talker")
        reader = BuiltinDataReader(participant, BuiltinTopicDcpsPublication)
        sample = _eventually(lambda: [s for s in reader.read(500) if s.topic_name == "rt/reliable"])[0]
        assert sample.type_name == "sensor_msgs::msg::dds_::JointState_"
        known = "RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e"  # of ROS 2 Jazzy
        assert user_value(sample.qos, "typehash") == known
        participants = BuiltinDataReader(participant, BuiltinTopicDcpsParticipant)
        enclaves = {user_value(s.qos, "enclave") for s in participants.read(100) if s.key == sample.participant_key}
        assert enclaves == {"/"}
        discovery = _reader(
            participant, "ros_discovery_info", "rmw_dds_common/msg/ParticipantEntitiesInfo", latched=True
        )
        info = _eventually(lambda: [i for i in discovery() if i.gid.data.tobytes() == sample.participant_key.bytes])[-1]
        (node,) = info.node_entities_info_seq
        assert (node.node_namespace, node.node_name) == ("/", "peer")
        assert sample.key.bytes in [gid.data.tobytes() for gid in node.writer_gid_seq]


def test_services_and_parameters_for_a_raw_client(peers, domain):
    """The framing of rmw_cyclonedds by hand: client id and sequence number before the body."""
    with DdsGraph("watcher"):
        participant = DomainParticipant(domain)
        peers("server", "--ros-args", "-p", "gain:=2.5")
        call = _RawClient(participant, "/answer", "std_srvs/srv/SetBool")
        response = call(messages.make("std_srvs/srv/SetBool_Request", data=True))
        assert (response.success, response.message) == (True, "2.5")

        kind = "rcl_interfaces/srv"
        names = _RawClient(participant, "/peer/list_parameters", f"{kind}/ListParameters")(
            messages.make(f"{kind}/ListParameters_Request")
        )
        assert names.result.names == ["gain", "use_sim_time"]
        values = _RawClient(participant, "/peer/get_parameters", f"{kind}/GetParameters")
        got = values(messages.make(f"{kind}/GetParameters_Request", names=["gain"]))
        assert (got.values[0].type, got.values[0].double_value) == (3, 2.5)
        setter = _RawClient(participant, "/peer/set_parameters", f"{kind}/SetParameters")
        new = messages.make("rcl_interfaces/msg/ParameterValue", type=3, double_value=4.0)
        wrong = messages.make("rcl_interfaces/msg/ParameterValue", type=4, string_value="four")
        results = setter(
            messages.make(
                f"{kind}/SetParameters_Request",
                parameters=[messages.make("rcl_interfaces/msg/Parameter", name="gain", value=v) for v in (new, wrong)],
            )
        ).results
        assert [result.successful for result in results] == [True, False]
        assert "gain is a float" in results[1].reason
        assert call(messages.make("std_srvs/srv/SetBool_Request")).message == "4"
        described = _RawClient(participant, "/peer/describe_parameters", f"{kind}/DescribeParameters")(
            messages.make(f"{kind}/DescribeParameters_Request", names=["gain"])
        )
        assert described.descriptors[0].description == "what the answer says"


def test_a_raw_server_answers_our_client(graph, domain):
    participant = DomainParticipant(domain)
    requests = _reader(participant, "rq/homeRequest", "std_srvs/srv/Trigger_Request", "serviceid=1;", raw=True)
    respond = _writer(participant, "rr/homeReply", "std_srvs/srv/Trigger_Response", "serviceid=1;")
    answers = []
    client = graph.client("home", "std_srvs/srv/Trigger")
    assert graph.spin(lambda: client.ready, 10.0)
    client.call(messages.make("std_srvs/srv/Trigger_Request"), answers.append)
    header = _eventually(requests)[0][4:20]
    body = messages.encode(messages.make("std_srvs/srv/Trigger_Response", success=True))
    stranger = bytes(8) + header[8:]
    for identity in (stranger, header):  # responses to other clients pass by on the same topic
        respond(body[:4] + identity + body[4:])
    assert graph.spin(lambda: answers, 10.0)
    graph.spin(timeout=0.1)
    assert [answer.success for answer in answers] == [True]


def test_logs_and_parameter_events_are_published(graph):
    with DdsGraph("other") as other:
        logs, events = [], []
        other.subscribe("/rosout", "rcl_interfaces/msg/Log", logs.append, Qos(durability="transient_local", depth=100))
        other.subscribe("/parameter_events", "rcl_interfaces/msg/ParameterEvent", events.append)
        graph.log.warning("cannot %s", "grasp")
        assert other.spin(lambda: logs, 10.0)
        assert (logs[0].message.name, logs[0].message.msg, logs[0].message.level) == ("test", "cannot grasp", 30)
        graph.parameter("gain", 1.0, "").value = 2
        assert other.spin(lambda: any(event.message.changed_parameters for event in events), 10.0)
        (changed,) = events[-1].message.changed_parameters
        assert (events[-1].message.node, changed.name, changed.value.double_value) == ("/test", "gain", 2.0)


@pytest.mark.alone
def test_two_cameras_lose_nothing(peers, graph):
    numbers = {0: [], 1: []}

    def on_image(received, index):
        numbers[index].append(int(received.message.header.frame_id))

    for index in numbers:
        graph.subscribe(f"camera{index}", IMAGE, lambda received, index=index: on_image(received, index), Qos(depth=30))
    peers("camera")
    assert graph.spin(lambda: sum(map(len, numbers.values())) >= 240, 30.0)
    for came in numbers.values():
        assert came == list(range(came[0], came[0] + len(came)))


def _eventually(look, timeout=20.0):
    end = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.02)
    return found


class _Bytes(IdlStruct):
    """CDR as it is, for cyclonedds's own writers and readers."""

    def __init__(self, cdr):
        self.cdr = cdr

    def serialize(self, *args, **kwargs):
        return self.cdr

    @classmethod
    def deserialize(cls, data, *args, **kwargs):
        return cls(data)


def _qos(user_data, latched):
    policies = [Policy.Reliability.Reliable(10**9), Policy.History.KeepLast(100)]
    if latched:
        policies.append(Policy.Durability.TransientLocal)
    return DdsQos(*policies, Policy.Userdata(user_data.encode()))


def _reader(participant, topic, message_type, user_data="", latched=False, raw=False):
    entity = DataReader(participant, Topic(participant, topic, idl_type(message_type)), _qos(user_data, latched))
    entity.topic.data_type = _Bytes

    def take():
        cdrs = [sample.cdr for sample in entity.take(100) if sample.sample_info.valid_data]
        return cdrs if raw else [messages.decode(cdr, message_type) for cdr in cdrs]

    return take


def _writer(participant, topic, message_type, user_data=""):
    entity = DataWriter(participant, Topic(participant, topic, idl_type(message_type)), _qos(user_data, False))
    assert entity.topic.typename == dds_name(message_type)
    entity.data_type = _Bytes
    return lambda cdr: entity.write(_Bytes(cdr))


class _RawClient:
    """A client of a ROS 2 service made of plain DDS endpoints."""

    def __init__(self, participant, name, service_type):
        self._type, self._sequence = service_type, 0
        self._take = _reader(participant, f"rr{name}Reply", f"{service_type}_Response", "clientid=7;", raw=True)
        self._write = _writer(participant, f"rq{name}Request", f"{service_type}_Request", "clientid=7;")

    def __call__(self, request):
        self._sequence += 1
        header = (99).to_bytes(8, "little") + self._sequence.to_bytes(8, "little")
        body = messages.encode(request)
        end = time.monotonic() + 20.0
        while time.monotonic() < end:  # the first ones go out before the server is discovered
            self._write(body[:4] + header + body[4:])
            pause = time.monotonic() + 0.3
            while time.monotonic() < pause:
                for cdr in self._take():
                    if cdr[4:20] == header:
                        return messages.decode(cdr[:4] + cdr[20:], f"{self._type}_Response")
                time.sleep(0.01)
        raise AssertionError("no answer")


def test_threads_of_one_process_join_at_the_same_time(domain):
    code = """
import threading
from robot_rl.hardware.ros2.graph import open_graph
def join(number):
    with open_graph(f"node{number}") as graph:
        graph.publisher("picture", "sensor_msgs/msg/Image")
        graph.subscribe("picture", "sensor_msgs/msg/Image", lambda received: None)
        joined.append(number)
joined = []
threads = [threading.Thread(target=join, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(joined) == 4
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
