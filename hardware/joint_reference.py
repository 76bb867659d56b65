"""Joint references of a robot, from commands as `ros2_control`'s controllers take them.

Points are interpolated as by joint_trajectory_controller: linearly where they give positions alone, by cubics with
velocities, by quintics with accelerations, beginning in the present reference. A new trajectory replaces the one before
from the moment it arrives; after its last point the joints hold. So the Servo's quintics, sampled at the command rate,
come out as they went in. Forward controllers hand each setpoint on as it is; position-controlled drives interpolate it
and get velocity and acceleration from the differences of setpoints, and so do these.

Source: ros2_control documentation (Jazzy), joint_trajectory_controller, "Trajectory representation", "Trajectory
replacement".
"""

from __future__ import annotations

import numpy as np

from robot_rl.sim.compiled import compiled
from robot_rl.sim.servo import References

_QUINTIC = np.linalg.inv([
    [1, 0, 0, 0, 0, 0],
    [0, 1, 0, 0, 0, 0],
    [0, 0, 2, 0, 0, 0],
    [1, 1, 1, 1, 1, 1],
    [0, 1, 2, 3, 4, 5],
    [0, 0, 2, 6, 12, 20],
])  # fmt: skip
"""Coefficients of (t / T)^k from position, velocity · T and acceleration · T² at the start and at the end."""
_CUBIC = np.zeros((6, 6))
_CUBIC[:4, [0, 1, 3, 4]] = np.linalg.inv([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 1, 2, 3]])
_LINEAR = np.zeros((6, 6))
_LINEAR[:2, [0, 3]] = [[1, 0], [-1, 1]]


class CommandError(ValueError):
    """A command is malformed or comes too late; the joints do as before."""


class JointReference:
    """What the joints shall do at any time from now on.

    Args:
        position: of the joints at the start [dof] rad.
    """

    def __init__(self, position: np.ndarray) -> None:
        self.hold(position)
        # What is compiled at its first call is compiled now, not when the first command comes.
        self.follow(0.0, np.ones(1), self._now.position[None])
        self.sample(np.zeros(1))
        self.hold(position)

    def hold(self, position: np.ndarray) -> None:
        """Forget all commands and stay at a position [dof] rad."""
        position = np.array(position, float)
        rest = np.zeros_like(position)
        self._now = References(position, rest, rest)
        self._ends = np.zeros(0)
        self._durations = np.zeros(0)
        self._coefficients = np.zeros((0, 6, len(position)))
        self._setpoint, self._velocity, self._feedforward = position, rest, rest

    @property
    def present(self) -> References:
        """The reference last sampled, each array [dof]."""
        return self._now

    def follow(
        self,
        now: float,
        times: np.ndarray,
        position: np.ndarray,
        velocity: np.ndarray | None = None,
        acceleration: np.ndarray | None = None,
    ) -> None:
        """Go through points from now on, instead of what was commanded before.

        Args:
            now: the time last sampled [s].
            times: of the points [n] s, ascending, on the same clock; points that are past are left out.
            position, velocity, acceleration: of the joints there, each [n, dof]; acceleration only with velocity.

        Raises:
            CommandError: shapes do not fit, numbers are not finite, times do not ascend, or all points are past.
        """
        rows = [row for row in (position, velocity, acceleration) if row is not None]
        self._check(now, times, rows)
        first = int(np.searchsorted(times, now, side="right"))
        knots = np.append(now, times[first:])
        # [n + 1, 3, dof]; the matrix of the degree leaves out what the points do not give.
        states = np.zeros((len(knots), 3, len(self._setpoint)))
        for order, row in enumerate(rows):
            states[0, order], states[1:, order] = self._now[order], row[first:]
        self._ends, self._durations = knots[1:], knots[1:] - knots[:-1]
        self._coefficients = _segments((_LINEAR, _CUBIC, _QUINTIC)[len(rows) - 1], states, self._durations)
        self._feedforward = np.zeros(len(self._setpoint))

    def approach(self, now: float, position: np.ndarray, period: float, time: float, ceiling: np.ndarray) -> None:
        """Go to a setpoint [dof] rad in a straight line, then hold it.

        Args:
            now: the time last sampled [s].
            period: nominal time between two setpoints [s], for their differences.
            time: when to arrive [s], after now.
            ceiling: largest acceleration that is fed forward [dof] rad/s²; a lost setpoint looks like a large one.

        Raises:
            CommandError: the shape does not fit or numbers are not finite.
        """
        self.follow(now, np.array([time]), position[None])
        velocity = (position - self._setpoint) / period
        self._feedforward = np.clip((velocity - self._velocity) / period, -ceiling, ceiling)
        self._setpoint, self._velocity = position, velocity

    def sample(self, times: np.ndarray) -> References:
        """The references at ascending `times` [n] s, each array [n, dof]; time does not go back from here."""
        rows = _sample(
            np.asarray(times, float), self._ends, self._durations, self._coefficients, self._now.position,
            self._feedforward,
        )  # fmt: skip
        references = References(rows[0], rows[1], rows[2])
        self._now = References(*(order[-1] for order in references))
        return references

    def _check(self, now: float, times: np.ndarray, rows: list[np.ndarray]) -> None:
        expected = (len(times), len(self._now.position))
        if any(row.shape != expected for row in rows) or not len(times):
            raise CommandError(
                f"expected points of {expected[1]} joints, got arrays of shapes {[row.shape for row in rows]} "
                f"for {len(times)} times"
            )
        if not all(np.isfinite(row).all() for row in (times, *rows)):
            raise CommandError("expected finite positions, velocities, accelerations and times")
        if not (times[1:] > times[:-1]).all():
            raise CommandError(f"expected ascending times, got {times.tolist()}")
        if times[-1] <= now:
            raise CommandError(f"the trajectory ended {now - times[-1]:.3f} s ago; check clocks and delays")


