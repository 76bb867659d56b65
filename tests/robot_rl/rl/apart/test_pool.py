"""What actors' processes are started with."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from robot_rl.rl.apart import pool

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
