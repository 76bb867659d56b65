"""Evaluation of policies whose behaviour is known, in a task without a simulator."""

from __future__ import annotations

import csv
import json
import math
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from robot_rl import cli, replay, rollout, sim
from robot_rl.datasets import ContractError, EpisodeStore
from robot_rl.evaluate import Candidate, EvaluateError, main, offline, simulate
from robot_rl.evaluation_summary import say_simulated
from robot_rl.observation_shift import reference
from robot_rl.policies import build_policy, save_policy
from robot_rl.recordings import Recordings
from robot_rl.replay import film
from robot_rl.report import write_report
from robot_rl.rollout import Outcome
from robot_rl.sim.gl_context import RenderError
from robot_rl.sim.spec import SpecError, resolve
from robot_rl.unfinished import unfinished_folder

from .conftest import reach_contract

SEEDS = range(100_000, 100_020)
CONFIG = {
    "denoiser": {"name": "mlp", "width": 16}, "action_horizon": 4, "process": {"name": "flow_matching", "steps": 2},
}  # fmt: skip


class Walker:
    """Goes to the goal; a lazy one only from the left half."""

    obs_horizon, action_horizon, action_offset, prefix_max_length = 1, 4, 0, 0
    execute = correction = None

    def __init__(self, contract, lazy=False):
        self.contract, self.lazy = contract, lazy

    def encode(self, observation):
        return torch.as_tensor(np.concatenate([observation["position"][:, -1], observation["goal"][:, -1]], axis=1))

    def sample(self, context, prefix=None, generator=None, guidance=None):
        start, goal = context[:, :2], context[:, 2:]
        target = torch.where(self.lazy & (start[:, :1] > 0.5), start, goal)
        return target[:, None, None].expand(-1, 1, 4, -1)


@pytest.fixture
def walker(reach_simulation):
    return Candidate(Path("runs/walker"), Walker(sim.make({}).contract), {"environment": {"task": "reach"}})


@pytest.fixture
def lazy(walker):
    return replace(walker, path=Path("runs/lazy"), policy=Walker(walker.policy.contract, lazy=True))


@pytest.fixture
def checkpoint(reach_simulation, reach_store, tmp_path):
    """A policy on disk, not trained, with what training would have left beside it."""
    store = EpisodeStore.open(reach_store())
    folder = tmp_path / "run" / "checkpoints" / "best"
    policy = build_policy(CONFIG, store.contract, store.statistics())
    save_policy(policy, folder, {"environment": {"task": "reach"}, "preset": "flow_mlp"})
    reference([(store, np.arange(len(store)))], ["position", "goal"]).write(folder)
    return tmp_path / "run"


