"""The demo as a newcomer runs it, small: one command, one folder, the promised figures."""

import json
from pathlib import Path

import pytest

from robot_rl import demo
from robot_rl.cli import compose
from robot_rl.datasets import EpisodeStore
from robot_rl.policies import load_policy
from robot_rl.unfinished import unfinished_folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_loop(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    small = [f"output={folder}", "demonstrations=4", "episodes=3", "steps=60"]
    assert demo.main(compose("demo", small)) == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["episodes"] == 3
    low, high = metrics["success_interval"]
    assert low <= metrics["success_rate"] <= high
    assert metrics["hold_baseline_error"] > 0
    assert metrics["offline_action_error"] > 0
    stages = metrics["seconds"]
    assert set(stages) == {"collect", "train", "evaluate", "offline", "report", "total"}
    assert stages["total"] == pytest.approx(sum(stages.values()) - stages["total"], abs=0.5)
    assert len(EpisodeStore.open(folder / "demonstrations.zarr")) == 4
    contract = load_policy(folder).contract
    assert contract.controller == "servo_joint_position"
    assert list(contract.observation) == ["joint_position", "gripper_opening", "cube_pose"]
    assert "<video" in (folder / "report.html").read_text()
    assert list(folder.glob("evaluation/videos/*.mp4"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("demonstrations=1", "at least 2 demonstrations"),
        ("steps=0", "steps: expected at least 1"),
        ("seed=0", "thesis"),
        ("policy=flow_image", "none are recorded: name cameras"),
        ("cameras={agentview: [84, 84]}", "looks at no pictures"),
        pytest.param("task=lfit", "no task 'lfit'", marks=pytest.mark.slow),
        ("observation=[cube_position]", "cube_position"),
        pytest.param("noise=-1", "noise: expected a number >= 0", marks=pytest.mark.slow),
        pytest.param("first_seed=-1", "first_seed=-1: expected at least 0", marks=pytest.mark.slow),
        ("first_seed=100000", "reaches into the evaluation seeds"),
        pytest.param("workers=0", "workers=0: expected at least 1", marks=pytest.mark.slow),
        pytest.param("task=tool_hang", "no expert for task 'tool_hang'", marks=pytest.mark.slow),
        ("robot=ur5e", "grasps, and ur5e cannot; take robot=ur5e_panda_hand"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_recorded(tmp_path: Path, override: str, expected: str) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises((ValueError, RuntimeError), match=expected):
        demo.main(compose("demo", [f"output={tmp_path}", override]))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_finished_demo_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    for number in (1, 2):
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps({"success_rate": number, "seconds": {"total": 9.0}}))
        demo._keep_finished(folder)
        assert not folder.exists()
    assert json.loads((tmp_path / "demo-2" / "metrics.json").read_text())["success_rate"] == 2


def test_an_unfinished_demo_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"training": {}}))
    demo._keep_finished(folder)
    assert folder.exists()
    # Also one whose report is still to be written.
    measured = {"success_rate": 1.0, "episodes": 100, "offline_action_error": 0.1, "seconds": {"evaluate": 3.0}}
    (folder / "metrics.json").write_text(json.dumps(measured))
    demo._keep_finished(folder)
    assert folder.exists()
    assert "task=lift" not in demo._overrides(compose("demo", []), folder)["evaluate"]
    assert "task=lift" in demo._overrides(compose("demo", ["episodes=200"]), folder)["evaluate"]
    # Stopped while it filmed: it is simulated again, out of what is kept, and filmed.
    unfinished_folder(folder).mkdir()
    assert "task=lift" in demo._overrides(compose("demo", []), folder)["evaluate"]
    # Of a finished one, all is done anew.
    (folder / "metrics.json").write_text(json.dumps(measured | {"seconds": {"total": 9.0}}))
    assert "task=lift" in demo._overrides(compose("demo", []), folder)["evaluate"]
