from pathlib import Path

from robot_rl.metric_log import write_results
from robot_rl.sweep import sweep_table


def _run(folder: Path, **results: object) -> str:
    folder.mkdir()
    write_results(folder, results)
    return str(folder)


def test_runs_with_a_success_rate_come_first_then_by_loss(tmp_path: Path) -> None:
    runs = [
        _run(tmp_path / "a", training={"best": {"held_out_loss": 0.2, "step": 10}, "parameters": 1000}),
        _run(tmp_path / "b", training={"best": {"held_out_loss": 0.1, "step": 20}}),
        _run(tmp_path / "c", success_rate=0.5, success_interval=[0.4, 0.6]),
        _run(tmp_path / "d", success_rate=0.9),
        str(tmp_path / "missing"),
    ]
    header, *lines = sweep_table(runs).splitlines()
    assert header.split("  ")[0].strip() == "run"
    assert "training s" not in header
    assert [Path(line.split()[0]).name for line in lines] == ["d", "c", "b", "a", "missing"]
    assert "0.4 to 0.6" in lines[1]
    assert "1,000" in lines[3]
    assert lines[4].endswith("no results")
