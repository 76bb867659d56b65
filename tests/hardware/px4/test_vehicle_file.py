import json
from dataclasses import asdict

import pytest

from robot_rl.hardware.px4.vehicle_file import VehicleFile, load_robot
from robot_rl.hardware.robot_file import RobotFile, RobotFileError
from robot_rl.sim.drone.vehicle_model import load_vehicle


def test_arms_and_vehicles_are_told_apart():
    assert isinstance(load_robot("px4"), VehicleFile)
    assert isinstance(load_robot("panda"), RobotFile)
    with pytest.raises(RobotFileError):
        load_robot("no_such_robot")


def test_a_file_for_a_task_comes_back_as_it_was_written(tmp_path):
    made = VehicleFile.load("px4").for_task([1.4, -1.2, 0.8], "cf21B_500")
    made.save(tmp_path / "robot.yaml")
    read = load_robot(tmp_path / "robot.yaml")
    assert json.dumps(asdict(read.plan)) == json.dumps(asdict(made.plan))
    assert (read.name, read.vehicle, read.contract) == (made.name, made.vehicle, made.contract)
    model = load_vehicle("cf21B_500")
    assert list(read.plan.home) == [1.4, -1.2, 0.8]
    assert read.plan.hover_throttle == pytest.approx(model.hover_throttle)
    assert list(read.plan.limits.rates) == list(model.max_rates)
    assert VehicleFile.load("px4").for_task([0, 0, 1]).vehicle == "px4_sih"


def test_a_task_that_begins_outside_the_fence_is_refused():
    with pytest.raises(RobotFileError, match="home: expected a place within the fence"):
        VehicleFile.load("px4").for_task([9.0, 0.0, 1.0])
    with pytest.raises(RobotFileError, match="home: expected a height"):
        VehicleFile.load("px4").for_task([0.0, 0.0, 0.0])
