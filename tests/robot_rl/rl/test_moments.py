"""Running moments against those of all rows at once."""

import json

import numpy as np

from robot_rl.rl.moments import RewardScale, RunningMoments


def test_moments_of_batches_are_those_of_all_rows() -> None:
    rows = np.random.default_rng(0).normal(5.0, 3.0, (100, 4))
    moments = RunningMoments(4)
    for part in np.split(rows, [7, 30, 31]):
        moments.update(part)
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0))
    np.testing.assert_allclose(moments.std, rows.std(axis=0))


def test_reward_scale_divides_by_the_deviation_of_the_discounted_return() -> None:
    draw = np.random.default_rng(0)
    rewards, ended = draw.normal(size=(50, 3)), draw.uniform(size=(50, 3)) < 0.1
    scale, running, seen = RewardScale(3, 0.9), np.zeros(3), []
    for reward, over in zip(rewards, ended, strict=True):
        scale.update(reward, over)
        running = 0.9 * running + reward
        seen.append(running.copy())
        running[over] = 0.0
    assert np.isclose(scale.scale, 1 / np.std(seen))


def test_state_survives_json_exactly() -> None:
    scale, other = RewardScale(3, 0.9), RewardScale(3, 0.9)
    for reward in np.random.default_rng(0).normal(size=(20, 3)):
        scale.update(reward, np.zeros(3, bool))
    other.load(json.loads(json.dumps(scale.state())))
    for each in (scale, other):
        each.update(np.ones(3), np.zeros(3, bool))
    assert scale.state() == other.state()


def test_a_constant_return_is_left_as_it_is() -> None:
    scale = RewardScale(2, 0.9)
    scale.update(np.zeros(2), np.zeros(2, bool))
    assert scale.scale == 1.0
