import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robot_rl.sim.osc import goal_rotation, osc_torque, rotation_error

GAINS = np.array([150.0, 2 * 150.0**0.5, 10.0])


def random_problem(dof, generator):
    root = generator.normal(size=(dof, dof))
    return {
        "mass": root @ root.T + 0.1 * np.eye(dof),
        "jacobian": generator.normal(size=(6, dof)),
        "bias": generator.normal(size=dof),
        "position": generator.normal(size=dof),
        "velocity": generator.normal(size=dof),
        "posture": generator.normal(size=dof),
        "translation_error": generator.normal(size=3),
        "rotation_error": generator.normal(size=3),
        "gains": GAINS,
    }


def khatib(mass, jacobian, bias, position, velocity, posture, translation_error, rotation_error, gains):
    """The textbook form, with inverses and pseudo-inverses."""
    stiffness, damping, posture_stiffness = gains
    inverse = np.linalg.inv(mass)
    mobility = jacobian @ inverse @ jacobian.T
    full = np.linalg.pinv(mobility)
    force = stiffness * translation_error - damping * jacobian[:3] @ velocity
    torque = stiffness * rotation_error - damping * jacobian[3:] @ velocity
    wrench = np.concatenate([np.linalg.pinv(mobility[:3, :3]) @ force, np.linalg.pinv(mobility[3:, 3:]) @ torque])
    null = np.eye(len(mass)) - inverse @ jacobian.T @ full @ jacobian
    recall = posture_stiffness * (posture - position) - 2 * np.sqrt(posture_stiffness) * velocity
    return jacobian.T @ wrench + bias + null.T @ mass @ recall


@pytest.mark.parametrize("dof", [6, 7])
def test_torque_is_khatibs(dof):
    generator = np.random.default_rng(0)
    for _ in range(50):
        problem = random_problem(dof, generator)
        expected = khatib(**problem)
        np.testing.assert_allclose(
            osc_torque(*problem.values()), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max()
        )


def test_a_direction_that_cannot_be_moved_gets_no_force():
    problem = random_problem(7, np.random.default_rng(1))
    problem["jacobian"][2] = 0.0
    problem["translation_error"] = np.array([0.0, 0.0, 1.0])
    other = {**problem, "translation_error": np.zeros(3)}
    torque = osc_torque(*problem.values())
    assert np.isfinite(torque).all()
    np.testing.assert_allclose(torque, osc_torque(*other.values()), atol=1e-9)


def test_goal_rotation_turns_in_the_base_frame():
    generator = np.random.default_rng(2)
    for _ in range(20):
        vector = generator.uniform(-0.5, 0.5, 3)
        current, base = (Rotation.random(random_state=seed) for seed in generator.integers(1000, size=2))
        expected = base * Rotation.from_rotvec(vector) * base.inv() * current
        goal = goal_rotation(vector, current.as_matrix(), base.as_matrix())
        np.testing.assert_allclose(goal, expected.as_matrix(), atol=1e-6)


def test_goal_rotation_of_no_turn_is_the_same():
    current = Rotation.random(random_state=0).as_matrix()
    np.testing.assert_allclose(goal_rotation(np.zeros(3), current, np.eye(3)), current, atol=1e-12)


def test_rotation_error_is_the_sine_of_the_angle_along_the_axis():
    current = Rotation.random(random_state=3)
    axis = np.array([2.0, -1.0, 2.0]) / 3
    goal = Rotation.from_rotvec(0.7 * axis) * current
    np.testing.assert_allclose(rotation_error(goal.as_matrix(), current.as_matrix()), np.sin(0.7) * axis, atol=1e-12)
