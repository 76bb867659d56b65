"""What the adapter takes for granted inside cyclonedds-python: fails when a new version of the wheel changes it."""

import inspect

import pytest

pytest.importorskip("cyclonedds")

from cyclonedds import _clayer
from cyclonedds.core import Entity, ReadCondition, WaitSet
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import types
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.dds_graph import DdsGraph
from robot_rl.hardware.ros2.dds_types import ANY, dds_name, idl_type, ros_name, take, write
from robot_rl.hardware.ros2.messages import MessageError


@pytest.fixture
def participant(domain):
    with DdsGraph("test"):  # joins the domain with the configuration of loopback
        yield DomainParticipant(domain)


def test_bytes_pass_as_they_are(participant):
    kind = "sensor_msgs/msg/JointState"
    topic = Topic(participant, "rt/state", idl_type(kind))
    reader, writer = DataReader(participant, topic), DataWriter(participant, topic)
    cdr = messages.encode(messages.make(kind, name=["a"], position=[1.0]))
    assert write(writer, cdr)
    waitset, condition = WaitSet(participant), ReadCondition(reader, ANY)
    waitset.attach(condition)
    assert waitset.wait(10**9) == 1
    ((came, info),) = take(reader, 10)
    assert came == cdr
    assert info.valid_data
    assert info.source_timestamp > 10**18
    assert info.publication_handle
    assert reader.get_matched_publication_data(info.publication_handle).topic_name == "rt/state"
    assert take(reader, 10) == []
    assert waitset.wait(0) == 0
    with pytest.raises(MessageError, match="are no sensor_msgs::msg::dds_::JointState_"):
        write(writer, b"\0\1\0\0" + b"\xff" * 20)


def test_the_parts_that_are_used_exist():
    assert all(hasattr(_clayer, name) for name in ("ddspy_take", "ddspy_write"))
    assert "_ref" in inspect.getsource(Entity)
    assert hasattr(Entity, "__del__"), "closing an endpoint calls it"


def test_type_information_is_that_of_the_message():
    struct = idl_type("sensor_msgs/msg/JointState")
    fields = {name: struct.__idl_annotations__.get(name) for name in struct.__annotations__}
    assert list(fields) == ["header", "name", "position", "velocity", "effort"]
    assert struct.__annotations__["position"] == types.sequence[types.float64]
    assert idl_type("std_srvs/srv/SetBool_Request").__annotations__.keys() >= {"client_guid", "sequence_number", "data"}


def test_every_type_makes_a_topic(participant):
    for index, name in enumerate(messages.typestore().types):
        assert Topic(participant, f"rt/t{index}", idl_type(name)).typename == dds_name(name)


@pytest.mark.parametrize("name", ["std_msgs/msg/Bool", "std_srvs/srv/Trigger_Request"])
def test_names_go_both_ways(name):
    assert ros_name(dds_name(name)) == name
    assert ros_name("Foreign::Type") == "Foreign::Type"
