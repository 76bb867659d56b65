import daqp
import numpy as np
import pytest

from robot_rl.sim.drone.min_snap import allocate_times, keep_limits, min_snap

WAYPOINTS = np.array([[0, 0, 1.0], [1.5, 0.4, 1.3], [2.0, 2.0, 0.8], [0.2, 2.5, 1.6], [-1.0, 1.0, 1.0]])
DURATIONS = np.array([1.0, 0.8, 1.3, 1.1])


def solve_by_quadratic_program(waypoints: np.ndarray, durations: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients in plain time [S, 8] of one axis and their snap, by a general solver; the cost by quadrature."""
    segments, n = len(durations), 8 * len(durations)

    def row(segment: int, time: float, derivative: int) -> np.ndarray:
        values = np.zeros(n)
        for power in range(derivative, 8):
            factor = np.prod([power - step for step in range(derivative)]) if derivative else 1.0
            values[8 * segment + power] = factor * time ** (power - derivative)
        return values

    nodes, weights = np.polynomial.legendre.leggauss(10)
    cost = np.zeros((n, n))
    for segment, duration in enumerate(durations):
        for node, weight in zip((nodes + 1) / 2 * duration, weights * duration / 2, strict=True):
            basis = row(segment, node, 4)
            cost += weight * np.outer(basis, basis)
    lines, bounds = [], []
    for segment, duration in enumerate(durations):
        lines += [row(segment, 0.0, 0), row(segment, duration, 0)]
        bounds += [waypoints[segment], waypoints[segment + 1]]
    for derivative in (1, 2, 3):
        lines += [row(0, 0.0, derivative), row(segments - 1, durations[-1], derivative)]
        bounds += [0.0, 0.0]
        for segment in range(segments - 1):
            lines.append(row(segment, durations[segment], derivative) - row(segment + 1, 0.0, derivative))
            bounds.append(0.0)
    A, b = np.array(lines), np.array(bounds)
    solution, _, exit_flag, _ = daqp.solve(
        np.ascontiguousarray(2 * cost + 1e-8 * np.eye(n)), np.zeros(n), A, b, b, np.full(len(b), 5, dtype=np.intc)
    )
    assert exit_flag > 0
    return solution.reshape(segments, 8), float(solution @ cost @ solution)


def test_costs_as_little_as_a_general_quadratic_program_finds():
    trajectory = min_snap(WAYPOINTS, DURATIONS)
    total = 0.0
    for axis in range(3):
        coefficients, snap = solve_by_quadratic_program(WAYPOINTS[:, axis], DURATIONS)
        total += snap
        own = trajectory.coefficients[:, :, axis] / DURATIONS[:, None] ** np.arange(8)
        np.testing.assert_allclose(own, coefficients, atol=2e-3 * np.abs(coefficients).max())
    assert trajectory.snap() == pytest.approx(total, rel=1e-4)


def test_passes_the_waypoints_smoothly_from_rest_to_rest():
    trajectory = min_snap(WAYPOINTS, DURATIONS)
    at = np.concatenate([[0], np.cumsum(DURATIONS)])
    np.testing.assert_allclose(trajectory.sample(at), WAYPOINTS, atol=1e-9)
    for derivative in range(1, 7):
        before, after = trajectory.sample(at[1:-1] - 1e-9, derivative), trajectory.sample(at[1:-1] + 1e-9, derivative)
        scale = np.abs(trajectory.sample(np.linspace(0, trajectory.duration, 200), derivative)).max()
        np.testing.assert_allclose(before, after, atol=1e-4 * scale)
    for derivative in (1, 2, 3):
        np.testing.assert_allclose(trajectory.sample(at[[0, -1]], derivative), 0, atol=1e-8)


def test_derivatives_are_those_of_the_positions():
    trajectory = min_snap(WAYPOINTS, DURATIONS)
    times, h = np.linspace(0.1, 4.0, 50), 1e-5
    for derivative in range(3):
        numeric = (trajectory.sample(times + h, derivative) - trajectory.sample(times - h, derivative)) / (2 * h)
        np.testing.assert_allclose(trajectory.sample(times, derivative + 1), numeric, rtol=1e-4, atol=1e-3)


def test_stands_still_before_and_after():
    trajectory = min_snap(WAYPOINTS, DURATIONS)
    outside = np.array([-1.0, 9.0])
    np.testing.assert_allclose(trajectory.sample(outside), WAYPOINTS[[0, -1]], atol=1e-9)
    assert (trajectory.sample(outside, 1) == 0).all()


def test_times_are_those_of_a_trapezoid():
    waypoints = np.array([[0, 0, 0], [2.0, 0, 0], [5.0, 0, 0], [10.0, 0, 0]])
    durations = allocate_times(waypoints, speed=2.0, acceleration=1.0)
    assert durations.sum() == pytest.approx(10 / 2 + 2)
    np.testing.assert_allclose(durations, [2.0, 1.5, 3.5])
    short = allocate_times(waypoints[:2] / 2, speed=2.0, acceleration=1.0)
    np.testing.assert_allclose(short, [2.0])


def test_stretches_to_the_limits_and_no_further():
    trajectory = keep_limits(min_snap(WAYPOINTS, DURATIONS), speed=1.5, acceleration=50.0)
    speeds = np.linalg.norm(trajectory.sample(np.linspace(0, trajectory.duration, 2000), 1), axis=1)
    assert speeds.max() == pytest.approx(1.5, rel=0.01)
    easy = min_snap(WAYPOINTS, 10 * DURATIONS)
    assert keep_limits(easy, speed=9.0, acceleration=50.0).duration == easy.duration


def test_says_what_does_not_fit():
    with pytest.raises(ValueError, match="positive durations"):
        min_snap(WAYPOINTS, DURATIONS[:-1])
    with pytest.raises(ValueError, match="positive durations"):
        min_snap(WAYPOINTS, -DURATIONS)


def test_many_trajectories_are_each_what_it_is_alone():
    generator = np.random.default_rng(0)
    waypoints = WAYPOINTS + generator.normal(0, 0.2, (3, 2, *WAYPOINTS.shape))
    durations = allocate_times(waypoints, speed=2.0, acceleration=1.0)
    many = keep_limits(min_snap(waypoints, durations), speed=1.5, acceleration=3.0)
    times = np.linspace(-0.1, 9.0, 40)
    for place in np.ndindex(3, 2):
        alone = min_snap(waypoints[place], allocate_times(waypoints[place], speed=2.0, acceleration=1.0))
        alone = keep_limits(alone, speed=1.5, acceleration=3.0)
        np.testing.assert_array_equal(alone.durations, many.durations[place])
        for derivative in range(3):
            expected = alone.sample(times, derivative)
            np.testing.assert_array_equal(many.sample(times, derivative)[place], expected)
