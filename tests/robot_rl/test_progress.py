import sys

import pytest

from robot_rl import progress as module
from robot_rl.progress import progress


def count(capsys, monkeypatch, every: float, steps: int = 5) -> list[str]:
    monkeypatch.setattr(module, "EVERY", every)
    with progress(steps + 1, 1, "train", "step") as bar:
        for _ in range(steps):
            bar.update()
            bar.set_postfix(loss="0.5", refresh=False)
    return capsys.readouterr().err.splitlines()


def test_a_log_gets_lines_now_and_then(capsys, monkeypatch) -> None:
    lines = count(capsys, monkeypatch, every=1e-9)
    assert len(lines) >= 2
    assert lines[-1].startswith("train: 100% 6/6 steps, 00:00")
    assert lines[-1].endswith("loss=0.5")
    assert not any("\r" in line or not line.strip() for line in lines)


def test_short_work_says_nothing_in_a_log(capsys, monkeypatch) -> None:
    assert count(capsys, monkeypatch, every=60.0) == []


@pytest.mark.parametrize("shown", [True, False])
def test_a_terminal_has_a_bar(capsys, monkeypatch, shown: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress(3, 0, "train", "step", shown=shown) as bar:
        bar.update(3)
    assert ("\r" in capsys.readouterr().err) == shown
