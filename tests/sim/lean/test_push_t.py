import numpy as np
import pytest

from robot_rl import sim
from robot_rl.sim.lean.coverage import coverage
from robot_rl.sim.lean.push_t import CENTRES, COVERED, GOAL, HALVES, STEP
from robot_rl.sim.lean.push_t_expert import RADIUS, RHO, distance


@pytest.fixture
def env():
    made = sim.make({"task": "push_t", "horizon": 1000})
    made.reset(seed=0)
    return made


def put(env, pose, finger) -> None:
    physics = env.world.physics
    physics.qpos[0], physics.qvel[0], physics.warmstart[0] = [*pose, *finger], 0.0, 0.0


def test_the_goal_covers_itself_and_a_shift_by_a_known_part():
    """Along its stem a T of 6 300 mm² loses what the bar's 120 mm sweep, less what stands below the bar."""
    poses = np.tile(GOAL, (4, 1))
    for row, shift in enumerate((0.0, 0.01, 0.03)):
        poses[row, :2] += shift * np.array([-np.sin(GOAL[2]), np.cos(GOAL[2])])
    poses[3, 0] += 1.0
    # Moved by d along the stem: bar on bar 120 (30 - d), stem on stem 30 (90 - d), bar on stem 30 d.
    expected = [(120 * (30 - d) + 30 * (90 - d) + 30 * d) / 6300 for d in (0, 10, 30)]
    np.testing.assert_allclose(coverage(poses, GOAL, CENTRES, HALVES), [*expected, 0.0], atol=1e-9)


def test_coverage_agrees_with_counted_points():
    generator = np.random.default_rng(0)
    poses = np.column_stack([generator.uniform(-0.05, 0.05, (20, 2)), generator.uniform(-4, 4, 20)])
    points = generator.uniform(-0.15, 0.15, (40_000, 2))

    def inside(pose):
        return distance(np.tile(pose, (len(points), 1)), points, CENTRES, HALVES) < 0

    counted = [(inside(pose) & inside(GOAL)).sum() / inside(GOAL).sum() for pose in poses]
    np.testing.assert_allclose(coverage(poses, GOAL, CENTRES, HALVES), counted, atol=0.03)
    assert max(counted) > 0.5


def test_the_scene_is_the_t_that_is_measured(env):
    model = env.world.physics.model
    for name, centre, half in zip(("bar", "stem"), CENTRES, HALVES, strict=True):
        np.testing.assert_allclose(model.geom(name).pos[:2], centre, atol=1e-9)
        np.testing.assert_allclose(model.geom(name).size[:2], half, atol=1e-9)
    areas = 4 * HALVES.prod(1)
    np.testing.assert_allclose(areas @ CENTRES, 0.0, atol=1e-12)
    radius = np.sqrt(areas @ ((HALVES**2).sum(1) / 3 + (CENTRES**2).sum(1)) / areas.sum())
    assert pytest.approx(radius, abs=1e-5) == RHO
    translation, _, turning = model.dof_damping[:3]
    assert turning == pytest.approx(translation * radius**2, rel=1e-3)


def test_a_push_turns_and_moves_the_t_as_viscous_friction_does(env):
    """Along (f, p × f / ρ²), for a short push at p; the finger slips, so that f is on the edge of the friction cone."""
    put(env, (0.0, 0.0, 0.0), (0.04, -0.18 / 7 - 0.015 - RADIUS - 0.0005))
    for _ in range(3):
        env.step(env.world.physics.qpos[0, 3:] + [0.0, 0.004])
    x, y, turned = env.world.physics.qpos[0, :3]
    assert y > 0.002
    assert turned / y == pytest.approx((0.04 - 0.3 * (0.18 / 7 + 0.015)) / RHO**2, rel=0.1)
    assert abs(x) == pytest.approx(0.3 * y, rel=0.2)


def test_nothing_moves_by_itself_and_the_finger_not_further_than_a_step(env):
    put(env, (0.1, 0.1, 1.0), (-0.2, -0.2))
    env.step(np.array([0.24, 0.24], np.float32))
    assert 0.9 * STEP < np.linalg.norm(env.world.physics.qpos[0, 3:] - [-0.2, -0.2]) < STEP
    np.testing.assert_array_equal(env.world.physics.qpos[0, :3], [0.1, 0.1, 1.0])


def test_the_finger_stays_outside_the_t():
    generator = np.random.default_rng(1)
    with sim.make_vector({"task": "push_t", "horizon": 60}, 32) as venv:
        venv.reset(seed=0)
        least = 1.0
        for _ in range(60):
            towards = venv.world.physics.qpos[:, :2] + generator.normal(0, 0.02, (32, 2))
            venv.step(towards.astype(np.float32))
            qpos = venv.world.physics.qpos
            least = min(least, float(distance(qpos[:, :3], qpos[:, 3:], CENTRES, HALVES).min()))
    assert 0.8 * RADIUS < least < RADIUS


def test_success_is_coverage(env):
    put(env, (*GOAL[:2], GOAL[2] + 0.01), (0.2, 0.2))
    _, reward, terminated, _, info = env.step(env.rest_action())
    assert (reward, terminated, info["success"]) == (1.0, True, True)
    put(env, (0.01, *GOAL[1:]), (0.2, 0.2))
    _, reward, terminated, _, info = env.step(env.rest_action())
    assert not terminated
    assert reward == pytest.approx(env.world.metrics(0)["coverage"] / COVERED)
    assert env.world.metrics(0)["best_coverage"] > COVERED
