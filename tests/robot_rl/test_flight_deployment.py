import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robot_rl import cli, deploy
from robot_rl.datasets import EpisodeStore
from robot_rl.evaluate import Candidate
from robot_rl.flight_deployment import file_for_task, flight_parameters
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.robot_file import RobotFileError
from robot_rl.hardware.ros2.graph import Endpoint
from robot_rl.hardware.ros2.qos import RELIABLE
from robot_rl.sim.drone.env import DroneEnv
from robot_rl.sim.spec import resolve

SPEC = resolve({"task": "drone/gates"})
PX4 = VehicleFile.load("px4")


def plain(**changes):
    from omegaconf import OmegaConf

    words = ["policy=runs/gates", "robot=px4"]
    composed = OmegaConf.to_container(cli.compose("deploy", words), resolve=True)
    return {key: value for key, value in composed.items() if key != "hydra"} | changes


def test_all_nodes_read_one_file_and_go_in_lockstep_with_the_twin() -> None:
    nodes = flight_parameters(plain(twin=True, horizon=50), Path("out"), SPEC, Path("robot.yaml"), 50)
    assert list(nodes) == ["px4_twin", "px4", "recorder", "policy"]  # as they are started
    assert {parameters["robot"] for parameters in nodes.values()} == {"robot.yaml"}
    assert nodes["px4_twin"]["real_time"] is False
    assert nodes["px4"]["wait_for_proposal"] > 0
    assert nodes["policy"]["lockstep"]
    assert (nodes["policy"]["task"], nodes["policy"]["horizon"]) == ("drone/gates", 50)
    nodes = flight_parameters(plain(record=False), Path("out"), SPEC, Path("robot.yaml"), 50)
    assert list(nodes) == ["px4", "policy"]
    assert nodes["px4"]["wait_for_proposal"] == 0
    assert not any(parameters["use_sim_time"] for parameters in nodes.values())


def test_the_task_begins_at_home_and_a_twin_is_the_vehicle_of_the_training() -> None:
    twin, real = (file_for_task(PX4, SPEC, 0, is_twin) for is_twin in (True, False))
    assert twin.plan.home == pytest.approx((1.4, -1.2, 0.8))
    assert real.plan.home == twin.plan.home
    assert (twin.vehicle, real.vehicle) == ("cf21B_500", "px4_sih")
    assert real.plan.hover_throttle == PX4.plan.hover_throttle
    with pytest.raises(RobotFileError, match="home: expected a height"):
        file_for_task(PX4, resolve({"task": "drone/takeoff_land"}), 0, True)


def test_a_vehicle_whose_limits_do_not_hold_the_task_is_refused_and_a_twin_gets_the_room() -> None:
    corridor = resolve({"task": "drone/corridor"})
    low = replace(PX4.plan.limits, altitude=1.4, speed=0.5)
    vehicle = replace(PX4, plan=replace(PX4.plan, home=(0.0, 0.0, 1.0), limits=low))
    with pytest.raises(RobotFileError) as caught:
        file_for_task(vehicle, corridor, 0, False)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "limits.fence", "limits.altitude", "limits.speed",
    ]  # fmt: skip
    assert file_for_task(PX4, corridor, 0, True).plan.limits.fence[1][0] > 12.0


def test_a_vehicle_that_somebody_else_commands_is_refused() -> None:
    from robot_rl.deployment import DeployError

    other = Endpoint("/fmu/in/vehicle_command", "px4_msgs/msg/VehicleCommand", "/other", RELIABLE, True)
    with pytest.raises(DeployError, match="/other publishes /fmu/in/vehicle_command"):
        deploy.check_alone([other], PX4, False)
    pose = Endpoint("/fmu/in/vehicle_visual_odometry", "px4_msgs/msg/VehicleOdometry", "/mocap", RELIABLE, True)
    deploy.check_alone([pose], PX4, False)  # says where the vehicle is, and moves nothing
    told = Endpoint("/fmu/out/vehicle_odometry", "px4_msgs/msg/VehicleOdometry", "", RELIABLE, True)
    deploy.check_alone([told], PX4, False)  # what a real vehicle is for
    with pytest.raises(DeployError, match="never reaches another robot"):
        deploy.check_alone([told], PX4, True)


