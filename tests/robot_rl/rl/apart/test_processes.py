"""Real processes: what is killed with SIGKILL and started again, and that nothing collected is lost by it."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from robot_rl.cli import compose
from robot_rl.datasets import EpisodeStore
from robot_rl.finetune import main
from robot_rl.metric_log import read_metrics
from robot_rl.rl.apart.pool import Pool
from robot_rl.rl.apart.secret import VARIABLE
from robot_rl.rl.on_policy import FinetuneError

pytestmark = pytest.mark.slow

LONGEST = 120.0
"""Seconds until a test gives up."""
SMALL = [
    "task=avoid", "algorithm=sac", "training.steps=100000", "training.start_steps=90000", "training.rollout_steps=50",
    "training.evaluate_every=1000000", "training.evaluate_episodes=1", "network.denoiser.width=16", "episodes=1",
    "training.critic_width=16", "training.save_every=1", "threads=1",
]  # fmt: skip


@contextmanager
def running(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of `robot-rl`, dead at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "robot_rl.cli", *arguments], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(holds: Callable[[], object], what: str, log: Path) -> None:
    end = time.monotonic() + LONGEST
    while not holds():
        assert time.monotonic() < end, f"{what} within {LONGEST:g} s; {log.name}:\n{log.read_text()}"
        time.sleep(0.05)


def committed(folder: Path) -> int:
    return sum(len(EpisodeStore.open(path)) for path in folder.glob("*.zarr"))


def test_a_killed_actor_and_a_killed_learner_lose_nothing(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "learner.log"
    folders = [tmp_path / "a", tmp_path / "b"]
    command = ["finetune", *SMALL, f"output={run}"]
    with running(log, *command, "actors.listen=0") as learner:
        wait_until(lambda: "Waiting for actors" in log.read_text(), "it listens", log)
        found = re.search(r"learner=127\.0\.0\.1:(\d+) secret=(\S+)", log.read_text())
        assert found is not None
        port, secret = found.groups()

        def act(folder: Path) -> list[str]:
            return ["act", f"learner=127.0.0.1:{port}", f"secret={secret}", f"output={folder}"]

        with running(tmp_path / "a.log", *act(folders[0])) as one, running(tmp_path / "b.log", *act(folders[1])):
            for folder in folders:
                wait_until(lambda: committed(folder) > 2, "episodes are recorded", log)  # noqa: B023
            one.kill()
            learner.kill()
            learner.wait()
            one.wait()
            before = [committed(folder) for folder in folders]
            with (
                running(log, *command, f"actors.listen={port}") as again,
                running(tmp_path / "a.log", *act(folders[0])),
            ):
                actors = [EpisodeStore.open(next(folder.glob("*.zarr"))).provenance["actor"] for folder in folders]

                def received(actor: str) -> list[int]:
                    store = EpisodeStore.open(run / "replay.zarr")
                    facts = [store.facts(number) for number in range(len(store))]
                    return [each["number"] for each in facts if each["actor"] == actor]

                for actor, number in zip(actors, before, strict=True):
                    wait_until(lambda: len(received(actor)) > number, "all have come, and more", log)  # noqa: B023
                again.send_signal(signal.SIGTERM)
                assert again.wait(LONGEST) == 128 + signal.SIGTERM
    store = EpisodeStore.open(run / "replay.zarr")
    for actor, folder in zip(actors, folders, strict=True):
        assert received(actor) == list(range(len(received(actor))))
        own = EpisodeStore.open(next(folder.glob("*.zarr")))
        ours = [number for number in range(len(store)) if store.facts(number)["actor"] == actor]
        assert [store.facts(number)["seed"] for number in ours] == [own.facts(k)["seed"] for k in range(len(ours))]


def test_actors_of_this_machine_come_and_go_with_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    run = tmp_path / "run"
    small = [*SMALL, "training.steps=60", "training.start_steps=30", f"output={run}"]
    assert main(compose("finetune", [*small, "actors.count=2"])) == 0
    rows = read_metrics(run / "metrics.csv")
    assert rows[-1]["step"] >= 60
    assert rows[-1]["updates"] > 0
    assert rows[-1]["actors"] >= 1
    assert rows[-1]["staleness"] >= 0
    store = EpisodeStore.open(run / "replay.zarr")
    assert store.num_steps == rows[-1]["step"]
    assert all("actor" in store.facts(number) for number in range(len(store)))
    assert (run / "report.html").exists()


def test_a_pool_starts_what_crashed_and_reports_what_failed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("0123456789abcdef")
    arguments = ["learner=127.0.0.1:9", f"secret={tmp_path / 'secret'}"]
    with Pool(1, tmp_path / "actors", arguments) as pool:
        (before,) = pool.pids
        pool._processes[0].kill()
        pool._processes[0].wait()
        pool.check()
        (after,) = pool.pids
        assert after != before
    assert pool._processes[0].poll() is not None
    with Pool(1, tmp_path / "actors", ["learner=nowhere"]) as pool:
        pool._processes[0].wait(LONGEST)
        with pytest.raises(FinetuneError, match=r"(?s)actor 0 has ended: exit code 1.*expected HOST:PORT"):
            pool.check()
