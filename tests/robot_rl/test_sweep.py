import csv
from pathlib import Path

from robot_rl.metric_log import write_results
from robot_rl.sweep import write_tables


def _run(folder: Path, **results: object) -> str:
    folder.mkdir()
    write_results(folder, results)
    return str(folder)


def test_runs_with_a_success_rate_come_first_then_by_loss(tmp_path: Path) -> None:
    runs = [
        _run(tmp_path / "a", training={"best": {"held_out_loss": 0.2, "step": 10}, "parameters": 1000}),
        _run(tmp_path / "b", training={"best": {"held_out_loss": 0.1234567, "step": 20}}),
        _run(tmp_path / "c", success_rate=0.5, success_interval=[0.4, 0.6]),
        _run(tmp_path / "d", success_rate=0.9),
        str(tmp_path / "missing"),
        _run(tmp_path / "refused", success_rate=1.0),
    ]
    ended = {run: Path(run).name != "refused" for run in runs}
    header, *lines = write_tables(tmp_path, ended).splitlines()
    assert header.split("  ")[0].strip() == "run"
    assert "training s" not in header
    order = ["d", "c", "b", "a", "missing", "refused"]
    assert [Path(line.split()[0]).name for line in lines] == order
    assert "0.4 to 0.6" in lines[1]
    assert "1,000" in lines[3]
    assert set(lines[4].split()[1:]) == set(lines[5].split()[1:]) == {"-"}

    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["run"]).name for row in rows] == order
    assert [row["held-out loss"] for row in rows] == ["", "", "0.1234567", "0.2", "", ""]
    assert rows[3]["parameters"] == "1000"

    head, rule, *body = (tmp_path / "sweep.md").read_text().splitlines()
    assert len({line.count("|") for line in (head, rule, *body)}) == 1
    assert [Path(line.split("|")[1].strip()).name for line in body] == order


def test_a_sweep_without_results_still_leaves_its_table(tmp_path: Path) -> None:
    assert write_tables(tmp_path / "sweep", {str(tmp_path / "a"): True}).splitlines() == ["run", str(tmp_path / "a")]
