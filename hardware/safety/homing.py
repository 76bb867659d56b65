"""The way home: a target for each control period; or a whole way, planned at once for a controller to follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from robot_rl.sim.servo import References, Servo

_RAMP = 4  # control periods until the speed of homing is reached

LONGEST = 120.0
"""A way home that takes longer is none [s]."""


class Approach:
    """Targets that lead a servo home, the fastest joint at `speed` [rad/s]."""

    def __init__(self, servo: Servo, home: np.ndarray, speed: float) -> None:
        self._servo, self._home = servo, home
        self._cruise, self._stride = speed * servo.target_period, 0.0

    def target(self) -> np.ndarray | None:
        """The target of the next control period [dof] rad; None when the last one was home."""
        way = self._home - self._servo.target
        if not way.any():
            return None
        self._stride = min(self._cruise, self._stride + self._cruise / _RAMP)
        target: np.ndarray = self._servo.target + way * min(1.0, self._stride / float(np.abs(way).max()))
        return target


class Route:
    """A way home that a controller was given as a whole; the servo goes along with it.

    Attributes:
        times: of the references [m] s after its begin, ascending; quintics between them are the motion itself.
        references: each array [m, dof]; the last one is at rest at home.
        begun: whether the controller has accepted it.
        ended: whether the controller has said that it was successful.
    """

    def __init__(self, servo: Servo, targets: Sequence[np.ndarray], times: np.ndarray, references: References) -> None:
        self._servo, self._targets = servo, list(targets)
        self.times, self.references = times, references
        self.begun, self.ended = False, False
        self._left = 0

    @property
    def duration(self) -> float:
        """From begin to rest [s]."""
        return float(self.times[-1])

    @property
    def done(self) -> bool:
        """Whether the servo has come to rest at home."""
        return not self._targets and self._servo.time_to_rest == 0.0

    def advance(self, periods: int) -> None:
        """Let the servo go along for some periods of the robot."""
        while periods > 0:
            if self._targets and self._left == 0:
                self._servo.set_target(self._targets.pop(0))
                self._left = control_periods(self._servo)
            count = min(periods, self._left) if self._targets else periods
            self._servo.trajectory(count)
            self._left -= count
            periods -= count


def plan_route(
    servo: Servo, home: np.ndarray, speed: float, head_for: Callable[[np.ndarray], str | None]
) -> Route | str:
    """The whole way home of a servo at rest, which stays where it is; or what forbids it.

    Args:
        head_for: gives the servo a target, unless something forbids the motion: the answer.
    """
    before, approach = servo.get_state(), Approach(servo, home, speed)
    periods, targets = control_periods(servo), list[np.ndarray]()
    begin, times, parts = 0.0, list[np.ndarray](), list[References]()
    try:
        while (target := approach.target()) is not None and begin < LONGEST:
            if forbidden := head_for(target):
                return forbidden
            targets.append(target)
            end = periods * servo.period
            inside = np.append(servo.knots[servo.knots < end - 1e-6], end)
            times.append(begin + inside)
            parts.append(servo.preview(inside))
            servo.trajectory(periods)
            begin += end
        rest = servo.knots
        if target is not None or (len(rest) and begin + rest[-1] > LONGEST):
            return f"takes more than {LONGEST:g} s"
        if len(rest) or not times:
            rest = rest if len(rest) else np.array([servo.target_period])
            times.append(begin + rest)
            parts.append(servo.preview(rest))
    finally:
        servo.set_state(before)
    references = References(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))
    return Route(servo, targets, np.concatenate(times), references)


def control_periods(servo: Servo) -> int:
    """Periods of the robot in one control period."""
    return round(servo.target_period / servo.period)
