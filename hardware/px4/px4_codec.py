"""From PX4's messages to telemetry and from commands to PX4's messages: frames, units and time stamps at the border."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from robot_rl.hardware.px4.flight_state import (
    ControlMode,
    FlightCommand,
    Level,
    Odometry,
    Order,
    Telemetry,
    VehicleState,
)
from robot_rl.hardware.px4.frames import swap_attitude, swap_body, swap_heading, swap_world
from robot_rl.hardware.px4.time_sync import TimeSync
from robot_rl.hardware.ros2 import messages
from robot_rl.sim.rotation import matrix_from_quaternion

ARMED = 2
SOURCE_COMPONENT = 1
"""Ours; PX4 answers to it."""
NO_ACCELERATION = 2**31 - 1
"""RELATIVE_TIMESTAMP_INVALID of SensorCombined."""
NED, BODY_FRD = 1, 3
"""Of pose_frame and velocity_frame."""

_NAN3 = [math.nan] * 3


class TelemetryDecoder:
    """Collects what PX4 says.

    Args:
        shared_clock: see `TimeSync`.

    Attributes:
        telemetry: the newest of everything.
        time: PX4's clock against ours.
        unreadable: counts odometry of frames that are not expected, or of a time that nobody knows.
        address: the vehicle's MAV_SYS_ID and component; PX4 obeys no others. Its second instance in simulation has 2.
    """

    def __init__(self, shared_clock: bool = False) -> None:
        self.telemetry, self.time, self.unreadable = Telemetry(), TimeSync(shared_clock), 0
        self.address = (1, 1)

    def hear(self, base: str, message: Any, received: float) -> None:
        """A message of a topic of `px4_messages.OUTPUTS` was received [s]."""
        told = self.telemetry
        match base:
            case "vehicle_odometry":
                stamp = self.time.hear(int(message.timestamp_sample), received)
                odometry = None if stamp is None else decode_odometry(message, stamp)
                if odometry is None:
                    self.unreadable += 1
                else:
                    told = told._replace(odometry=odometry, restarts=self.time.restarts)
            case "vehicle_status":
                self.address = int(message.system_id), int(message.component_id)
                told = told._replace(
                    status=VehicleState(
                        received, message.arming_state == ARMED, int(message.nav_state), bool(message.failsafe),
                        bool(message.failsafe_and_user_took_over), bool(message.pre_flight_checks_pass),
                    )
                )  # fmt: skip
            case "vehicle_control_mode":
                told = told._replace(
                    mode=ControlMode(
                        received, bool(message.flag_control_offboard_enabled),
                        bool(message.flag_control_position_enabled), bool(message.flag_control_rates_enabled),
                        bool(message.flag_control_attitude_enabled),
                    )
                )  # fmt: skip
            case "vehicle_local_position":
                flags = (message.xy_valid, message.z_valid, message.v_xy_valid, message.v_z_valid)
                told = told._replace(position_valid=all(flags), position_told=received)
            case "battery_status":
                known = message.connected and 0 <= message.remaining <= 1
                told = told._replace(battery=float(message.remaining) if known else None, battery_told=received)
        self.telemetry = told


def decode_odometry(message: Any, stamp: float) -> Odometry | None:
    """VehicleOdometry in our frames; None where its own frames are not NED or body FRD."""
    if message.pose_frame != NED or message.velocity_frame not in (NED, BODY_FRD):
        return None
    quaternion = swap_attitude(np.asarray(message.q, float))
    velocity = np.asarray(message.velocity, float)
    if message.velocity_frame == NED:
        velocity = swap_world(velocity)
    elif np.isfinite(quaternion).all() and quaternion.any():
        velocity = matrix_from_quaternion(quaternion) @ swap_body(velocity)
    return Odometry(
        stamp, swap_world(np.asarray(message.position, float)), velocity, quaternion,
        swap_body(np.asarray(message.angular_velocity, float)),
    )  # fmt: skip


def decode_inertial(message: Any, stamp: float) -> Any | None:
    """SensorCombined in FLU as a sensor_msgs/Imu without an orientation; None where the accelerometer tells nothing."""
    if message.accelerometer_timestamp_relative == NO_ACCELERATION:
        return None
    unknown = np.zeros(9)
    unknown[0] = -1.0
    linear, angular = (
        messages.make("geometry_msgs/msg/Vector3", **dict(zip("xyz", swap_body(np.asarray(told, float)), strict=True)))
        for told in (message.accelerometer_m_s2, message.gyro_rad)
    )
    return messages.make(
        "sensor_msgs/msg/Imu",
        header=messages.make("std_msgs/msg/Header", stamp=messages.stamp(stamp), frame_id="body"),
        orientation_covariance=unknown, angular_velocity=angular, linear_acceleration=linear,
    )  # fmt: skip


def encode_odometry(
    odometry: Odometry, timestamp: int, position_variance: np.ndarray, orientation_variance: np.ndarray
) -> Any:
    """VehicleOdometry in NED, taken at a time of PX4's clock [us]; as an external pose, or as the twin says it.

    Args:
        position_variance: [3], along the world's axes [m²].
        orientation_variance: [3], about the same axes [rad²].
    """
    position, orientation = (np.abs(swap_world(each)) for each in (position_variance, orientation_variance))
    return messages.make(
        "px4_msgs/msg/VehicleOdometry", timestamp=timestamp, timestamp_sample=timestamp, pose_frame=NED,
        position=swap_world(odometry.position), q=swap_attitude(odometry.quaternion), velocity_frame=NED,
        velocity=swap_world(odometry.velocity), angular_velocity=swap_body(odometry.rates),
        position_variance=position, orientation_variance=orientation, velocity_variance=position, quality=1,
    )  # fmt: skip


def encode_command(command: FlightCommand, timestamp: int, address: tuple[int, int] = (1, 1)) -> list[tuple[str, Any]]:
    """Messages by topic of `px4_messages.INPUTS`, in the order in which they are to be sent.

    Args:
        address: see `TelemetryDecoder`.
    """
    sent: list[tuple[str, Any]] = []
    if command.level is not None:
        heartbeat = {level.value: command.level is level for level in Level}
        sent.append((
            "offboard_control_mode",
            messages.make("px4_msgs/msg/OffboardControlMode", timestamp=timestamp, **heartbeat),
        ))
    if command.trajectory is not None:
        wanted = command.trajectory
        sent.append((
            "trajectory_setpoint",
            messages.make(
                "px4_msgs/msg/TrajectorySetpoint", timestamp=timestamp, position=swap_world(wanted.position),
                velocity=swap_world(wanted.velocity), acceleration=_NAN3, jerk=_NAN3,
                yaw=math.nan if math.isnan(wanted.yaw) else swap_heading(wanted.yaw), yawspeed=-wanted.yaw_rate,
            ),
        ))  # fmt: skip
    if command.rates is not None:
        roll, pitch, yaw = swap_body(np.asarray(command.rates.rates, float))
        sent.append((
            "vehicle_rates_setpoint",
            messages.make(
                "px4_msgs/msg/VehicleRatesSetpoint", timestamp=timestamp, roll=roll, pitch=pitch, yaw=yaw,
                thrust_body=[0.0, 0.0, -command.rates.throttle],
            ),
        ))  # fmt: skip
    if command.attitude is not None:
        sent.append((
            "vehicle_attitude_setpoint",
            messages.make(
                "px4_msgs/msg/VehicleAttitudeSetpoint", timestamp=timestamp,
                q_d=swap_attitude(command.attitude.quaternion), thrust_body=[0.0, 0.0, -command.attitude.throttle],
            ),
        ))  # fmt: skip
    return sent + [("vehicle_command", encode_order(order, timestamp, address)) for order in command.orders]


def encode_order(order: Order, timestamp: int, address: tuple[int, int]) -> Any:
    """VehicleCommand to a vehicle's autopilot, as from a program beside it."""
    return messages.make(
        "px4_msgs/msg/VehicleCommand", timestamp=timestamp, command=int(order.command), param1=order.param1,
        param2=order.param2, target_system=address[0], target_component=address[1], source_system=address[0],
        source_component=SOURCE_COMPONENT, from_external=True,
    )  # fmt: skip


def is_answer_to_us(ack: Any, address: tuple[int, int]) -> bool:
    """Whether a VehicleCommandAck answers an order of `encode_order`, rather than one of a ground station."""
    return (int(ack.target_system), int(ack.target_component)) == (address[0], SOURCE_COMPONENT)
