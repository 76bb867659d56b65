import mujoco
import numpy as np
import pytest

from robot_rl import sim
from robot_rl.sim.lean.peg import DEPTH, GAP, HIGH, LOW, SCALE, SLACK


def at(env, x=0.0, y=0.0, z=0.05, yaw=0.0) -> None:
    """Put the peg there, in the frame of the hole, at rest."""
    physics = env.world.physics
    turn = float(env.world.see_hole_yaw()[0, 0])
    cosine, sine = np.cos(turn), np.sin(turn)
    hole = physics.mocap[0, 0, :2]
    physics.qpos[0] = [hole[0] + cosine * x - sine * y, hole[1] + sine * x + cosine * y, z, turn + yaw]
    physics.qvel[0], physics.warmstart[0] = 0.0, 0.0


def press(env, steps: int, action=(0.0, 0.0, -1.0, 0.0)):
    outcome = None
    for _ in range(steps):
        outcome = env.step(np.asarray(action, np.float32))
        if outcome[2] or outcome[3]:
            break
    return outcome


@pytest.fixture
def env():
    made = sim.make({"task": "peg", "horizon": 1000})
    made.reset(seed=5)
    return made


def test_the_servo_moves_as_a_critically_damped_spring(env):
    """x(t) = 1 - (1 + ω t) exp(-ω t), ω = √(3600 N/m / 1 kg) = 60 /s, after one period of 50 ms: four fifths."""
    at(env, z=0.06)
    before = env.world.physics.qpos[0].copy()
    env.step(np.array([1.0, -1.0, 0.5, 1.0], np.float32))
    covered = (env.world.physics.qpos[0] - before) / (SCALE * [1.0, -1.0, 0.5, 1.0])
    np.testing.assert_allclose(covered, 1 - 4 * np.exp(-3), atol=0.06)


@pytest.mark.parametrize(("x", "y", "yaw", "fits"), [
    (0.0, 0.0, 0.0, True), (0.8 * GAP, -0.8 * GAP, 0.0, True), (0.0, 0.0, 0.05, True),
    (1.8 * GAP, 0.0, 0.0, False), (0.0, -1.8 * GAP, 0.0, False), (0.0, 0.0, 0.15, False), (0.01, 0.0, 0.0, False),
])  # fmt: skip
def test_goes_in_just_where_it_fits(env, x, y, yaw, fits):
    """A square of side a fits into one of side b, turned by φ, if a (cos φ + sin φ) <= b: here up to 0.07 rad.

    Edges meet like chamfers of half a millimetre, by which the peg may miss and still slides in.
    """
    at(env, x, y, 0.01, yaw)
    _, reward, terminated, truncated, info = press(env, 40)
    assert info["success"] == terminated == bool(reward) == fits
    assert not truncated
    assert info.get("metrics", env.world.metrics(0))["depth"] >= DEPTH if fits else env.world.metrics(0)["depth"] < GAP


def test_sinks_into_the_plate_by_less_than_a_tenth_of_a_millimetre(env):
    at(env, x=0.01, z=0.003)
    press(env, 30)
    held = env.world.physics.show(0)
    force = np.zeros(6)
    pressed = 0.0
    for contact in range(held.ncon):
        mujoco.mj_contactForce(env.world.physics.model, held, contact, force)
        pressed += force[0]
    # The spring of the servo against the plate: stiffness times the step, less what the peg has sunk in.
    assert pressed == pytest.approx(3600 * SCALE[2], rel=0.05)
    assert 0 < -env.world.physics.qpos[0, 2] < 1e-4


def test_walls_hold_the_peg(env):
    """Within the hole, pushed and turned with all force for a second in each direction, it does not leave the walls."""
    for direction in np.concatenate([np.eye(4), -np.eye(4)])[:, [0, 1, 3, 2]]:
        at(env, z=-0.02)
        press(env, 20, [*direction[:2], 0.0, direction[2]])
        x, y, z, yaw = env.world.see_peg_in_hole()[0]
        assert max(abs(x), abs(y)) < GAP + SLACK
        assert abs(yaw) < 0.09
        assert z == pytest.approx(-0.02, abs=1e-3)


def test_nothing_tunnels():
    """Random pushes at full strength from everywhere, pressing down: below the plate means within the hole."""
    generator = np.random.default_rng(0)
    with sim.make_vector({"task": "peg", "horizon": 60}, 64) as venv:
        _, info = venv.reset(seed=range(96))
        deepest, inside = 0.0, 0
        actions = np.zeros((64, 4), np.float32)
        while info["active"].any():
            flip = generator.random((64, 4)) < 0.2
            actions[flip] = generator.choice([-1.0, 1.0], flip.sum())
            actions[:, 2] = np.where(generator.random(64) < 0.8, -1.0, 1.0)
            near = generator.random(64) < 0.5
            actions[near, :2] = venv.world.expert()[near, :2]
            *_, info = venv.step(actions)
            x, y, z, _ = venv.world.see_peg_in_hole().T
            away = np.maximum(abs(x), abs(y)) > GAP + SLACK
            deepest = max(deepest, float(-z[away].min()))
            inside += int((z[~away] < -0.005).sum())
        assert deepest < SLACK
        assert inside > 20


def test_success_needs_depth_and_place(env):
    """Also where the simulation could not bring the peg."""
    judge = env.world.judge
    at(env, z=-DEPTH)
    assert judge()[2][0]
    at(env, z=-DEPTH + 1e-4)
    assert not judge()[2][0]
    at(env, x=2 * GAP, z=-DEPTH)
    assert not judge()[2][0]


def test_holes_and_pegs_stand_everywhere():
    with sim.make_vector("peg", 500) as venv:
        observation, _ = venv.reset(seed=0)
        hole = np.column_stack([observation["hole_position"][:, :2], observation["hole_yaw"]])
        peg = np.column_stack([observation["peg_position"], observation["peg_yaw"]])
        assert (np.abs(peg) < np.maximum(-LOW, HIGH)).all()
        np.testing.assert_allclose(hole.mean(0), 0.0, atol=0.03)
        np.testing.assert_allclose(hole.std(0), np.array([0.1, 0.1, 0.7]) / np.sqrt(12), rtol=0.1)
        assert (np.abs(observation["peg_in_hole"][:, 3]) < np.pi / 4).all()
