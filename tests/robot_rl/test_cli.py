"""The command line as a newcomer meets it: help, composed configurations, and errors that say what exists."""

import csv
import errno
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from robot_rl import cli, kinds

from .conftest import MakeStore


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert all(name in out for name in (*cli.CONFIGURED, *cli.PLAIN))
    assert run(capsys)[1] == out


@pytest.mark.parametrize("command", cli.CONFIGURED)
def test_help_of_a_command_shows_every_key(capsys: pytest.CaptureFixture[str], command: str) -> None:
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    keys = [line.split(":")[0] for line in out.splitlines() if ": " in line and line[0].isalpha()]
    assert {"output"} <= set(keys)
    assert "hydra" not in keys
    assert "defaults" not in keys


def test_help_with_a_preset_shows_what_it_sets(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "finetune", "algorithm=rlpd", "--help")
    assert "algorithm=rlpd takes core=off_policy" in out
    assert "update_ratio: 1       # updates of the critics" in out
    sets = out.split("algorithm=rlpd sets:")[1]
    assert "Ball et al. 2023" in sets
    assert "demonstration_share: 0.5" in sets
    assert "defaults" not in out
    assert "@package" not in out


def test_show_prints_the_composed_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "demo", "--show", "seed=3")
    assert status == 0
    assert yaml.safe_load(out)["seed"] == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("dmeo",), "did you mean 'demo'"),
        (("demo", "sead=1"), "did you mean 'seed'"),
        (("demo", "seed=many"), "expected an integer such as 0, got 'many'"),
        (("demo", "seed"), "expected key=value"),
        (("demo", "--seed=3"), "without dashes"),
        (("train", "policy=flow_mpl", "dataset=x"), "did you mean 'flow_mlp'"),
        (("train", "training.stepz=1", "dataset=x"), "did you mean 'steps'"),
        (("train", "seed.more=1", "dataset=x"), "is a value"),
        (("train", "+sede=1", "dataset=x"), "has no key 'sede' (did you mean 'seed'?)"),
        (("train", "~seed", "dataset=x"), "no key can be left out"),
        (("train", "dataset=lift(1).zarr"), "quotes of its own: 'dataset=\"lift(1).zarr\"'"),
        (("train", "--multirun", "seed=0,1", "dataset=lift=1.zarr"), "dataset=lift=1.zarr: cannot be read"),
        (("train", "training=5", "dataset=x"), "expected keys and values"),
        (("train", "training.betas=5", "dataset=x"), "expected a list such as [0.9, 0.999]"),
        (("train", "training.betas=[a,b]", "dataset=x"), "expected a list such as [0.9, 0.999], got ['a', 'b']"),
        (("collect", "episodes=abc"), "episodes=abc: expected an integer, got 'abc'"),
        (("collect", "episodes=1.5"), "episodes=1.5: expected an integer, got 1.5"),
        (("collect", "episodes=true"), "episodes=true: expected an integer, got True"),
        (("collect", "observation=foo"), "observation=foo: expected a list of names, got 'foo'"),
        (("collect", "environment=abc"), "environment=abc: expected keys and values such as {a: 1}, got 'abc'"),
        (("collect", "output=5"), "output=5: expected a text, in quotes of its own where it reads as a number, got 5"),
        (("demo", "cameras=[agentview]"), "expected cameras as {agentview: [84, 84]}, height and width in pixels"),
        (("demo", "cameras={agentview: 84}"), "expected cameras as {agentview: [84, 84]}, height and width in pixels"),
        (("evaluate", "dataset_episodes=[a]"), "expected numbers as in [0, 3], or all, got ['a']"),
    ],
)
def test_wrong_usage_says_what_exists(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert expected in err


@pytest.mark.slow
def test_of_every_key_it_is_known_what_it_takes() -> None:
    def nulls(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from nulls(value, f"{prefix}{key}.")
            elif value is None:
                yield prefix + key

    for command in cli.CONFIGURED:
        choices = [f"{group}={choice}" for group, known in cli._groups(command).items() for choice in known]
        for overrides in ([], *([choice] for choice in choices)):
            config = cli._plain(cli.compose(command, overrides))
            unknown = [key for key in nulls(config) if kinds.kind_of(key, None) == kinds.ANYTHING]
            assert not unknown, f"{command} {overrides}: add them to `robot_rl.kinds.NULL`"


@pytest.mark.parametrize(
    "path", ["runs/demo", "../a-b", "lift(1).zarr", "a b=c, it's {x}", 'an "a"', "Null", "1e5", ".5", "~/x"]
)
def test_any_path_comes_through_quoted(path: str) -> None:
    assert cli.quoted("runs/demo") == "runs/demo"
    assert cli.compose("train", [f"output={cli.quoted(path)}"]).output == path


def test_a_missing_input_is_one_clear_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, "train", f"dataset={tmp_path / 'absent.zarr'}", f"output={tmp_path / 'run'}")
    assert status == 1
    assert "absent.zarr" in err
    assert "Traceback" not in err


def test_what_is_no_store_is_one_clear_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    status, _, err = run(capsys, "train", f"dataset={tmp_path / 'photos'}", f"output={tmp_path / 'run'}")
    assert status == 1
    assert "no episode store" in err
    assert not (tmp_path / "run").exists()


def test_an_error_that_nobody_thought_of_is_no_traceback_unless_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: object) -> None:
        raise KeyError("thing")

    monkeypatch.setattr("robot_rl.train.main", fail)
    status, _, err = run(capsys, "train", "dataset=x")
    assert status == 1
    assert "KeyError: 'thing'" in err
    with pytest.raises(KeyError):
        run(capsys, "train", "dataset=x", "--traceback")


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "choose another path")]
)
def test_a_disk_that_cannot_be_written_is_told_with_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def fail(config: object) -> None:
        raise OSError(number, os.strerror(number), "runs/mine")

    monkeypatch.setattr("robot_rl.train.main", fail)
    status, _, err = run(capsys, "train", "dataset=x")
    assert status == 1
    assert "'runs/mine'" in err
    assert advice in err


