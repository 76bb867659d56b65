"""Sessions through real processes over DDS, in which the scripted expert plays the person; on simulated time."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from robot_rl import teleop
from robot_rl.cli import compose
from robot_rl.datasets import EpisodeStore
from robot_rl.deployment import DeployError
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.sim.spec import SpecError
from robot_rl.teleop import TeleopError, node_parameters, observed, recorded_before, teleop_parameters

PANDA = RobotFile.load("panda")


@pytest.fixture
def domain(ros_domain):
    pytest.importorskip("cyclonedds")


def plain(*overrides):
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(compose("teleop", list(overrides)), resolve=True)
    config.pop("hydra", None)
    return config


def session(folder, *overrides):
    fixed = ["device=scripted", "twin=true", "real_time=false", "countdown=0.3", "dead_band=0.0", f"output={folder}"]
    return teleop.run(plain(*fixed, *overrides))


def wild_policy(folder):
    return runpy.run_path(str(Path(__file__).with_name("test_deploy_faults.py")))["wild_policy"](folder, {})


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_a_person_lifts_the_cube_and_goes_on_another_day(domain, tmp_path, capfd):
    assert session(tmp_path, "episodes=1", "operator=Ada", "text='lift the red cube'") == 0
    store = EpisodeStore.open(tmp_path / "episodes.zarr")
    assert store.select(success=True).tolist() == [0]
    facts = store.facts(0)
    assert (facts["source"], facts["operator"], facts["text"], facts["task"], facts["seed"]) == (
        "teleop", "Ada", "lift the red cube", "lift", 0,
    )  # fmt: skip
    episode = store[0]
    assert episode.observation["cube_pose"][-1, 2] > episode.observation["cube_pose"][0, 2] + 0.03
    assert "stale_rows" not in facts
    assert session(tmp_path, "episodes=2") == 0
    store = EpisodeStore.open(tmp_path / "episodes.zarr")
    assert [store.facts(index)["seed"] for index in range(len(store))] == [0, 1]
    assert session(tmp_path, "episodes=2") == 0
    assert "already holds 2" in capfd.readouterr().out


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_a_person_gives_the_robot_back_after_each_correction(domain, tmp_path):
    settings = "settings={scripted.patience: 0.5, scripted.correction: 0.8, scripted.time_limit: 5.0}"
    policy = f"policy={wild_policy(tmp_path / 'policy')}"
    assert session(tmp_path, "episodes=1", "until_success=false", policy, settings) == 0
    store = EpisodeStore.open(tmp_path / "episodes.zarr")
    assert (store.facts(0)["source"], store.facts(0)["success"]) == ("intervention", False)
    episode = store[0]
    intervened = episode.intervened[:-1].astype(int)
    taken, returned = (np.flatnonzero(np.diff(intervened) == way) for way in (1, -1))
    assert len(taken) >= 2
    assert len(returned) >= 1
    lengths = [min(after[after > start], default=len(intervened)) - start for after in (returned,) for start in taken]
    assert max(lengths) < 1.5 * 0.8 * PANDA.contract.rate_hz
    # After the hand-back the policy decides again, from where the arm is.
    np.testing.assert_array_equal(
        episode.action[returned[0] + 3 : returned[0] + 8], episode.policy_action[returned[0] + 3 : returned[0] + 8]
    )
    steps = np.abs(np.diff(episode.observation["joint_position"], axis=0)).max(axis=1)
    assert steps.max() < PANDA.limits.velocity.max() / PANDA.contract.rate_hz


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_a_person_takes_over_from_a_policy_and_keeps_the_robot(domain, tmp_path):
    policy = wild_policy(tmp_path / "policy")
    assert (
        session(
            tmp_path, "episodes=1", f"policy={policy}", "settings={scripted.patience: 1.5, scripted.time_limit: 12.0}"
        )
        == 0
    )
    store = EpisodeStore.open(tmp_path / "episodes.zarr")
    assert store.facts(0)["source"] == "intervention"
    episode = store[0]
    intervened = episode.intervened[:-1]
    assert not intervened[:20].any()
    assert intervened[-20:].all()
    executed, wished = episode.action[:-1], episode.policy_action[:-1]
    np.testing.assert_array_equal(executed[~intervened], wished[~intervened])
    differs = np.abs(executed - wished).max(axis=1)[intervened] > 1e-3
    assert differs.mean() > 0.9
    steps = np.abs(np.diff(episode.observation["joint_position"], axis=0)).max(axis=1)
    assert steps.max() < PANDA.limits.velocity.max() / PANDA.contract.rate_hz


@pytest.mark.parametrize("twin", [True, False])
def test_a_robot_that_somebody_commands_already_is_not_touched(domain, tmp_path, twin):
    from robot_rl.hardware.ros2.graph import open_graph

    words = [f"twin={twin}".lower(), "device=twist", "record=false", f"output={tmp_path}"]
    with open_graph("supervisor") as other:
        other.publisher("supervisor/status", "diagnostic_msgs/msg/DiagnosticArray")
        with pytest.raises(DeployError, match="/supervisor publishes /supervisor/status"):
            teleop.run(plain(*words))
    assert not list((tmp_path / "logs").iterdir())  # nothing was started


def test_the_nodes_get_what_was_asked_for(tmp_path):
    config = plain("twin=true", "cameras={agentview: [64, 48]}", "policy=runs/demo", "settings={keyboard.speed: 0.4}")
    nodes = node_parameters(config, tmp_path, "runs/demo")
    assert list(nodes) == ["twin", "supervisor", "recorder", "policy"]
    assert nodes["twin"]["cameras"] == "agentview:64x48"
    assert nodes["twin"]["randomization"] == "none"
    assert nodes["policy"]["shadow"]
    mine = teleop_parameters(config, "runs/demo", 4, 9)
    assert (mine["keyboard.speed"], mine["handback"], mine["recorded"], mine["seed"], mine["acts"]) == (
        0.4,
        0.5,
        4,
        9,
        True,
    )


def test_what_is_observed_is_the_robots_own_or_the_tasks(tmp_path):
    assert "cube_pose" not in observed(plain()).contract.observation
    robot = observed(plain("cameras={wrist: [48, 64]}", "observation=[joint_position]"))
    assert list(robot.contract.observation) == ["joint_position", "wrist"]
    assert robot.contract.observation["wrist"].shape == (48, 64, 3)
    with pytest.raises(TeleopError, match="cub_pose"):
        observed(plain("observation=[cub_pose]"))


def test_a_session_goes_on_with_the_next_scene(tmp_path):
    contract = PANDA.contract.select(["joint_position"])
    assert recorded_before(tmp_path / "none.zarr", 5, True) == (0, 5)
    EpisodeStore.create(tmp_path / "s.zarr", contract)
    row, action = {"joint_position": np.zeros(7, np.float32)}, np.zeros(8, np.float32)
    with EpisodeStore.append(tmp_path / "s.zarr", contract) as writer:
        for seed, success in ((5, True), (6, False), (8, True)):
            with writer.episode(task="lift", source="teleop", seed=seed) as episode:
                episode.add(row, action, terminated=True)
                episode.finish(row, success=success)
    assert recorded_before(tmp_path / "s.zarr", 5, True) == (2, 9)
    assert recorded_before(tmp_path / "s.zarr", 5, False) == (3, 9)


def test_a_person_is_never_asked_to_hurry(tmp_path):
    with pytest.raises(TeleopError, match="real time"):
        teleop.run(plain("twin=true", "real_time=false", f"output={tmp_path}"))


def test_scenes_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(TeleopError, match="twin=true"):
        teleop.run(plain("randomization=wide", f"output={tmp_path}/run"))
    with pytest.raises(SpecError, match="no randomization 'wild'"):
        teleop.run(plain("twin=true", "randomization=wild", f"output={tmp_path}/run"))
    with pytest.raises(TeleopError, match="evaluation"):
        teleop.run(plain("twin=true", "first_seed=100000", f"output={tmp_path}/run"))
    with pytest.raises(TeleopError, match="task=drone/hover: panda is an arm; give robot=px4"):
        teleop.run(plain("twin=true", "task=drone/hover", f"output={tmp_path}/run"))
    with pytest.raises(TeleopError, match="there is no depth"):
        teleop.run(plain("twin=true", "observation=[depth]", f"output={tmp_path}/run"))
    assert not (tmp_path / "run").exists()


def test_the_contract_is_written_beside_the_store(tmp_path):
    path = teleop._write_contract(tmp_path, plain(f"output={tmp_path}"))
    assert json.loads(path.read_text())["controller"] == "servo_joint_position"


def test_collect_holds_the_same_session(monkeypatch, tmp_path):
    from robot_rl import collect

    asked = []
    monkeypatch.setattr(teleop, "run", lambda plain: asked.append(plain) or 0)
    overrides = [
        "source=teleop",
        "device=web",
        "episodes=5",
        "task=stack",
        f"output={tmp_path}",
        "teleop={operator: Ada}",
    ]
    assert collect.main(compose("collect", overrides)) == 0
    wanted = {"device": "web", "episodes": 5, "task": "stack", "operator": "Ada", "twin": True, "countdown": 3.0}
    assert asked[0].keys() == plain().keys()
    assert {key: asked[0][key] for key in wanted} == wanted
    for robot, further in {"panda": ["task=lift"], "px4": ["task=drone/hover"], "ur5e": ["robot=ur5e"]}.items():
        collect.main(compose("collect", ["source=teleop", *further]))
        assert asked[-1]["robot"] == robot
    with pytest.raises(collect.CollectError, match="operater"):
        collect.main(compose("collect", ["source=teleop", "teleop={operater: Ada}"]))
