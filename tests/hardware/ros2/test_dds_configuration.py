"""ROS 2's environment variables: what stays on this machine, and what does not."""

from xml.etree import ElementTree

import pytest

from robot_rl.hardware.ros2.dds_configuration import configuration, where_others_are_found
from robot_rl.hardware.ros2.graph import GraphError


def domain(**environment):
    settings = configuration(environment)
    return settings, ElementTree.fromstring(settings.xml.split(",")[0]).find("Domain")


def test_localhost_is_the_default():
    settings, xml = domain()
    assert (settings.domain_id, settings.discovery_range, settings.on_loopback) == (0, "LOCALHOST", True)
    assert [interface.get("address") for interface in xml.iter("NetworkInterface")] == ["127.0.0.1"]
    assert xml.findtext("General/AllowMulticast") == "false"
    assert [peer.get("Address") for peer in xml.iter("Peer")] == ["127.0.0.1"]


def test_the_network_is_asked_for():
    settings, xml = domain(ROS_AUTOMATIC_DISCOVERY_RANGE="SUBNET", ROS_DOMAIN_ID="42")
    assert (settings.domain_id, settings.on_loopback) == (42, False)
    assert xml.find("General/AllowMulticast") is None
    assert not list(xml.iter("NetworkInterface"))
    both = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "ROS_LOCALHOST_ONLY": "1"}
    assert configuration(both).on_loopback


def test_static_peers_leave_loopback():
    settings, xml = domain(ROS_STATIC_PEERS="192.168.1.2;robot.local")
    assert not settings.on_loopback
    assert [peer.get("Address") for peer in xml.iter("Peer")] == ["127.0.0.1", "192.168.1.2", "robot.local"]
    assert not list(xml.iter("NetworkInterface"))


def test_off_is_alone():
    settings, xml = domain(ROS_AUTOMATIC_DISCOVERY_RANGE="OFF", ROS_STATIC_PEERS="192.168.1.2")
    assert settings.on_loopback
    assert xml.findtext("Discovery/Tag")
    assert not list(xml.iter("Peer"))


def test_cyclones_own_variable_stands_above():
    own = "<CycloneDDS><Domain/></CycloneDDS>"
    settings = configuration({"CYCLONEDDS_URI": own})
    assert settings.xml.endswith("," + own)
    assert not settings.on_loopback
    assert configuration({"CYCLONEDDS_URI": own, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}).on_loopback


@pytest.mark.parametrize(
    "wrong", [{"ROS_DOMAIN_ID": "233"}, {"ROS_DOMAIN_ID": "x"}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "WORLD"}]
)
def test_wrong_values_are_named(wrong):
    with pytest.raises(GraphError, match=next(iter(wrong))):
        configuration(wrong)


def test_where_others_are_found_is_said_for_people():
    assert where_others_are_found({"ROBOT_RL_ROS": "dds"}) == (
        "in domain 0 on this machine only (ROS_DOMAIN_ID, ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST)"
    )
    asked = {"ROBOT_RL_ROS": "dds", "ROS_DOMAIN_ID": "7", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
    assert where_others_are_found(asked).startswith("in domain 7 on the network (SUBNET)")


def test_with_rclpy_the_network_is_the_default(monkeypatch):
    monkeypatch.setattr("robot_rl.hardware.ros2.dds_configuration.adapter", lambda _: "rclpy")
    assert "on the network (SUBNET)" in where_others_are_found({"ROS_AUTOMATIC_DISCOVERY_RANGE": ""})
    assert "on this machine only" in where_others_are_found({"ROS_LOCALHOST_ONLY": "1"})
