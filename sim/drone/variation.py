"""Randomisation of a drone's episode: drawn from its seed, recorded as plain numbers, applied as parameters.

Drawing and applying are apart, as for arms: the same record gives the same episode.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from robot_rl.sim.drone.generators import Generators
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
_PARTS = ("battery.charge", "odometry.drop", "command.drop")
"""Entries that are at most 1."""

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


def draw(config: Mapping[str, Any], gates: int, seeds: Sequence[int] | np.ndarray) -> list[Record]:
    """Numbers for the episodes of some seeds, plain JSON types, in the order of this file.

    Args:
        gates: how many the course has.
    """
    generators = Generators(seeds, 1)

    def choose(given: Mapping[str, Any], names: Iterable[str]) -> dict[str, np.ndarray]:
        intervals = {name: _limits(given[name]) for name in names if name in given}
        low, high = np.array([*intervals.values()], float).reshape(-1, 2).T
        return dict(zip(intervals, generators.uniform(low, high, len(intervals)).T, strict=True))

    drawn: dict[str, Any] = choose(config, FACTORS)
    for name, options in ENTRIES.items():
        if name in config and name not in ("gates", "appearance"):
            drawn[name] = choose(config[name], options)
    if "wind" in drawn:
        drawn["wind"]["heading"] = generators.uniform(-np.pi, np.pi)
    if "imu" in drawn:
        for sensor in ("gyro", "accelerometer"):
            bias = drawn["imu"].get(f"{sensor}_bias", np.zeros(len(seeds)))[:, None]
            drawn["imu"][f"{sensor}_bias"] = generators.uniform(-bias, bias, 3)
    if "odometry" in drawn and "delay" in config["odometry"]:
        low, high = _limits(config["odometry"]["delay"])
        drawn["odometry"]["delay"] = generators.integers(int(low), int(high))
    if "gates" in config and gates:
        reach, turn = (_limits(config["gates"].get(name, 0.0))[1] for name in ("position", "yaw"))
        farthest = np.array([reach, reach, reach, turn])
        moved = generators.uniform(-farthest, farthest, gates, 4)
        drawn["gates"] = [{"shift": moved[:, gate, :3], "yaw": moved[:, gate, 3]} for gate in range(gates)]
    if "appearance" in config:
        given = config["appearance"]
        seen = choose({"light": NOMINAL["light"], "tiles": NOMINAL["tiles"], **given}, ("light", "tiles"))
        most = _limits(given.get("colour", 0.0))[1]
        for name in ("gates", "ground"):
            seen[name] = np.clip(NOMINAL[name] + generators.uniform(-most, most, 3), 0.0, 1.0)
        seen |= choose(given, ("exposure",))
        if "camera_shift" in given or "camera_turn" in given:
            shift, turn = (_limits(given.get(name, 0.0))[1] for name in ("camera_shift", "camera_turn"))
            seen["camera"] = generators.uniform(-1, 1, 6) * np.repeat([shift, turn], 3)
        drawn["appearance"] = seen
    return _records(drawn, len(seeds))


def _records(drawn: Any, num: int) -> list[Any]:
    """Of arrays [num, ...] in mappings and lists: such a mapping of plain numbers for each."""
    if isinstance(drawn, np.ndarray):
        records: list[Any] = drawn.tolist()
        return records
    if isinstance(drawn, list):
        return [list(each) for each in zip(*(_records(part, num) for part in drawn), strict=True)]
    if not drawn:
        return [{} for _ in range(num)]
    parts = [_records(part, num) for part in drawn.values()]
    return [dict(zip(drawn, each, strict=True)) for each in zip(*parts, strict=True)]


def longest_command_delay(config: Mapping[str, Any]) -> float:
    """That a configuration can draw, with its jitter [s]."""
    command = config.get("command", {})
    return sum(_limits(command.get(option, 0.0))[1] for option in ("delay", "jitter"))


def link(records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """What records say of commands, odometry and vehicle [n, columns], those of `drawn` of `episode`."""
    command, odometry = (_group(records, name) for name in ("command", "odometry"))
    return np.stack(
        [
            *(_column(command, name) for name in ("delay", "jitter", "drop")),
            *(_column(odometry, name) for name in ("position", "velocity", "attitude", "rates", "delay", "drop")),
            *(_column(records, name, 1.0) for name in ("mass", "thrust")),
        ],
        axis=1,
    )


def parameters(records: Sequence[Mapping[str, Any]], vehicle: Vehicle, period: float) -> dict[str, Any]:
    """Parameters of `DroneBatch.begin` for the records [n] of one configuration, with steps of `period` s."""
    rows: dict[str, Any] = {}
    if any(name in records[0] for name in FACTORS):
        rows = vehicle.factored_rows(*(_column(records, name, 1.0) for name in FACTORS))
    if "battery" in records[0]:
        battery = _group(records, "battery")
        rows["charge"] = _column(battery, "charge", 1.0)
        rows |= battery_rows(
            period, _column(battery, "endurance", np.inf), _column(battery, "sag_empty"), _column(battery, "sag_load")
        )
    if "wind" in records[0]:
        wind = _group(records, "wind")
        speed, heading = _column(wind, "speed"), _column(wind, "heading")
        mean = (speed * np.cos(heading), speed * np.sin(heading), np.zeros(len(records)))
        rows |= wind_rows(period, mean, _column(wind, "gusts"))
    if "kicks" in records[0]:
        kicks = _group(records, "kicks")
        rows |= kick_rows(period, _column(kicks, "rate"), _column(kicks, "velocity"), _column(kicks, "rates"))
    if "imu" in records[0]:
        imu = _group(records, "imu")
        rows["gyr_n"], rows["acb_n"] = _column(imu, "gyro_noise"), _column(imu, "accelerometer_noise")
        for sensor, row in (("gyro", "gyr"), ("accelerometer", "acb")):
            biases = np.array([each[f"{sensor}_bias"] for each in imu])
            rows |= {f"{row}_{letter}": biases[:, axis] for axis, letter in enumerate("xyz")}
    return rows


def _group(records: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [record.get(name, {}) for record in records]


def _column(records: Sequence[Mapping[str, Any]], name: str, default: float = 0.0) -> np.ndarray:
    """An entry of each record, float64 [n]."""
    return np.array([record.get(name, default) for record in records], float)


def _limits(value: Any) -> tuple[float, float]:
    low, high = value if isinstance(value, list | tuple) else (value, value)
    return low, high


def _interval(name: str, value: Any) -> tuple[float, float]:
    pair = value if isinstance(value, list | tuple) else [value, value]
    numbers = len(pair) == 2 and all(isinstance(each, int | float) and not isinstance(each, bool) for each in pair)
    least = "above 0" if name in _POSITIVE else "of at least 0"
    if not numbers or not 0 <= pair[0] <= pair[1] < math.inf or (name in _POSITIVE and pair[0] == 0):
        raise SpecError(f"randomization {name}: expected a finite number or [low, high] {least}, got {value!r}")
    if name in _PARTS and pair[1] > 1:
        raise SpecError(f"randomization {name}: expected at most 1, got {value!r}")
    return float(pair[0]), float(pair[1])
