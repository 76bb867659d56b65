import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from robot_rl import collect
from robot_rl.attempt import Actor, Attempt, attempt
from robot_rl.cli import compose
from robot_rl.collect import CollectError, _recorded, _Seeds, main
from robot_rl.datasets import EpisodeStore
from robot_rl.sim.spec import SpecError, resolve

from .conftest import reach_contract

LIFT = ["task=lift", "environment={horizon: 12}", "workers=2"]


def _collect(output: Path, *overrides: str) -> int:
    return main(compose("collect", [f"output={output}", *LIFT, *overrides]))


class Reach:
    """A point that is where it was last told to be; success within 0.1 m of its goal."""

    contract = reach_contract()

    def reset(self, seed: int) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        self.position, self.goal = np.random.default_rng(seed).uniform(size=(2, 2)).astype(np.float32)
        self.steps = 0
        return self._observation(), {"seed": seed, "success": False, "randomization": {"mass": float(seed)}}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, bool]]:
        self.position, self.steps = action, self.steps + 1
        success = bool(np.linalg.norm(self.position - self.goal) < 0.1)
        return self._observation(), float(success), success, self.steps >= 20, {"success": success}

    def get_state(self) -> np.ndarray:
        return np.concatenate([self.position, self.goal]).astype(float)

    def _observation(self) -> dict[str, np.ndarray]:
        return {"position": self.position, "goal": self.goal}