@pytest.mark.parametrize(
    ("module", "advice"), [("rosbags", 'pip install "robot_rl[ros]"'), ("daqp", "robot-rl doctor")]
)
def test_a_missing_module_is_told_with_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str, advice: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("robot_rl.train.main", lambda config: importlib.import_module(module))
    status, _, err = run(capsys, "train", "dataset=x")
    assert status == 1
    assert module in err
    assert advice in err


def test_a_sweep_trains_every_combination_and_leaves_its_table(
    capsys: pytest.CaptureFixture[str], reach_store: MakeStore, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    small = ["training.steps=2", "training.batch_size=8", "threads=1"]
    arguments = ["train", "--multirun", f"dataset={reach_store()}", f"output={sweep}", *small]
    status, out, _ = run(capsys, *arguments, "seed=0,1", "policy=flow_mlp,gaussian")
    assert status == 0
    with (sweep / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["run"]).name for row in rows} == {
        f"seed_{seed}_policy_{policy}" for seed in (0, 1) for policy in ("flow_mlp", "gaussian")
    }
    for row in rows:
        config = yaml.safe_load((Path(row["run"]) / "config.yaml").read_text())
        assert Path(row["run"]).name == f"seed_{config['seed']}_policy_{config['name']}"
        assert float(row["held-out loss"]) > 0
        # The folders can be named in the next command.
        assert cli.compose("evaluate", [f"policy={row['run']}"]).policy == row["run"]
    assert all(row["run"] in out for row in rows)


def test_ctrl_c_ends_a_sweep(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun = []
    monkeypatch.setattr("robot_rl.train.main", lambda config: begun.append(config.seed) or 130)
    assert run(capsys, "train", "--multirun", f"output={tmp_path}", "seed=0,1", "dataset=x")[0] == 130
    assert begun == [0]


def test_multirun_composes_every_combination(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "demo", "--multirun", "--show", "seed=0,1", "policy=flow_mlp,gaussian", "output=sweep")
    assert status == 0
    outputs = [line for line in out.splitlines() if line.startswith("output:")]
    assert outputs == [
        "output: sweep/seed_0_policy_flow_mlp",
        "output: sweep/seed_0_policy_gaussian",
        "output: sweep/seed_1_policy_flow_mlp",
        "output: sweep/seed_1_policy_gaussian",
    ]


def test_a_sweep_is_named_after_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    """So that another one does not meet its runs."""
    for data, folder in (
        ("dataset=[a/b c.zarr,d.zarr]", "runs/train/b_c_d/seed_"), ("dataset=x.zarr,y.zarr", "runs/train/seed_"),
        ("output=out", "out/seed_"),
    ):  # fmt: skip
        status, out, _ = run(capsys, "train", "--multirun", "--show", "seed=0,1", data)
        assert status == 0
        outputs = [line.removeprefix("output: ") for line in out.splitlines() if line.startswith("output:")]
        assert len(outputs) in (2, 4)
        assert all(output.startswith(folder) for output in outputs), outputs


def test_every_sweep_choice_is_checked_before_the_first_runs(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "demo", "--multirun", "seed=0,x")
    assert status == 2
    assert "expected an integer" in err


@pytest.mark.parametrize("command", ["evaluate", "collect"])
def test_a_key_named_like_the_group_of_another_command_takes_any_value(command: str) -> None:
    assert cli.compose(command, ["policy=runs/demo"]).policy == "runs/demo"
