import numpy as np
import pytest
import yaml

from robot_rl.sim.drone.vehicle_model import available, load_vehicle
from robot_rl.sim.spec import SpecError


@pytest.mark.parametrize("name", available())
def test_the_speed_for_a_thrust_gives_that_thrust(name):
    vehicle = load_vehicle(name)
    rows = vehicle.rows()
    part = np.linspace(vehicle.idle / vehicle.thrust_max, 1, 20)
    speed = np.sqrt(rows["speed_a"] + rows["speed_b"] * part) + rows["speed_c"] + rows["speed_d"] * part
    thrust = rows["thrust1"] * speed + rows["thrust2"] * speed**2
    np.testing.assert_allclose(thrust, part * vehicle.thrust_max, rtol=1e-9)
    assert speed[-1] == pytest.approx(1.0)


def test_the_greatest_speeds_are_those_of_the_rotors():
    assert load_vehicle("cf2x").greatest_speed == pytest.approx(21702.6, rel=1e-3)  # MAX_RPM of gym-pybullet-drones
    linear, quadratic = -5.38e-7, 2.458e-10
    speed = load_vehicle("cf2x_L250").greatest_speed
    assert quadratic * speed**2 + linear * speed == pytest.approx(0.12)


def test_factors_change_the_vehicle_and_not_what_its_autopilot_knows():
    vehicle = load_vehicle("x500")
    nominal, heavy = vehicle.rows(), vehicle.rows(mass=np.array([1.3, 0.7]), thrust=0.8, lag=2.0)
    np.testing.assert_allclose(heavy["mass_inv"] * vehicle.mass, [1 / 1.3, 1 / 0.7])
    np.testing.assert_allclose(heavy["ixx"] * heavy["jxx"], 1.0)
    assert heavy["thrust2"] == pytest.approx(0.8 * nominal["thrust2"])
    assert heavy["rise1"] == pytest.approx(nominal["rise1"] ** 0.5)
    assert (heavy["hover"], heavy["speed_b"]) == (nominal["hover"], nominal["speed_b"])


BASE = {
    "name": "mine", "mass": 1.0, "inertia": [0.01, 0.01, 0.02], "arm": [0.1, 0.1], "torque_per_thrust": 0.01,
    "thrust": {"linear": 5.0, "quadratic": 0.0, "maximum": 5.0}, "drag": [0, 0], "max_rates": [3, 3, 3],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masss": 1.0}, "no key masss; there are: arm, autopilot"),
        ({"mass": "heavy"}, "mass: expected a finite number above 0, got 'heavy'"),
        ({"mass": True}, "mass: expected a finite number"),
        ({"inertia": 0.02}, "inertia: expected a list of 3 or 6 finite numbers, got 0.02"),
        ({"inertia": ["a", "b"]}, "inertia: expected a list of 3 or 6"),
        ({"inertia": [0.01, 0.01, float("nan")]}, "inertia: .*nan"),
        ({"arm": [0.17]}, r"arm: expected a list of 2 finite numbers above 0, got \[0.17\]"),
        ({"thrust": {"maximum": 15}}, r"thrust\.linear is missing\n  - thrust\.quadratic is missing"),
        ({"thrust": {"linear": 0, "quadratic": 0, "maximum": 5}}, "thrust: expected one that grows"),
        ({"thrust": {"linear": 5, "quadratic": 0}}, "thrust: expected either maximum or thrust_to_weight"),
        ({"thrust": {**BASE["thrust"], "unit": "Hz"}}, r"thrust\.unit: expected rpm or one, got 'Hz'"),
        ({"drag": [-1, -1]}, "drag: expected a list of 2 finite numbers of at least 0"),
        ({"direct": 1}, "direct: expected true or false"),
        ({"rise": {"lineer": 18.5}}, r"no key rise\.lineer; there are: linear, quadratic"),
        ({"rise": {"linear": -18.5}}, r"rise\.linear: expected a finite number of at least 0"),
        ({"rise": {"linear": 0}, "fall": {"linear": 9}}, "rise: expected a part above 0"),
        ({"autopilot": [1]}, "autopilot: expected a mapping of rates, attitude, velocity, got"),
        ({"autopilot": {"rates": {"q": 1}}}, r"no key autopilot\.rates\.q; there are: d, "),
        ({"autopilot": {"rates": {"p": 0.1}}}, r"autopilot\.rates\.p: expected a list of 3"),
        ({"autopilot": {"rates": {"gyro_cutoff": 260.0}}}, "gyro_cutoff: .* above 0 and below 250, got 260"),
        ({"mass": 3.0}, "cannot hover"),
        ({"inertia": [0.01, -0.01, 0.02]}, "positive definite"),
        ({"rise": {"linear": 9.0}}, "rise and fall"),
    ],
)
def test_refuses_what_makes_no_vehicle(change, message):
    assert load_vehicle(BASE).hover_throttle == pytest.approx(9.81 / 20)
    with pytest.raises(SpecError, match=message):
        load_vehicle({**BASE, **change})


def test_names_what_exists():
    with pytest.raises(SpecError, match="px4_sih"):
        load_vehicle("no_such")
    with pytest.raises(SpecError, match="mass"):
        load_vehicle({"name": "mine"})


def test_tells_all_that_is_wrong_with_a_file_by_its_name(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**BASE, "mass": "heavy", "arm": [0.17], "rise": {"lineer": 9}}))
    with pytest.raises(SpecError) as caught:
        load_vehicle(str(path))
    first, *problems = str(caught.value).splitlines()
    assert str(path) in first
    assert [problem.split(":")[0].strip(" -") for problem in problems] == [
        "arm", "mass", "no key rise.lineer; there are",
    ]  # fmt: skip
    path.write_text("name: [")
    with pytest.raises(SpecError, match=r"mine\.yaml: not valid YAML"):
        load_vehicle(str(path))