def rows(folder):
    with (folder / "evaluation" / "episodes.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_command_leaves_a_complete_run_folder(checkpoint, tmp_path, capsys):
    output = tmp_path / "out"
    config = cli.compose("evaluate", ["episodes=20", "videos=1", "video_size=[48,64]", "device=cpu"])
    config = OmegaConf.merge(config, {"policy": str(checkpoint), "output": str(output)})
    assert main(config) == 0
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["episodes"] == len(rows(output)) == 20
    assert metrics["success_rate"] == sum(int(row["success"]) for row in rows(output)) / 20
    low, high = metrics["success_interval"]
    assert 0 <= low <= metrics["success_rate"] <= high <= 1
    assert metrics["seconds"]["evaluate"] > 0
    assert [row["seed"] for row in rows(output)] == [str(seed) for seed in SEEDS]
    results = json.loads((output / "evaluation" / "results.json").read_text())
    assert results["environment"]["task"] == "reach"
    assert results["provenance"]["versions"]["robot_rl"]
    for video in results["videos"]:
        with av.open(str(output / "evaluation" / "videos" / video["file"])) as container:
            assert sum(1 for _ in container.decode(video=0)) == video["steps"] + 1 + 10
    page = (output / "report.html").read_text()
    assert "reach" in page
    assert "data:video/mp4;base64," in page
    assert f"of 20 episodes succeed, {metrics['success_rate']:.1%}" in capsys.readouterr().out


def test_a_metric_that_is_not_finite_counts_for_nothing(walker, tmp_path, monkeypatch):
    run = rollout.run_episodes

    def measured(*given, **options):
        outcomes = run(*given, **options)
        depths = (math.nan, 0.5, None, 0.25)
        return [replace(each, metrics={"depth": depth}) for each, depth in zip(outcomes, depths, strict=True)]

    monkeypatch.setattr(rollout, "run_episodes", measured)
    assert simulate(tmp_path, walker, {}, SEEDS[:4], videos=0)["metrics"] == {"depth": 0.375}


def test_a_metric_that_is_a_name_is_counted(walker, tmp_path, monkeypatch):
    run = rollout.run_episodes

    def measured(*given, **options):
        outcomes = run(*given, **options)
        ways = ("123", "212", None, "212")
        return [replace(each, metrics={"way": way}) for each, way in zip(outcomes, ways, strict=True)]

    monkeypatch.setattr(rollout, "run_episodes", measured)
    results = simulate(tmp_path, walker, {}, SEEDS[:4], videos=0)
    assert results["metrics"] == {"way": {"212": 2, "123": 1}}
    assert say_simulated(results).splitlines()[1] == "way 212 in 2, 123 in 1"
    assert [row["way"] for row in rows(tmp_path)] == ["123", "212", "", "212"]


def test_outcomes_depend_on_the_seeds_alone(walker, tmp_path):
    for name, num_envs in (("a", 1), ("b", 7)):
        simulate(tmp_path / name, walker, {}, SEEDS, num_envs=num_envs, videos=0)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert [row["seed"] for row in rows(tmp_path / "a") if row["success"] == "0"] == ["100007", "100017"]


def test_no_more_processes_than_episodes_are_asked_for(walker, tmp_path, monkeypatch):
    made, make_vector = [], sim.make_vector

    def noted(spec, num_envs, processes):
        made.append((num_envs, processes))
        return make_vector(spec, num_envs, processes)

    monkeypatch.setattr("robot_rl.sim.make_vector", noted)
    simulate(tmp_path, walker, {}, SEEDS[:1], videos=0, processes=2)
    assert made == [(1, 1)]


def test_a_stopped_evaluation_goes_on_and_ends_as_if_never_stopped(walker, tmp_path, monkeypatch, capsys):
    whole = simulate(tmp_path / "whole", walker, {}, SEEDS, videos=0, processes=0)
    ran = []
    from robot_rl import unfinished

    keep = unfinished.Unfinished.keep

    def stop_after_seven(self, outcome):
        keep(self, outcome)
        ran.append(outcome.seed)
        if len(ran) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(unfinished.Unfinished, "keep", stop_after_seven)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "parts", walker, {}, SEEDS, videos=0, processes=0)
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "parts" / "metrics.json").exists()
    parts = simulate(tmp_path / "parts", walker, {}, SEEDS, videos=0, processes=0)
    assert "Going on after 7 episodes" in capsys.readouterr().out
    assert sorted(ran) == [*SEEDS]
    assert [entry.name for entry in (tmp_path / "parts").iterdir() if entry.name.startswith(".")] == []
    ours, theirs = (tmp_path / name / "evaluation" / "episodes.csv" for name in ("parts", "whole"))
    assert ours.read_text() == theirs.read_text()
    assert parts["success_interval"] == whole["success_interval"]


@contextmanager
def stopped_after_one(monkeypatch):
    """Ctrl-C inside, as soon as one episode is kept."""
    from robot_rl import unfinished

    keep = unfinished.Unfinished.keep

    def stop(self, outcome):
        keep(self, outcome)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(unfinished.Unfinished, "keep", stop)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_a_stopped_evaluation_into_the_run_of_its_own_policy_goes_on(checkpoint, monkeypatch, capsys):
    with stopped_after_one(monkeypatch):
        simulate(checkpoint, Candidate.load(checkpoint), {}, SEEDS, videos=0, processes=0)
    simulate(checkpoint, Candidate.load(checkpoint), {}, SEEDS, videos=0, processes=0)
    assert "Going on after 1 episodes" in capsys.readouterr().out