@pytest.mark.parametrize(
    ("observed", "further", "message"),
    [
        (["position", "optical_flow", "range"], [], "no optical_flow, range is heard from a vehicle"),
        (["position"], ["home=false"], "home=false: a vehicle begins each flight where its task begins"),
    ],
)
def test_what_no_vehicle_does_is_refused_before_anything_is_started(tmp_path, monkeypatch, observed, further, message):
    def refuse(*_):
        raise AssertionError("something is started")

    policy = SimpleNamespace(contract=DroneEnv("drone/figure8").contract.select(observed))
    candidate = Candidate(Path("runs/demo"), policy, {"environment": {"task": "drone/figure8"}})
    monkeypatch.setattr(Candidate, "load", lambda *_: candidate)
    monkeypatch.setattr("robot_rl.hardware.ros2.graph.open_graph", refuse)
    words = ["policy=runs/demo", "robot=px4", "twin=true", f"output={tmp_path / 'run'}", *further]
    with pytest.raises(ValueError, match=message):
        deploy.main(cli.compose("deploy", words))
    assert not (tmp_path / "run").exists()


def test_metrics_are_averages_of_the_flights_that_have_them() -> None:
    flights = [{"success": "True", "steps": "9", "lap_time": "6.5"}, {"success": "False", "lap_time": "None"}, {}]
    assert deploy._metrics(flights) == {"lap_time": 6.5}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_policy_flies_the_twin_in_processes_of_their_own(tmp_path, ros_domain) -> None:
    pytest.importorskip("cyclonedds")
    data, policy, out = (str(tmp_path / name) for name in ("hover.zarr", "policy", "out"))
    collect = ["task=drone/hover", "controller=velocity", "cameras={onboard: [24, 32]}", "sim_state=false"]
    assert cli.main(["collect", *collect, "episodes=8", f"output={data}"]) == 0
    arguments = [
        f"dataset={data}", "policy=drone_sight", "labels=executed", "training.steps=1000", "policy.denoiser.width=32",
        "policy.denoiser.depth=1", "policy.observation=[velocity,accelerometer,gyro,reference,onboard]",
        "policy.encoder.channels=[4]", "policy.encoder.grid=[3,4]", "policy.encoder.features=4", f"output={policy}",
        "threads=1",
    ]  # fmt: skip
    assert cli.main(["train", *arguments]) == 0
    arguments = [f"policy={policy}", "robot=px4", "twin=true", "episodes=2", "first_seed=100", "horizon=170"]
    assert cli.main(["deploy", *arguments, f"output={out}"]) == 0

    metrics = json.loads((Path(out) / "metrics.json").read_text())
    assert metrics["episodes"] == 2
    assert metrics["success_rate"] == metrics["comparison"]["success_rate"] == 1.0
    assert metrics["metrics"]["position_rmse"] < 0.1
    rows = list(csv.DictReader((Path(out) / "deployment" / "episodes.csv").open()))
    assert [(row["seed"], row["steps"]) for row in rows] == [("100", "170"), ("101", "170")]

    store = EpisodeStore.open(f"{out}/episodes.zarr")
    assert [episode.success for episode in store] == [True, True]
    assert [episode.facts["source"] for episode in store] == ["policy", "policy"]
    for episode in store:
        assert set(episode.observation) == {"velocity", "accelerometer", "gyro", "reference", "onboard"}
        # On average what is felt carries the vehicle; the camera sees the ground below and the sky above.
        np.testing.assert_allclose(episode.observation["accelerometer"].mean(0), [0.0, 0.0, 9.81], atol=0.2)
        assert np.abs(episode.observation["gyro"]).max() < 2.0
        picture = np.asarray(episode.observation["onboard"][len(episode.action) // 2], float)
        assert picture.shape == (24, 32, 3)
        assert picture[:8].mean() > picture[-8:].mean() + 10
        # From the action that PX4 followed first; the task began when that was heard of.
        assert 160 <= len(episode.action) <= 175
        velocity = np.diff(-episode.observation["reference"][:, :3], axis=0) * store.contract.rate_hz
        np.testing.assert_allclose(velocity[5:], episode.observation["velocity"][6:], atol=0.05)
