"""Parameters of simulated vehicles, found again in the logs of their flights."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_rl.cli import main
from robot_rl.hardware.px4.flight_log import read_flight_log
from robot_rl.sim.drone.batch import DroneBatch
from robot_rl.sim.drone.identification import IdentificationError, identify
from robot_rl.sim.drone.identified_vehicle import mass_of
from robot_rl.sim.drone.vehicle_model import Vehicle, load_vehicle
from robot_rl.sim.drone.weather import battery_rows

from .flown_log import START, fly, write_ulog

COMMON = {"torque_per_thrust": 0.016, "max_rates": [3.84, 3.84, 3.49]}
UNEVEN = {
    "name": "uneven", "mass": 1.37, "inertia": [0.012, 0.015, 0.02], "arm": [0.13, 0.16],
    "thrust": {"linear": 2.0, "quadratic": 7.5, "unit": "one", "maximum": 9.5},
    "rise": {"linear": 1 / 0.035}, "fall": {"linear": 1 / 0.06}, "drag": [0.35, 0.5], **COMMON,
}  # fmt: skip
HEAVY = {
    "name": "heavy", "mass": 2.6, "inertia": [0.0217, 0.0213, 0.0394], "arm": [0.1768, 0.1768],
    "thrust": {"linear": 0.0, "quadratic": 14.0, "unit": "one", "maximum": 14.0},
    "rise": {"linear": 1 / 0.08}, "fall": {"linear": 1 / 0.08}, "drag": [0.6, 0.3], **COMMON,
}  # fmt: skip
BATTERY = battery_rows(0.002, 150.0, 0.2, 0.08)
FLIGHTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "uneven": (UNEVEN, {"delay": 0.026}),
    "heavy": (HEAVY, {"delay": 0.05, "curve": 0.6, "wind": (2.0, -1.0), "turning": 0.5, "battery": BATTERY, "seed": 1}),
    "straight up": (UNEVEN, {"delay": 0.02, "runs": 0.0, "doublets": 0.0, "seed": 2}),
    "hover": (UNEVEN, {"delay": 0.02, "steps": 0.0, "runs": 0.0, "doublets": 0.0, "climbs": 0.0}),
}
# How far off values may be: of themselves, and for the delay and pure numbers absolutely.
NEAR = {
    "thrust_to_mass": 0.01, "linear": 0.05, "quadratic": 0.02, "rise": 0.05, "fall": 0.05, "drag_xy": 0.06,
    "drag_z": 0.12, "inertia_x": 0.02, "inertia_y": 0.02,
}  # fmt: skip
NEAR_ABSOLUTE = {"delay": 0.0015, "hover_throttle": 0.003, "thrust_curve": 0.012}


@pytest.fixture(scope="module")
def logged() -> dict[str, dict[str, dict[str, np.ndarray]]]:
    return {name: fly(load_vehicle(vehicle), 22.0, **kw) for name, (vehicle, kw) in FLIGHTS.items()}


@pytest.fixture(scope="module")
def ulog(logged: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The path of a flight's log, by its name."""
    folder = tmp_path_factory.mktemp("logs")

    def write(name: str) -> Path:
        path = folder / f"{name.replace(' ', '_')}.ulg"
        curve = FLIGHTS[name][1].get("curve", 0.0)
        return path if path.is_file() else write_ulog(path, logged[name], {"THR_MDL_FAC": curve})

    return write


@pytest.fixture(scope="module")
def found(ulog: Any) -> Any:
    """What a flight tells, by its name."""
    return functools.cache(lambda name: identify(read_flight_log(ulog(name))))


def truth(vehicle: Vehicle, volt: float, delay: float, curve: float) -> dict[str, float]:
    linear, quadratic = (4 * each * volt**power / vehicle.mass for power, each in enumerate(vehicle.thrust_of_speed, 1))
    hover = np.max(np.roots([quadratic, linear, -9.81]).real)
    return {
        "thrust_to_mass": linear + quadratic, "linear": linear, "quadratic": quadratic,
        "thrust_curve": quadratic / (linear + quadratic), "hover_throttle": curve * hover**2 + (1 - curve) * hover,
        "delay": delay, "rise": 1 / vehicle.rise["linear"], "fall": 1 / vehicle.fall["linear"],
        "drag_xy": vehicle.drag[0] / vehicle.mass, "drag_z": vehicle.drag[1] / vehicle.mass,
        "inertia_x": vehicle.inertia[0] / vehicle.mass / vehicle.arm[1],
        "inertia_y": vehicle.inertia[1] / vehicle.mass / vehicle.arm[0],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["uneven", "heavy"])
