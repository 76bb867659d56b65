"""PX4's messages: sizes on the wire, versions taken from the graph."""

import subprocess
import sys

import pytest

from robot_rl.hardware.px4 import px4_messages
from robot_rl.hardware.px4.px4_messages import Px4MessageError, detect, table, topic_name
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Endpoint
from robot_rl.hardware.ros2.qos import Qos, mismatches

WRITES = Qos("best_effort", "transient_local", 1)
READS = Qos("best_effort", "volatile", 1)


def endpoints(versions, prefix="", without=()):
    found = []
    for base, name in (px4_messages.OUTPUTS | px4_messages.INPUTS).items():
        out = base in px4_messages.OUTPUTS
        if base not in without:
            topic = f"{prefix}/fmu/{'out' if out else 'in'}/{topic_name(base, versions.get(name, 0))}"
            found.append(Endpoint(topic, f"px4_msgs/msg/{name}", "", WRITES if out else READS, out))
    return found


def test_our_ends_match_px4s():
    assert mismatches(WRITES, px4_messages.OUT) == []
    assert mismatches(px4_messages.IN, READS) == []


def test_names_of_v1_17():
    topics = table()
    for name in (
        "/fmu/in/offboard_control_mode", "/fmu/in/trajectory_setpoint", "/fmu/in/vehicle_rates_setpoint",
        "/fmu/in/vehicle_command", "/fmu/in/vehicle_visual_odometry", "/fmu/out/vehicle_odometry",
        "/fmu/out/vehicle_status_v1", "/fmu/out/vehicle_local_position_v1", "/fmu/out/vehicle_control_mode",
        "/fmu/out/vehicle_command_ack", "/fmu/in/vehicle_attitude_setpoint_v1",
    ):  # fmt: skip
        assert name in {topic.name for topic in topics.values()}


def test_fields_are_laid_out_as_in_c():
    """Sizes with the header of 4 bytes and CDR's alignment, counted by hand from the list of fields."""
    for name, size in {
        "OffboardControlMode": 8 + 7, "TrajectorySetpoint": 8 + 4 * 14, "VehicleRatesSetpoint": 8 + 4 * 6 + 1,
        "VehicleCommandAck": 8 + 4 + 2 + 2 + 4 + 1 + 1 + 2 + 1,
        "VehicleOdometry": 16 + 4 + 12 + 16 + 4 + 12 * 5 + 2,
        "VehicleControlMode": 8 + 14, "VehicleAttitudeSetpoint": 8 + 4 * 8,
    }.items():  # fmt: skip
        message = messages.make(f"px4_msgs/msg/{name}")
        assert len(messages.encode(message)) == 4 + (size + 3) // 4 * 4, name


def test_versions_are_detected():
    versions = {"VehicleStatus": 1, "VehicleLocalPosition": 1, "BatteryStatus": 1}
    assert detect(endpoints(versions))[0].items() >= versions.items()
    assert detect(endpoints(versions))[1] == []
    without = endpoints(versions, without=("vehicle_attitude_setpoint",))
    assert detect(without)[1] == []
    assert detect(without, "", ["vehicle_attitude_setpoint"])[1] == ["vehicle_attitude_setpoint"]
    older = {"VehicleStatus": 0, "VehicleLocalPosition": 0}
    assert detect(endpoints(older))[0].items() >= older.items()
    _, missing = detect(endpoints(versions, "/px4_1"))
    assert "vehicle_status" in missing
    assert detect(endpoints(versions, "/px4_1"), "/px4_1")[1] == []
    assert detect(endpoints(versions, without=["vehicle_odometry", "battery_status"]))[1] == ["vehicle_odometry"]
    # A publisher of ours on an input is no vehicle.
    ours = [Endpoint("/fmu/in/vehicle_command", "px4_msgs/msg/VehicleCommand", "/x", READS, is_publisher=True)]
    assert "vehicle_command" in detect(ours)[1]
    # Both versions, of which one is known.
    newer = Endpoint("/fmu/out/vehicle_status_v7", "px4_msgs/msg/VehicleStatus", "", WRITES, is_publisher=True)
    assert detect([*endpoints(versions), newer])[0]["VehicleStatus"] == 1


def test_an_unknown_version_is_told():
    with pytest.raises(Px4MessageError, match="version 4, known are"):
        px4_messages.register({"VehicleStatus": 4})


def test_a_checkout_takes_the_place_of_our_definitions(tmp_path):
    (tmp_path / "msg").mkdir()
    with pytest.raises(Px4MessageError, match="px4_msgs checkout"):
        px4_messages.register({}, tmp_path)
    for name, known in px4_messages.DEFINITIONS.items():
        text = known[max(known)].replace("; ", "\n")
        if name == "VehicleStatus":
            text = "uint32 MESSAGE_VERSION = 4\n" + text + "\nuint8 new_field  # of a later release\n"
        (tmp_path / "msg" / f"{name}.msg").write_text(text)
    with pytest.raises(Px4MessageError, match="offers version 1"):
        px4_messages.register({"VehicleStatus": 1}, tmp_path)
    code = (
        "import sys; from robot_rl.hardware.px4 import px4_messages; from robot_rl.hardware.ros2 import messages; "
        "px4_messages.register({'VehicleStatus': 4}, sys.argv[1]); "
        "assert messages.make('px4_msgs/msg/VehicleStatus', new_field=3).new_field == 3"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=300)


def test_older_versions_can_be_registered_too():
    code = (
        "from robot_rl.hardware.px4 import px4_messages; from robot_rl.hardware.ros2 import messages; "
        "px4_messages.register({'VehicleStatus': 0, 'VehicleLocalPosition': 0, 'BatteryStatus': 0}); "
        "messages.encode(messages.make('px4_msgs/msg/VehicleStatus', avoidance_system_valid=True)); "
        "messages.encode(messages.make('px4_msgs/msg/VehicleLocalPosition', hagl_max=1.0))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
