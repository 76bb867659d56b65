import daqp
import numpy as np
import pytest

from robot_rl.sim.drone import real_time_iteration as rti
from robot_rl.sim.drone.real_time_iteration import INPUTS, INTERVAL, STATES

pytestmark = pytest.mark.slow  # to compile what they try takes half a minute

MODEL = np.array([0.9, 3.0, 20.0, 0.3, 0.5, 1.0, -2.0, 0.4, 0.95, 12.0, 2.0, 6.0, 1.0, 25.0, 22.0, 6.0])
LOW, HIGH = np.array([0.0, -3.0, -3.0, -2.0]), np.array([1.0, 3.0, 3.0, 2.0])


def state_and_input(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(0, 1, STATES)
    x[6:10] /= np.linalg.norm(x[6:10])
    x[10] = generator.uniform(0.3, 0.6)
    return x, np.append(x[10] + (0.2 if seed % 2 else -0.2), generator.normal(0, 1, 3))


def by_differences(function, at: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Derivative of a function by central differences, a column for each entry."""
    columns = []
    for index in range(len(at)):
        step = np.zeros(len(at))
        step[index] = h
        columns.append((function(at + step) - function(at - step)) / (2 * h))
    return np.array(columns).T


def change(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    out = np.empty(STATES)
    rti.derivative(x, u, MODEL, out)
    return out


@pytest.mark.parametrize("seed", range(4))
def test_the_jacobian_is_that_of_the_motion(seed):
    x, u = state_and_input(seed)
    by_state, by_input = np.empty((STATES, STATES)), np.empty((STATES, INPUTS))
    rti.jacobian(x, u, MODEL, by_state, by_input)
    np.testing.assert_allclose(by_state, by_differences(lambda at: change(at, u), x), atol=1e-7)
    np.testing.assert_allclose(by_input, by_differences(lambda at: change(x, at), u), atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_the_linearisation_is_that_of_an_interval(seed):
    x, u = state_and_input(seed)
    end, by_state, by_input = np.empty(STATES), np.empty((STATES, STATES)), np.empty((STATES, INPUTS))
    rti.linearise(x, u, MODEL, end, by_state, by_input)
    np.testing.assert_allclose(end, rti.flow(x, u, MODEL, INTERVAL), atol=1e-12)
    np.testing.assert_allclose(by_state, by_differences(lambda at: rti.flow(at, u, MODEL, INTERVAL), x), atol=1e-6)
    np.testing.assert_allclose(by_input, by_differences(lambda at: rti.flow(x, at, MODEL, INTERVAL), u), atol=1e-6)


def test_a_level_drone_falls_and_rises_as_newton_says():
    x, still = np.zeros(STATES), np.zeros(INPUTS)
    x[6] = 1.0
    model = np.array([2.0, 0.0, 40.0, *np.zeros(5), 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    fallen = rti.flow(x, still, model, 1.0)
    np.testing.assert_allclose(fallen[[2, 5]], [-rti.GRAVITY / 2, -rti.GRAVITY])
    x[10] = 1.0
    np.testing.assert_allclose(rti.flow(x, still, model, 1.0)[5], 20.0 - rti.GRAVITY)


def test_the_program_is_the_one_that_a_general_solver_solves():
    """States and inputs, with the motion as equations, against the program in the inputs alone."""
    count, generator = 5, np.random.default_rng(0)
    by_state = np.eye(STATES) + 0.2 * generator.normal(size=(count, STATES, STATES))
    by_input = generator.normal(size=(count, STATES, INPUTS))
    gap, first = generator.normal(size=(count, STATES)), generator.normal(size=STATES)
    roots = generator.normal(size=(count + 1, STATES, STATES))
    hessian, slope = roots @ roots.transpose(0, 2, 1) / STATES, generator.normal(size=(count + 1, STATES))
    weight, pull = np.array([1.0, 2.0, 0.5, 1.0]), generator.normal(size=(count, INPUTS))
    size = INPUTS * count
    quadratic, linear = np.empty((size, size)), np.empty(size)
    rti.condense(by_state, by_input, gap, first, hessian, slope, weight, pull, quadratic, linear)
    low, high = np.full(size, -0.3), np.full(size, 0.2)
    found = rti.solve_box(quadratic, linear, low, high, np.zeros(size))

    width = STATES * (count + 1)
    matrix, gradient = np.zeros((width + size, width + size)), np.concatenate([slope.ravel(), pull.ravel()])
    motion, right = np.zeros((width, width + size)), np.concatenate([first, gap.ravel()])
    motion[:width, :width] = np.eye(width)
    for node in range(count + 1):
        here = slice(STATES * node, STATES * (node + 1))
        matrix[here, here] = hessian[node]
        if node < count:
            there, own = slice(here.stop, here.stop + STATES), slice(width + INPUTS * node, width + INPUTS * (node + 1))
            matrix[own, own] = np.diag(weight)
            motion[there, here], motion[there, own] = -by_state[node], -by_input[node]
    # Its first constraints are bounds of the variables.
    wide = np.full(width, 1e6)
    solution, _, exit_flag, _ = daqp.solve(
        matrix + 1e-9 * np.eye(width + size), gradient, motion, np.concatenate([wide, high, right]),
        np.concatenate([-wide, low, right]), np.array([0] * (width + size) + [5] * width, np.intc),
    )  # fmt: skip
    assert exit_flag > 0
    assert 3 < (np.minimum(found - low, high - found) < 1e-9).sum() < size, "some bounds should be reached, not all"
    np.testing.assert_allclose(found, solution[width:], atol=1e-5)


def test_a_program_without_effective_bounds_is_a_linear_equation():
    generator = np.random.default_rng(1)
    root, linear = generator.normal(size=(12, 12)), generator.normal(size=12)
    quadratic, far = root @ root.T + np.eye(12), np.full(12, 1e3)
    found = rti.solve_box(quadratic, linear, -far, far, generator.normal(size=12))
    np.testing.assert_allclose(found, np.linalg.solve(quadratic, -linear), atol=1e-8)


def test_repeated_iterations_end_in_a_plan_that_can_be_flown_and_not_be_improved():
    count = rti.NODES
    hover = np.zeros(STATES)
    hover[6], hover[10] = 1.0, 0.6
    goals, wanted = np.tile(hover, (count + 1, 1)), np.tile([0.6, 0.0, 0.0, 0.0], (count, 1))
    goals[:, :3] = [0.5, -0.5, 0.3]
    states, inputs, now = goals.copy(), wanted.copy(), hover.copy()
    model = np.array([0.9, 0.0, 0.9 * rti.GRAVITY / 0.36, 0.1, 0.1, 0, 0, 0, 1.0, 15.0, 0, 8.0, 0, 25.0, 25.0, 8.0])
    weights, weight = np.tile([200.0, 10.0, 5.0, 1.0, 0.2], (count + 1, 1)), np.array([2.0, 0.2, 0.2, 0.5])

    def cost(sequence: np.ndarray) -> float:
        x, total = now, 0.0
        for node in range(count + 1):
            parts = x - goals[node]
            squares = (parts[:3] @ parts[:3], parts[3:6] @ parts[3:6], 4 * x[7:10] @ x[7:10], parts[10] ** 2)
            total += 0.5 * np.dot(weights[node], [*squares, parts[11:] @ parts[11:]])
            if node < count:
                total += 0.5 * weight @ (sequence[node] - wanted[node]) ** 2
                x = rti.flow(x, sequence[node], model, INTERVAL)
        return float(total)

    for _ in range(15):
        rti.iterate(states, inputs, now, model, goals, wanted, weights, weight, LOW, HIGH)
    flown = [now]
    for command in inputs:
        flown.append(rti.flow(flown[-1], command, model, INTERVAL))
    np.testing.assert_allclose(states, flown, atol=1e-3)
    assert (inputs >= LOW).all()
    assert (inputs <= HIGH).all()
    assert (np.abs(inputs[:, 1:3]) > 3.0 - 1e-9).any(), "this start should ask for all that is allowed"
    best, generator = cost(inputs), np.random.default_rng(2)
    assert best < cost(wanted)
    for _ in range(50):
        other = np.clip(inputs + generator.normal(0, 0.02, inputs.shape), LOW, HIGH)
        assert cost(other) > best
