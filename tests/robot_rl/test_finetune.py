import importlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from robot_rl import evaluate, export, train
from robot_rl.checkpoint import ResumeError
from robot_rl.cli import compose
from robot_rl.datasets import EpisodeStore
from robot_rl.finetune import main
from robot_rl.metric_log import read_metrics, read_results
from robot_rl.policies import PolicyError, load_policy, save_policy
from robot_rl.policies.checkpoint import load_provenance
from robot_rl.recordings import RecordingsError
from robot_rl.rl.on_policy import FinetuneError

from .conftest import MakeStore

pytestmark = pytest.mark.usefixtures("reach_simulation")

SMALL = [
    "task=reach", "training.num_envs=4", "training.rollout_steps=16", "training.steps=256", "training.minibatch=16",
    "training.epochs=2", "training.critic_warmup=1", "training.evaluate_every=2", "training.evaluate_episodes=4",
    "training.save_every=1", "training.critic_width=16", "episodes=4",
]  # fmt: skip


@pytest.fixture
def base(reach_store: MakeStore, tmp_path: Path) -> Path:
    """A flow policy of chunks of four, hardly trained."""
    small = ["policy.denoiser.width=32", "policy.denoiser.depth=1", "policy.action_horizon=4", "training.steps=30"]
    output = tmp_path / "base"
    train.main(compose("train", [f"dataset={reach_store()}", f"output={output}", "threads=1", *small]))
    return output


def _finetune(policy: Path | None, output: Path, *overrides: str, algorithm: str = "reinflow") -> int:
    given = [] if policy is None else [f"policy={policy}"]
    return main(compose("finetune", [f"algorithm={algorithm}", f"output={output}", *given, *SMALL, *overrides]))


def _rows(run: Path) -> list[dict[str, float]]:
    timed = ("steps_per_second",)
    rows = read_metrics(run / "metrics.csv")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


def _weights(run: Path, which: str = "last") -> dict[str, torch.Tensor]:
    return load_policy(run / "checkpoints" / which).state_dict()


