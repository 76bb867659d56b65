from collections import Counter

import numpy as np
import pytest

from robot_rl import sim
from robot_rl.sim.lean.avoid import GAPS, POSTS, ROWS, TOUCH


def test_the_scene_is_the_one_that_is_judged():
    model = sim.make("avoid").world.physics.model
    posts = [model.geom_pos[index, :2] for index in range(model.ngeom) if model.geom_contype[index] == 1]
    expected = [(x, y) for y, row in zip(ROWS, POSTS, strict=True) for x in row]
    np.testing.assert_allclose(posts, expected)
    assert model.geom("finger").size[0] + 0.025 < TOUCH
    for row, gaps in zip(POSTS, GAPS, strict=True):
        assert [int(np.searchsorted(row, gap)) for gap in gaps] == list(range(len(row) + 1))


def test_the_expert_takes_every_way_as_often():
    ways: Counter[str] = Counter()
    with sim.make_vector("avoid", 64) as venv:
        _, info = venv.reset(seed=range(400))
        while info["active"].any():
            _, _, terminated, _, info = venv.step(venv.world.expert())
            ways.update(info["final_info"][index]["metrics"]["way"] for index in np.flatnonzero(terminated))
    assert sorted(ways) == ["111", "112", "122", "123", "222", "223", "233", "234"]
    # 50 of each are expected, with a deviation of √(400 / 8 · 7 / 8) = 6.6.
    assert all(50 - 4 * 6.6 < count < 50 + 4 * 6.6 for count in ways.values())


def test_touching_a_post_ends_the_episode():
    env = sim.make("avoid")
    env.reset(seed=0)
    over = False
    while not over:
        _, reward, over, truncated, info = env.step(np.array([0.0, 0.3], np.float32))
    assert (reward, truncated, info["success"]) == (0.0, False, False)
    assert env.world.physics.qpos[0, 1] == pytest.approx(ROWS[0] - TOUCH, abs=1e-3)
    assert info["metrics"]["way"] == "000"
