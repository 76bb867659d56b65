"""A pilot who flies the twin of a vehicle: through real processes over DDS, on simulated time; and what is refused."""

from contextlib import ExitStack

import numpy as np
import pytest

from robot_rl import teleop
from robot_rl.cli import compose
from robot_rl.datasets import EpisodeStore
from robot_rl.flight_deployment import FlightDeployment
from robot_rl.flight_teleop import FlightSessionError
from robot_rl.hardware.recording.bag import Bag
from robot_rl.hardware.robot_file import RobotFileError
from robot_rl.hardware.ros2.graph import open_graph
from robot_rl.hardware.ros2.qos import SENSOR
from robot_rl.node_process import NodeProcess


def session(folder, *overrides):
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(compose("teleop", ["robot=px4", f"output={folder}", *overrides]), resolve=True)
    config.pop("hydra", None)
    return teleop.run(config)


def replayed(folder, dataset):
    """Where the vehicle was from before a recorded flight was flown again until after it, by processes, [n, 3] m."""
    folder.mkdir()
    contract = folder.parent / "contract.json"
    nodes = {
        "px4_twin": {"real_time": False},
        "px4": {"policy": str(contract), "use_sim_time": True, "wait_for_proposal": 1.5, "silence": 3600.0},
        "replay": {"robot": "px4", "dataset": str(dataset), "use_sim_time": True},
    }
    twin, supervisor, replay = (
        NodeProcess(name, parameters, folder / f"{name}.log", print) for name, parameters in nodes.items()
    )
    places = []
    with ExitStack() as stack:
        graph = stack.enter_context(open_graph("again", ["--ros-args", "-p", "use_sim_time:=true"]))
        deployment = FlightDeployment(graph, [twin, supervisor], 50.0, False, True, False)
        for process in (twin, supervisor, replay):
            stack.callback(process.stop, 1.0)

        def see(received):
            place = received.message.pose.pose.position
            places.append([place.x, place.y, place.z])

        graph.subscribe("odometry", "nav_msgs/msg/Odometry", see, SENSOR)
        deployment.start(240.0)
        deployment.insist("supervisor/home", 240.0)
        deployment.wait(lambda: deployment.state == "ready", 240.0, "the vehicle to be ready")
        deployment.wait(lambda: bool(places), 60.0, "odometry")
        del places[:-1]
        replay.start()
        deployment.wait(lambda: not replay.running, 240.0, "the replay to end")
        assert "exit code 0" in replay.ended, replay.ended
        assert "all actions are replayed" in (folder / "replay.log").read_text()
        deployment.wait(lambda: deployment.state == "ready", 60.0, "the vehicle to be given back")
    return np.array(places)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_flight_by_hand_is_recorded_hovers_while_the_device_is_lost_and_is_flown_again(ros_domain, tmp_path, capfd):
    pytest.importorskip("cyclonedds")
    overrides = ["twin=true", "real_time=false", "device=scripted", "episodes=2", "countdown=0.2", "operator=Ada"]
    assert session(tmp_path, *overrides, "linear_speed=1.0", "settings={scripted.lost: 1.0}") == 0
    said = capfd.readouterr().out
    assert said.index(">>> recording") < said.index(">>> the device is lost") < said.index(">>> landed")
    assert "idle: landed: asked to land" in (tmp_path / "logs" / "px4.log").read_text()
    store = EpisodeStore.open(tmp_path / "episodes.zarr")
    assert [episode.success for episode in store] == [True, True]
    assert (store.facts(0)["source"], store.facts(0)["operator"]) == ("teleop", "Ada")
    assert store.contract.controller == "px4_velocity"
    episode = store[0]
    position, velocity = episode.observation["position"], episode.observation["velocity"]
    # The nose points east when the twin begins.
    np.testing.assert_allclose(position[-1] - position[0], [2.0, 0.0, 0.0], atol=0.3)
    assert 0.6 < np.linalg.norm(velocity, axis=1).max() < 1.3
    # What carries it is felt upwards, the drag of a flight forwards backwards.
    forwards, sideways, upwards = episode.observation["accelerometer"].mean(0)
    assert (upwards, sideways) == pytest.approx((9.81, 0.0), abs=0.2)
    assert -1.0 < forwards < -0.2
    assert np.abs(episode.observation["gyro"]).max() < 3.0
    # The rows end where nobody acts any more; the black box goes on.
    (folder,) = (tmp_path / "bags").iterdir()
    bag = Bag(folder)
    heard = [bag.decode(item).pose.pose.position for item in bag.read() if item.topic == "/odometry"]
    places = np.array([[place.x, place.y, place.z] for place in heard])
    last = np.linalg.norm(places[:, :2] - places[-1, :2], axis=1)
    assert last[np.abs(places[:, 0] - places[-1, 0]) < 0.3].max() < 0.3
    assert places[-1, 2] < 0.2  # it stands
    hovers = np.count_nonzero((places[:, 2] > 1.0) & (last < 0.3))
    assert hovers > 50  # of about 100 a second
    assert np.abs(episode.action[:, :3]).max() == pytest.approx(1.0, abs=0.05)
    # The same velocities lead the same way again.
    again = replayed(tmp_path / "again", tmp_path / "episodes.zarr")
    np.testing.assert_allclose(again[-1] - again[0], position[-1] - position[0], atol=0.3)
    off = np.linalg.norm((again - again[0])[:, None] - (position - position[0])[None, ::5], axis=2).min(axis=1)
    assert off.max() < 0.3


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        (["policy=runs/figure8"], FlightSessionError, "policy: "),
        (["randomization=wide", "twin=true"], FlightSessionError, "randomization: "),
        (["observation=[joint_position]"], FlightSessionError, "there are position, velocity"),
        (["countdown=8"], FlightSessionError, "after 8 s .* lands"),
        (["robot=px5"], RobotFileError, "px5"),
        (["real_time=false", "twin=true"], teleop.TeleopError, "only device=scripted"),
    ],
)
def test_what_a_vehicle_cannot_do_is_said_before_anything_is_written(tmp_path, overrides, error, said):
    with pytest.raises(error, match=said):
        session(tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()