def test_leaves_a_run_like_any_other(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert _finetune(base, run) == 0
    rows = _rows(run)
    assert [row["step"] for row in rows] == [0, 64, 128, 192, 256]
    assert [row["step"] for row in rows if "success_rate" in row] == [0, 128, 256]
    assert "actor_loss" not in rows[1]  # the critic warms up
    assert rows[2]["first_ratio_error"] <= 1e-5
    before, after = load_policy(base), load_policy(run)
    assert after.config["process"]["steps"] == 4
    assert after.execute == 2  # as it was trained: of chunks of four the half
    assert before.contract == after.contract
    torch.testing.assert_close(before.encoder.normalizer.center, after.encoder.normalizer.center, rtol=0, atol=0)
    results = read_results(run)
    assert results["training"]["steps"] == 256
    assert results["training"]["evaluation_steps"] == rows[-1]["evaluation_steps"] > 0
    comparison = json.loads((run / "evaluation" / "results.json").read_text())["comparison"]
    assert comparison["path"] == str(base)
    assert 0 <= comparison["p_value"] <= 1
    assert comparison["episodes"] == 4
    made_by = load_provenance(run)
    assert made_by["base"]["path"] == str(base)
    assert made_by["base"]["recordings"]
    assert made_by["environment"]["task"] == "reach"
    page = (run / "report.html").read_text()
    assert "control steps" in page  # the curves of a fine-tuning
    options = [f"policy={run}", f"output={tmp_path / 'again'}", "episodes=2", "videos=0"]
    assert evaluate.main(compose("evaluate", options)) == 0


def test_the_best_checkpoint_is_kept(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Success 0.5, 0.75, 0.25: the middle one stays."""
    import robot_rl.finetune as command

    class Fake:
        total_reward, steps = 0.0, 1

        def __init__(self, success: bool) -> None:
            self.success = success

    shares = iter([0.5, 0.75, 0.25])

    def run_episodes(policy: Any, spec: Any, seeds: Any, **_: Any) -> list[Fake]:
        share = next(shares)
        return [Fake(number < share * len(seeds)) for number, _ in enumerate(seeds)]

    monkeypatch.setattr(command, "run_episodes", run_episodes)
    assert _finetune(base, tmp_path / "run") == 0
    best = read_results(tmp_path / "run")["training"]["best"]
    assert (best["step"], best["success_rate"]) == (128, 0.75)
    assert load_provenance(tmp_path / "run")["training"]["step"] == 128


def test_a_run_killed_before_its_first_save_evaluates_the_beginning_once(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _finetune(base, tmp_path / "whole") == 0
    with monkeypatch.context() as patch:

        def killed(_: Any) -> None:
            raise SystemError("killed")

        patch.setattr("robot_rl.rl.learner.Learner.iterate", killed)
        with pytest.raises(SystemError):
            _finetune(base, tmp_path / "killed")
    assert _finetune(base, tmp_path / "killed") == 0
    assert _rows(tmp_path / "killed") == _rows(tmp_path / "whole")


def _stop_after(monkeypatch: pytest.MonkeyPatch, iterations: int, learner: str = "learner.Learner") -> None:
    """Let Ctrl-C arrive during that iteration."""
    module, name = learner.split(".")
    kind: Any = getattr(importlib.import_module(f"robot_rl.rl.{module}"), name)
    original = kind.iterate

    def iterate(self: Any) -> dict[str, float]:
        row = original(self)
        if self.iterations == iterations:
            os.kill(os.getpid(), signal.SIGINT)
        return row

    monkeypatch.setattr(kind, "iterate", iterate)


@pytest.mark.parametrize(
    "algorithm", ["reinflow", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ppo", "resip"))]
)
def test_stopped_and_resumed_is_bit_equal_to_uninterrupted(
    algorithm: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    base = request.getfixturevalue("base") if algorithm != "ppo" else None
    options = ["training.rollout_steps=10", "training.steps=240"]  # rollouts end within chunks and episodes
    _finetune(base, tmp_path / "whole", *options, algorithm=algorithm)
    with monkeypatch.context() as patch:
        _stop_after(patch, 2)
        assert _finetune(base, tmp_path / "stopped", *options, algorithm=algorithm) == 130
    assert "The same command goes on from there" in capsys.readouterr().out
    assert _finetune(base, tmp_path / "stopped", *options, algorithm=algorithm) == 0
    assert "Going on after step" in capsys.readouterr().out
    assert _rows(tmp_path / "stopped") == _rows(tmp_path / "whole")
    for which in ("last", "best"):
        whole, stopped = _weights(tmp_path / "whole", which), _weights(tmp_path / "stopped", which)
        assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    assert _finetune(base, tmp_path / "stopped", *options, algorithm=algorithm) == 0
    assert "finished" in capsys.readouterr().out


OFF_POLICY = [
    "task=reach", "training.num_envs=2", "training.rollout_steps=16", "training.steps=128", "training.batch=16",
    "training.start_steps=40", "training.evaluate_every=2", "training.evaluate_episodes=4", "training.save_every=1",
    "training.critic_width=16", "network.denoiser.width=16", "episodes=4", "threads=1",
]  # fmt: skip


def _off_policy(output: Path, algorithm: str, *overrides: str) -> int:
    return main(compose("finetune", [f"algorithm={algorithm}", f"output={output}", *OFF_POLICY, *overrides]))


@pytest.mark.slow
def test_rlpd_learns_from_demonstrations_and_keeps_all_it_does(reach_store: MakeStore, tmp_path: Path) -> None:
    run, dataset = tmp_path / "run", reach_store()
    assert _off_policy(run, "rlpd", f"dataset={dataset}") == 0
    rows = _rows(run)
    assert [row["step"] for row in rows] == [0, 32, 64, 96, 128]
    assert "critic_loss" in rows[2]
    assert "critic_loss" not in rows[1]  # the first 40 steps are random
    store = EpisodeStore.open(run / "replay.zarr")
    assert store.num_steps == rows[-1]["replay_steps"] > 0
    assert all(episode.facts["source"] == "policy" for episode in store)
    assert store.provenance["environment"]["task"] == "reach"
    policy = load_policy(run)
    assert policy.config["process"]["name"] == "tanh_gaussian"
    assert not torch.equal(policy.encoder.normalizer.center, torch.zeros_like(policy.encoder.normalizer.center))
    assert load_provenance(run)["recordings"][0]["path"] == str(dataset)
    options = [f"policy={run}", f"output={tmp_path / 'again'}", "episodes=2", "videos=0"]
    assert evaluate.main(compose("evaluate", options)) == 0


def test_failed_episodes_are_demonstrations_where_they_are_asked_for(reach_store: MakeStore, tmp_path: Path) -> None:
    """As those of tasks that know no success are."""
    run, options = tmp_path / "run", [f"dataset={reach_store(episodes=0, failures=4)}", "training.steps=32"]
    with pytest.raises(RecordingsError, match=r"none of its 4 episodes .* take all with include_failures=true"):
        _off_policy(run, "rlpd", *options)
    assert _off_policy(run, "rlpd", *options, "include_failures=true") == 0
    assert load_provenance(run)["recordings"][0]["training_episodes"] == 4


def test_a_run_from_before_failures_could_be_asked_for_is_known_again(
    reach_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, options = tmp_path / "run", [f"dataset={reach_store(failures=3)}", "training.steps=32"]
    assert _off_policy(run, "rlpd", *options) == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["include_failures"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert _off_policy(run, "rlpd", *options) == 0
    assert "finished" in capsys.readouterr().out
    with pytest.raises(ResumeError, match=r"training_episodes: 12 against 15"):
        _off_policy(run, "rlpd", *options, "include_failures=true")


@pytest.mark.slow
def test_an_off_policy_training_stopped_and_resumed_is_bit_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _off_policy(tmp_path / "whole", "sac")
    with monkeypatch.context() as patch:
        _stop_after(patch, 3, "off_policy_learner.OffPolicyLearner")
        assert _off_policy(tmp_path / "stopped", "sac") == 130
    assert _off_policy(tmp_path / "stopped", "sac") == 0
    assert "Going on after step 96" in capsys.readouterr().out
    assert _rows(tmp_path / "stopped") == _rows(tmp_path / "whole")
    for which in ("last", "best"):
        whole, stopped = _weights(tmp_path / "whole", which), _weights(tmp_path / "stopped", which)
        assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_a_training_killed_after_its_last_step_makes_up_its_updates_and_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All its steps are in the store, of which the last checkpoint knows fewer."""
    import robot_rl.finetune as command

    run, options = tmp_path / "run", ["training.save_every=2", "training.evaluate_every=4"]
    with monkeypatch.context() as patch:
        episodes, evaluations = command.run_episodes, iter([False, True])

        def killed(*given: Any, **options: Any) -> Any:
            if next(evaluations):
                raise SystemError("killed")
            return episodes(*given, **options)

        patch.setattr(command, "run_episodes", killed)
        with pytest.raises(SystemError):
            _off_policy(run, "sac", *options)
    steps = EpisodeStore.open(run / "replay.zarr").num_steps
    assert load_provenance(run / "checkpoints" / "last")["training"]["step"] == 64 < steps
    # As if the last episodes had ended with the last step.
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["training"]["steps"] = steps
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    options.append(f"training.steps={steps}")
    assert _off_policy(run, "sac", *options) == 0
    last = json.loads((run / "checkpoints" / "last" / "training.json").read_text())
    assert (last["steps"], last["updates"]) == (steps, steps - 40)
    assert _rows(run)[-1]["step"] == steps
    assert "success_rate" in _rows(run)[-1]
    capsys.readouterr()
    assert _off_policy(run, "sac", *options) == 0
    assert "finished" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "added"), [("dsrl", "steering."), ("expo", "edit.")])