@compiled
def _segments(matrix: np.ndarray, states: np.ndarray, durations: np.ndarray) -> np.ndarray:
    """Coefficients of (t / T)^k of each segment [n, 6, dof], from the states between them [n + 1, 3, dof]."""
    count, dof = len(durations), states.shape[2]
    coefficients = np.zeros((count, 6, dof))
    for segment in range(count):
        for power in range(6):
            for column in range(6):
                order = column % 3
                factor = matrix[power, column] * durations[segment] ** order
                for joint in range(dof):
                    coefficients[segment, power, joint] += factor * states[segment + column // 3, order, joint]
    return coefficients


@compiled
def _sample(
    times: np.ndarray,
    ends: np.ndarray,
    durations: np.ndarray,
    coefficients: np.ndarray,
    start: np.ndarray,
    feedforward: np.ndarray,
) -> np.ndarray:
    """Position, velocity and acceleration [3, n, dof] at the times [n]; `start` [dof] is held without any segment."""
    rows = np.zeros((3, len(times), len(start)))
    segment = 0
    for row in range(len(times)):
        while segment < len(ends) and times[row] > ends[segment] + 1e-9:
            segment += 1
        if len(ends) == 0:
            rows[0, row] = start
            continue
        k = min(segment, len(ends) - 1)
        over, duration = segment == len(ends), durations[k]
        phase = 1.0 if over else 1.0 + (times[row] - ends[k]) / duration
        for joint in range(len(start)):
            position = velocity = acceleration = 0.0
            for power in range(5, -1, -1):
                # Horner's scheme; the second derivative comes out halved.
                acceleration = acceleration * phase + velocity
                velocity = velocity * phase + position
                position = position * phase + coefficients[k, power, joint]
            rows[0, row, joint] = position
            if not over:
                rows[1, row, joint] = velocity / duration
                rows[2, row, joint] = 2.0 * acceleration / duration**2 + feedforward[joint]
    return rows