class Walker:
    """Walks to the goal, one tenth of a metre at a time; gives up after a number of steps."""

    facts: ClassVar[dict[str, Any]] = {"steps": "short"}

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def __call__(self, observation: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        self.patience -= 1
        way = observation["goal"] - observation["position"]
        intended = observation["position"] + way * min(1.0, 0.1 / float(np.linalg.norm(way)))
        return intended + np.float32(0.001), intended

    @property
    def failed(self) -> bool:
        return self.patience <= 0


def _attempt(patience: int) -> Attempt:
    return attempt(Reach(), lambda seed: Walker(patience), seed=3)


def test_attempt_holds_every_row_and_what_was_drawn() -> None:
    made = _attempt(patience=100)
    steps = len(made.actions)
    assert made.success
    assert made.terminated.tolist() == [False] * (steps - 1) + [True]
    assert {name: len(values) for name, values in made.observations.items()} == dict.fromkeys(
        ("position", "goal"), steps + 1
    )
    np.testing.assert_array_equal(made.observations["position"][1:], made.actions)
    np.testing.assert_allclose(made.actions - made.intended, 0.001, atol=1e-6)
    np.testing.assert_array_equal(made.states[:, :2], made.observations["position"])
    assert made.facts == {"randomization": {"mass": 3.0}, "steps": "short"}


def test_giving_up_truncates() -> None:
    made = _attempt(patience=2)
    assert (len(made.actions), made.success) == (2, False)
    assert made.truncated.tolist() == [False, True]
    assert not made.terminated.any()


def test_seeds_count_attempts_or_successes() -> None:
    seeds = _Seeds(10, 3, until_success=False)
    seeds.note({10: True, 12: False, 99: True})
    assert (list(seeds.upcoming()), seeds.counted, seeds.done) == ([11], 2, False)
    seeds = _Seeds(0, 2, until_success=True)
    seeds.note({0: True, 1: False})
    assert next(seeds.upcoming()) == 2
    seeds.note({2: True})
    assert seeds.done
    for first in (99_990, 100_000):
        with pytest.raises(CollectError, match="evaluation seeds"):
            _Seeds(first, 20, until_success=False)


@pytest.mark.slow
def test_recording_does_not_depend_on_workers_and_adds_only_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.zarr", tmp_path / "two.zarr"
    assert _collect(one, "episodes=4", "noise=0.3") == 0
    assert _collect(two, "episodes=2", "noise=0.3", "workers=1") == 0
    assert _collect(two, "episodes=4", "noise=0.3", "workers=1") == 0
    first, second = EpisodeStore.open(one), EpisodeStore.open(two)
    assert len(first) == len(second) == 4
    for left, right in zip(first, second, strict=True):
        assert left.facts == right.facts
        np.testing.assert_array_equal(left.action, right.action)
        np.testing.assert_array_equal(left.sim_state, right.sim_state)
        # A horizon of 12 steps is too short to lift: failures are kept, and marked.
        assert left.success is False
    assert [first.facts(index)["seed"] for index in range(4)] == [0, 1, 2, 3]
    assert first.provenance["environment"]["horizon"] == 12
    capsys.readouterr()
    assert _collect(one, "episodes=4", "noise=0.3", "workers=1") == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(CollectError, match=r"noise: 0\.3 against 0\.5"):
        _collect(one, "episodes=5", "noise=0.5", "workers=1")
    assert len(EpisodeStore.open(one)) == 4


@pytest.mark.slow
def test_what_another_process_recorded_meanwhile_is_not_recorded_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, begin = tmp_path / "both.zarr", collect._attempting

    def late(*arguments: Any) -> Any:
        monkeypatch.setattr(collect, "_attempting", begin)
        assert _collect(path, "episodes=2", "workers=1") == 0
        return begin(*arguments)

    monkeypatch.setattr(collect, "_attempting", late)
    assert _collect(path, "episodes=3", "workers=1") == 0
    store = EpisodeStore.open(path)
    assert [store.facts(index)["seed"] for index in range(len(store))] == [0, 1, 2]


@pytest.mark.slow
def test_another_environment_is_refused_and_what_goes_wrong_in_a_process_said(tmp_path: Path) -> None:
    store = tmp_path / "lift.zarr"
    assert _collect(store, "episodes=1", "workers=1") == 0
    with pytest.raises(CollectError, match=r"robot: 'panda' against 'ur5e'"):
        _collect(store, "episodes=2", "robot=ur5e")
    # What goes wrong in a simulation process comes out of this one, in words.
    with pytest.raises(RuntimeError, match="no camera 'moon'"):
        _collect(tmp_path / "new.zarr", "cameras={moon: [8, 8]}", "workers=1")
    with pytest.raises(RuntimeError, match="the expert of 'lift' grasps, and ur5e cannot; take robot=ur5e_panda_hand"):
        _collect(tmp_path / "new.zarr", "robot=ur5e", "workers=1")
    with pytest.raises(RuntimeError, match="no expert for task 'tool_hang'; there are experts for: door, lift"):
        _collect(tmp_path / "new.zarr", "task=tool_hang", "workers=1")
    assert not (tmp_path / "new.zarr").exists()


def test_wrong_words_are_refused(tmp_path: Path) -> None:
    store = tmp_path / "lift.zarr"
    with pytest.raises(SpecError, match="no task 'lft'"):
        _collect(store, "task=lft")
    with pytest.raises(CollectError, match="expected expert, policy, dagger, multiply, replay, render or teleop"):
        _collect(store, "source=magic")
    with pytest.raises(CollectError, match="goes with source=expert or dagger"):
        _collect(store, "source=policy", "expert=mpc")
    for given, sources in {
        f"policy={tmp_path}": "policy or dagger or teleop",
        "execute=4": "policy or dagger",
        f"demonstrations={store}": "multiply or replay or render",
        "device=web": "teleop",
        "teleop={auto: true}": "teleop",
    }.items():
        with pytest.raises(CollectError, match=f"{given.partition('=')[0]}=.* goes with source={sources}, not expert"):
            _collect(store, given)
    with pytest.raises(CollectError, match=r"workers=2 goes with source=expert or policy or .*, not teleop"):
        main(compose("collect", ["source=teleop", "workers=2"]))
    with pytest.raises(CollectError, match="source=policy needs policy="):
        _collect(store, "source=policy")
    with pytest.raises(CollectError, match="workers=-1: expected at least 1"):
        _collect(store, "workers=-1")
    with pytest.raises(CollectError, match="first_seed=-4: expected at least 0"):
        _collect(store, "first_seed=-4")
    assert not store.exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["expert=mpcc"], "expert: expected one of geometric, mpc, mpc_aiming; got 'mpcc'"),
        (["expert=mpc", "controller=velocity"], "set controller=ctbr"),
        (["noise=-1"], "noise: expected a number >= 0"),
        (["randomization={mass: 0}"], "mass: expected .* above 0"),
    ],
)
def test_what_a_drone_cannot_fly_is_refused_before_a_store_is_made(tmp_path: Path, wrong: list[str], message: str):
    hover, store = ["task=drone/hover", "environment={horizon: 5}", "episodes=1"], tmp_path / "hover.zarr"
    with pytest.raises(ValueError, match=message):
        main(compose("collect", [f"output={store}", *hover, *wrong]))
    assert not store.exists()
    assert main(compose("collect", [f"output={store}", *hover])) == 0
    assert len(EpisodeStore.open(store)) == 1


