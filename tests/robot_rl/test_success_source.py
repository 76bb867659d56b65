"""What `success=` makes of environments, without a terminal and without a training."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robot_rl import success_source
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.success_source import SuccessSource
from tests.robot_rl.rl.test_success_detector import RestartableLine


def load(num_envs: int = 1, **plain: object) -> SuccessSource:
    return SuccessSource.load(plain, num_envs, torch.device("cpu"))


def test_the_task_leaves_everything_as_it_is() -> None:
    source, line = load(name="task"), RestartableLine(2)
    assert source.stepped({"task": "peg", "horizon": 7}) == {"task": "peg", "horizon": 7}
    assert source.describe() == []
    with source.surround(line, {"task": "line"}) as environments:
        assert environments is line


def test_a_key_ends_the_episode_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = SimpleNamespace(keys=lambda: "xs")
    monkeypatch.setattr(success_source, "Terminal", lambda: nullcontext(terminal))
    source, line = load(name="key", key="s"), RestartableLine(1)
    assert source.stepped({"task": "peg"}) == {"task": "peg", "ends_at_success": False}
    with source.surround(line, {"task": "line"}) as environments:
        environments.reset(seed=3)
        _, reward, terminated, truncated, info = environments.step(np.zeros((1, 1), np.float32))
    assert (reward.tolist(), terminated.tolist(), truncated.tolist()) == ([1.0], [True], [False])
    assert info["reset_info"][0]["seed"] == 4


def test_options_belong_to_their_source() -> None:
    for plain in ({"name": "task", "persistence": 3}, {"name": "key"}, {"name": "classifier", "persistence": 3}):
        with pytest.raises(FinetuneError, match="expected task; key with"):
            load(**plain)
    with pytest.raises(FinetuneError, match="presses one key"):
        load(name="key", key="enter")
