"""`robot-rl data` verbs that edit and compare stores, as they are typed."""

from pathlib import Path

import numpy as np
import pytest

from robot_rl import cli
from robot_rl.datasets import Contract, EpisodeStore, Feature

RATE = 10.0


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three episodes of 30 steps; the target stands still for the first 8 and the last 6 steps."""
    contract = Contract(
        "tiny", RATE, {"position": Feature("position", (1,))}, {"target": Feature("target", (1,), kind="action")}
    )
    EpisodeStore.create(tmp_path / "a.zarr", contract)
    with EpisodeStore.append(tmp_path / "a.zarr") as writer:
        for number in range(3):
            with writer.episode(task="reach", source="expert", seed=number) as episode:
                for step in range(30):
                    episode.add({"position": np.ones(1) * step}, [min(max(step - 8, 0), 16)], reward=number)
                episode.finish({"position": np.ones(1) * 30}, success=True)
    return tmp_path / "a.zarr"


def test_merge_and_split(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both, one, rest = (store.with_name(f"{name}.zarr") for name in ("both", "one", "rest"))
    assert cli.main(["data", "merge", str(store), str(store), "--output", str(both)]) == 0
    assert len(EpisodeStore.open(both)) == 6
    assert cli.main(["data", "split", str(both), "--outputs", str(one), str(rest), "--episodes", "0,4-5"]) == 0
    assert (len(EpisodeStore.open(one)), len(EpisodeStore.open(rest))) == (3, 3)
    assert [EpisodeStore.open(rest).facts(number)["seed"] for number in range(3)] == [1, 2, 0]
    share = [store.with_name(f"{name}.zarr") for name in ("x", "y")]
    assert cli.main(["data", "split", str(both), "--outputs", *map(str, share), "--share", "0.5", "--seed", "1"]) == 0
    first, second = (
        [store.facts(number)["seed"] for number in range(len(store))] for store in map(EpisodeStore.open, share)
    )
    assert sorted(first + second) == [0, 0, 1, 1, 2, 2]
    assert not {*first} & {*second}  # both copies of a recording are on the same side
    assert cli.main(["data", "split", str(both), "--outputs", str(one), str(rest), "--episodes", "0"]) == 1
    assert "exists already" in capsys.readouterr().err


def test_delete_says_where_the_store_is_kept(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "delete", str(store), "--episodes", "7"]) == 1
    assert "not among the 3 episodes" in capsys.readouterr().err
    assert [path.name for path in store.parent.iterdir()] == ["a.zarr"]
    assert cli.main(["data", "delete", str(store), "--episodes", "1"]) == 0
    out = capsys.readouterr().out
    assert "2 of 3 episodes" in out
    (before,) = store.parent.glob("a.before-*.zarr")
    assert str(before) in out
    assert [EpisodeStore.open(store).facts(number)["seed"] for number in range(2)] == [0, 2]
    assert cli.main(["data", "delete", str(store), "--episodes", "all"]) == 1
    assert len(EpisodeStore.open(store)) == 2


def test_trim_by_time_and_by_standing_still(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seconds in ("nan", "inf", "-1"):
        assert cli.main(["data", "trim", str(store), f"--start={seconds}"]) == 1
        assert "--start, --end and --margin: expected seconds of at least 0" in capsys.readouterr().err
    assert cli.main(["data", "trim", str(store), "--start", "9"]) == 1
    assert "nothing would be left" in capsys.readouterr().err
    assert cli.main(["data", "trim", str(store), "--start", "0.3", "--end", "0.2", "--episodes", "2"]) == 0
    assert EpisodeStore.open(store).lengths.tolist() == [30, 30, 25]
    assert cli.main(["data", "trim", str(store), "--idle", "--margin", "0.1"]) == 0
    trimmed = EpisodeStore.open(store)
    # The first change of the target comes after step 8, the last after step 23.
    assert trimmed[0].action[:, 0].tolist() == [0, 0, *range(1, 17), 16]
    assert trimmed[0].observation["position"][0, 0] == 7
    assert cli.main(["data", "check", str(store)]) == 0
    assert cli.main(["data", "trim", str(store), "--idle", "--margin", "0.1"]) == 0
    assert "left as it is" in capsys.readouterr().out


def test_resample_and_diff(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = store.with_name("half.zarr")
    assert cli.main(["data", "resample", str(store), "--output", str(half), "--rate", "5"]) == 0
    assert EpisodeStore.open(half).lengths.tolist() == [15, 15, 15]
    assert cli.main(["data", "resample", str(store), "--output", str(half)]) == 1
    assert "nothing to change" in capsys.readouterr().err
    assert cli.main(["data", "diff", str(store), str(half)]) == 1
    out = capsys.readouterr().out
    assert "rate_hz" in out
    assert "0 episodes are in both" in out


def test_diff_recognises_episodes_wherever_they_stand(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = store.with_name("both.zarr")
    cli.main(["data", "merge", str(store), "--output", str(both)])
    assert cli.main(["data", "relabel", str(both), "--episodes", "all", "--success", "unknown", "--text", "go"]) == 0
    assert cli.main(["data", "delete", str(both), "--episodes", "0"]) == 0
    capsys.readouterr()
    assert cli.main(["data", "diff", str(store), str(both)]) == 1
    out = capsys.readouterr().out
    assert f"only in {store}: episodes 0" in out
    assert "episode 1 and 0: success is True and None" in out
    assert "2 episodes are in both" in out
    assert cli.main(["data", "diff", str(store), str(store)]) == 0


def test_stats_are_those_of_the_rows(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "stats", str(store)]) == 0
    position, target = capsys.readouterr().out.splitlines()[1:3]
    assert position.split()[0] == "position"
    mean, std, low, *_, high = map(float, position.split()[-7:])
    rows = np.arange(31)
    assert (mean, low, high) == (15, 0, 30)
    assert std == pytest.approx(rows.std(), rel=1e-3)
    assert float(target.split()[-1]) == 16
    assert cli.main(["data", "relabel", str(store), "--episodes", "all", "--success", "false"]) == 0
    assert cli.main(["data", "stats", str(store)]) == 1
    assert "no successful episode" in capsys.readouterr().err
