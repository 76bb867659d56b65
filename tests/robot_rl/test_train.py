import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from robot_rl.checkpoint import ResumeError
from robot_rl.cli import compose
from robot_rl.datasets import ContractError, EpisodeStore
from robot_rl.metric_log import read_metrics, read_results
from robot_rl.policies import PolicyError, build_policy, load_policy
from robot_rl.recordings import RecordingsError
from robot_rl.train import main
from robot_rl.training import TrainingError

from .conftest import MakeStore

SMALL = [
    "policy.denoiser.width=32", "policy.denoiser.depth=1", "policy.action_horizon=4", "training.batch_size=16",
    "training.log_every=1", "training.warmup=2", "training.held_out_every=8", "training.save_every=6",
    "training.steps=20", "threads=1",
]  # fmt: skip


def _train(store: Path | str, output: Path, *overrides: str) -> int:
    return main(compose("train", [f"dataset={store}", f"output={output}", *SMALL, *overrides]))


def _losses(run: Path) -> dict[int, tuple[float | None, float | None]]:
    return {int(row["step"]): (row.get("loss"), row.get("held_out_loss")) for row in read_metrics(run / "metrics.csv")}


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_policy(run / "checkpoints" / "last").state_dict()


def _same_weights(first: Path, second: Path) -> bool:
    left, right = _weights(first), _weights(second)
    return all(torch.equal(left[name], right[name]) for name in left)


