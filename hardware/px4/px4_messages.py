"""PX4's messages over uXRCE-DDS: their fields, and the topics of a vehicle as the graph offers them.

Field names, types and order are the interface itself (px4_msgs of PX4 v1.16 and v1.17). A message that PX4 versions
has its version at the end of the topic's name, `/fmu/out/vehicle_status_v1`, unless that is 0; versions move between
releases, so the graph says which definition holds. A release with others is read from a px4_msgs checkout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.graph import Endpoint
from robot_rl.hardware.ros2.qos import Qos

OUT = Qos(reliability="best_effort", durability="volatile", depth=5)
"""Of our subscriptions: PX4 writes best effort, transient local."""

IN = Qos(reliability="best_effort", durability="volatile", depth=5)
"""Of our publishers: PX4 reads best effort, volatile."""

_LOCAL_POSITION = (
    "uint64 timestamp; uint64 timestamp_sample; bool xy_valid; bool z_valid; bool v_xy_valid; bool v_z_valid; "
    "float32 x; float32 y; float32 z; float32[2] delta_xy; uint8 xy_reset_counter; float32 delta_z; "
    "uint8 z_reset_counter; float32 vx; float32 vy; float32 vz; float32 z_deriv; float32[2] delta_vxy; "
    "uint8 vxy_reset_counter; float32 delta_vz; uint8 vz_reset_counter; float32 ax; float32 ay; float32 az; "
    "float32 heading; float32 heading_var; float32 unaided_heading; float32 delta_heading; "
    "uint8 heading_reset_counter; bool heading_good_for_control; float32 tilt_var; bool xy_global; bool z_global; "
    "uint64 ref_timestamp; float64 ref_lat; float64 ref_lon; float32 ref_alt; bool dist_bottom_valid; "
    "float32 dist_bottom; float32 dist_bottom_var; float32 delta_dist_bottom; uint8 dist_bottom_reset_counter; "
    "uint8 dist_bottom_sensor_bitfield; float32 eph; float32 epv; float32 evh; float32 evv; bool dead_reckoning; "
    "float32 vxy_max; float32 vz_max; float32 hagl_min; "
)
_STATUS_FIRST = (
    "uint64 timestamp; uint64 armed_time; uint64 takeoff_time; uint8 arming_state; uint8 latest_arming_reason; "
    "uint8 latest_disarming_reason; uint64 nav_state_timestamp; uint8 nav_state_user_intention; uint8 nav_state; "
    "uint8 executor_in_charge; uint32 valid_nav_states_mask; uint32 can_set_nav_states_mask; "
    "uint16 failure_detector_status; uint8 hil_state; uint8 vehicle_type; bool failsafe; "
    "bool failsafe_and_user_took_over; uint8 failsafe_defer_state; bool gcs_connection_lost; "
    "uint8 gcs_connection_lost_counter; bool high_latency_data_link_lost; bool is_vtol; bool is_vtol_tailsitter; "
    "bool in_transition_mode; bool in_transition_to_fw; uint8 system_type; uint8 system_id; uint8 component_id; "
    "bool safety_button_available; bool safety_off; bool power_input_valid; bool usb_connected; "
    "bool open_drone_id_system_present; bool open_drone_id_system_healthy; bool parachute_system_present; "
    "bool parachute_system_healthy; "
)
_STATUS_LAST = "bool rc_calibration_in_progress; bool calibration_enabled; bool pre_flight_checks_pass"
_BATTERY_FIRST = (
    "uint64 timestamp; bool connected; float32 voltage_v; float32 current_a; float32 current_average_a; "
    "float32 discharged_mah; float32 remaining; float32 scale; float32 time_remaining_s; float32 temperature; "
    "uint8 cell_count; uint8 source; uint8 priority; uint16 capacity; uint16 cycle_count; "
    "uint16 average_time_to_empty; "
)
_BATTERY_LAST = (
    "uint16 manufacture_date; uint16 state_of_health; uint16 max_error; uint8 id; uint16 interface_error; "
    "float32[14] voltage_cell_v; float32 max_cell_voltage_delta; bool is_powering_off; bool is_required; "
    "uint8 warning; uint16 faults; float32 full_charge_capacity_wh; float32 remaining_capacity_wh; "
    "uint16 over_discharge_count; float32 nominal_voltage; float32 internal_resistance_estimate; "
    "float32 ocv_estimate; float32 ocv_estimate_filtered; float32 volt_based_soc_estimate; "
    "float32 voltage_prediction; float32 prediction_error; float32 estimation_covariance_norm"
)

DEFINITIONS: Mapping[str, Mapping[int, str]] = {
    "OffboardControlMode": {
        0: "uint64 timestamp; bool position; bool velocity; bool acceleration; bool attitude; bool body_rate; "
        "bool thrust_and_torque; bool direct_actuator"
    },
    "TrajectorySetpoint": {
        0: "uint64 timestamp; float32[3] position; float32[3] velocity; float32[3] acceleration; float32[3] jerk; "
        "float32 yaw; float32 yawspeed"
    },
    "VehicleRatesSetpoint": {
        0: "uint64 timestamp; float32 roll; float32 pitch; float32 yaw; float32[3] thrust_body; bool reset_integral"
    },
    "VehicleAttitudeSetpoint": {
        0: "uint64 timestamp; float32 yaw_sp_move_rate; float32[4] q_d; float32[3] thrust_body; bool reset_integral; "
        "bool fw_control_yaw_wheel",
        1: "uint64 timestamp; float32 yaw_sp_move_rate; float32[4] q_d; float32[3] thrust_body",
    },
    "VehicleCommand": {
        0: "uint64 timestamp; float32 param1; float32 param2; float32 param3; float32 param4; float64 param5; "
        "float64 param6; float32 param7; uint32 command; uint8 target_system; uint8 target_component; "
        "uint8 source_system; uint16 source_component; uint8 confirmation; bool from_external"
    },
    "VehicleCommandAck": {
        0: "uint64 timestamp; uint32 command; uint8 result; uint8 result_param1; int32 result_param2; "
        "uint8 target_system; uint16 target_component; bool from_external"
    },
    "VehicleOdometry": {
        0: "uint64 timestamp; uint64 timestamp_sample; uint8 pose_frame; float32[3] position; float32[4] q; "
        "uint8 velocity_frame; float32[3] velocity; float32[3] angular_velocity; float32[3] position_variance; "
        "float32[3] orientation_variance; float32[3] velocity_variance; uint8 reset_counter; int8 quality"
    },
    "SensorCombined": {
        0: "uint64 timestamp; float32[3] gyro_rad; uint32 gyro_integral_dt; int32 accelerometer_timestamp_relative; "
        "float32[3] accelerometer_m_s2; uint32 accelerometer_integral_dt; uint8 accelerometer_clipping; "
        "uint8 gyro_clipping; uint8 accel_calibration_count; uint8 gyro_calibration_count"
    },
    "VehicleStatus": {
        0: _STATUS_FIRST + "bool avoidance_system_required; bool avoidance_system_valid; " + _STATUS_LAST,
        1: _STATUS_FIRST + _STATUS_LAST,
    },
    "VehicleControlMode": {
        0: "uint64 timestamp; bool flag_armed; bool flag_multicopter_position_control_enabled; "
        "bool flag_control_manual_enabled; bool flag_control_auto_enabled; bool flag_control_offboard_enabled; "
        "bool flag_control_position_enabled; bool flag_control_velocity_enabled; bool flag_control_altitude_enabled; "
        "bool flag_control_climb_rate_enabled; bool flag_control_acceleration_enabled; "
        "bool flag_control_attitude_enabled; bool flag_control_rates_enabled; bool flag_control_allocation_enabled; "
        "bool flag_control_termination_enabled; uint8 source_id"
    },
    "VehicleLocalPosition": {
        0: _LOCAL_POSITION + "float32 hagl_max",
        1: _LOCAL_POSITION + "float32 hagl_max_z; float32 hagl_max_xy",
    },
    "BatteryStatus": {
        0: _BATTERY_FIRST + "uint16 serial_number; " + _BATTERY_LAST,
        1: _BATTERY_FIRST + _BATTERY_LAST,
    },
}
"""Fields by message and version."""

V1_16: Mapping[str, int] = {"VehicleStatus": 1, "VehicleAttitudeSetpoint": 1}
V1_17: Mapping[str, int] = {**V1_16, "VehicleLocalPosition": 1, "BatteryStatus": 1}
RELEASES = {"v1.16": V1_16, "v1.17": V1_17}
"""Versions that are not 0, by release of PX4. What counts is what the topics' names say, see `detect`."""

