import copy
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from robot_rl.datasets.contract import Feature
from robot_rl.hardware.nodes.recorder_node import recorded_topics
from robot_rl.hardware.px4.vehicle_file import VehicleFile, load_robot
from robot_rl.hardware.robot_file import FOLDER, RobotFile, RobotFileError
from robot_rl.sim.drone.vehicle_model import load_vehicle, read_vehicle


def test_arms_and_vehicles_are_told_apart():
    assert isinstance(load_robot("px4"), VehicleFile)
    assert isinstance(load_robot("panda"), RobotFile)
    for load in (load_robot, VehicleFile.load):
        with pytest.raises(RobotFileError, match="shipped are panda, px4, so101, ur5e"):
            load("px5")
        with pytest.raises(RobotFileError, match=r"my\.yaml:\n  - no such file"):
            load("my.yaml")


@pytest.mark.parametrize("kind", ["px4", '"px4"', "'px4'  # a vehicle"])
def test_a_vehicle_is_told_by_its_kind_however_that_is_written(tmp_path, kind):
    path = tmp_path / "vehicle.yaml"
    text = (FOLDER / "px4.yaml").read_text().replace("kind: px4\n", "")
    path.write_text(f"kind: {kind}\n{text}")
    assert isinstance(load_robot(path), VehicleFile)


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


def test_a_vehicle_of_ones_own_needs_no_file_of_its_own(tmp_path):
    content = read_vehicle("cf21B_500") | {"name": "mine"}
    VehicleFile.load("px4").for_task([0.0, 0.0, 1.0], content).save(tmp_path / "robot.yaml")
    read = VehicleFile.load(tmp_path / "robot.yaml")
    assert load_vehicle(read.vehicle) == replace(load_vehicle("cf21B_500"), name="mine")


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


PLAIN = yaml.safe_load((FOLDER / "px4.yaml").read_text())


def changed(tmp_path, **changes):
    """Path of px4.yaml with entries `flight__limits__speed=…` changed."""
    plain = copy.deepcopy(PLAIN)
    for way, value in changes.items():
        *parents, last = way.split("__")
        node = plain
        for parent in parents:
            node = node[parent]
        node[last] = value
    path = tmp_path / "vehicle.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flight": None}, "flight: expected a mapping, got None"),
        ({"contract": None}, "contract: expected a mapping, got None"),
        ({"cameras": ["front"]}, "cameras: expected a mapping of cameras by name"),
        ({"cameras": {"front": "/image"}}, r"cameras\.front: expected a mapping, got '/image'"),
        ({"cameras": {"front": {"type": "sensor_msgs/msg/Image"}}}, r"cameras\.front: .*topic"),
        ({"cameras": {"front": {"topic": None}}}, r"cameras\.front\.topic: expected a text"),
        ({"cameras": {"front": {"topic": "/i", "max_age": "old"}}}, r"front\.max_age: expected a finite number"),
        ({"cameras": {"front": {"topic": "/i", "qos": {"depth": -1}}}}, r"cameras\.front: depth must be >= 0"),
        ({"cameras": {"front": {"topic": "/i", "qos": {"size": 1}}}}, r"cameras\.front: .*size"),
        ({"flight__limits__altitude": "3"}, r"flight\.limits\.altitude: expected a finite number, got '3'"),
        ({"flight__limits__speed": float("nan")}, r"flight\.limits\.speed: expected a finite number, got nan"),
        ({"flight__limits__jump": float("inf")}, r"flight\.limits\.jump: expected a finite number, got inf"),
        ({"flight__limits__fence": [[-1, -1, 0]]}, r"flight\.limits\.fence: expected 2 x 3 finite numbers"),
        ({"flight__limits": None}, r"flight\.limits: expected a mapping"),
        ({"flight__hover_throttle": None}, r"flight\.hover_throttle: expected a finite number, got None"),
        ({"flight__home": [0, 0, float("nan")]}, r"flight\.home: expected 3 finite numbers"),
        ({"flight__patience__silence": True}, r"flight\.patience\.silence: expected a finite number, got True"),
        ({"flight__watchdog__skew": float("nan")}, r"flight\.watchdog\.skew"),
        ({"flight__limits__fast": 3}, r"flight\.limits: no key 'fast'; there are: altitude"),
        ({"namespace": "px4_1"}, "namespace: expected none, or a name with a leading slash such as /px4_1"),
        ({"namespace": 1}, "namespace: expected a text, got 1"),
        ({"vehicles": "x500"}, "no key 'vehicles'"),
        ({"vehicle": 500}, "vehicle: expected a name, or path or content of a vehicle's file; got 500"),
        ({"vehicle": 0}, "vehicle: expected a name, .*; got 0"),
    ],
)
def test_what_is_no_vehicle_is_refused_in_words(tmp_path, change, message):
    with pytest.raises(RobotFileError, match=message):
        VehicleFile.load(changed(tmp_path, **change))