def test_an_evaluation_that_is_stopped_while_it_films_films_again(walker, tmp_path, monkeypatch, capsys):
    made = []

    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(replay, "film", stop)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, walker, {}, SEEDS, videos=0, processes=0)
    first = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    monkeypatch.setattr(replay, "film", lambda *given: made.append(given) or film(*given))
    again = simulate(tmp_path, walker, {}, SEEDS, videos=0, processes=0)
    assert f"Going on after {len(SEEDS)} episodes" in capsys.readouterr().out
    assert len(made) == 1
    assert not unfinished_folder(tmp_path).exists()
    same = ("success_rate", "success_interval", "first_seed")
    assert {key: again[key] for key in same} == {key: first[key] for key in same}
    assert again["seconds"] >= 0.9 * first["seconds"], "those before the stop count"
    assert again["steps_per_second"] > 0


def test_outcomes_that_were_kept_without_their_seconds_still_count(walker, tmp_path, monkeypatch, capsys):
    with stopped_after_one(monkeypatch):
        simulate(tmp_path, walker, {}, SEEDS, videos=0, processes=0)
    for file in unfinished_folder(tmp_path).glob("*.npz"):
        with np.load(file) as stored:
            kept = {name: value for name, value in stored.items() if name != "seconds"}
        np.savez(file, **kept)
    simulate(tmp_path, walker, {}, SEEDS, videos=0, processes=0)
    assert "Going on after 1 episodes" in capsys.readouterr().out


def test_what_was_left_of_other_settings_does_not_count(walker, tmp_path, monkeypatch, capsys):
    with stopped_after_one(monkeypatch):
        simulate(tmp_path, walker, {}, SEEDS, videos=0, processes=0)
    simulate(tmp_path, walker, {}, SEEDS, videos=0, processes=0, execute=1)
    assert "Going on" not in capsys.readouterr().out


def test_two_policies_are_compared_on_the_same_seeds(walker, lazy, tmp_path):
    results = simulate(tmp_path, walker, {}, SEEDS, lazy, videos=0)
    pairs = [(row["success"] == "1", row["other_success"] == "1") for row in rows(tmp_path)]
    only_first = pairs.count((True, False))
    assert only_first > 3
    other = results["comparison"]
    assert (other["only_first"], other["only_second"]) == (only_first, 0)
    assert other["p_value"] == pytest.approx(2 * 0.5**only_first)
    assert results["success_rate"] == 0.9
    assert other["success_rate"] == pytest.approx(0.9 - only_first / 20)
    assert "lazy" in (tmp_path / "evaluation" / "success_over_time.svg").read_text()


def test_a_comparison_says_where_the_environments_differ(walker, lazy, tmp_path):
    longer = replace(lazy, provenance={"environment": {"task": "reach", "horizon": 40, "cameras": {"top": [8, 8]}}})
    other = simulate(tmp_path / "longer", walker, {}, SEEDS, longer, videos=0)["comparison"]
    assert other["environment_differences"] == ["horizon: 30 against 40"]
    report = write_report(tmp_path / "longer").read_text()
    assert "Their environments differ, so this compares policies and environments: horizon: 30 against 40." in report
    same = simulate(tmp_path / "same", walker, {}, SEEDS, lazy, videos=0)["comparison"]
    assert same["environment_differences"] == []
    elsewhere = replace(lazy, provenance={"environment": {"task": "push"}})
    with pytest.raises(EvaluateError, match=r"expected two policies of the same task, got .* of reach and .* of push"):
        simulate(tmp_path / "elsewhere", walker, {}, SEEDS, elsewhere, videos=0)
    assert not (tmp_path / "elsewhere" / "evaluation").exists()


