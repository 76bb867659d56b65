import numpy as np
import pytest

from robot_rl import sim
from robot_rl.sim.lean.drawer import BEHIND, CLOSED, FARTHEST, HANDLE, OPEN, Drawer


def at(env, extension: float, away: tuple[float, float, float]) -> None:
    """Put the drawer there, and the finger so far from its handle, at rest."""
    physics = env.world.physics
    physics.qpos[0, 0] = extension
    physics.qpos[0, 1:] = env.world.see_handle_position()[0] + away
    physics.qvel[0], physics.warmstart[0] = 0.0, 0.0


def test_the_scene_is_the_one_that_is_judged():
    env = sim.make("drawer_open")
    env.reset(seed=0)
    at(env, 0.07, (0.0, 0.0, 0.1))
    shown = env.world.physics.show(0)
    np.testing.assert_allclose(shown.geom("bar").xpos, env.world.see_handle_position()[0], atol=1e-12)
    np.testing.assert_allclose(shown.geom("bar").xpos - shown.body("cabinet").xpos, HANDLE - [0, 0.07, 0], atol=1e-12)
    np.testing.assert_allclose(env.world.physics.model.joint("extension").range, [0, FARTHEST])
    # The finger fits between bar and front.
    bar, front, finger = (env.world.physics.model.geom(name) for name in ("bar", "front", "finger"))
    gap = abs(HANDLE[1]) - bar.size[0] - 2 * front.size[1]
    assert bar.size[0] + finger.size[0] < BEHIND < bar.size[0] + gap - finger.size[0]


def test_the_drawer_stays_where_it_is_left():
    env = sim.make({"task": "drawer_open", "horizon": 1000})
    env.reset(seed=1)
    at(env, 0.05, (0.0, -0.1, 0.1))
    for _ in range(60):
        observation, *_ = env.step(np.zeros(3, np.float32))
    assert observation["extension"][0] == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(("direction", "away", "moved"), [
    (-1.0, (0.0, BEHIND, -0.025), True), (1.0, (0.0, -0.03, -0.025), True), (1.0, (0.0, BEHIND, -0.025), True),
    (-1.0, (0.0, BEHIND, 0.05), False), (-1.0, (0.0, -0.03, -0.025), False), (-1.0, (0.07, BEHIND, -0.025), False),
])  # fmt: skip
def test_moves_only_with_what_pulls_or_pushes_it(direction, away, moved):
    """Hooked behind the bar it is pulled, from before or behind it is pushed; past it, above it, beside it: nothing."""
    env = sim.make({"task": "drawer_open", "horizon": 1000})
    env.reset(seed=2)
    at(env, 0.06, away)
    for _ in range(6):
        observation, *_ = env.step(np.array([0.0, direction, 0.0], np.float32))
    travel = float(observation["extension"][0]) - 0.06
    assert (-direction * travel > 0.01) == moved
    assert moved or abs(travel) < 1e-6


def test_each_begins_where_the_other_ends():
    """Opened and closed three times by the experts without a reset: an end, with no steps made, is a beginning."""
    with sim.make_vector("drawer_open", 16) as first, sim.make_vector("drawer_close", 16) as second:
        first.reset(seed=0)
        second.reset(seed=0)
        for turn in range(6):
            here, there = (first, second) if turn % 2 == 0 else (second, first)
            world, left = here.world, np.ones(16, bool)
            ends = here.get_states()
            for _ in range(world.horizon):
                *_, success = world.step(world.expert())
                reached = success & left
                ends[reached] = here.get_states()[reached]
                left &= ~reached
            assert not left.any()
            ends[:, 0] = 0.0
            there.set_states(ends)


@pytest.mark.parametrize(("task", "low", "high"), [("drawer_open", 0.0, CLOSED), ("drawer_close", OPEN, FARTHEST)])
def test_begins_as_the_task_says(task, low, high):
    with sim.make_vector(task, 300) as venv:
        observation, _ = venv.reset(seed=0)
        assert isinstance(venv.world, Drawer)
        assert (low <= observation["extension"]).all()
        assert (observation["extension"] <= high).all()
        assert observation["handle_position"][:, 0].std() == pytest.approx(0.1 / np.sqrt(12), rel=0.15)
        *_, success = venv.world.judge()
        assert (success == ((observation["extension"][:, 0] >= OPEN) if task == "drawer_open" else False)).all()
