"""A PX4 flight log (ULog) as `robot_rl.sim.drone.identification.FlightLog`: the longest time in the air, ENU and FLU.

Read are `vehicle_rates_setpoint`, `actuator_motors`, `sensor_combined`, `vehicle_attitude` and `vehicle_local_position`
(or `vehicle_odometry` for both), where there are such `battery_status` and `vehicle_land_detected`, and the parameters
THR_MDL_FAC, MC_BAT_SCALE_EN and CA_ROTOR*. Formats: PX4's message definitions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.hardware.px4.frames import swap_attitude, swap_body, swap_world
from robot_rl.hardware.px4.px4_codec import NO_ACCELERATION
from robot_rl.sim.drone.identification import FlightLog, IdentificationError

NEEDED = ("vehicle_rates_setpoint", "actuator_motors", "sensor_combined")
TOPICS = (
    *NEEDED, "vehicle_attitude", "vehicle_local_position", "vehicle_odometry", "battery_status", "vehicle_land_detected"
)  # fmt: skip
SLOWEST = {
    "vehicle_rates_setpoint": 0.03,
    "actuator_motors": 0.012,
    "sensor_combined": 0.012,
    "velocity": 0.12,
    "attitude": 0.06,
}
"""Median time between samples at which a log still tells delay and lag, or can be interpolated [s]."""
LONGEST_GAP = 5.0
"""Longest time without a sample that is interpolated, in times of those."""
PROFILE = "set SDLOG_PROFILE to 17 (default and high rate)"
QUADRANTS = ((True, True), (False, False), (True, False), (False, True))
"""Of the rotors in the order of the simulator: whether they stand in front, and to the right."""
ALOFT = 0.1
"""Throttle above which a vehicle flies, where no land detector tells."""
NED = 1


def read_flight_log(path: Path, start: float = 0.0, end: float = float("inf")) -> FlightLog:
    """The longest flight of a log.

    Args:
        start, end: leave out what was before and after, counted from the log's beginning [s].

    Raises:
        IdentificationError: pyulog is missing, the file is no log, or it lacks what is needed.
    """
    try:
        import pyulog
    except ImportError as error:
        raise IdentificationError('the package pyulog is missing: pip install "robot_rl[px4]"') from error
    if not path.is_file():
        raise IdentificationError(f"{path}: there is no such file; expected a PX4 log (.ulg)")
    try:
        ulog = pyulog.ULog(str(path), list(TOPICS))
    except Exception as error:  # of many types on damaged files
        raise IdentificationError(f"{path}: expected a PX4 log (.ulg): {error}") from error
    topics: dict[str, dict[str, np.ndarray]] = {}
    for each in ulog.data_list:
        if each.multi_id == 0 and len(each.data["timestamp"]) > 1:
            topics[each.name] = each.data
    command, motor, sensor = (_needed(topics, name, path) for name in NEEDED)
    zero = float(ulog.start_timestamp) / 1e6
    told = np.isfinite(command["thrust_body[2]"])
    command_time, throttle = _time(command)[told], -np.asarray(command["thrust_body[2]"], float)[told]
    if len(command_time) < 2:
        raise IdentificationError(f"{path}: vehicle_rates_setpoint has no thrust")
    first, last = _aloft(topics.get("vehicle_land_detected"), command_time, throttle)
    if first >= last:
        raise IdentificationError(f"{path}: the vehicle was never in the air")
    first, last = max(first, zero + start), min(last, zero + end)
    relative = np.asarray(sensor.get("accelerometer_timestamp_relative", np.zeros(len(sensor["timestamp"]))), float)
    whole = np.isfinite(np.hstack([_vectors(sensor, name, 3) for name in ("accelerometer_m_s2", "gyro_rad")])).all(1)
    whole &= relative != NO_ACCELERATION
    sensor = {name: values[whole] for name, values in sensor.items()}
    # Samples are means over the time before their stamp.
    spent = np.asarray(sensor.get("accelerometer_integral_dt", 0.0), float)
    time = _time(sensor) + 1e-6 * (relative[whole] - spent / 2)
    velocity_time, velocity, attitude_time, attitude = _motion(topics, path)
    first = max(first, velocity_time[0], attitude_time[0], command_time[0])
    last = min(last, velocity_time[-1], attitude_time[-1], command_time[-1])
    motor_time, motors = _time(motor), _vectors(motor, "control", 4)
    first, last = max(first, motor_time[0]), min(last, motor_time[-1])
    sent, ordered, flown = ((times >= first) & (times <= last) for times in (command_time, motor_time, time))
    if min(sent.sum(), ordered.sum(), flown.sum()) < 2:
        raise IdentificationError(f"{path}: nothing was flown between {first - zero:.1f} and {last - zero:.1f} s")
    if silent := (~np.isfinite(motors[ordered])).any(0).nonzero()[0].tolist():
        raise IdentificationError(
            f"{path}: actuator_motors tells nothing of control{silent} for some or all of the flight; four are needed"
        )
    motors = np.clip(motors, 0.0, 1.0)
    time = time[flown]
    came = {"vehicle_rates_setpoint": command_time[sent], "actuator_motors": motor_time[ordered]}
    came |= {"sensor_combined": time}
    for name, times in (("velocity", velocity_time), ("attitude", attitude_time)):
        came[name] = times[(times >= first) & (times <= last)]
    for name, times in came.items():
        if (gap := float(np.median(np.diff(times)))) > SLOWEST[name]:
            most = 1e3 * SLOWEST[name]
            raise IdentificationError(
                f"{path}: {name} comes every {1e3 * gap:.0f} ms, expected {most:.0f} ms at most: {PROFILE}"
            )
        longest = int(np.argmax(np.diff(times)))
        if times[longest + 1] - times[longest] > LONGEST_GAP * SLOWEST[name]:
            raise IdentificationError(
                f"{path}: {name} is missing from {times[longest] - zero:.2f} to {times[longest + 1] - zero:.2f} s; "
                "choose a time without that by start= and end="
            )
    parameters: dict[str, Any] = ulog.initial_parameters
    return FlightLog(
        command_time=command_time[sent] - zero,
        throttle=throttle[sent],
        motor_time=motor_time[ordered] - zero,
        motors=motors[ordered][:, _order(parameters, path)],
        time=time - zero,
        accelerometer=swap_body(_vectors(sensor, "accelerometer_m_s2", 3)[flown]),
        gyro=swap_body(_vectors(sensor, "gyro_rad", 3)[flown]),
        velocity=_interpolated(time, velocity_time, swap_world(velocity)),
        attitude=_turned(time, attitude_time, swap_attitude(attitude)),
        thrust_curve=float(parameters.get("THR_MDL_FAC", 0.0)),
        voltage=_voltage(topics, parameters, motor_time[ordered]),
    )


def _needed(topics: dict[str, dict[str, np.ndarray]], name: str, path: Path) -> dict[str, np.ndarray]:
    if name not in topics:
        raise IdentificationError(f"{path}: {name} is not in the log: {PROFILE}")
    return topics[name]


def _time(topic: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(topic["timestamp"], float) / 1e6


def _vectors(topic: dict[str, np.ndarray], name: str, size: int) -> np.ndarray:
    return np.stack([np.asarray(topic[f"{name}[{index}]"], float) for index in range(size)], axis=1)


def _order(parameters: dict[str, Any], path: Path) -> list[int]:
    """Which of PX4's rotors is front right, back left, front left and back right; in this order if it does not say."""
    places = [tuple(parameters.get(f"CA_ROTOR{rotor}_P{axis}", 0.0) for axis in "XY") for rotor in range(4)]
    quadrants = [(x > 0, y > 0) for x, y in places]
    told = any(x != 0 or y != 0 for x, y in places)
    if parameters.get("CA_ROTOR_COUNT", 4) != 4 or (told and set(quadrants) != set(QUADRANTS)):
        raise IdentificationError(f"{path}: expected four rotors, one in each quadrant (CA_ROTOR*_PX and _PY)")
    return [quadrants.index(each) for each in QUADRANTS] if told else [0, 1, 2, 3]