def test_training_lowers_the_held_out_loss_and_leaves_a_policy(reach_store: MakeStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert (
        _train(
            reach_store(failures=3),
            run,
            "training.steps=120",
            "training.learning_rate=3e-3",
            "training.held_out_every=40",
        )
        == 0
    )
    losses = [held for _, held in _losses(run).values() if held is not None]
    assert losses[-1] < 0.5 * losses[0]
    results = read_results(run)["training"]
    assert results["steps"] == 120
    assert results["best"]["held_out_loss"] == min(losses)
    policy = load_policy(run)
    provenance = json.loads((run / "checkpoints" / "best" / "provenance.json").read_text())
    assert provenance["recordings"][0]["training_episodes"] == 11
    assert list(policy.contract.observation) == ["position", "goal"]


def test_a_training_that_is_refused_leaves_no_folder(reach_store: MakeStore, tmp_path: Path) -> None:
    store = reach_store()
    with pytest.raises(ValueError, match="speed"):
        _train(store, tmp_path / "run", "policy.observation=[speed]")
    assert not (tmp_path / "run").exists()


def test_the_same_command_trains_the_same_policy(reach_store: MakeStore, tmp_path: Path) -> None:
    store = reach_store()
    for name in ("a", "b"):
        _train(store, tmp_path / name)
    assert _losses(tmp_path / "a") == _losses(tmp_path / "b")
    assert _same_weights(tmp_path / "a", tmp_path / "b")


def test_saved_weights_are_the_average(reach_store: MakeStore, tmp_path: Path) -> None:
    store = reach_store()
    _train(store, tmp_path / "averaged")
    _train(store, tmp_path / "plain", "training.ema=false")
    assert _losses(tmp_path / "averaged")[20][0] == _losses(tmp_path / "plain")[20][0]
    assert not _same_weights(tmp_path / "averaged", tmp_path / "plain")


def test_normaliser_ignores_failed_and_held_out_episodes(reach_store: MakeStore, tmp_path: Path) -> None:
    from robot_rl.recordings import Recordings

    store = reach_store(episodes=10, failures=4)
    _train(store, tmp_path / "run")
    recordings = Recordings([store])
    part = recordings.parts[0]
    assert len(part.training) == 9
    assert not set(part.training) & set(part.held_out)
    rows = [part.store[int(index)].observation["position"] for index in part.training]
    low, high = (getattr(torch.cat([torch.as_tensor(row) for row in rows]), name)(0).values for name in ("min", "max"))
    policy = load_policy(tmp_path / "run")
    torch.testing.assert_close(policy.encoder.normalizer.center[:2], (low + high) / 2)


@pytest.mark.slow
def test_a_warm_start_begins_with_the_weights_and_normalisers_of_another_run(
    reach_store: MakeStore, tmp_path: Path
) -> None:
    store, more = reach_store(), reach_store("more", episodes=20, seed=1)
    _train(store, tmp_path / "first", "training.steps=60", "training.learning_rate=3e-3", "training.best=last")
    still = ["training.steps=1", "training.learning_rate=1e-30", f"warm_start={tmp_path / 'first'}"]
    _train(more, tmp_path / "second", *still)
    assert _same_weights(tmp_path / "first", tmp_path / "second")
    with pytest.raises(TrainingError, match=r"warm_start=.*\n  - denoiser\.width: 32 against 16\n"):
        _train(more, tmp_path / "third", *still, "policy.denoiser.width=16")
    assert not (tmp_path / "third" / "config.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("accumulate", "precision"), [(4, "fp32"), (2, "bf16")])
def test_accumulation_gives_the_losses_of_the_whole_batch(
    reach_store: MakeStore, tmp_path: Path, accumulate: int, precision: str
) -> None:
    store = reach_store()
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    _train(store, tmp_path / "whole", f"training.precision={precision}")
    _train(store, tmp_path / "parts", f"training.precision={precision}", f"training.accumulate={accumulate}")
    whole, parts = _losses(tmp_path / "whole"), _losses(tmp_path / "parts")
    assert [parts[step][0] for step in parts] == pytest.approx([whole[step][0] for step in whole], rel=tolerance)


@pytest.mark.slow
def test_compiled_networks_have_the_losses_of_eager_ones(
    reach_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    store = reach_store()
    _train(store, tmp_path / "eager", "training.steps=4")
    _train(store, tmp_path / "compiled", "training.steps=4", "training.compile=true")
    eager, compiled = _losses(tmp_path / "eager"), _losses(tmp_path / "compiled")
    assert [compiled[step][0] for step in compiled] == pytest.approx([eager[step][0] for step in eager], rel=1e-4)


def test_mixture_of_stores_samples_by_weight(reach_store: MakeStore, tmp_path: Path) -> None:
    from robot_rl.recordings import Recordings

    stores = [reach_store("a", 6, seed=1), reach_store("b", 12, seed=2)]
    recordings = Recordings(stores, weights=[3, 1])
    policy = build_policy({"action_horizon": 4}, recordings.contract, recordings.statistics())
    batch = next(iter(recordings.windows(policy, 64)))
    assert (batch["source"] == 0).sum() == 48
    run = tmp_path / "run"
    main(compose("train", [f"dataset=[{stores[0]},{stores[1]}]", "dataset_weights=[3,1]", f"output={run}", *SMALL]))
    assert len(json.loads((run / "checkpoints/last/provenance.json").read_text())["recordings"]) == 2


@pytest.mark.parametrize("first", [0, 1])
def test_stores_need_to_agree_on_what_is_observed_alone(reach_store: MakeStore, tmp_path: Path, first: int) -> None:
    stores = [reach_store("blind"), reach_store("seeing", cameras=("front",))]
    dataset = f"dataset=[{stores[first]},{stores[1 - first]}]"
    with pytest.raises(ContractError, match=r"(?s)observation\.front: only in .*policy\.observation=\[position,goal\]"):
        main(compose("train", [dataset, f"output={tmp_path / 'refused'}", *SMALL]))
    run = tmp_path / "run"
    main(compose("train", [dataset, f"output={run}", "policy.observation=[position,goal]", *SMALL]))
    policy = load_policy(run)
    assert [*policy.contract.observation] == ["position", "goal"]
    assert len(json.loads((run / "checkpoints/last/provenance.json").read_text())["recordings"]) == 2


@pytest.mark.slow
def test_intended_labels_are_trained_on(reach_store: MakeStore, tmp_path: Path) -> None:
    """Where what was proposed was done they are the same; a word that is neither is refused."""
    stores = {"done": reach_store(), "missed": reach_store("missed", off=0.1)}
    for name, store in stores.items():
        for labels in ("executed", "intended"):
            _train(store, tmp_path / name / labels, "training.steps=4", f"labels={labels}")
    losses = {name: [_losses(tmp_path / name / labels) for labels in ("executed", "intended")] for name in stores}
    assert losses["done"][0] == losses["done"][1]
    assert losses["missed"][0] != losses["missed"][1]
    store = stores["done"]
    with pytest.raises(ValueError, match="labels: expected executed or intended"):
        _train(store, tmp_path / "wrong", "labels=best")
    assert not (tmp_path / "wrong" / "config.yaml").exists()


def test_without_held_out_episodes_the_last_is_the_best(reach_store: MakeStore, tmp_path: Path) -> None:
    _train(reach_store(), tmp_path / "run", "held_out=0")
    last, best = (load_policy(tmp_path / "run" / "checkpoints" / name).state_dict() for name in ("last", "best"))
    assert all(torch.equal(last[name], best[name]) for name in last)


def test_errors_come_before_any_work(reach_store: MakeStore, tmp_path: Path) -> None:
    store, run = reach_store(), tmp_path / "run"
    with pytest.raises(RecordingsError, match="no such episode store"):
        _train(tmp_path / "none.zarr", run)
    with pytest.raises(RecordingsError, match="dataset= is missing"):
        main(compose("train", SMALL))
    with pytest.raises(RecordingsError, match="none of its 2 episodes is marked as a success"):
        _train(reach_store("failed", 0, 2), run)
    with pytest.raises(RecordingsError, match="holds no episode"):
        _train(reach_store("empty", 0), run)
    seen = reach_store("seen", cameras=("front",))
    with pytest.raises(ContractError, match=rf"observation\.front: only in '{seen}', not in '{store}'"):
        _train(f"[{store},{seen}]", run)
    with pytest.raises(TrainingError, match="fp16 needs a CUDA device"):
        _train(store, run, "training.precision=fp16", "device=cpu")
    with pytest.raises(TrainingError, match="multiple of 3"):
        _train(store, run, "training.accumulate=3")
    for setting, message in {
        "steps=0": "steps: expected at least 1",
        "steps=null": "steps: expected a value, got null",
        "gradient_clip=-1.0": "gradient_clip: expected a finite number above 0",
        "learning_rate=0.0": "learning_rate: expected a finite number above 0",
        "learning_rate=inf": "learning_rate: expected a finite number above 0, got inf",
        "betas=[0.9]": "betas: expected two numbers",
        "ema_max_decay=1.5": "ema_max_decay: expected 0 to 1",
    }.items():
        with pytest.raises(TrainingError, match=message):
            _train(store, run, f"training.{setting}")
    with pytest.raises(TrainingError, match=r"seed=9{20}: expected at most 9223372036854775807"):
        _train(store, run, f"seed={'9' * 20}")
    with pytest.raises(PolicyError, match="observation: expected at least one feature, or null for all"):
        _train(store, run, "policy.observation=[]")
    with pytest.raises(ValueError, match="cuda:99"):
        _train(store, run, "device=cuda:99")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(ResumeError, match=r"holds thesis.txt"):
        _train(store, other)
    with pytest.raises(ResumeError, match=r"holds thesis.txt"):
        _train(store, other, "overwrite=true")
    assert not (run / "checkpoints").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(reach_store: MakeStore, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the loss is nan after step"):
        _train(
            reach_store(), tmp_path / "run", "training.learning_rate=1e30", "training.gradient_clip=null",
            "training.save_every=1",
        )  # fmt: skip
    assert all(value.isfinite().all() for value in _weights(tmp_path / "run").values())


def test_a_held_out_loss_that_is_not_finite_is_never_the_best(
    reach_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robot_rl.training import Training

    losses = iter([float("nan"), 2.0, 3.0])
    monkeypatch.setattr(Training, "held_out_loss", lambda *_: next(losses))
    run = tmp_path / "run"
    _train(reach_store(), run, "training.steps=6", "training.held_out_every=2")
    assert read_results(run)["training"]["best"]["held_out_loss"] == 2.0


# --- resume -----------------------------------------------------------------------------------------------------------


def _stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let Ctrl-C arrive during that step."""
    from robot_rl.training import Training

    original = Training.step

    def step(self: Training, batch: Any) -> None:
        original(self, batch)
        if self.steps == steps:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Training, "step", step)


@pytest.mark.parametrize("log_every", [1, 5])
def test_stopped_and_resumed_is_bit_equal_to_uninterrupted(
    reach_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    log_every: int,
) -> None:
    store, options = reach_store(), ["policy.denoiser.dropout=0.1", f"training.log_every={log_every}"]
    _train(store, tmp_path / "whole", *options)
    with monkeypatch.context() as patch:
        _stop_after(patch, 9)
        assert _train(store, tmp_path / "stopped", *options) == 130
    assert "The same command goes on from there" in capsys.readouterr().out
    assert _train(store, tmp_path / "stopped", *options) == 0
    assert "Going on after step 9" in capsys.readouterr().out
    assert _losses(tmp_path / "stopped") == _losses(tmp_path / "whole")
    assert _same_weights(tmp_path / "whole", tmp_path / "stopped")


COMMAND = """
import sys
from robot_rl.cli import compose
from robot_rl.train import main
sys.exit(main(compose("train", sys.argv[1:])))
"""


@pytest.mark.slow
def test_killed_and_resumed_is_bit_equal_to_uninterrupted(reach_store: MakeStore, tmp_path: Path) -> None:
    store, run = reach_store(), tmp_path / "killed"
    options = ["training.steps=120", "training.held_out_every=40", "training.save_every=25"]
    _train(store, tmp_path / "whole", *options)
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, f"dataset={store}", f"output={run}", *SMALL, *options], stdout=subprocess.PIPE
    )
    until = time.monotonic() + 120
    while len(read_metrics(run / "metrics.csv")) < 30 and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 30 <= len(_losses(run)) < 120
    assert _train(store, run, *options) == 0
    assert _losses(run) == _losses(tmp_path / "whole")
    assert _same_weights(run, tmp_path / "whole")


def test_resume_refuses_other_settings_and_other_data_by_name(
    reach_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = reach_store(), tmp_path / "run"
    with monkeypatch.context() as patch:
        _stop_after(patch, 3)
        _train(store, run)
    with pytest.raises(ResumeError, match=r"policy.denoiser.width: 32 against 64[\s\S]*overwrite=true"):
        _train(store, run, "policy.denoiser.width=64")
    with pytest.raises(ResumeError, match="stopped after 3 steps"):
        _train(store, run, "resume=false")
    with pytest.raises(ResumeError, match=r"training_episodes: 11 against 13"):
        _train(reach_store("more", 14), run)
    assert _train(store, run, "training.save_every=7") == 0


def test_a_finished_run_is_left_alone_and_overwritten_on_demand(
    reach_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, run = reach_store(), tmp_path / "run"
    _train(store, run)
    before = _losses(run)
    assert _train(store, run) == 0
    assert "finished" in capsys.readouterr().out
    with pytest.raises(ResumeError, match="seed: 0 against 1"):
        _train(store, run, "seed=1")
    assert _losses(run) == before
    assert _train(store, run, "seed=1", "overwrite=true") == 0
    assert _losses(run) != before


# --- simulation during training ---------------------------------------------------------------------------------------


def test_best_by_success_in_simulation(reach_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([0.5, 0.75, 0.75, 0.25])
    seen: list[bool] = []

    def measured(policy: Any, environment: Any, settings: Any) -> float:
        seen.append(policy.training)
        return next(rates)

    monkeypatch.setattr("robot_rl.rollout.success_rate", measured)
    run = tmp_path / "run"
    _train(reach_store(), run, "training.evaluate_every=5", "training.best=success")
    best = read_results(run)["training"]["best"]
    # Of two equally good ones the later is kept.
    assert (best["step"], best["success_rate"]) == (15, 0.75)
    assert json.loads((run / "checkpoints/best/provenance.json").read_text())["training"]["step"] == 15
    assert seen == [False] * 4
    with pytest.raises(TrainingError, match="success needs evaluate_every"):
        _train(reach_store("other"), tmp_path / "other", "training.best=success")


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torch", "accelerate"])
def test_two_processes_have_the_losses_of_one(reach_store: MakeStore, tmp_path: Path, launcher: str) -> None:
    store = reach_store(cameras=("front",))
    options = [
        "policy.observation=[position,front]", "++policy.encoder={name:cnn,channels:[8,8]}", "device=cpu",
        "policy.augmentation.shift=2", "policy.augmentation.brightness=0.2", "training.steps=12",
        "training.accumulate=2",
    ]  # fmt: skip
    _train(store, tmp_path / "one", *options)
    arguments = [f"dataset={store}", f"output={tmp_path / 'two'}", *SMALL, *options]
    if launcher == "torch":
        processes = [_rank(rank, tmp_path / "meet", arguments) for rank in range(2)]
    else:
        command = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=0"]
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        command = [sys.executable, *command, "-m", "robot_rl.cli", "train", *arguments]
        processes = [subprocess.Popen(command, env=environment)]
    assert [process.wait(200) for process in processes] == [0] * len(processes)
    one, two = _losses(tmp_path / "one"), _losses(tmp_path / "two")
    assert one.keys() == two.keys()
    for column in range(2):
        left, right = ([row[column] for row in losses.values() if row[column] is not None] for losses in (one, two))
        assert right == pytest.approx(left, rel=1e-5)


def _rank(rank: int, meeting: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """One of the processes that a launcher starts; they meet by a file, where a port might be taken by another test."""
    script = (
        "import sys, torch.distributed as dist\n"
        "from robot_rl.cli import main\n"
        f"dist.init_process_group('gloo', init_method='file://{meeting}', rank={rank}, world_size=2)\n"
        "sys.exit(main(['train', *sys.argv[1:]]))\n"
    )
    environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env=environment)


def test_starts_of_evaluations_in_the_data_are_named(
    reach_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = EpisodeStore.open(reach_store())
    _train(store.path, tmp_path / "own", "training.steps=1")
    assert "evaluation seeds" not in capsys.readouterr().out
    store.annotate(range(len(store)), seed=100_003)
    _train(store.path, tmp_path / "known", "training.steps=1")
    said = capsys.readouterr().out
    assert "11 of these episodes have evaluation seeds" in said, "one of the twelve is held out"
    assert "first_seed=200000" in said
    store.annotate(range(len(store)), seed="100003")
    _train(store.path, tmp_path / "text", "training.steps=1")
    assert "evaluation seeds" not in capsys.readouterr().out, "a seed that is none"
