"""The command: what it learns, what it leaves, and what it refuses; then its use in a fine-tuning."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from robot_rl import classifier, collect, finetune
from robot_rl.checkpoint import ResumeError
from robot_rl.cli import compose
from robot_rl.datasets import Contract, ContractError, EpisodeStore
from robot_rl.metric_log import read_results
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.success_classifier import ClassifierError, SuccessClassifier
from robot_rl.success_labels import label, rows_of

from .conftest import MakeStore


def learn(output: Path, *overrides: str) -> SuccessClassifier:
    assert classifier.main(compose("classifier", [f"output={output}", "device=cpu", *overrides])) == 0
    return SuccessClassifier.load(output)


def recorded_peg(path: Path, episodes: int) -> Path:
    options = [f"output={path}", f"episodes={episodes}", "task=peg", "noise=0.3", "workers=1", "sim_state=false"]
    collect.main(compose("collect", options))
    return path


@pytest.mark.slow
def test_the_ends_of_peg_episodes_are_told_from_all_else(tmp_path: Path) -> None:
    found = learn(tmp_path / "judge", f"dataset={recorded_peg(tmp_path / 'peg.zarr', 16)}", "training.steps=250")
    store = EpisodeStore.open(recorded_peg(tmp_path / "other.zarr", 20))
    episodes = label(store.path, positives=1, margin=3)[16:]  # the first ones are the same again
    found.check(store.contract)
    shares = []
    for positive in (True, False):
        rows = rows_of(episodes, positive)
        observation = rows.read(list(store.contract.observation), np.arange(len(rows)))
        shares.append(found({name: value[:, 0] for name, value in observation.items()}).mean())
    assert shares[0] > 0.7
    assert shares[1] < 0.1


@pytest.mark.slow
def test_images_are_judged_with_augmentation_and_the_result_is_reproducible(
    reach_store: MakeStore, tmp_path: Path
) -> None:
    options = [
        f"dataset={reach_store(episodes=9, failures=4, cameras=('eye',))}", "observation=[eye]", "positives=2",
        "training.steps=8", "training.batch_size=8", "network.encoder.name=cnn", "network.augmentation.shift=1",
        "network.denoiser.width=16", "held_out=0.4",
    ]  # fmt: skip
    first, second = (learn(tmp_path / name, *options) for name in ("a", "b"))
    assert first.judgement == second.judgement
    assert list(first.policy.contract.observation) == ["eye"]
    weights = first.policy.state_dict()
    assert all((value == weights[name]).all() for name, value in second.policy.state_dict().items())


def test_stores_of_success_and_of_failure_need_no_marks(reach_store: MakeStore, tmp_path: Path) -> None:
    options = [
        f"successes={reach_store('shown', episodes=5)}", f"failures=[{reach_store('missed', failures=6, episodes=1)}]",
        "training.steps=5", "held_out=0.4",
    ]  # fmt: skip
    found = learn(tmp_path / "judge", *options)
    # One episode in five chooses, and one measures: every row of both shows success.
    shown, missed = (EpisodeStore.open(tmp_path / f"{name}.zarr") for name in ("shown", "missed"))
    assert found.judgement.recall.n in {a + b for a, b in itertools.combinations(shown.lengths + 1, 2)}
    assert found.judgement.false_positives.n in missed.lengths + 1


def test_what_is_impossible_is_said_before_anything_is_learned(reach_store: MakeStore, tmp_path: Path) -> None:
    def refused(*overrides: str, error: type[Exception] = ClassifierError, match: str) -> None:
        with pytest.raises(error, match=match):
            classifier.main(compose("classifier", [f"output={tmp_path / 'judge'}", *overrides]))

    store = reach_store(episodes=9)
    refused(match="dataset= is missing")
    refused(f"dataset={store}", "held_out=1.5", "training.steps=0", match=r"held_out(.|\n)*training.steps")
    refused(f"dataset={store}", "margin=100", match="record failures")
    refused(f"dataset={reach_store('few', episodes=2)}", error=ValueError, match="2 episodes show success")
    other = reach_store("seen", episodes=9, cameras=("eye",))
    refused(f"dataset=[{store},{other}]", error=ContractError, match="cannot be learned from together")
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "thesis.tex").touch()
    refused(f"dataset={store}", "overwrite=true", match="something else")
    assert [path.name for path in (tmp_path / "judge").iterdir()] == ["thesis.tex"]


@pytest.fixture
def judge(reach_store: MakeStore, tmp_path: Path) -> Path:
    """A classifier of the reaching task that sees success in everything."""
    small = ["training.steps=2", "held_out=0.4", "positives=2"]
    learn(tmp_path / "judge", f"dataset={reach_store(episodes=9, failures=3)}", *small)
    path = tmp_path / "judge" / "success.json"
    text = path.read_text().splitlines()
    path.write_text("\n".join(['  "threshold": 0.0,' if "threshold" in line else line for line in text]))
    return tmp_path / "judge"


def tune(judge: Path, output: Path, *overrides: str) -> int:
    options = [
        "algorithm=sac", "task=reach", f"output={output}", "success=classifier", f"success.path={judge}", "episodes=2",
        "training.steps=80", "training.rollout_steps=20", "training.start_steps=40", "training.batch=8",
        "training.critic_width=8", "network.denoiser.width=8", "training.evaluate_every=2", "training.save_every=1",
        "training.evaluate_episodes=2",
    ]  # fmt: skip
    return finetune.main(compose("finetune", [*options, *overrides]))


@pytest.mark.slow
@pytest.mark.usefixtures("reach_simulation")
def test_a_training_ends_its_episodes_by_the_classifier_and_is_measured_by_the_task(
    judge: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert tune(judge, run, "success.persistence=4") == 0
    for episode in EpisodeStore.open(run / "replay.zarr"):
        # It believes in everything, so that every episode lasts as long as it has to persist, or the task ends it.
        assert episode.success == (episode.length == 4)
        assert episode.facts["task_success"] in (True, False)
        assert episode.length <= 4
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["train_success_rate"]) > 0.5
    assert float(rows[-1]["false_success_rate"]) > 0.5
    assert float(rows[-1]["success_rate"]) < 0.6  # the task's own, in an evaluation
    # What was learned is chosen by the classifier alone, which likes everything: the newest.
    best = read_results(run)["training"]["best"]
    assert (best["step"], best["judged_success_rate"], float(rows[-1]["judged_success_rate"])) == (80, 1.0, 1.0)
    assert best["by"] == "success as the classifier sees it in 2 evaluation episodes"
    assert "chosen by success as the classifier sees it" in (run / "report.html").read_text()
    # The same classifier elsewhere is the same training; another one, or none, is not.
    moved = judge.rename(tmp_path / "moved")
    assert tune(moved, run, "success.persistence=4") == 0
    (moved / "success.json").write_text((moved / "success.json").read_text().replace("0.0,", "0.9,", 1))
    with pytest.raises(ResumeError, match="sha256"):
        tune(moved, run, "success.persistence=4")
    with pytest.raises(ResumeError, match="persistence"):
        tune(moved, run, "success.persistence=2")


@pytest.mark.usefixtures("reach_simulation")
def test_impossible_judges_are_refused_before_the_run_begins(judge: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(FinetuneError, match="expected task; key with"):
        tune(judge, run, "success.path=null")
    with pytest.raises(FinetuneError, match="persistence=0: expected at least 1"):
        tune(judge, run, "success.persistence=0")
    with pytest.raises(FinetuneError, match="end as the task says"):
        tune(judge, run, "task=drone/hover")
    key = ["algorithm=sac", "task=reach", f"output={run}", "success=key", "training.num_envs=2"]
    with pytest.raises(FinetuneError, match="watches one environment"):
        finetune.main(compose("finetune", key))
    with pytest.raises(FinetuneError, match="have no terminal"):
        finetune.main(compose("finetune", [*key, "actors.count=1"]))
    assert not (run / "config.yaml").exists()


def test_a_classifier_of_another_contract_names_the_differences(judge: Path) -> None:
    found = SuccessClassifier.load(judge)
    plain = found.policy.contract.to_dict()
    found.check(Contract.from_dict(plain))
    plain["observation"] = {"position": plain["observation"]["position"]}
    with pytest.raises(ContractError, match=r"rate_hz(.|\n)*observation.goal: needed by"):
        found.check(Contract.from_dict({**plain, "rate_hz": 50.0}))