def test_all_mistakes_are_told_at_once(tmp_path):
    path = changed(
        tmp_path, namespace="px4_1", cameras=["front"], contract__rate_hz=0, flight__limits__speed=float("nan"),
        flight__hover_throttle=None,
    )  # fmt: skip
    with pytest.raises(RobotFileError) as caught:
        VehicleFile.load(path)
    assert sorted(problem.split(":")[0] for problem in caught.value.problems) == [
        "cameras", "contract", "flight.hover_throttle", "flight.limits.speed", "namespace",
    ]  # fmt: skip


def test_all_impossible_values_are_told_at_once(tmp_path):
    path = changed(
        tmp_path, flight__limits__rates=[1, -1, 1], flight__limits__throttle=[0.9, 0.1], flight__patience__stream=0.5,
        flight__patience__tries=1.5,
    )  # fmt: skip
    with pytest.raises(RobotFileError) as caught:
        VehicleFile.load(path)
    assert sorted(problem.split(": ")[1] for problem in caught.value.problems) == [
        "limits.rates", "limits.throttle", "patience.stream", "patience.tries",
    ]  # fmt: skip
    with pytest.raises(RobotFileError) as caught:
        VehicleFile.load(changed(tmp_path, flight__home=[9, 9, 9], flight__hover_throttle=0.99))
    assert sorted(problem.split(": ")[1] for problem in caught.value.problems) == ["home", "hover_throttle"]
    plain = copy.deepcopy(PLAIN)
    del plain["flight"]["limits"]["fence"]
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(RobotFileError, match=r"flight: limits\.fence is missing"):
        VehicleFile.load(path)


def test_actions_that_come_too_seldom_for_the_watchdog_are_refused(tmp_path):
    vehicle = VehicleFile.load(changed(tmp_path, contract__rate_hz=20))
    assert vehicle.plan.watchdog.action == pytest.approx(0.09)
    assert VehicleFile.load("px4").plan.watchdog.action == pytest.approx(0.06)
    message = r"contract.rate_hz: 10 Hz, an action every 100 ms, .* after 90 ms; expected more than 11.1 Hz"
    with pytest.raises(RobotFileError, match=message):
        VehicleFile.load(changed(tmp_path, contract__rate_hz=10))
    with pytest.raises(RobotFileError, match=message):
        vehicle.for_policy(replace(vehicle.contract, rate_hz=10.0))


def test_a_file_that_is_no_yaml_is_told(tmp_path):
    path = tmp_path / "vehicle.yaml"
    path.write_text("name: a\nkind: px4\nflight: [")
    with pytest.raises(RobotFileError, match=r"vehicle\.yaml:\n  - not valid YAML"):
        load_robot(path)


def test_a_namespace_and_a_home_folder_are_understood(tmp_path):
    read = VehicleFile.load(changed(tmp_path, namespace="/px4_1", px4_msgs="~/px4_msgs"))
    assert read.namespace == "/px4_1"
    assert Path(read.px4_msgs) == Path.home() / "px4_msgs"
