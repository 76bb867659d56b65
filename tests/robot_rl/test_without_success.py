"""Gymnasium's tasks know no success: they are recorded whole, and judged and compared by their returns."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from scipy.stats import ttest_rel
from torch import nn

from robot_rl import collect, evaluate, finetune, sim, train
from robot_rl.cli import compose
from robot_rl.collect import CollectError
from robot_rl.datasets import EpisodeStore
from robot_rl.metric_log import read_metrics, read_results
from robot_rl.policies import save_policy
from robot_rl.rl.methods import fresh_policy

SHORT = ["task=gym/Hopper-v5", "environment={horizon: 20}"]


def _ppo(output: Path) -> Path:
    small = [
        "training.num_envs=2", "training.rollout_steps=16", "training.steps=64", "training.evaluate_every=1",
        "training.evaluate_episodes=2", "training.epochs=1", "episodes=6", "processes=0",
    ]  # fmt: skip
    assert finetune.main(compose("finetune", ["algorithm=ppo", f"output={output}", *SHORT, *small])) == 0
    return output


def _pushing(folder: Path, control: float) -> Path:
    """A policy that hardly sees, and pushes about so hard."""
    env = sim.make({"task": "gym/Hopper-v5", "horizon": 20})
    network = {"action_horizon": 1, "process": {"name": "gaussian"}, "denoiser": {"name": "perceptron", "width": 8}}
    torch.manual_seed(0)
    policy = fresh_policy(network, env.contract)
    with torch.no_grad():
        [each for each in policy.denoiser.modules() if isinstance(each, nn.Linear)][-1].bias.fill_(control)
    save_policy(policy, folder, {"environment": env.specification})
    return folder


def test_a_training_is_judged_by_its_return(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _ppo(tmp_path / "run")
    rows = read_metrics(run / "metrics.csv")
    assert not any("success_rate" in row or "train_success_rate" in row for row in rows)
    results = read_results(run)
    assert "success_rate" not in results
    assert results["training"]["best"]["mean_return"] == max(row["mean_return"] for row in rows if "mean_return" in row)
    with (run / "evaluation" / "episodes.csv").open() as file:
        episodes = list(csv.reader(file))
    assert episodes[0].count("return") == 1
    returns = [float(row[episodes[0].index("return")]) for row in episodes[1:]]
    assert results["mean_return"] == pytest.approx(sum(returns) / 6, rel=1e-4)
    low, high = results["return_interval"]
    assert low < results["mean_return"] < high
    said = capsys.readouterr().out
    assert f"return {results['mean_return']:.4g} (95 % interval {low:.4g} to {high:.4g}) over 6 episodes" in said
    assert "succe" not in said
    page = (run / "report.html").read_text()
    assert "return in simulation" in page
    assert "success" not in page.split("Configuration")[0].replace("This task knows no success", "")


def test_two_policies_are_compared_by_their_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = _pushing(tmp_path / "one", 0.4), _pushing(tmp_path / "other", -0.4)
    options = ["videos=0", "episodes=6", "processes=0", f"output={tmp_path / 'both'}"]
    assert evaluate.main(compose("evaluate", [f"policy={one}", f"compare={other}", *options])) == 0
    with (tmp_path / "both" / "evaluation" / "episodes.csv").open() as file:
        episodes = list(csv.DictReader(file))
    first, second = ([float(row[name]) for row in episodes] for name in ("return", "other_return"))
    comparison = json.loads((tmp_path / "both" / "evaluation" / "results.json").read_text())["comparison"]
    assert comparison["difference"] == pytest.approx(sum(first) / 6 - sum(second) / 6, rel=1e-3)
    assert comparison["p_value"] == pytest.approx(ttest_rel(first, second).pvalue, rel=1e-2)
    assert f"paired t-test p = {comparison['p_value']:.3g}" in capsys.readouterr().out
    assert "Paired t-test" in (tmp_path / "both" / "report.html").read_text()


@pytest.mark.slow
def test_all_episodes_of_a_policy_are_recorded_and_cloned(tmp_path: Path) -> None:
    run, store = _pushing(tmp_path / "run", 0.4), tmp_path / "own.zarr"
    asked = [*SHORT, "source=policy", f"policy={run}", f"output={store}", "workers=1"]
    assert collect.main(compose("collect", [*asked, "episodes=3"])) == 0
    recorded = EpisodeStore.open(store)
    assert [recorded.facts(index)["seed"] for index in range(len(recorded))] == [0, 1, 2]
    assert recorded.provenance["environment"]["task"] == "gym/Hopper-v5"
    assert all(recorded.lengths == 20)
    small = ["training.steps=2", "training.batch_size=8", "policy.denoiser.width=16", "threads=1"]
    clone = [f"dataset={store}", f"output={tmp_path / 'clone'}", *small]
    with pytest.raises(ValueError, match="include_failures=true"):
        train.main(compose("train", clone))
    assert train.main(compose("train", [*clone, "include_failures=true"])) == 0


def test_no_success_is_waited_for(tmp_path: Path) -> None:
    asked = [*SHORT, "source=policy", f"policy={tmp_path}", "until_success=true", f"output={tmp_path / 'own.zarr'}"]
    with pytest.raises(CollectError, match="gym/Hopper-v5 knows no success"):
        collect.main(compose("collect", asked))