INPUTS = {
    "offboard_control_mode": "OffboardControlMode", "trajectory_setpoint": "TrajectorySetpoint",
    "vehicle_rates_setpoint": "VehicleRatesSetpoint", "vehicle_attitude_setpoint": "VehicleAttitudeSetpoint",
    "vehicle_command": "VehicleCommand", "vehicle_visual_odometry": "VehicleOdometry",
}  # fmt: skip
"""Topics under /fmu/in without a version, and their messages."""

COMMANDS = INPUTS.keys() - {"vehicle_visual_odometry"}
"""Those that move the vehicle: only one node may write them."""

OUTPUTS = {
    "vehicle_odometry": "VehicleOdometry", "vehicle_status": "VehicleStatus",
    "vehicle_local_position": "VehicleLocalPosition", "vehicle_control_mode": "VehicleControlMode",
    "vehicle_command_ack": "VehicleCommandAck", "battery_status": "BatteryStatus",
    "sensor_combined": "SensorCombined",
}  # fmt: skip
"""Topics under /fmu/out likewise."""

OPTIONAL = frozenset({
    "battery_status", "vehicle_command_ack", "vehicle_visual_odometry", "vehicle_attitude_setpoint", "sensor_combined",
})  # fmt: skip
"""Topics without which a vehicle is complete, unless somebody needs them."""

