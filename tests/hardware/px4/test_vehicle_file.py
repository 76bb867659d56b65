import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from robot_rl.datasets.contract import Feature
from robot_rl.hardware.nodes.recorder_node import recorded_topics
from robot_rl.hardware.px4.vehicle_file import VehicleFile, load_robot
from robot_rl.hardware.robot_file import FOLDER, RobotFile, RobotFileError
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


def test_streams_are_what_a_vehicle_tells_of_what_a_policy_sees():
    vehicle = VehicleFile.load("px4")
    picture = Feature("onboard", (24, 32, 3), "uint8", kind="image")
    seen = {**vehicle.contract.select(["velocity", "gyro"]).observation, "onboard": picture}
    streams = vehicle.for_policy(replace(vehicle.contract, observation=seen)).streams
    assert {name: stream.topic for name, stream in streams.items()} == {
        "velocity": "odometry", "gyro": "imu", "onboard": "/onboard/image_raw",
    }  # fmt: skip
    assert streams["onboard"].feature.shape == (24, 32, 3)
    assert {"odometry", "imu"} <= recorded_topics(vehicle).keys()


def test_cameras_come_back_and_impossible_ones_are_refused(tmp_path):
    text = (FOLDER / "px4.yaml").read_text()
    path = tmp_path / "vehicle.yaml"
    path.write_text(text.replace("rate_hz: 20}", "rate_hz: 20, latency: 0.03, type: sensor_msgs/msg/CompressedImage}"))
    made = VehicleFile.load(path)
    assert made.cameras["onboard"].latency == 0.03
    made.save(path)
    assert VehicleFile.load(path).cameras == made.cameras
    for wrong in ("type: sensor_msgs/msg/Imu", "max_age: 0", "angle: 3"):
        path.write_text(text.replace("max_age: 0.2, rate_hz: 20", wrong))
        with pytest.raises(RobotFileError, match=r"cameras\.onboard"):
            VehicleFile.load(path)


def test_a_room_holds_the_fence_and_the_way():
    vehicle = VehicleFile.load("px4").with_room(np.array([-2.0, -7.0, 0.5]), np.array([14.0, 2.0, 4.5]))
    assert vehicle.plan.limits.fence == ((-5.0, -7.0, -0.5), (14.0, 5.0, 4.5))
    assert vehicle.plan.limits.altitude == 4.5
