"""Flights of a known vehicle in the batched simulator, as PX4 would have logged them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from robot_rl.hardware.px4.frames import swap_attitude, swap_body, swap_world
from robot_rl.sim.drone.attitude import rotate, rotate_back
from robot_rl.sim.drone.batch import DroneBatch
from robot_rl.sim.drone.flight import GRAVITY, STATE, SUBSTEP
from robot_rl.sim.drone.vehicle_model import Vehicle

START = 30.0
"""Time of the first sample [s]."""
SENSORS = {"gyr_n": 0.02, "gyr_x": 0.01, "acb_n": 0.3, "acb_x": 0.08, "acb_z": -0.12}
BETWEEN, SENSED, ESTIMATED = 10, 2, 5
"""Substeps between commands, and between what is logged of sensors and of the estimate."""
DEAD_TIME = 0.006
"""Part of the delay that lies behind the logged commands of the rotors [s]."""


def fly(
    vehicle: Vehicle,
    seconds: float,
    delay: float,
    *,
    curve: float = 0.0,
    steps: float = 0.15,
    runs: float = 3.0,
    doublets: float = 1.5,
    climbs: float = 0.8,
    turning: float = 0.0,
    wind: tuple[float, float] = (0.0, 0.0),
    battery: dict[str, float] | None = None,
    seed: int = 0,
) -> dict[str, dict[str, np.ndarray]]:
    """Topics by name, each with its fields, in NED and FRD and microseconds.

    A controller holds velocities; on what it commands lie steps of the throttle and doublets of the body rates.

    Args:
        delay: from when a command is sent until the rotors hear of it [s].
        curve: f of the autopilot's thrust curve; 0: the throttle is the rotors' signal.
        steps: of the throttle. runs: speed sideways [m/s]. doublets: [rad/s]. climbs: [m/s].
        turning: about the thrust [rad/s].
        wind: east, north [m/s]. battery: parameters of the flight, see `weather.battery_rows`.
    """
    random = np.random.default_rng(seed)
    batch = DroneBatch(vehicle, 1, 1)
    parameters = {**vehicle.rows(), **SENSORS, **(battery or {}), "floor": -1e6, "wind_x": wind[0], "wind_y": wind[1]}
    batch.begin([0], [seed], np.array([0.0, 0.0, 50.0]), parameters=parameters)
    linear, quadratic = vehicle.thrust_of_speed
    most = 4 * (linear + quadratic) / vehicle.mass
    rotors, volt = slice(STATE.index("c0"), STATE.index("c3") + 1), STATE.index("volt")
    waiting: list[tuple[int, np.ndarray]] = []
    commands, motors, volts, sensors, estimates = [], [], [], [], []
    for step in range(round(seconds / batch.period)):
        now = step * batch.period
        if step % BETWEEN == 0:
            velocity, attitude = batch.read("velocity"), batch.read("quaternion")
            phase = int(now / 2.0)
            east = (0.0, runs, 0.0, -runs)[phase % 4]
            north = (0.0, 0.0, runs, 0.0, -runs)[phase % 5]
            wanted = np.array([[east, north, climbs * np.sign(np.sin(0.9 * now))]])
            push = np.clip(1.2 * (wanted - velocity), -4.0, 4.0) + np.array([0.0, 0.0, GRAVITY])
            aim = rotate_back(attitude, push / np.linalg.norm(push))[0]
            part = float(push[0] @ rotate(attitude, np.array([0.0, 0.0, 1.0]))[0]) / most
            signal = (
                (np.sqrt(linear**2 + 4 * quadratic * part * (linear + quadratic)) - linear) / (2 * quadratic)
                if quadratic
                else part
            )
            signal = np.clip(signal + steps * (-1.0) ** int(now / 0.7 + 0.2 * np.sin(now)), 0.05, 0.9)
            rates = np.array([-4.0 * aim[1], 4.0 * aim[0], turning])
            rates[phase % 2] += doublets * (np.sign(np.sin(2 * np.pi * now / 0.6)) if now % 1.5 < 0.6 else 0.0)
            throttle = (linear * signal + quadratic * signal**2) / (linear + quadratic)
            waiting.append((step + round(delay / SUBSTEP), np.array([throttle, *rates])))
            commands.append([now, curve * signal**2 + (1 - curve) * signal, *rates])
        if waiting and waiting[0][0] == step:
            batch.command(waiting.pop(0)[1][None])
        batch.step()
        motors.append([now - DEAD_TIME, *batch._x[0, rotors, 0]])
        volts.append(batch._x[0, volt, 0])
        if (step + 1) % SENSED == 0:
            sensors.append([now + SUBSTEP, *batch.read("accelerometer")[0], *batch.read("gyro")[0]])
        if (step + 1) % ESTIMATED == 0:
            noisy = batch.read("velocity")[0] + random.normal(0, 0.03, 3)
            estimates.append([now + SUBSTEP, *noisy, *batch.read("quaternion")[0], 16.0 * volts[-1]])
    orders = np.array(motors)
    orders[:, 1:] /= np.array(volts)[:, None]
    orders[:, 1:] = curve * orders[:, 1:] ** 2 + (1 - curve) * orders[:, 1:]
    return topics(*(np.array(each) for each in (commands, orders, sensors, estimates)))


def topics(
    commands: np.ndarray, motors: np.ndarray, sensors: np.ndarray, estimates: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    def stamp(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"timestamp": np.round((START + rows[:, 0]) * 1e6).astype(np.uint64)}

    def fields(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
        return {f"{name}[{index}]": column.astype(np.float32) for index, column in enumerate(values.T)}

    def named(names: str, values: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names.split(), values.T.astype(np.float32), strict=True))

    thrust = np.zeros((len(commands), 3))
    thrust[:, 2] = -commands[:, 1]
    attitude, velocity = swap_attitude(estimates[:, 4:8]), swap_world(estimates[:, 1:4])
    spent = {"accelerometer_integral_dt": np.zeros(len(sensors), np.uint32)}
    return {
        "vehicle_rates_setpoint": stamp(commands) | named("roll pitch yaw", swap_body(commands[:, 2:5]))
        | fields("thrust_body", thrust),
        "actuator_motors": stamp(motors) | fields("control", motors[:, 1:]),
        "sensor_combined": stamp(sensors) | fields("gyro_rad", swap_body(sensors[:, 4:7]))
        | fields("accelerometer_m_s2", swap_body(sensors[:, 1:4])) | spent,
        "vehicle_attitude": stamp(estimates) | fields("q", attitude),
        "vehicle_local_position": stamp(estimates) | named("vx vy vz", velocity),
        "battery_status": stamp(estimates) | named("voltage_v", estimates[:, 8:]),
    }  # fmt: skip


_CODES = {
    "float32": ("float", "f"),
    "uint64": ("uint64_t", "Q"),
    "uint32": ("uint32_t", "I"),
    "uint8": ("uint8_t", "B"),
}


def write_ulog(
    path: Path, logged: dict[str, dict[str, np.ndarray]], parameters: dict[str, float] | None = None
) -> Path:
    """A ULog file of version 1 (docs.px4.io, "ULog File Format"): flag bits, formats, parameters, topics, data."""

    def message(kind: str, content: bytes) -> bytes:
        return struct.pack("<HB", len(content), ord(kind)) + content

    parts = [b"\x55\x4c\x6f\x67\x01\x12\x35\x01" + struct.pack("<Q", round(START * 1e6)), message("B", bytes(40))]
    for name, fields in logged.items():
        types: dict[str, list] = {}
        for field, values in fields.items():
            types.setdefault(field.partition("[")[0], [_CODES[values.dtype.name][0], 0])[1] += 1
        told = [
            f"{kind}[{count}] {field};" if count > 1 else f"{kind} {field};" for field, (kind, count) in types.items()
        ]
        parts.append(message("F", f"{name}:{''.join(told)}".encode()))
    for name, value in (parameters or {}).items():
        whole = isinstance(value, int)
        key = f"{'int32_t' if whole else 'float'} {name}".encode()
        parts.append(message("P", bytes([len(key)]) + key + struct.pack("<i" if whole else "<f", value)))
    rows = []
    for number, (name, fields) in enumerate(logged.items()):
        parts.append(message("A", struct.pack("<BH", 0, number) + name.encode()))
        layout = struct.Struct("<H" + "".join(_CODES[values.dtype.name][1] for values in fields.values()))
        columns = [values.tolist() for values in fields.values()]
        rows += [(row[0], message("D", layout.pack(number, *row))) for row in zip(*columns, strict=True)]
    rows.sort(key=lambda row: row[0])
    path.write_bytes(b"".join([*parts, *(content for _, content in rows)]))
    return path
