"""Randomisation of a drone's episode: drawn from its seed, recorded as plain numbers, applied as parameters.

Drawing and applying are apart, as for arms: the same record gives the same episode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_rl.sim.drone.scene import NOMINAL
from robot_rl.sim.drone.vehicle_model import Vehicle
from robot_rl.sim.drone.weather import battery_rows, kick_rows, wind_rows
from robot_rl.sim.spec import SpecError

FACTORS = ("mass", "thrust", "lag", "drag")
"""Entries [low, high] of factors on the nominal vehicle."""
ENTRIES: dict[str, tuple[str, ...]] = {
    "battery": ("charge", "endurance", "sag_empty", "sag_load"),
    "wind": ("speed", "gusts"),
    "kicks": ("rate", "velocity", "rates"),
    "imu": ("gyro_noise", "gyro_bias", "accelerometer_noise", "accelerometer_bias"),
    "odometry": ("position", "velocity", "attitude", "rates", "delay", "drop"),
    "command": ("delay", "jitter", "drop"),
    "gates": ("position", "yaw"),
    "appearance": ("light", "tiles", "colour", "exposure", "camera_shift", "camera_turn"),
}
"""Entries with options. A number stands for itself, a pair [low, high] is drawn from; biases, gates, colours, and how
the camera on board is mounted [m], [rad] are ±."""
LONGEST_OBSERVATION_DELAY = 8
"""Steps."""
LONGEST_COMMAND_DELAY = 1.0
"""With its jitter [s]."""
_POSITIVE = (*FACTORS, "battery.endurance")
"""Entries that the flight divides by."""

Record = dict[str, Any]


def check(config: Mapping[str, Any]) -> None:
    """Raise `SpecError` for entries, options or values that are unknown; the message lists what exists."""
    for name, given in config.items():
        if name == "name":
            continue
        if name in FACTORS:
            _interval(name, given)
        elif name not in ENTRIES:
            raise SpecError(f"randomization: no entry {name}; there are: {', '.join([*FACTORS, *ENTRIES])}")
        elif not isinstance(given, Mapping) or (set(given) - set(ENTRIES[name])):
            raise SpecError(f"randomization {name}: expected options of {', '.join(ENTRIES[name])}; got {given!r}")
        else:
            for option, value in given.items():
                _, high = _interval(f"{name}.{option}", value)
                if name == "odometry" and option == "delay" and not high <= LONGEST_OBSERVATION_DELAY:
                    raise SpecError(
                        f"randomization odometry.delay: at most {LONGEST_OBSERVATION_DELAY} steps, got {high}"
                    )
    if (longest := longest_command_delay(config)) > LONGEST_COMMAND_DELAY:
        raise SpecError(
            f"randomization command: delay and jitter are at most {LONGEST_COMMAND_DELAY:g} s together, got {longest:g}"
        )


def draw(config: Mapping[str, Any], gates: int, generator: np.random.Generator) -> Record:
    """Numbers for one episode, plain JSON types, in the order of this file.

    Args:
        gates: how many the course has.
    """
    record: Record = {}
    for name in FACTORS:
        if name in config:
            record[name] = float(generator.uniform(*_interval(name, config[name])))
    for name, options in ENTRIES.items():
        if name not in config or name in ("gates", "appearance"):
            continue
        given = config[name]
        record[name] = {
            option: float(generator.uniform(*_interval(option, given[option]))) for option in options if option in given
        }
    if "wind" in record:
        record["wind"]["heading"] = float(generator.uniform(-np.pi, np.pi))
    if "imu" in record:
        for sensor in ("gyro", "accelerometer"):
            bias = record["imu"].get(f"{sensor}_bias", 0.0)
            record["imu"][f"{sensor}_bias"] = generator.uniform(-bias, bias, 3).tolist()
    if "odometry" in record and "delay" in config["odometry"]:
        low, high = _interval("delay", config["odometry"]["delay"])
        record["odometry"]["delay"] = int(generator.integers(int(low), int(high), endpoint=True))
    if "gates" in config and gates:
        reach, turn = (_interval(name, config["gates"].get(name, 0.0))[1] for name in ("position", "yaw"))
        record["gates"] = [
            {"shift": generator.uniform(-reach, reach, 3).tolist(), "yaw": float(generator.uniform(-turn, turn))}
            for _ in range(gates)
        ]
    if "appearance" in config:
        given = config["appearance"]
        seen = {
            name: float(generator.uniform(*_interval(name, given.get(name, NOMINAL[name]))))
            for name in ("light", "tiles")
        }
        most = _interval("colour", given.get("colour", 0.0))[1]
        for name in ("gates", "ground"):
            seen[name] = np.clip(NOMINAL[name] + generator.uniform(-most, most, 3), 0.0, 1.0).tolist()
        if "exposure" in given:
            seen["exposure"] = float(generator.uniform(*_interval("exposure", given["exposure"])))
        if "camera_shift" in given or "camera_turn" in given:
            shift, turn = (_interval(name, given.get(name, 0.0))[1] for name in ("camera_shift", "camera_turn"))
            seen["camera"] = (generator.uniform(-1, 1, 6) * np.repeat([shift, turn], 3)).tolist()
        record["appearance"] = seen
    return record


def longest_command_delay(config: Mapping[str, Any]) -> float:
    """That a configuration can draw, with its jitter [s]."""
    command = config.get("command", {})
    return sum(_interval(option, command.get(option, 0.0))[1] for option in ("delay", "jitter"))


def link(record: Mapping[str, Any]) -> list[float]:
    """What a record says of commands, odometry and vehicle, in the order of the columns `drawn` of `episode`."""
    command, odometry = record.get("command", {}), record.get("odometry", {})
    return [
        *(command.get(name, 0.0) for name in ("delay", "jitter", "drop")),
        *(odometry.get(name, 0.0) for name in ("position", "velocity", "attitude", "rates", "delay", "drop")),
        *(record.get(name, 1.0) for name in ("mass", "thrust")),
    ]


def parameters(record: Mapping[str, Any], vehicle: Vehicle, period: float) -> dict[str, Any]:
    """Parameters of `DroneBatch.begin` for a record, with steps of `period` s."""
    rows: dict[str, Any] = dict(vehicle.rows(**{name: record.get(name, 1.0) for name in FACTORS}))
    if "battery" in record:
        battery = record["battery"]
        rows["charge"] = battery.get("charge", 1.0)
        rows |= battery_rows(
            period, battery.get("endurance", np.inf), battery.get("sag_empty", 0.0), battery.get("sag_load", 0.0)
        )
    if "wind" in record:
        wind = record["wind"]
        speed, heading = wind.get("speed", 0.0), wind["heading"]
        rows |= wind_rows(period, (speed * np.cos(heading), speed * np.sin(heading), 0.0), wind.get("gusts", 0.0))
    if "kicks" in record:
        kicks = record["kicks"]
        rows |= kick_rows(period, kicks.get("rate", 0.0), kicks.get("velocity", 0.0), kicks.get("rates", 0.0))
    if "imu" in record:
        imu = record["imu"]
        rows["gyr_n"], rows["acb_n"] = imu.get("gyro_noise", 0.0), imu.get("accelerometer_noise", 0.0)
        for axis, letter in enumerate("xyz"):
            rows[f"gyr_{letter}"] = imu["gyro_bias"][axis]
            rows[f"acb_{letter}"] = imu["accelerometer_bias"][axis]
    return rows


def _interval(name: str, value: Any) -> tuple[float, float]:
    pair = value if isinstance(value, list | tuple) else [value, value]
    numbers = len(pair) == 2 and all(isinstance(each, int | float) and not isinstance(each, bool) for each in pair)
    least = "above 0" if name in _POSITIVE else "of at least 0"
    if not numbers or not 0 <= pair[0] <= pair[1] < math.inf or (name in _POSITIVE and pair[0] == 0):
        raise SpecError(f"randomization {name}: expected a finite number or [low, high] {least}, got {value!r}")
    return float(pair[0]), float(pair[1])
