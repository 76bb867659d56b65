from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robot_rl.metric_log import MetricLog, read_metrics, read_results, write_results


def _log(folder: Path, first: int, last: int, step: int = 0) -> None:
    log = MetricLog(folder, ("loss", "held_out_loss"), step)
    for number in range(first, last):
        log.add(number, {"loss": 1 / number} | ({"held_out_loss": 0.1} if number % 2 == 0 else {}))
    log.close()


def test_rows_are_read_back_exactly(tmp_path: Path) -> None:
    _log(tmp_path, 1, 4)
    assert read_metrics(tmp_path / "metrics.csv") == [
        {"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5, "held_out_loss": 0.1}, {"step": 3, "loss": 1 / 3},
    ]  # fmt: skip


def test_a_resumed_log_has_each_step_once(tmp_path: Path) -> None:
    _log(tmp_path, 1, 6)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("6,0.0")  # a kill in the middle of a line
    _log(tmp_path, 4, 7, step=3)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == [1, 2, 3, 4, 5, 6]


def test_tensorboard_has_the_same_values(tmp_path: Path) -> None:
    _log(tmp_path, 1, 4)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]


def test_results_are_merged(tmp_path: Path) -> None:
    write_results(tmp_path, {"a": 1})
    write_results(tmp_path, {"b": {"c": 2}})
    assert read_results(tmp_path) == {"a": 1, "b": {"c": 2}}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
