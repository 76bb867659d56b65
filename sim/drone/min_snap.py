"""Minimum-snap trajectories through waypoints: polynomials of degree seven, joined smoothly (Richter et al. 2013).

The end derivatives of each segment are the unknowns. Those at the waypoints between are free and solved for; the times
are chosen before: for speeds that rise and fall with a given acceleration, and stretched until limits are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COEFFICIENTS = 8
DERIVATIVES = 4
"""Position, velocity, acceleration and jerk at the end of a segment."""


@dataclass(frozen=True)
class Trajectory:
    """Polynomials over consecutive segments.

    Attributes:
        durations: [S] [s].
        coefficients: [S, 8, D], of powers of the time within the segment over its duration.
    """

    durations: np.ndarray
    coefficients: np.ndarray

    @property
    def duration(self) -> float:
        """[s]"""
        return float(self.durations.sum())

    def sample(self, times: np.ndarray, derivative: int = 0) -> np.ndarray:
        """Position or a derivative of it [T, D] at times [T]; before the start and after the end it stands still."""
        ends = np.cumsum(self.durations)
        inside = np.clip(times, 0.0, ends[-1])
        segment = np.minimum(np.searchsorted(ends, inside, side="right"), len(ends) - 1)
        part = (inside - (ends - self.durations)[segment]) / self.durations[segment]
        powers = part[:, None] ** np.arange(COEFFICIENTS)
        factors = _falling(derivative)
        basis = np.zeros_like(powers)
        basis[:, derivative:] = powers[:, : COEFFICIENTS - derivative] * factors[derivative:]
        values = np.einsum("tk,tkd->td", basis, self.coefficients[segment])
        values /= (self.durations[segment] ** derivative)[:, None]
        if derivative:
            values[(times < 0) | (times > ends[-1])] = 0.0
        return values

    def stretched(self, factor: float) -> Trajectory:
        """The same path, `factor` times as slow."""
        return Trajectory(self.durations * factor, self.coefficients)

    def snap(self) -> float:
        """Integral of the squared fourth derivative."""
        cost = _snap_cost()
        weights = self.durations**-7.0
        return float(np.einsum("s,skd,kl,sld->", weights, self.coefficients, cost, self.coefficients))


def min_snap(waypoints: np.ndarray, durations: np.ndarray) -> Trajectory:
    """The trajectory of least snap through waypoints [S + 1, D] at given segment durations [S], from rest to rest.

    Raises:
        ValueError: shapes do not fit, or a duration is not positive.
    """
    waypoints, durations = np.asarray(waypoints, float), np.asarray(durations, float)
    segments = len(durations)
    if waypoints.ndim != 2 or len(waypoints) != segments + 1 or segments < 1 or not (durations > 0).all():
        raise ValueError(
            f"expected S + 1 waypoints and S positive durations, got {list(waypoints.shape)} and {durations.tolist()}"
        )
    ends = _end_derivatives()
    inverse = np.linalg.inv(ends)
    reduced = inverse.T @ _snap_cost() @ inverse
    size, count = DERIVATIVES * (segments + 1), waypoints.shape[1]
    total = np.zeros((size, size))
    for index, duration in enumerate(durations):
        # From derivatives in time to derivatives in the segment's own, normalised time.
        scale = np.tile(duration ** np.arange(DERIVATIVES), 2)
        part = slice(DERIVATIVES * index, DERIVATIVES * (index + 2))
        total[part, part] += duration**-7.0 * scale[:, None] * reduced * scale
    fixed = np.zeros(size, bool)
    fixed[::DERIVATIVES] = fixed[:DERIVATIVES] = fixed[-DERIVATIVES:] = True
    values = np.zeros((size, count))
    values[::DERIVATIVES] = waypoints
    if segments > 1:
        values[~fixed] = np.linalg.solve(total[np.ix_(~fixed, ~fixed)], -total[np.ix_(~fixed, fixed)] @ values[fixed])
    coefficients = np.empty((segments, COEFFICIENTS, count))
    for index, duration in enumerate(durations):
        scale = np.tile(duration ** np.arange(DERIVATIVES), 2)[:, None]
        coefficients[index] = inverse @ (scale * values[DERIVATIVES * index : DERIVATIVES * (index + 2)])
    return Trajectory(durations, coefficients)


def allocate_times(waypoints: np.ndarray, speed: float, acceleration: float) -> np.ndarray:
    """Durations [S] for straight lines between waypoints, at a speed that rises and falls with an acceleration."""
    lengths = np.linalg.norm(np.diff(waypoints, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    return np.diff([_trapezoid_time(position, along[-1], speed, acceleration) for position in along])


def keep_limits(trajectory: Trajectory, speed: float, acceleration: float) -> Trajectory:
    """Stretch a trajectory, as little as needed, until its speed and acceleration stay below limits."""
    times = np.linspace(0, trajectory.duration, 50 * len(trajectory.durations))
    fastest = np.linalg.norm(trajectory.sample(times, 1), axis=1).max()
    hardest = np.linalg.norm(trajectory.sample(times, 2), axis=1).max()
    return trajectory.stretched(max(1.0, fastest / speed, np.sqrt(hardest / acceleration)))


def _trapezoid_time(position: float, length: float, speed: float, acceleration: float) -> float:
    """When a point that starts and ends at rest has gone `position` of `length`."""
    peak = min(speed, float(np.sqrt(acceleration * length)))
    rise, ramp = peak**2 / (2 * acceleration), peak / acceleration
    if position <= rise:
        return float(np.sqrt(2 * position / acceleration))
    if position <= length - rise:
        return ramp + (position - rise) / peak
    left = max(length - position, 0.0)
    return 2 * ramp + (length - 2 * rise) / peak - float(np.sqrt(2 * left / acceleration))


def _falling(derivative: int) -> np.ndarray:
    """k (k-1) ... (k-derivative+1) for each power k."""
    powers = np.arange(COEFFICIENTS, dtype=float)
    return np.prod([powers - step for step in range(derivative)], axis=0) if derivative else np.ones(COEFFICIENTS)


def _end_derivatives() -> np.ndarray:
    """From coefficients to derivatives 0 to 3 at both ends of the unit segment, [8, 8]."""
    matrix = np.zeros((2 * DERIVATIVES, COEFFICIENTS))
    for derivative in range(DERIVATIVES):
        factors = _falling(derivative)
        matrix[derivative, derivative] = factors[derivative]
        matrix[DERIVATIVES + derivative] = factors
    return matrix


def _snap_cost() -> np.ndarray:
    """Integral of products of fourth derivatives of powers over the unit segment, [8, 8]."""
    factors, powers = _falling(4), np.arange(COEFFICIENTS)
    exponents = powers[:, None] + powers - 7
    cost = np.zeros((COEFFICIENTS, COEFFICIENTS))
    inner = slice(4, None)
    cost[inner, inner] = np.outer(factors, factors)[inner, inner] / exponents[inner, inner]
    return cost
