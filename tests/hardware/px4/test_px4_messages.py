"""PX4's messages: sizes on the wire, versions taken from the graph."""

import re
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from robot_rl.hardware.nodes.px4_node import FlightBinding, FlightNode
from robot_rl.hardware.px4 import px4_messages
from robot_rl.hardware.px4.px4_codec import decode_inertial
from robot_rl.hardware.px4.px4_messages import Px4MessageError, detect, table, topic_name
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.dds_configuration import where_others_are_found
from robot_rl.hardware.ros2.graph import Endpoint
from robot_rl.hardware.ros2.qos import Qos, mismatches

V1_17 = """
OffboardControlMode u64 timestamp; bool position, velocity, acceleration, attitude, body_rate, thrust_and_torque,
    direct_actuator
TrajectorySetpoint u64 timestamp; f32[3] position, velocity, acceleration, jerk; f32 yaw, yawspeed
VehicleRatesSetpoint u64 timestamp; f32 roll, pitch, yaw; f32[3] thrust_body; bool reset_integral
VehicleAttitudeSetpoint u64 timestamp; f32 yaw_sp_move_rate; f32[4] q_d; f32[3] thrust_body
VehicleCommand u64 timestamp; f32 param1, param2, param3, param4; f64 param5, param6; f32 param7; u32 command;
    u8 target_system, target_component, source_system; u16 source_component; u8 confirmation; bool from_external
VehicleCommandAck u64 timestamp; u32 command; u8 result, result_param1; i32 result_param2; u8 target_system; u16
    target_component; bool from_external
VehicleOdometry u64 timestamp, timestamp_sample; u8 pose_frame; f32[3] position; f32[4] q; u8 velocity_frame;
    f32[3] velocity, angular_velocity, position_variance, orientation_variance, velocity_variance; u8
    reset_counter; i8 quality
VehicleStatus u64 timestamp, armed_time, takeoff_time; u8 arming_state, latest_arming_reason,
    latest_disarming_reason; u64 nav_state_timestamp; u8 nav_state_user_intention, nav_state, executor_in_charge;
    u32 valid_nav_states_mask, can_set_nav_states_mask; u16 failure_detector_status; u8 hil_state, vehicle_type;
    bool failsafe, failsafe_and_user_took_over; u8 failsafe_defer_state; bool gcs_connection_lost; u8
    gcs_connection_lost_counter; bool high_latency_data_link_lost, is_vtol, is_vtol_tailsitter,
    in_transition_mode, in_transition_to_fw; u8 system_type, system_id, component_id; bool
    safety_button_available, safety_off, power_input_valid, usb_connected, open_drone_id_system_present,
    open_drone_id_system_healthy, parachute_system_present, parachute_system_healthy, rc_calibration_in_progress,
    calibration_enabled, pre_flight_checks_pass
VehicleControlMode u64 timestamp; bool flag_armed, flag_multicopter_position_control_enabled,
    flag_control_manual_enabled, flag_control_auto_enabled, flag_control_offboard_enabled,
    flag_control_position_enabled, flag_control_velocity_enabled, flag_control_altitude_enabled,
    flag_control_climb_rate_enabled, flag_control_acceleration_enabled, flag_control_attitude_enabled,
    flag_control_rates_enabled, flag_control_allocation_enabled, flag_control_termination_enabled; u8 source_id
VehicleLocalPosition u64 timestamp, timestamp_sample; bool xy_valid, z_valid, v_xy_valid, v_z_valid; f32 x, y, z;
    f32[2] delta_xy; u8 xy_reset_counter; f32 delta_z; u8 z_reset_counter; f32 vx, vy, vz, z_deriv; f32[2]
    delta_vxy; u8 vxy_reset_counter; f32 delta_vz; u8 vz_reset_counter; f32 ax, ay, az, heading, heading_var,
    unaided_heading, delta_heading; u8 heading_reset_counter; bool heading_good_for_control; f32 tilt_var; bool
    xy_global, z_global; u64 ref_timestamp; f64 ref_lat, ref_lon; f32 ref_alt; bool dist_bottom_valid; f32
    dist_bottom, dist_bottom_var, delta_dist_bottom; u8 dist_bottom_reset_counter, dist_bottom_sensor_bitfield;
    f32 eph, epv, evh, evv; bool dead_reckoning; f32 vxy_max, vz_max, hagl_min, hagl_max_z, hagl_max_xy
"""
"""Fields of PX4 v1.17, as written down from it: types stand before the first of their names."""