def test_recovers_what_was_flown(name: str, found: Any, logged: dict[str, Any]) -> None:
    vehicle, flown = FLIGHTS[name]
    told = found(name)
    volt = float(logged[name]["battery_status"]["voltage_v"].mean() / 16.0)
    true = truth(load_vehicle(vehicle), volt, flown["delay"], flown.get("curve", 0.0))
    assert not told.missing
    assert set(told.estimates) == set(true)
    for quantity, estimate in told.estimates.items():
        scale = true["thrust_to_mass"] if quantity == "linear" else abs(true[quantity])
        allowed = NEAR[quantity] * scale if quantity in NEAR else NEAR_ABSOLUTE[quantity]
        off = abs(estimate.value - true[quantity])
        assert off < allowed, f"{quantity}: {estimate} where {true[quantity]:.5g} was flown"
        # The interval is no wish: neither is the truth far outside, nor is it wider than what is found.
        assert off < 4 * estimate.error + 2e-3 * scale, f"{quantity}: {estimate} where {true[quantity]:.5g} was flown"
        assert estimate.error < allowed
    assert told.residual == pytest.approx(0.3, rel=0.1)  # the noise of the accelerometer


def test_a_hover_is_refused_with_what_to_fly(found: Any) -> None:
    told = found("hover")
    assert not told.estimates
    for quantity, flight in {
        "hover_throttle": "throttle steps", "delay": "throttle steps", "fall": "throttle steps",
        "drag_xy": "straight runs", "drag_z": "climb and sink", "inertia_y": "rate doublets",
    }.items():  # fmt: skip
        assert flight in told.missing[quantity]


def test_what_was_not_flown_is_missing_and_the_rest_is_there(found: Any) -> None:
    told = found("straight up")
    assert set(told.missing) == {"drag_xy", "inertia_x", "inertia_y"}
    assert told.estimates["thrust_to_mass"].value == pytest.approx(4 * 9.5 / 1.37, rel=0.01)


def test_an_uncertain_value_is_missing(ulog: Any) -> None:
    log = read_flight_log(ulog("uneven"))
    shaken = np.random.default_rng(0).normal(0.0, 200.0, log.accelerometer.shape)
    told = identify(replace(log, accelerometer=log.accelerometer + shaken))
    assert {"thrust_to_mass", "hover_throttle", "rise", "drag_xy", "inertia_x"} <= set(told.missing)
    assert "standard error" in told.missing["rise"]


def test_the_log_is_read_in_our_frames(ulog: Any, logged: dict[str, Any]) -> None:
    log = read_flight_log(ulog("uneven"))
    assert log.accelerometer[:, 2].mean() == pytest.approx(9.81, abs=0.3)
    speeds = logged["uneven"]["vehicle_local_position"]
    middle = len(speeds["vx"]) // 2
    at = speeds["timestamp"][middle] / 1e6 - START
    seen = [np.interp(at, log.time, column) for column in log.velocity.T]
    np.testing.assert_allclose(
        seen, [speeds["vy"][middle], speeds["vx"][middle], -speeds["vz"][middle]], atol=0.05
    )  # fmt: skip
    # Thrust and gravity alone: what the accelerometer feels, turned to the world, is how the velocity changes.
    from robot_rl.sim.drone.attitude import rotate

    gained = np.cumsum(
        (rotate(log.attitude, log.accelerometer) - [0, 0, 9.81]) * np.gradient(log.time)[:, None], axis=0
    )
    np.testing.assert_allclose(gained[2500, :2], log.velocity[2500, :2] - log.velocity[0, :2], atol=1.5)
    assert np.corrcoef(gained[:2500, 0], log.velocity[:2500, 0])[0, 1] > 0.9


def test_only_the_flight_counts(logged: dict[str, Any], tmp_path: Path) -> None:
    topics = dict(logged["uneven"])
    stamps = (np.array([START, START + 1.0, START + 21.5]) * 1e6).astype(np.uint64)
    topics["vehicle_land_detected"] = {"timestamp": stamps, "landed": np.array([1, 0, 1], np.uint8)}
    path = write_ulog(tmp_path / "log.ulg", topics)
    log = read_flight_log(path)
    assert (log.time[0], log.time[-1]) == pytest.approx((1.0, 21.5), abs=0.02)
    cut = read_flight_log(path, 1.2, 21.3)
    assert (cut.time[0], cut.time[-1]) == pytest.approx((1.2, 21.3), abs=0.02)
    with pytest.raises(IdentificationError, match="at least 20 s in the air"):
        identify(read_flight_log(path, 5.0, 12.0))
    with pytest.raises(IdentificationError, match="nothing was flown"):
        read_flight_log(path, 40.0)


