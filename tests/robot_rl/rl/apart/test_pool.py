"""What actors' processes are started with."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from robot_rl.rl.apart import pool
from robot_rl.rl.on_policy import FinetuneError

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class StartedError(Exception):
    """In place of a process."""


@pytest.mark.parametrize("asked", [None, "3"])
def test_an_actor_computes_on_one_thread_unless_its_user_says_otherwise(
    asked: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments: list[dict[str, str]] = []

    def start(*_: Any, env: dict[str, str], **__: Any) -> None:
        environments.append(env)
        raise StartedError

    monkeypatch.setattr(subprocess, "Popen", start)
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    with pytest.raises(StartedError), pool.Pool(1, tmp_path, []):
        pass
    assert [environments[0][name] for name in THREADS] == [asked or "1", "1", "1"]


@pytest.mark.parametrize(("code", "again"), [(-9, True), (143, True), (130, True), (1, False)])
def test_an_actor_that_was_killed_or_stopped_starts_again_and_one_that_failed_ends_the_training(
    code: int, again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [code, None]

    class Process:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.code = ends.pop(0)

        def poll(self) -> int | None:
            return self.code

        def send_signal(self, _: int) -> None: ...

        def wait(self, timeout: float | None = None) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    with pool.Pool(1, tmp_path, []) as actors:
        (tmp_path / "0").mkdir(exist_ok=True)
        (tmp_path / "0" / "actor.log").touch()
        if again:
            actors.check()
            assert ends == []
            actors.check()
        else:
            with pytest.raises(FinetuneError, match="actor 0 has ended"):
                actors.check()