SHORT = {"u": "uint", "i": "int", "f": "float"}

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


def definitions(text):
    """Fields by message: type and name."""
    found = {}
    for line in text.strip().replace("\n    ", " ").splitlines():
        name, fields = line.split(" ", 1)
        found[name], kind = [], ""
        for part in fields.replace(";", ",").split(","):
            *kinds, field = part.split()
            kind = kinds[0] if kinds else kind
            found[name].append((re.sub(r"^([uif])(?=\d)", lambda match: SHORT[match[1]], kind), field))
    return found


def test_fields_and_their_order_are_those_of_v1_17():
    told = definitions(V1_17)
    assert told.keys() | {"BatteryStatus", "SensorCombined"} == px4_messages.DEFINITIONS.keys()
    for name, fields in told.items():
        ours = px4_messages.DEFINITIONS[name][px4_messages.V1_17.get(name, 0)]
        assert [tuple(field.split()) for field in ours.split("; ")] == fields, name


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


def test_a_topic_that_a_vehicle_offers_later_is_heard_in_its_own_version():
    graph = MagicMock()
    graph.endpoints.return_value = endpoints(px4_messages.V1_17, without=["battery_status", "vehicle_odometry"])
    binding = FlightBinding(graph, FlightNode(VehicleFile.load("px4")))

    def look():
        binding._look()
        return {call.args[0] for call in graph.subscribe.call_args_list if "/fmu/" in call.args[0]}

    assert look() == set()
    said = binding._serve("home", None).message
    assert said.startswith(f"no vehicle {where_others_are_found()}: no ")
    assert "vehicle_odometry" in said
    graph.endpoints.return_value = endpoints(px4_messages.V1_17, without=["battery_status", "sensor_combined"])
    heard = look()
    # PX4 answers a command at once on a topic that it has not offered before.
    assert {"/fmu/out/vehicle_odometry", "/fmu/out/vehicle_command_ack", "/fmu/out/sensor_combined"} <= heard
    assert not any("battery" in topic for topic in heard)
    graph.endpoints.return_value = endpoints(px4_messages.V1_17)
    assert look() - heard == {"/fmu/out/battery_status_v1"}


def test_a_reset_of_the_estimator_is_logged():
    graph = MagicMock()
    binding = FlightBinding(graph, FlightNode(VehicleFile.load("px4")))
    for counter, warnings in ((7, 0), (7, 0), (8, 1), (8, 1)):
        odometry = messages.make("px4_msgs/msg/VehicleOdometry", timestamp_sample=1, reset_counter=counter)
        binding._hear("vehicle_odometry", SimpleNamespace(message=odometry, received=1.0))
        assert graph.log.warning.call_count == warnings


def test_an_accelerometer_that_tells_nothing_is_none():
    message = messages.make("px4_msgs/msg/SensorCombined", gyro_rad=[1, 2, 3], accelerometer_m_s2=[0, 1, -9.81])
    told = decode_inertial(message, 5.0)
    assert (told.angular_velocity.y, told.linear_acceleration.y) == (-2.0, -1.0)
    assert told.linear_acceleration.z == pytest.approx(9.81)
    message.accelerometer_timestamp_relative = 2**31 - 1
    assert decode_inertial(message, 5.0) is None


def test_an_unknown_version_is_told():
    with pytest.raises(Px4MessageError, match="version 4, known are"):
        px4_messages.register({**px4_messages.V1_17, "VehicleStatus": 4})


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
    battery = tmp_path / "msg" / "BatteryStatus.msg"
    battery.write_text("uint32 MESSAGE_VERSION = 7\n" + battery.read_text())
    offered = [Endpoint("/fmu/out/battery_status_v7", "", "", px4_messages.IN, True)]
    assert px4_messages.detect(offered, checkout=tmp_path)[0] == {"BatteryStatus": 7}
    assert px4_messages.detect(offered)[0] == {}
    (tmp_path / "msg" / "SensorCombined.msg").rename(tmp_path / "SensorCombined.msg")  # what is not offered is not read
    assert px4_messages.detect(offered, checkout=tmp_path)[0] == {"BatteryStatus": 7}
    (tmp_path / "SensorCombined.msg").rename(tmp_path / "msg" / "SensorCombined.msg")
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