_MESSAGE_VERSION = re.compile(r"^\s*uint32\s+MESSAGE_VERSION\s*=\s*(\d+)", re.MULTILINE)


class Px4MessageError(ValueError):
    """A vehicle's messages are not known here, or a checkout has none; the message says what to do."""


class Topic(NamedTuple):
    """A topic of the vehicle with its full name, message type and version."""

    name: str
    type: str
    version: int


def release(name: str) -> Mapping[str, int]:
    """Versions of the messages of a release. Raises Px4MessageError where it is not known."""
    if name not in RELEASES:
        raise Px4MessageError(f"release: expected one of {', '.join(RELEASES)}, got {name!r}")
    return RELEASES[name]


def topic_name(base: str, version: int) -> str:
    """`base` as PX4 calls it for a version of its message."""
    return base if version == 0 else f"{base}_v{version}"


def register(
    versions: Mapping[str, int] = V1_17, checkout: str | Path = "", names: Iterable[str] = DEFINITIONS
) -> None:
    """Make PX4's messages known to this process, each in one version (0 where it is not given).

    Args:
        checkout: folder of px4_msgs, whose `msg/*.msg` are used instead; its own versions have to be the ones given.
        names: of the messages.

    Raises:
        Px4MessageError: a version has no definition here, or the checkout lacks a message.
    """
    for name in names:
        known = DEFINITIONS[name]
        version = versions.get(name, 0)
        if checkout:
            text, own = _read(Path(checkout), name)
            if own != version and name in versions:
                raise Px4MessageError(
                    f"{name}: the vehicle offers version {version}, {checkout} has {own}; check out its release"
                )
        elif version in known:
            text = known[version]
        elif name in versions:
            raise Px4MessageError(
                f"{name}: the vehicle offers version {version}, known are {sorted(known)}; "
                "give px4_msgs:=, the folder of a px4_msgs checkout of the vehicle's release"
            )
        else:
            text = known[max(known)]
        messages.register(f"px4_msgs/msg/{name}", text.replace("; ", "\n"))


def table(versions: Mapping[str, int] = V1_17, prefix: str = "") -> dict[str, Topic]:
    """All topics by their base name, for versions by message.

    Args:
        prefix: namespace of the vehicle, for example `/px4_1`.
    """
    found = {}
    for direction, bases in (("in", INPUTS), ("out", OUTPUTS)):
        for base, name in bases.items():
            version = versions.get(name, 0)
            full = topic_name(f"{prefix}/fmu/{direction}/{base}", version)
            found[base] = Topic(full, f"px4_msgs/msg/{name}", version)
    return found


def detect(
    endpoints: Iterable[Endpoint], prefix: str = "", needed: Iterable[str] = (), checkout: str | Path = ""
) -> tuple[dict[str, int], list[str]]:
    """Versions by message of the topics that a vehicle offers, and the topics that it has to offer and does not.

    A topic of PX4's outputs is offered by a publisher, one of its inputs by a subscription. Where several versions are
    offered the newest one that is known here, or to the checkout of px4_msgs, counts; an optional one of an unknown
    version is left alone, unless it is among `needed`.

    Raises:
        Px4MessageError: the checkout lacks a message.
    """
    optional = OPTIONAL - set(needed)
    seen: dict[str, set[int]] = {}
    for endpoint in endpoints:
        direction = "out" if endpoint.is_publisher else "in"
        match = re.fullmatch(rf"{re.escape(prefix)}/fmu/{direction}/(\w+?)(?:_v(\d+))?", endpoint.topic)
        if match and match[1] in (OUTPUTS if direction == "out" else INPUTS):
            seen.setdefault(match[1], set()).add(int(match[2] or 0))
    versions, missing = {}, []
    for base, name in (OUTPUTS | INPUTS).items():
        offered = seen.get(base, set())
        read = offered and checkout  # nothing is read for what is not offered
        known = offered & ({_read(Path(checkout), name)[1]} if read else set(DEFINITIONS[name]))
        if known or (offered and base not in optional):
            versions[name] = max(known or offered)
        elif base not in optional:
            missing.append(base)
    return versions, missing


def _read(checkout: Path, name: str) -> tuple[str, int]:
    """Definition and version of a message in a px4_msgs checkout."""
    path = checkout / "msg" / f"{name}.msg"
    if not path.is_file():
        raise Px4MessageError(f"no {path}: px4_msgs:= has to be the folder of a px4_msgs checkout, with msg/*.msg")
    text = path.read_text()
    match = _MESSAGE_VERSION.search(text)
    return text, int(match[1]) if match else 0