@pytest.mark.parametrize("topic", ["vehicle_rates_setpoint", "actuator_motors", "sensor_combined"])
def test_a_topic_that_is_missing_or_too_slow_is_named_with_the_setting(
    topic: str, logged: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "log.ulg"
    topics = dict(logged["uneven"])
    slow = {field: values[:: len(values) // 250] for field, values in topics[topic].items()}
    with pytest.raises(IdentificationError, match=f"{topic} comes every .*SDLOG_PROFILE to 17"):
        read_flight_log(write_ulog(path, topics | {topic: slow}))
    del topics[topic]
    with pytest.raises(IdentificationError, match=f"{topic} is not in the log: set SDLOG_PROFILE to 17"):
        read_flight_log(write_ulog(path, topics))


@pytest.mark.parametrize(
    ("topic", "field"),
    [
        ("vehicle_local_position", "vx"), ("vehicle_attitude", "q[0]"),
        ("sensor_combined", "gyro_rad[0]"), ("sensor_combined", "accelerometer_m_s2[2]"),
    ],
)  # fmt: skip
def test_samples_that_are_no_numbers_are_left_out(
    topic: str, field: str, logged: dict[str, Any], found: Any, tmp_path: Path
) -> None:
    topics = dict(logged["uneven"])
    values = np.array(topics[topic][field], float)
    values[len(values) // 2 :: len(values) // 7] = np.nan
    path = write_ulog(tmp_path / "log.ulg", topics | {topic: topics[topic] | {field: values.astype(np.float32)}})
    told, wanted = (each.estimates["thrust_to_mass"] for each in (identify(read_flight_log(path)), found("uneven")))
    assert told.value == pytest.approx(wanted.value, rel=0.01)


def test_a_gap_a_silent_rotor_and_a_vehicle_on_the_ground_are_told(logged: dict[str, Any], tmp_path: Path) -> None:
    path, topics = tmp_path / "log.ulg", dict(logged["uneven"])
    sensor = topics["sensor_combined"]
    seconds = np.asarray(sensor["timestamp"], float) / 1e6 - START
    kept = {name: values[(seconds < 9.0) | (seconds > 14.0)] for name, values in sensor.items()}
    with pytest.raises(IdentificationError, match=r"sensor_combined is missing from 9\.00 to 14\.0.*start= and end="):
        read_flight_log(write_ulog(path, topics | {"sensor_combined": kept}))
    motors = topics["actuator_motors"]
    silent = motors | {"control[2]": np.full_like(motors["control[2]"], np.nan)}
    with pytest.raises(IdentificationError, match=r"tells nothing of control\[2\]"):
        read_flight_log(write_ulog(path, topics | {"actuator_motors": silent}))
    rates = topics["vehicle_rates_setpoint"]
    idle = rates | {"thrust_body[2]": np.zeros_like(rates["thrust_body[2]"])}
    with pytest.raises(IdentificationError, match="the vehicle was never in the air"):
        read_flight_log(write_ulog(path, topics | {"vehicle_rates_setpoint": idle}))


def test_rotors_are_told_by_where_they_are(logged: dict[str, Any], tmp_path: Path) -> None:
    """PX4 numbers them as its parameters CA_ROTOR*_PX and _PY have them, forward and right."""
    topics = dict(logged["uneven"])
    order = read_flight_log(write_ulog(tmp_path / "log.ulg", topics)).motors
    swapped = {
        f"control[{index}]": topics["actuator_motors"][f"control[{old}]"] for index, old in enumerate((2, 0, 3, 1))
    }
    topics["actuator_motors"] = topics["actuator_motors"] | swapped
    places = {0: (1.0, -1.0), 1: (1.0, 1.0), 2: (-1.0, 1.0), 3: (-1.0, -1.0)}
    told: dict[str, float] = {}
    for rotor, (x, y) in places.items():
        told |= {f"CA_ROTOR{rotor}_PX": x, f"CA_ROTOR{rotor}_PY": y}
    np.testing.assert_array_equal(read_flight_log(write_ulog(tmp_path / "log.ulg", topics, told)).motors, order)
    with pytest.raises(IdentificationError, match="expected four rotors"):
        read_flight_log(write_ulog(tmp_path / "log.ulg", topics, told | {"CA_ROTOR3_PX": 1.0}))
    with pytest.raises(IdentificationError, match="expected four rotors"):
        read_flight_log(write_ulog(tmp_path / "log.ulg", topics, {"CA_ROTOR_COUNT": 6}))


def test_without_pyulog_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyulog", None)
    with pytest.raises(IdentificationError, match=r'pip install "robot_rl\[px4\]"'):
        read_flight_log(tmp_path / "log.ulg")


def test_what_is_no_log_is_told(tmp_path: Path) -> None:
    (tmp_path / "photo.ulg").write_bytes(b"JFIF" * 100)
    for name in ("photo.ulg", "absent.ulg"):
        with pytest.raises(IdentificationError, match=f"{name}.*expected a PX4 log"):
            read_flight_log(tmp_path / name)


def test_the_command_writes_a_vehicle_that_flies(ulog: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    arguments = ["identify", f"log={ulog('uneven')}", "mass=1.37", "arm=[0.13,0.16]", f"output={path}"]
    assert main(arguments) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "hover_throttle: 0.54" in out or "hover_throttle: 0.55" in out
    assert "THR_MDL_FAC 0.79" in out
    vehicle, true = load_vehicle(str(path)), load_vehicle(UNEVEN)
    assert vehicle.name == "mine"
    assert vehicle.mass == true.mass
    assert vehicle.thrust_max == pytest.approx(true.thrust_max, rel=0.01)
    assert vehicle.inertia[:2] == pytest.approx(true.inertia[:2], rel=0.02)
    assert vehicle.drag == pytest.approx(true.drag, rel=0.1)
    assert vehicle.rise["linear"] == pytest.approx(true.rise["linear"], rel=0.05)
    assert vehicle.torque_per_thrust == load_vehicle("x500").torque_per_thrust
    batch = DroneBatch(vehicle, 1, 500)
    batch.begin([0], [0], np.array([0.0, 0.0, 5.0]))
    batch.step()
    assert np.abs(batch.read("velocity")).max() < 0.01
    assert "Identified from uneven.ulg with mass= 1.37 kg" in path.read_text()
    # And once more over it only if that is wanted.
    assert main(arguments) == 1
    assert "overwrite=true" in capsys.readouterr().err


def test_mass_and_thrust_are_not_told_apart(found: Any, ulog: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told = found("uneven")
    assert mass_of(told, None, 9.5) == pytest.approx(1.37, rel=0.01)
    with pytest.raises(IdentificationError, match="both are given"):
        mass_of(told, 1.37, 9.5)
    assert main(["identify", f"log={ulog('uneven')}"]) == 1
    said = capsys.readouterr()
    assert "greatest thrust over mass" in said.out
    assert "not the two apart: expected mass=" in said.err


def test_the_command_keeps_only_what_it_is_told_to(
    ulog: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    arguments = ["identify", f"log={ulog('straight up')}", "mass=1.37", f"output={path}"]
    assert main(arguments) == 1
    assert "keep=[drag,inertia]" in capsys.readouterr().err
    assert not path.exists()
    assert main([*arguments, "keep=[drag,inertia]"]) == 0
    base = load_vehicle("x500")
    kept = load_vehicle(str(path))
    assert (kept.drag, kept.inertia, kept.arm) == (base.drag, base.inertia, base.arm)
    assert {"inertia,", "arm,", "drag,"} <= set(path.read_text().splitlines()[1].split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "log= is missing"),
        (["log=x.ulg", "mass=-1"], "mass: expected a positive number, got -1"),
        (["log=x.ulg", "arm=[0.2]"], "arm: expected x and y"),
        (["log=x.ulg", "keep=[thrust]"], "keep: expected of lag, drag, inertia; got thrust"),
        (["log=x.ulg", "output=mine.txt"], "ends in .yaml"),
        (["log=x.ulg", "output=absent/mine.yaml"], "no such folder"),
        (["log=x.ulg", "vehicle=x5000"], "no vehicle 'x5000'"),
        (["log=x.ulg"], "there is no such file"),
    ],
)
def test_wrong_input_is_one_clear_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identify", *arguments]) == 1
    err = capsys.readouterr().err
    assert expected in err
    assert "Traceback" not in err
