"""What environment processes are started with."""

import subprocess
from typing import Any

import pytest

from robot_rl.sim.worker import Worker


class StartedError(Exception):
    """In place of a process."""


def test_a_process_of_environments_computes_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one for each core, whatever is set for the process that learns."""
    environments: list[dict[str, str]] = []

    def start(*_: Any, env: dict[str, str], **__: Any) -> None:
        environments.append(env)
        raise StartedError

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    with pytest.raises(StartedError):
        Worker("any:make", {}, 0, 1)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        assert environments[0][name] == "1"