def _aloft(landed: dict[str, np.ndarray] | None, times: np.ndarray, throttle: np.ndarray) -> tuple[float, float]:
    """Beginning and end of the longest time in the air [s]."""
    if landed is not None:
        times, flying = _time(landed), ~np.asarray(landed["landed"], bool)
        times, flying = np.append(times, np.inf), np.append(flying, False)
    else:
        flying = throttle > ALOFT
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flying, [False]]).astype(int)))
    spans = [(float(times[a]), float(times[min(b, len(times) - 1)])) for a, b in edges.reshape(-1, 2)]
    return max(spans, key=lambda span: span[1] - span[0]) if spans else (np.inf, -np.inf)


def _motion(
    topics: dict[str, dict[str, np.ndarray]], path: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Times and velocities in NED [m/s], times and attitudes FRD to NED."""
    if "vehicle_local_position" in topics and "vehicle_attitude" in topics:
        position, attitude = topics["vehicle_local_position"], topics["vehicle_attitude"]
        velocity = np.stack([np.asarray(position[name], float) for name in ("vx", "vy", "vz")], axis=1)
        return *_known(_time(position), velocity, path), *_known(_time(attitude), _vectors(attitude, "q", 4), path)
    odometry = _needed(topics, "vehicle_odometry", path)
    if (odometry["velocity_frame"] != NED).any():
        raise IdentificationError(f"{path}: expected velocities of vehicle_odometry in NED")
    times = _time(odometry)
    velocities, attitudes = (_vectors(odometry, name, size) for name, size in (("velocity", 3), ("q", 4)))
    return *_known(times, velocities, path), *_known(times, attitudes, path)


def _known(times: np.ndarray, values: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Those rows that are numbers."""
    known = np.isfinite(values).all(1)
    if known.sum() < 2:
        raise IdentificationError(f"{path}: velocity or attitude are not told; expected both")
    return times[known], values[known]


def _interpolated(time: np.ndarray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(time, times, column) for column in values.T], axis=1)


def _turned(time: np.ndarray, times: np.ndarray, attitudes: np.ndarray) -> np.ndarray:
    """Attitudes between samples, which follow each other so closely that their mean has the direction between them."""
    flips = np.cumprod(np.append(1.0, np.where((attitudes[1:] * attitudes[:-1]).sum(1) < 0, -1.0, 1.0)))
    between = _interpolated(time, times, attitudes * flips[:, None])
    return np.asarray(between / np.linalg.norm(between, axis=1, keepdims=True))


def _voltage(
    topics: dict[str, dict[str, np.ndarray]], parameters: dict[str, Any], times: np.ndarray
) -> np.ndarray | float:
    """Over its mean; one where PX4 makes up for it or nothing is known."""
    battery = topics.get("battery_status")
    if battery is None or parameters.get("MC_BAT_SCALE_EN", 0):
        return 1.0
    volts = np.interp(times, _time(battery), np.asarray(battery["voltage_v"], float))
    return volts / volts.mean() if (volts > 1.0).all() else 1.0