def test_episodes_can_be_recorded(walker, tmp_path):
    simulate(tmp_path / "run", walker, {}, SEEDS, videos=0, record=str(tmp_path / "new.zarr"))
    store = EpisodeStore.open(tmp_path / "new.zarr")
    assert len(store) == 20
    assert store.provenance["environment"]["task"] == "reach"
    for episode, row in zip(store, rows(tmp_path / "run"), strict=True):
        assert (episode.facts["seed"], episode.facts["source"]) == (int(row["seed"]), "policy")
        assert (episode.success, episode.length) == (row["success"] == "1", int(row["steps"]))
        assert (episode.terminated[-1], episode.truncated[-1]) == (episode.success, not episode.success)
        moved = (episode.observation["position"][:-1] + episode.action) / 2
        if episode.success:
            np.testing.assert_allclose(episode.observation["position"][1:], moved, atol=1e-6)
    with pytest.raises(EvaluateError, match="exists already"):
        simulate(tmp_path / "run", walker, {}, SEEDS, record=str(tmp_path / "new.zarr"))


def test_an_episode_that_cannot_be_repeated_is_not_recorded(walker, tmp_path, monkeypatch, capsys):
    begin = sim.make.reset

    def elsewhere(self, *, seed=None, options=None):
        return begin(self, seed=100_007 if seed == 100_000 else seed)

    def run(*arguments, **keywords):
        outcomes = run_episodes(*arguments, **keywords)
        monkeypatch.setattr(sim.make, "reset", elsewhere)
        return outcomes

    from robot_rl.rollout import run_episodes

    monkeypatch.setattr("robot_rl.rollout.run_episodes", run)
    simulate(tmp_path / "run", walker, {}, SEEDS[:3], videos=0, record=str(tmp_path / "new.zarr"))
    assert "Not recorded: the episode of seed 100000 was a success" in capsys.readouterr().out
    store = EpisodeStore.open(tmp_path / "new.zarr")
    assert [store.facts(index)["seed"] for index in range(len(store))] == [100_001, 100_002]


