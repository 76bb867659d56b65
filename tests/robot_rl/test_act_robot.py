"""`robot-rl act` on a robot: what is refused, what a person's keys do, and a whole training on the twin."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robot_rl.act_robot import RESTARTS, _Prepare, check
from robot_rl.attended import Keys
from robot_rl.cli import compose
from robot_rl.datasets import EpisodeStore
from robot_rl.deployment import DeployError, Deployment, NodeDied
from robot_rl.rl.environments import AbandonedError
from robot_rl.rl.on_policy import FinetuneError
from tests.robot_rl.test_deploy import untrained

LONGEST = 240.0
"""Seconds until a test gives up."""


@pytest.mark.parametrize(
    ("overrides", "success", "message"),
    [
        (["ros=true"], "key", "robot= is missing"),
        (["ros=true", "robot=px4"], "key", "a vehicle cannot be an actor"),
        (["ros=true", "robot=panda", "num_envs=2"], "key", "a robot is one environment"),
        (["twin=true", "robot=panda", "controller=joint_position"], "task", "controller: of environments in this"),
        (["ros=true", "robot=panda"], "task", "nobody computes whether a task is achieved on a robot"),
        (["twin=true", "robot=panda"], "key", "a person lives in real time"),
        (["twin=true", "robot=panda", "port=/dev/ttyACM0"], "task", "twin=true simulates the robot"),
    ],
)
def test_what_does_not_fit_a_robot_is_refused(overrides: list[str], success: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check(dict(compose("act", overrides)), success, "sac")


def test_an_expert_of_a_simulation_is_none_of_a_robot() -> None:
    with pytest.raises(FinetuneError, match=r"Take algorithm=rlpd at the learner, and shadow=true here"):
        check(dict(compose("act", ["twin=true", "robot=panda"])), "task", "hil")


def test_what_fits_is_not() -> None:
    check(dict(compose("act", ["twin=true", "robot=panda"])), "task", "sac")
    check(dict(compose("act", ["ros=true", "robot=panda"])), "classifier", "rlpd")


class Robot:
    """Plays the `Deployment`; what is waited for is what was said last."""

    stop_is_latched = Deployment.stop_is_latched

    def __init__(self, typed: list[str], **fails: Exception) -> None:
        self.state, self.typed, self.fails, self.log = "ready", typed, fails, []
        self.states = ("idle", "idle")

    def pressed(self) -> str:
        return self.typed.pop(0) if self.typed else ""

    def wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        for state in (*self.states, "homing", "ready"):
            if condition():
                return
            self.state = state
        raise AssertionError(f"it waits for {what} in vain")

    def bring(self, seed: int, home: bool) -> None:
        self.log.append(("bring", seed, home))
        if "bring" in self.fails:
            raise self.fails["bring"]

    def restart(self, process: Any) -> None:
        self.log.append(("restart", process.name))


def prepared(robot: Robot, twin: bool = False, attended: bool = True) -> tuple[_Prepare, list[str]]:
    said: list[str] = []
    graph: Any = SimpleNamespace(timer=lambda *_: None)
    keys = Keys(graph, robot.pressed, lambda: robot.log.append("stop"))
    return _Prepare(robot, True, twin, attended, keys, said.append), said  # type: ignore[arg-type]


def test_a_person_lets_the_robot_go() -> None:
    robot = Robot(["\n", "", " ", "\r", "s"])  # the first was meant for something else
    prepare, said = prepared(robot)
    prepare(7)
    assert robot.log == ["stop", ("bring", 7, True)]
    assert "press Enter" in said[0]
    assert robot.typed == []  # nor does the last say that an episode has succeeded which has not begun


def test_a_latched_stop_is_waited_for() -> None:
    robot = Robot(["", "\n"])
    robot.state = "stopped"
    prepare, said = prepared(robot)
    prepare(0)
    assert "supervisor/clear" in said[0]
    assert robot.log == [("bring", 0, True)]


def test_a_robot_that_is_not_attended_does_not_move_because_a_stop_is_cleared() -> None:
    robot = Robot([])
    robot.state = "stopped"
    prepare, said = prepared(robot, attended=False)
    robot.bring = lambda seed, home: robot.log.append(robot.state)  # type: ignore[method-assign]
    prepare(0)
    assert "supervisor/home" in said[0]
    assert robot.log == ["homing"]  # which a person has asked for


def test_what_goes_wrong_on_the_way_home_costs_an_episode() -> None:
    with pytest.raises(AbandonedError, match="waited 60 s for the robot to be home"):
        prepared(Robot([], bring=DeployError("waited 60 s for the robot to be home")), attended=False)[0](0)
    process: Any = SimpleNamespace(name="twin", starts=RESTARTS, ended="twin node ended: killed")
    robot = Robot([], bring=NodeDied(process))
    with pytest.raises(AbandonedError, match="twin node ended"):
        prepared(robot, attended=False)[0](0)
    assert robot.log[-1] == ("restart", "twin")
    process.starts += 1
    with pytest.raises(NodeDied):
        prepared(robot, attended=False)[0](0)


@pytest.mark.slow
@pytest.mark.usefixtures("ros_domain")
@pytest.mark.timeout(600)
def test_a_training_learns_from_a_twin_behind_the_supervisor(tmp_path: Path) -> None:
    """In simulated time, which waits for whoever is slow; an episode that is lost all the same is made again."""
    pytest.importorskip("cyclonedds")
    run, log = tmp_path / "run", tmp_path / "learner.log"
    replay = run / "replay.zarr"
    learner = [
        "finetune", f"policy={untrained(tmp_path / 'policy')}", "algorithm=dsrl", "algorithm.width=16", "episodes=1",
        "training.num_envs=1", "training.execute=1", "training.steps=100000", "training.start_steps=10",
        "training.rollout_steps=10", "training.evaluate_every=1000000", "training.evaluate_episodes=1",
        "training.critic_width=16", "training.batch=8", "environment={horizon: 5}", "actors.listen=0", f"output={run}",
    ]  # fmt: skip
    with started(log, learner) as training:
        wait_until(lambda: "Waiting for actors" in log.read_text(), log)
        found = re.search(r"learner=127\.0\.0\.1:\d+ secret=\S+", log.read_text())
        assert found is not None
        actor = ["act", *found.group().split(), "robot=panda", "twin=true", f"output={tmp_path / 'act'}"]
        with started(tmp_path / "actor.log", actor) as acting:
            wait_until(lambda: acting.poll() is not None or len(EpisodeStore.open(replay)) >= 4, tmp_path / "actor.log")
            acting.send_signal(signal.SIGTERM)
            wait_until(lambda: acting.poll() is not None, tmp_path / "actor.log")
            assert acting.returncode == 130, (tmp_path / "actor.log").read_text()
        training.kill()
        training.wait()
    store = EpisodeStore.open(replay)
    own = EpisodeStore.open(next((tmp_path / "act").glob("*.zarr")))
    assert len(store) >= 4
    for number in range(len(store)):
        ours, theirs = store[number], own[number]
        assert ours.length == 5
        assert ours.facts["seed"] == theirs.facts["seed"]
        np.testing.assert_array_equal(ours.action, theirs.action)
        np.testing.assert_array_equal(ours.action, ours.policy_action)
        moved = np.abs(np.diff(ours.observation["joint_position"], axis=0)).max(axis=1)
        assert (moved > 0).all()


class started:  # noqa: N801
    """A command of `robot-rl`, dead at the end."""

    def __init__(self, log: Path, arguments: list[str]) -> None:
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "robot_rl.cli", *arguments], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # its nodes end with it
        self.process.wait()


def wait_until(holds: Callable[[], object], log: Path) -> None:
    end = time.monotonic() + LONGEST
    while not holds():
        assert time.monotonic() < end, f"nothing within {LONGEST:g} s; {log.name}:\n{log.read_text()}"
        time.sleep(0.25)
