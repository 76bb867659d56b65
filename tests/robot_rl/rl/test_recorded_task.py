"""Demonstrations of another task are refused, before anything is begun."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_rl import collect
from robot_rl.cli import compose
from robot_rl.datasets import EpisodeStore
from robot_rl.datasets.edit import assemble, whole
from robot_rl.finetune import main
from robot_rl.recordings import Recordings
from robot_rl.rl.demo_reset import DemoReset
from robot_rl.rl.off_policy_learner import OffPolicyLearner
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.rl.recorded_task import check_task, recorded_tasks
from robot_rl.rl.sac import SAC
from tests.robot_rl.rl.line import CONTRACT, Line, line_policy
from tests.robot_rl.rl.stored import squashed_policy
from tests.robot_rl.rl.test_off_policy import settings

EDGE: dict[str, Any] = {"environment": {"task": "edge"}}
SILENT: list[dict[str, Any]] = [{}, {"environment": None}, {"environment": {"robot": "cart"}}, {"made_of": [{}]}]


def recorded(path: Path, provenance: dict[str, Any], rewards: tuple[float, ...] = (0.0,)) -> EpisodeStore:
    EpisodeStore.create(path, CONTRACT, provenance, sim_state_size=2)
    with EpisodeStore.append(path) as writer, writer.episode(task="line", source="expert") as episode:
        for reward in rewards:
            episode.add({"place": np.zeros(1)}, np.zeros(1), reward=reward, sim_state=np.zeros(2))
        episode.finish({"place": np.zeros(1)}, success=True, sim_state=np.zeros(2))
    return EpisodeStore.open(path)


def test_a_store_says_its_task_also_through_those_that_it_was_made_of() -> None:
    parts = [{"store": "a", **EDGE}, {"store": "b", "environment": {"task": "middle"}}]
    assert recorded_tasks({"made_of": parts}) == {"edge", "middle"}
    assert [recorded_tasks(each) for each in SILENT] == [set()] * 4


@pytest.mark.parametrize("provenance", [*SILENT, EDGE])
def test_what_is_of_the_task_or_says_nothing_is_taken(provenance: dict[str, Any], tmp_path: Path) -> None:
    store = recorded(tmp_path / "demo.zarr", provenance)
    check_task(store, {"task": "edge"})
    check_task(store, {})


@pytest.mark.parametrize("made_of", [False, True])
def test_what_goes_on_after_success_is_refused_where_episodes_end_with_it(made_of: bool, tmp_path: Path) -> None:
    endless: dict[str, Any] = {"environment": {"task": "edge", "ends_at_success": False}}
    provenance = {"made_of": [EDGE, endless]} if made_of else endless
    store = recorded(tmp_path / "on.zarr", provenance, (0.0, 1.0, 1.0))
    with pytest.raises(FinetuneError, match=r"on\.zarr holds demonstrations that go on after success"):
        check_task(store, {"task": "edge", "ends_at_success": True})
    check_task(store, {"task": "edge", "ends_at_success": False})
    detected = recorded(tmp_path / "detected.zarr", provenance, (0.0, 0.0, 1.0))
    check_task(detected, {"task": "edge", "ends_at_success": True})


def test_off_policy_learning_refuses_demonstrations_of_another_task(tmp_path: Path) -> None:
    demonstrations = Recordings([recorded(tmp_path / "demo.zarr", EDGE).path], held_out=0.0)
    chosen = settings(demonstration_share=0.5)
    for task in ("edge", "middle"):
        given = (SAC(squashed_policy(), 1), Line(2), chosen, tmp_path / "own.zarr", 0, 0, demonstrations)
        if task == "edge":
            OffPolicyLearner(*given, environment={"task": task})
            continue
        with pytest.raises(FinetuneError, match=r"demo\.zarr holds demonstrations of edge, and .* is middle"):
            OffPolicyLearner(*given, environment={"task": task})
    assert not (tmp_path / "own.zarr").exists()


def test_demo_reset_refuses_states_of_another_task(tmp_path: Path) -> None:
    method = DemoReset(
        line_policy({"name": "gaussian"}), demonstrations=str(recorded(tmp_path / "demo.zarr", EDGE).path)
    )
    environments = Line(2)
    method.surround(environments, 1)
    environments.specification = {"task": "middle"}  # type: ignore[attr-defined]
    with pytest.raises(FinetuneError, match=r"demo\.zarr holds demonstrations of edge, and .* is middle"):
        method.surround(environments, 1)


@pytest.mark.slow
def test_an_opened_drawer_is_not_a_closed_one(tmp_path: Path) -> None:
    """By the commands; also what was merged with other episodes of the same task."""
    stores = [tmp_path / f"{name}.zarr" for name in ("first", "second")]
    for seed, path in enumerate(stores):
        options = ["task=drawer_close", "episodes=1", f"output={path}", f"first_seed={seed}", "sim_state=true"]
        assert collect.main(compose("collect", options)) == 0
    parts = [part for path in stores for part in whole(EpisodeStore.open(path))]
    assemble(tmp_path / "both.zarr", parts)
    common = ["task=drawer_open", f"output={tmp_path / 'run'}", "training.num_envs=1"]
    given = {"rlpd": "dataset", "demo_reset": "algorithm.demonstrations"}
    for algorithm, key in given.items():
        for path in (stores[0], tmp_path / "both.zarr"):
            with pytest.raises(FinetuneError, match="of drawer_close, and what is trained is drawer_open"):
                main(compose("finetune", [f"algorithm={algorithm}", f"{key}={path}", *common]))
    assert not (tmp_path / "run").exists()
