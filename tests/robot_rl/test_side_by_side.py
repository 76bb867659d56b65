from pathlib import Path

import numpy as np
import pytest

from robot_rl.attempt import Actor, attempt
from robot_rl.cli import compose
from robot_rl.collect import main as collect
from robot_rl.datasets import EpisodeStore
from robot_rl.replay import attempts
from robot_rl.rollout import Outcome
from robot_rl.side_by_side import COPIES, SideBySide
from robot_rl.sim import make
from robot_rl.sim.expert.world_expert import WorldExpert
from robot_rl.sim.lean.world import LeanWorld
from robot_rl.sim.spec import resolve


@pytest.mark.parametrize(("expert", "horizon"), [(None, 40), pytest.param("mpc", 12, marks=pytest.mark.slow)])
def test_one_attempt_and_many_are_the_same(expert: str | None, horizon: int):
    spec = resolve({"task": "drone/hover", "randomization": "test", "horizon": horizon})
    copies = SideBySide(spec, Actor("expert", noise=0.05, expert=expert))
    left = iter([list(range(COPIES + 2)), []])
    made = list(copies.attempts(lambda: iter(next(left))))
    assert [each.seed for each in made] == list(range(COPIES))
    env = make(spec)

    class Alone:
        failed, facts = False, {}

        def __init__(self, seed: int) -> None:
            self._expert = WorldExpert(env, 0.05, np.random.default_rng([seed, 1]), expert)

        def __call__(self, _: object) -> tuple[np.ndarray, np.ndarray]:
            return self._expert.act(), self._expert.intended

    wanted = attempt(env, Alone, seed=5)
    for name in ("actions", "intended", "rewards", "terminated", "truncated", "states"):
        np.testing.assert_allclose(getattr(made[5], name), getattr(wanted, name), rtol=1e-6, err_msg=name)
    for name, values in wanted.observations.items():
        np.testing.assert_allclose(made[5].observations[name], values, rtol=1e-6, err_msg=name)
    assert (made[5].success, made[5].facts) == (wanted.success, wanted.facts)
    assert not np.array_equal(made[5].actions, made[5].intended)


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of a lean task diverge in the third step of the episode of seed 1."""
    begin, step = LeanWorld.begin, LeanWorld.step
    seed_of = {}

    def begun(self, rows, seeds, records=None):
        seed_of.update(zip(rows, seeds, strict=True))
        return begin(self, rows, seeds, records)

    def stepped(self, actions):
        self.physics.qvel[[row for row, seed in seed_of.items() if seed == 1 and self.steps[row] == 2]] = np.nan
        return step(self, actions)

    monkeypatch.setattr(LeanWorld, "begin", begun)
    monkeypatch.setattr(LeanWorld, "step", stepped)


def test_nothing_is_recorded_of_what_diverged(tmp_path: Path, breaking: None, capsys: pytest.CaptureFixture[str]):
    asked = compose(
        "collect", [f"output={tmp_path / 'peg.zarr'}", "task=peg", "environment={horizon: 5}", "episodes=4"]
    )
    for _ in range(2):  # what diverged is tried once more by the same command
        assert collect(asked) == 0
        assert capsys.readouterr().out.count("Nothing of seed 1 is recorded: the simulation diverged.") == 1
        store = EpisodeStore.open(tmp_path / "peg.zarr")
        assert [store.facts(index)["seed"] for index in range(len(store))] == [0, 2, 3]


def test_nor_of_an_evaluation(breaking: None, capsys: pytest.CaptureFixture[str]):
    spec, flags = resolve({"task": "peg", "horizon": 5}), np.zeros(3, bool)
    outcomes = [
        Outcome(seed, None, np.zeros(3), np.zeros((3, 4), np.float32), flags, flags, False, True) for seed in (1, 2)
    ]
    assert [each.seed for each in attempts(make(spec), outcomes)] == [2]
    assert "Not recorded: the simulation of seed 1 diverges" in capsys.readouterr().out


@pytest.mark.slow
def test_the_student_acts_and_the_expert_labels(tmp_path: Path):
    """A policy trained for a moment flies badly; what is recorded as intended would have been better."""
    from robot_rl.train import main as train

    hover = ["task=drone/hover", "environment={horizon: 60}"]
    first, second = tmp_path / "first.zarr", tmp_path / "second.zarr"
    assert collect(compose("collect", [f"output={first}", *hover, "episodes=3"])) == 0
    options = ["training.steps=2", "training.batch_size=8", "policy.denoiser.width=16", "include_failures=true"]
    assert train(compose("train", [f"dataset={first}", f"output={tmp_path / 'run'}", *options, "threads=1"])) == 0
    student = ["source=dagger", f"policy={tmp_path / 'run'}", "episodes=2", "first_seed=50"]
    assert collect(compose("collect", [f"output={second}", *hover, *student])) == 0
    store = EpisodeStore.open(second)
    assert store.select(source="dagger").tolist() == [0, 1]
    env = make(store.provenance["environment"])
    for index in range(2):
        episode, facts = store[index], store.facts(index)
        env.reset(seed=facts["seed"])
        executed, intended = episode.action, store.array("data/policy_action")
        start = int(store.lengths[:index].sum()) + index
        for row in range(5):
            wanted = WorldExpert(env).act()
            np.testing.assert_allclose(intended.gather(np.array([start + row]))[0], wanted, atol=1e-5)
            assert np.abs(executed[row] - wanted).max() > 1e-3
            env.step(executed[row])