def test_a_policy_with_an_addition_is_stopped_resumed_evaluated_and_exported(
    algorithm: str, added: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    options = [each for each in OFF_POLICY if not each.startswith("network")]
    options += [f"algorithm={algorithm}", f"policy={base}", f"output={run}", "algorithm.width=16"]
    if algorithm == "expo":
        options += [f"dataset={tmp_path / 'reach.zarr'}", "training.execute=4"]

    with monkeypatch.context() as patch:
        _stop_after(patch, 3, "off_policy_learner.OffPolicyLearner")
        assert main(compose("finetune", options)) == 130
    assert main(compose("finetune", options)) == 0
    assert [row["step"] for row in _rows(run)] == [0, 32, 64, 96, 128]
    before, after = load_policy(base).state_dict(), load_policy(run / "checkpoints" / "last").state_dict()
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == ({"denoiser"} if algorithm == "expo" else set())
    assert any(name.startswith(added) for name in after)
    pytest.importorskip("onnx")
    assert all(export.main([str(run), str(tmp_path / "exported")]) == 0 for _ in range(2))  # written over, too
    again = [f"policy={tmp_path / 'exported'}", f"output={tmp_path / 'again'}", "episodes=2", "videos=0"]
    assert evaluate.main(compose("evaluate", again)) == 0


def test_errors_of_off_policy_methods_come_before_any_work(base: Path, tmp_path: Path) -> None:
    run, dataset = tmp_path / "run", tmp_path / "reach.zarr"
    with pytest.raises(FinetuneError, match=r"dataset= is missing: training\.demonstration_share=0\.5"):
        _off_policy(run, "rlpd")
    with pytest.raises(FinetuneError, match="dataset= is of no use to reinflow"):
        _finetune(base, run, f"dataset={dataset}")
    with pytest.raises(PolicyError, match="train tanh_gaussian policies, this one is flow_matching"):
        _off_policy(run, "sac", f"policy={base}")
    with pytest.raises(FinetuneError, match="polyak: expected at most 1, got 2"):
        _off_policy(run, "sac", "training.polyak=2.0")
    with pytest.raises(FinetuneError, match="actors: reinflow learns from what it does itself; sac"):
        _finetune(base, run, "actors.count=2")
    with pytest.raises(FinetuneError, match="count of at least 0 and listen a port, got -1 and 0"):
        _off_policy(run, "sac", "actors.count=-1")
    with pytest.raises(FinetuneError, match=r"secret: .*No such file"):
        _off_policy(run, "sac", "actors.count=1", "actors.secret=nowhere")
    with pytest.raises(PolicyError, match="hil: nobody can take over in reach"):
        _off_policy(run, "hil", f"dataset={dataset}")
    assert not run.exists()


def test_a_new_policy_learns_its_normaliser(tmp_path: Path) -> None:
    assert _finetune(None, tmp_path / "run", algorithm="ppo") == 0
    policy = load_policy(tmp_path / "run" / "checkpoints" / "last")
    assert policy.config["process"]["name"] == "gaussian"
    # Places and goals lie in the unit square, uniformly at the start.
    assert policy.encoder.normalizer.center[2:].tolist() == pytest.approx([0.5, 0.5], abs=0.25)
    assert all(0.1 < value < 0.5 for value in policy.encoder.normalizer.spread[2:].tolist())


@pytest.mark.slow
def test_the_scale_of_the_reward_goes_on_with_the_policy(base: Path, tmp_path: Path) -> None:
    """The policy that did best has seen so many returns; a further training of it adds its own, one for each step."""

    def seen(run: str, which: str) -> int:
        return int(load_provenance(tmp_path / run / "checkpoints" / which)["rewards"]["moments"]["count"])

    first, further = tmp_path / "first", ["training.steps=64", "training.evaluate_episodes=1"]
    assert _finetune(base, first) == 0
    assert seen("first", "last") == 256
    assert seen("first", "best") == load_provenance(first)["training"]["step"]
    assert _finetune(first / "checkpoints" / "last", tmp_path / "second", *further) == 0
    assert seen("second", "last") == 256 + 64
    assert _finetune(first / "checkpoints" / "last", tmp_path / "other", *further, "training.discount=0.5") == 0
    assert seen("other", "last") == 64


def test_errors_come_before_any_work(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(
        PolicyError, match="ppo trains Gaussian policies, this one is flow_matching; use algorithm=rein"
    ):
        _finetune(base, run, algorithm="ppo")
    with pytest.raises(FinetuneError, match="policy= is missing: reinflow improves a trained policy"):
        _finetune(None, run)
    with pytest.raises(FinetuneError, match=r"training: cannot be read:\n  - epochs: expected at least 1, got 0"):
        _finetune(base, run, "training.epochs=0")
    with pytest.raises(PolicyError, match="0 < std_min <= std_max"):
        _finetune(base, run, "algorithm.std_max=0.01")
    with pytest.raises(ValueError, match="execute: a chunk of 4 actions"):
        _finetune(base, run, "training.execute=5")
    assert not run.exists()


def test_resume_refuses_another_base_by_name(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        _stop_after(patch, 1)
        _finetune(base, tmp_path / "run")
    policy = load_policy(base)
    with torch.no_grad():
        next(policy.parameters()).add_(1.0)
    save_policy(policy, base / "checkpoints" / "best", load_provenance(base))
    with pytest.raises(ResumeError, match="sha256"):
        _finetune(base, tmp_path / "run")