@pytest.mark.parametrize(("key", "value"), [("ends_at_success", None), ("horizon", 7)])
def test_a_store_from_before_a_key_came_goes_on_where_its_default_is_asked_for(
    key: str, value: int | None, tmp_path: Path
) -> None:
    store, spec = tmp_path / "lift.zarr", resolve({"task": "lift", "horizon": 12})
    before = {name: each for name, each in spec.items() if name != key} | ({} if value is None else {key: value})
    EpisodeStore.create(store, reach_contract(), {"environment": before})
    if value is None:
        assert _recorded(store, spec, Actor("expert")) == {}
    else:
        with pytest.raises(CollectError, match="horizon: 7 against 12"):
            _recorded(store, spec, Actor("expert"))


@pytest.mark.slow
def test_ctrl_c_keeps_finished_attempts_and_says_how_to_go_on(tmp_path: Path) -> None:
    store = tmp_path / "lift.zarr"
    arguments = ["-m", "robot_rl.cli", "collect", f"output={store}", *LIFT, "episodes=500"]
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 120
    while time.monotonic() < until and not (store.exists() and len(EpisodeStore.open(store)) >= 2):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from here" in output
    assert 2 <= len(EpisodeStore.open(store)) < 500


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux ends the workers")
def test_workers_end_with_a_recording_that_is_killed(tmp_path: Path) -> None:
    store = tmp_path / "lift.zarr"
    arguments = ["-m", "robot_rl.cli", "collect", f"output={store}", *LIFT, "workers=1", "episodes=500"]
    process = subprocess.Popen([sys.executable, *arguments], start_new_session=True)
    until = time.monotonic() + 120
    while time.monotonic() < until and not (store.exists() and len(EpisodeStore.open(store)) >= 1):
        time.sleep(0.05)
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while left := _session(process.pid):
        assert time.monotonic() < until, f"processes {left} live on"
        time.sleep(0.05)


def _session(leader: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session, *_ = file.read_text().rpartition(")")[2].split()
            if int(session) == leader and state != "Z":
                found.append(int(file.parent.name))
    return found


@pytest.mark.slow
def test_policy_as_the_one_who_acts(tmp_path: Path) -> None:
    """A policy trained for a moment is recorded in simulation, as another source in the same store."""
    from robot_rl.train import main as train

    store = tmp_path / "lift.zarr"
    assert _collect(store, "episodes=2", "workers=1") == 0
    options = [
        "training.steps=2",
        "training.batch_size=8",
        "policy.denoiser.width=16",
        "include_failures=true",
        "threads=1",
    ]
    assert train(compose("train", [f"dataset={store}", f"output={tmp_path / 'run'}", *options])) == 0
    assert _collect(store, "source=policy", f"policy={tmp_path / 'run'}", "episodes=2", "workers=1") == 0
    recorded = EpisodeStore.open(store)
    assert recorded.select(source="policy").tolist() == [2, 3]
    assert recorded.facts(2)["policy"] == str(tmp_path / "run")