def test_a_recording_that_is_stopped_begins_anew_from_what_was_evaluated(walker, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    record = str(tmp_path / "new.zarr")
    with monkeypatch.context() as patch:
        patch.setattr("robot_rl.attempt.write", stop)
        with pytest.raises(KeyboardInterrupt):
            simulate(tmp_path / "run", walker, {}, SEEDS, videos=0, record=record)
    assert not Path(record).exists()
    simulate(tmp_path / "run", walker, {}, SEEDS, videos=0, record=record)
    assert "Going on after 20 episodes" in capsys.readouterr().out
    assert len(EpisodeStore.open(record)) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.zarr", "run"]


@pytest.mark.slow
def test_recorded_episodes_of_a_randomised_task_go_again_as_they_went(tmp_path, capsys):
    from robot_rl.collect import main as collect

    candidate = untrained({"task": "lift", "randomization": "full", "horizon": 8})
    record = tmp_path / "new.zarr"
    simulate(tmp_path / "run", candidate, {}, SEEDS[:2], num_envs=2, processes=0, videos=0, record=str(record))
    keys = [f"output={tmp_path / 'again.zarr'}", "source=replay", f"demonstrations={record}", "workers=1"]
    assert collect(cli.compose("collect", keys)) == 0
    assert "2 of 2 replayed episodes went as recorded (largest deviation 0 " in capsys.readouterr().out


def test_without_a_renderer_there_are_no_videos(walker, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise RenderError("install libegl1")

    monkeypatch.setattr(sim.make, "image", refuse)
    assert simulate(tmp_path, walker, {}, SEEDS[:3])["videos"] == []
    assert "No videos: install libegl1" in capsys.readouterr().out
    assert not list((tmp_path / "evaluation").rglob("*.mp4*"))


def test_a_camera_that_is_not_there_is_told_before_any_episode(walker, tmp_path, monkeypatch):
    def refuse(spec):
        raise SpecError(f"no camera {next(iter(spec['cameras']))!r}")

    monkeypatch.setattr(sim, "make", refuse)
    with pytest.raises(SpecError, match="no camera 'atop'"):
        simulate(tmp_path / "run", walker, {}, SEEDS, camera="atop")
    with pytest.raises(EvaluateError, match=r"video_size=\[3\]: expected \[height, width\]"):
        simulate(tmp_path / "run", walker, {}, SEEDS, size=[3])
    assert not (tmp_path / "run").exists()


def test_an_episode_that_cannot_be_repeated_has_no_video(walker, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sim.make, "step", lambda *_: (None, 0.0, False, False, {"success": False}))
    env = sim.make({})
    monkeypatch.setattr(sim, "make", lambda spec: env)
    film(
        tmp_path,
        {"rate_hz": 10},
        [Outcome(1, 3, np.zeros(3), np.zeros((3, 2), np.float32), np.zeros(3, bool), np.zeros(3, bool), True, False)],
        1,
        "a",
        (8, 8),
    )
    assert "not reproducible" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_what_no_evaluation_has_left_is_not_replaced(walker, reach_store, tmp_path):
    path = reach_store()
    for name, evaluate in {
        "evaluation": lambda: simulate(tmp_path, walker, {}, SEEDS, videos=0),
        "offline": lambda: offline(tmp_path, walker, path, "all", 2),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("precious")
        with pytest.raises(EvaluateError, match=r"holds notes\.txt; choose another output="):
            evaluate()
        (tmp_path / name / "notes.txt").unlink()
        for _ in range(2):
            evaluate()


def test_an_environment_that_does_not_fit_changes_nothing(walker, tmp_path):
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "episodes.csv").write_text("seed\n")
    other = replace(walker, policy=Walker(replace(walker.policy.contract, controller="osc_pose")))
    with pytest.raises(ContractError, match="controller: 'osc_pose' against 'point'"):
        simulate(tmp_path, other, {}, SEEDS)
    assert (tmp_path / "evaluation" / "episodes.csv").read_text() == "seed\n"


def test_the_environment_is_that_of_the_training_data_unless_changed(walker):
    trained = {"task": "lift", "robot": "panda", "horizon": 200, "randomization": "full"}
    candidate = replace(walker, provenance={"environment": trained})
    assert candidate.environment({"task": None, "robot": None}) == trained
    assert candidate.environment({"robot": "ur5e", "randomization": "none"}) == {
        "task": "lift", "robot": "ur5e", "horizon": 200, "randomization": "none",
    }  # fmt: skip
    assert "horizon" not in candidate.environment({"task": "stack"})
    unknown = replace(walker, provenance={"environment": None})
    assert unknown.environment({"task": "lift"}) == {"task": "lift"}
    with pytest.raises(EvaluateError, match="give task="):
        unknown.environment({"task": None})


@pytest.mark.parametrize(
    ("known", "task"), [({"task": "push_t", "rate_hz": 10}, "peg"), ({"task": "peg", "rate_hz": 10}, None)]
)
def test_a_task_that_runs_at_another_rate_than_the_policy_is_refused_by_both_rates(known, task):
    candidate = Candidate(Path("runs/walker"), Walker(reach_contract()), {"environment": known})
    with pytest.raises(EvaluateError, match=r"walker acts at 10 Hz.*peg runs at 20 Hz.*data resample --rate 20"):
        candidate.environment({"task": task, "rate_hz": None})
    assert resolve(candidate.environment({"task": "push_t"}))["rate_hz"] == 10


def test_a_task_of_another_kind_takes_over_nothing_of_the_known_one(walker):
    known = {"task": "lift", "robot": "panda", "stepper": "fast", "rate_hz": 10}
    candidate = replace(walker, provenance={"environment": known})
    assert candidate.environment({"task": "push_t"}) == {"task": "push_t"}
    assert candidate.environment({"task": "stack"}) == {**known, "task": "stack"}


@pytest.mark.slow
def test_a_policy_of_resampled_data_is_evaluated_at_their_rate_for_as_long(tmp_path):
    store, made = tmp_path / "lift.zarr", tmp_path / "slow.zarr"
    asked = ["task=lift", f"output={store}", "episodes=1", "environment={horizon: 24}", "workers=1"]
    assert cli.main(["collect", *asked]) == 0
    assert cli.main(["data", "resample", str(store), "--output", str(made), "--rate", "10"]) == 0
    recordings = Recordings([made], include_failures=True, held_out=0)
    policy = build_policy(CONFIG, recordings.contract, recordings.statistics()).eval()
    candidate = Candidate(tmp_path / "run", policy, {"environment": recordings.environment()})
    simulate(tmp_path / "out", candidate, {}, SEEDS[:1], videos=0, processes=0)
    assert [row["steps"] for row in rows(tmp_path / "out")] == ["12"]


def test_offline_results(checkpoint, reach_store, tmp_path, capsys):
    moved = reach_store("other", episodes=6, failures=2, seed=5)
    config = OmegaConf.merge(
        cli.compose("evaluate", ["device=cpu"]),
        {"policy": str(checkpoint), "output": str(tmp_path / "out"), "dataset": str(moved)},
    )
    assert main(config) == 0
    results = json.loads((tmp_path / "out" / "offline" / "results.json").read_text())
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for key in ("offline_action_error", "hold_baseline_error"):
        assert metrics[key] == results[key] > 0
    assert "success_rate" not in metrics
    assert results["episodes"] == list(range(6))
    assert set(results["elements"]) == {"target[0]", "target[1]"}
    assert set(results["shift"]["elements"]) == {"position[0]", "position[1]", "goal[0]", "goal[1]"}
    assert (tmp_path / "out" / "offline" / "episode_0.svg").is_file()
    assert "6 successful episodes" in capsys.readouterr().out


def test_offline_episodes_can_be_chosen(walker, reach_store, tmp_path):
    path = reach_store(episodes=3, failures=2)
    assert offline(tmp_path / "out", walker, path, "all", 2)["episodes"] == [0, 1, 2, 3, 4]
    results = offline(tmp_path / "out", walker, path, [1, 4], 2)
    assert results["episodes"] == [1, 4]
    assert results["shift"] is None
    assert len(list((tmp_path / "out" / "offline").glob("episode_*.svg"))) == 2
    with pytest.raises(EvaluateError, match="from 0 to 4"):
        offline(tmp_path / "out", walker, path, [5], 2)


def test_a_missing_policy_is_named(capsys):
    assert cli.main(["evaluate"]) == 1
    assert "policy= is missing" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.render
@pytest.mark.parametrize("randomization", ["none", "full"])
def test_lift_is_evaluated_and_filmed(tmp_path, capsys, randomization):
    """Failures must come out the same when they are simulated again."""
    candidate = untrained({"task": "lift", "randomization": randomization, "horizon": 25})
    results = simulate(tmp_path, candidate, {}, SEEDS[:4], num_envs=3, processes=0, videos=2, size=(48, 64))
    assert results["successes"] == 0
    assert [video["file"] for video in results["videos"]] == ["failure_100000.mp4", "failure_100001.mp4"]
    assert "No video" not in capsys.readouterr().out


def untrained(environment):
    """A policy that has learned nothing, for the environment."""
    contract = sim.make(environment).contract
    statistics = {"action": Still(contract.action_dim)}
    statistics |= {name: Still(feature.size) for name, feature in contract.observation.items()}
    policy = build_policy({"denoiser": {"name": "mlp", "width": 16}}, contract, statistics).eval()
    return Candidate(Path("untrained"), policy, {"environment": environment})


class Still:
    """Statistics of a feature around zero."""

    def __init__(self, size):
        self.count, self.mean, self.std, self.min, self.max = (
            2,
            np.zeros(size),
            np.ones(size),
            -np.ones(size),
            np.ones(size),
        )

    def quantile(self, q):
        return self.min + q * (self.max - self.min)
