"""Ends and new beginnings of many copies at once, which the tests of the tasks do not try."""

import numpy as np

from robot_rl import sim


def test_episodes_that_do_not_end_at_success_go_on_to_the_horizon_and_can_be_begun_anew():
    """The judge is made to see success from the third step on."""
    for ends, length in ((True, 3), (False, 8)):
        with sim.make_vector({"task": "peg", "horizon": 8, "ends_at_success": ends}, 2) as venv:
            venv.reset(seed=[4, 5, 6])
            world = venv.world
            world.judge = lambda world=world: (np.ones(2), world.steps >= 3, world.steps >= 3)
            rest = np.zeros((2, venv.contract.action_dim), np.float32)
            over = [venv.step(rest)[2:4] for _ in range(length)]
            assert not np.any(over[:-1])
            assert over[-1][0].all() == ends
            assert over[-1][1].all() != ends
    with sim.make_vector("peg", 2) as venv, sim.make_vector("peg", 1) as alone:
        venv.reset(seed=[4, 5, 6])
        kept = venv.step(rest)[0]
        observation, begun = venv.restart([1])
        first, _ = alone.reset(seed=6)
        assert begun[1]["seed"] == 6
        for name, value in observation.items():
            np.testing.assert_array_equal(value[0], kept[name][0])
            np.testing.assert_array_equal(value[1], first[name][0])
        # No seed is left: the copy rests.
        venv.restart([0])
        assert venv.step(rest)[4]["active"].tolist() == [False, True]
