"""Minimum-snap trajectories through waypoints: polynomials of degree seven, joined smoothly (Richter et al. 2013).

The end derivatives of each segment are the unknowns. Those at the waypoints between are free and solved for; the times
are chosen before: for speeds that rise and fall with a given acceleration, and stretched until limits are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robot_rl.sim.compiled import compiled

COEFFICIENTS = 8
DERIVATIVES = 4
"""Position, velocity, acceleration and jerk at the end of a segment."""


@dataclass(frozen=True)
class Trajectory:
    """Polynomials over consecutive segments, of one trajectory or of many [..., ] alike.

    Attributes:
        durations: [..., S] [s].
        coefficients: [..., S, 8, D], of powers of the time within the segment over its duration.
    """

    durations: np.ndarray
    coefficients: np.ndarray

    @property
    def duration(self) -> np.ndarray:
        """[...] [s]"""
        return np.asarray(self.durations.sum(-1))

    def sample(self, times: np.ndarray, derivative: int = 0) -> np.ndarray:
        """Position or a derivative of it [..., T, D] at times [T] or [..., T]; before the start and after the end it
        stands still."""
        *many, segments, _, count = self.coefficients.shape
        asked = np.broadcast_to(np.asarray(times, float), (*many, np.shape(times)[-1]))
        values = _sample(
            self.durations.reshape(-1, segments), self.coefficients.reshape(-1, segments, COEFFICIENTS, count),
            asked.reshape(-1, asked.shape[-1]), derivative, _falling(derivative),
        )  # fmt: skip
        return values.reshape(*asked.shape, count)

    def stretched(self, factor: np.ndarray | float) -> Trajectory:
        """The same path, `factor` [...] times as slow."""
        return Trajectory(self.durations * np.asarray(factor)[..., None], self.coefficients)

    def snap(self) -> float:
        """Integral of the squared fourth derivative, of a single trajectory."""
        cost = _snap_cost()
        weights = self.durations**-7.0
        return float(np.einsum("s,skd,kl,sld->", weights, self.coefficients, cost, self.coefficients))


def min_snap(waypoints: np.ndarray, durations: np.ndarray) -> Trajectory:
    """The trajectory of least snap through waypoints [..., S + 1, D] at given segment durations [..., S], from rest to
    rest.

    Raises:
        ValueError: shapes do not fit, or a duration is not positive.
    """
    waypoints, durations = np.asarray(waypoints, float), np.asarray(durations, float)
    *many, segments = durations.shape
    fit = waypoints.ndim == durations.ndim + 1 and waypoints.shape[:-1] == (*many, segments + 1)
    if not fit or segments < 1 or not (durations > 0).all():
        raise ValueError(
            f"expected S + 1 waypoints and S positive durations, got {list(waypoints.shape)} and {durations.tolist()}"
        )
    inverse = np.linalg.inv(_end_derivatives())
    reduced = inverse.T @ _snap_cost() @ inverse
    size, count = DERIVATIVES * (segments + 1), waypoints.shape[-1]
    parts = [slice(DERIVATIVES * index, DERIVATIVES * (index + 2)) for index in range(segments)]
    # From derivatives in time to derivatives in the segment's own, normalised time.
    scales = np.tile(durations[..., None] ** np.arange(DERIVATIVES), 2)
    costs = (durations**-7.0)[..., None, None] * scales[..., None] * reduced * scales[..., None, :]
    total = np.zeros((*many, size, size))
    for index, part in enumerate(parts):
        total[..., part, part] += costs[..., index, :, :]
    fixed = np.zeros(size, bool)
    fixed[::DERIVATIVES] = fixed[:DERIVATIVES] = fixed[-DERIVATIVES:] = True
    values = np.zeros((*many, size, count))
    values[..., ::DERIVATIVES, :] = waypoints
    if segments > 1:
        free = np.flatnonzero(~fixed)
        known = -total[..., free[:, None], np.flatnonzero(fixed)] @ values[..., fixed, :]
        values[..., free, :] = np.linalg.solve(total[..., free[:, None], free], known)
    ends = np.stack([values[..., part, :] for part in parts], axis=-3)
    return Trajectory(durations, inverse @ (scales[..., None] * ends))


def allocate_times(waypoints: np.ndarray, speed: float, acceleration: float) -> np.ndarray:
    """Durations [..., S] for straight lines between waypoints [..., S + 1, D], at a speed that rises and falls with an
    acceleration."""
    along = np.zeros(waypoints.shape[:-1])
    along[..., 1:] = np.cumsum(np.linalg.norm(np.diff(waypoints, axis=-2), axis=-1), axis=-1)
    return np.diff(_trapezoid_time(along, along[..., -1:], speed, acceleration))


def keep_limits(trajectory: Trajectory, speed: float, acceleration: float) -> Trajectory:
    """Stretch a trajectory, as little as needed, until its speed and acceleration stay below limits."""
    times = np.linspace(0, trajectory.duration, 50 * trajectory.durations.shape[-1], axis=-1)
    fastest, hardest = (np.linalg.norm(trajectory.sample(times, order), axis=-1).max(-1) for order in (1, 2))
    return trajectory.stretched(np.maximum(1.0, np.maximum(fastest / speed, np.sqrt(hardest / acceleration))))


def _trapezoid_time(position: np.ndarray, length: np.ndarray, speed: float, acceleration: float) -> np.ndarray:
    """When points that start and end at rest have gone `position` of `length`."""
    peak = np.minimum(speed, np.sqrt(acceleration * length))
    rise, ramp = peak**2 / (2 * acceleration), peak / acceleration
    starting = np.sqrt(2 * position / acceleration)
    cruising = ramp + (position - rise) / peak
    stopping = 2 * ramp + (length - 2 * rise) / peak - np.sqrt(2 * np.maximum(length - position, 0.0) / acceleration)
    return np.where(position <= rise, starting, np.where(position <= length - rise, cruising, stopping))


@compiled
def _sample(
    durations: np.ndarray, coefficients: np.ndarray, times: np.ndarray, derivative: int, factors: np.ndarray
) -> np.ndarray:
    """Derivatives [n, T, D] at times [n, T]; `factors` as of `_falling`."""
    many, segments, powers, count = coefficients.shape
    values = np.zeros((many, times.shape[1], count))
    for one in range(many):
        segment, start, end = 0, 0.0, durations[one].sum()
        for row in range(times.shape[1]):
            time = times[one, row]
            if derivative and (time < 0 or time > end):
                continue
            time = min(max(time, 0.0), end)
            if time < start:
                segment, start = 0, 0.0
            while segment < segments - 1 and time >= start + durations[one, segment]:
                start += durations[one, segment]
                segment += 1
            part, scale = (time - start) / durations[one, segment], durations[one, segment] ** -derivative
            for axis in range(count):
                value = 0.0
                for power in range(powers - 1, derivative - 1, -1):
                    value = value * part + factors[power] * coefficients[one, segment, power, axis]
                values[one, row, axis] = value * scale
    return values


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
