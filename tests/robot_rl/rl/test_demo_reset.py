"""Episodes that begin in states of demonstrations."""

from pathlib import Path

import numpy as np
import pytest

from robot_rl.datasets import EpisodeStore
from robot_rl.policies import PolicyError
from robot_rl.rl.demo_reset import DemonstrationStarts, DemoReset, demonstrated_states
from tests.robot_rl.rl.line import CONTRACT, Line, line_policy

STATES = np.array([[3.5, 2.0], [-3.5, 4.0]])
"""Beyond where episodes of the line begin."""


def store(path: Path, success: tuple[bool, ...], states: bool = True) -> Path:
    EpisodeStore.create(path, CONTRACT, {}, sim_state_size=2 if states else 0)
    with EpisodeStore.append(path) as writer:
        for number, good in enumerate(success):
            with writer.episode(task="line", source="expert", seed=number) as episode:
                for step in range(3):
                    state = np.array([number, step], float) if states else None
                    episode.add({"place": np.zeros(1)}, np.zeros(1), reward=0.0, sim_state=state)
                state = np.array([number, 3], float) if states else None
                episode.finish({"place": np.zeros(1)}, success=good, sim_state=state)
    return path


def test_the_states_are_those_of_successes_but_their_last(tmp_path: Path) -> None:
    found, steps = demonstrated_states(EpisodeStore.open(store(tmp_path / "line.zarr", (True, False, True))))
    assert steps.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.tolist() == [[0, 0], [0, 1], [0, 2], [2, 0], [2, 1], [2, 2]]


def test_as_many_episodes_as_asked_begin_there() -> None:
    environments = DemonstrationStarts(Line(400), STATES, share=0.3)
    observation, _ = environments.reset(seed=0)
    moved = np.abs(observation["place"][:, 0]) == 3.5
    assert moved.mean() == pytest.approx(0.3, abs=0.07)
    assert (environments.get_states()[moved, 1] == np.where(observation["place"][moved, 0] > 0, 2, 4)).all()
    assert set(observation["place"][moved, 0].tolist()) == {3.5, -3.5}
    again, _ = DemonstrationStarts(Line(400), STATES, share=0.3).reset(seed=0)
    np.testing.assert_array_equal(again["place"], observation["place"])


def test_an_episode_that_ends_is_followed_by_one_that_begins_there() -> None:
    environments = DemonstrationStarts(Line(2, horizon=1), STATES, share=1.0)
    environments.reset(seed=0)
    observation, _, terminated, truncated, info = environments.step(np.ones((2, 1), np.float32))
    assert (terminated | truncated).all()
    assert (np.abs(observation["place"]) == 3.5).all()
    for env in range(2):
        assert abs(info["final_obs"][env]["place"][0]) in (2.5, 4.5)


def test_nothing_moves_while_no_episode_ends() -> None:
    environments = DemonstrationStarts(Line(3), STATES, share=1.0)
    first, _ = environments.reset(seed=0)
    observation, *_ = environments.step(np.full((3, 1), -0.1, np.float32))
    np.testing.assert_allclose(observation["place"], first["place"] - 0.1, atol=1e-6)


@pytest.mark.parametrize(("horizon", "expected"), [(2, {0, 1}), (9, {0, 1, 2})])
def test_no_episode_begins_where_it_would_be_over(horizon: int, expected: set[int], tmp_path: Path) -> None:
    path = store(tmp_path / "line.zarr", (True, True))
    method = DemoReset(line_policy({"name": "gaussian"}), demonstrations=str(path), share=1.0)
    line = Line(100, horizon)
    line.specification = {"horizon": horizon}  # type: ignore[attr-defined]
    environments, _ = method.surround(line, 1)
    environments.reset(seed=0)
    assert set(environments.get_states()[:, 1].astype(int).tolist()) == expected


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    policy = line_policy({"name": "gaussian"})
    with pytest.raises(PolicyError, match=r"algorithm\.demonstrations= is missing"):
        DemoReset(policy)
    with pytest.raises(PolicyError, match="none of the 1 episodes is a success"):
        DemoReset(policy, demonstrations=str(store(tmp_path / "failed.zarr", (False,))))
    with pytest.raises(PolicyError, match="holds no states of the simulator; collect with sim_state=true"):
        DemoReset(policy, demonstrations=str(store(tmp_path / "bare.zarr", (True,), states=False)))
    good = str(store(tmp_path / "good.zarr", (True,)))
    with pytest.raises(PolicyError, match=r"algorithm.share: expected 0 to 1, got 2"):
        DemoReset(policy, demonstrations=good, share=2)
    with pytest.raises(PolicyError, match="expected states of 2 numbers, as this task has, got 3"):
        DemonstrationStarts(Line(2), np.zeros((4, 3)), 0.5).reset(seed=0)
