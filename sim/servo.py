"""Servo: a policy's targets at 20 Hz become a smooth stream of joint commands at the robot's own rate.

An action is an absolute joint target, to be reached one target period after it was given. While the targets keep
coming, the reference follows one quintic polynomial per period: it starts in the present position, velocity and
acceleration and arrives in the target with the velocity and acceleration of the parabola through the last three
targets. So a moving target is followed without lag beyond that one period and without stop-and-go, and the acceleration
never jumps.

Limits come first. Position, velocity, acceleration and jerk of a quintic lie in the convex hull of its Bézier control
points, which bounds them without sampling. Where the hull breaks a limit, a quintic over two periods catches up gently;
where that breaks one too, `ruckig` gives the time-optimal jerk-limited motion. Every motion is planned until rest
(targets may stop coming at any moment), and one that would leave the position limits on its way to rest is never begun:
the motion before it, which ends in rest inside them, continues.

The class knows no clock, thread or simulator: `step()` once per period of the robot, in simulation and on the robot.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb, copysign, isfinite, isnan, sqrt
from typing import NamedTuple

import numpy as np
import ruckig

from robot_rl.sim.compiled import compiled
from robot_rl.sim.kinematics import Kinematics

GRACE = 0.2
"""Part of a target period for which a late target is awaited, coasting, before the motion is brought to rest."""

LATENESS = 0.2
"""Part of a target period by which a time-optimal motion may be late and still pass its target at the full velocity."""

_TOLERANCE = 1e-9
_KEYS = ("lower", "upper", "velocity", "acceleration", "jerk")


class ServoError(ValueError):
    """Limits, periods or targets are malformed."""


class References(NamedTuple):
    """What the joints shall do: position [rad], velocity [rad/s] and acceleration [rad/s²], each [dof] or [n, dof]."""

    position: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray


class _Arrival(NamedTuple):
    """How a motion shall pass its target, each [dof]; a position of NaN means to brake to rest anywhere."""

    position: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    shared_velocity: np.ndarray


class ServoMemory(NamedTuple):
    """All that a servo goes by, as `Servo.remember` gives it; nothing in it is ever changed."""

    motion: _Motion
    start: References
    end: _Arrival
    now: References
    targets: np.ndarray
    pose: np.ndarray | None
    ticks: int
    ticks_since_target: int


@dataclass(frozen=True)
class JointLimits:
    """Limits of each joint, float64 [dof]: position [rad], velocity [rad/s], acceleration [rad/s²], jerk [rad/s³]."""

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray

    def __post_init__(self) -> None:
        for key in _KEYS:
            object.__setattr__(self, key, np.array(getattr(self, key), dtype=float))
        shapes = {key: getattr(self, key).shape for key in _KEYS}
        if len(set(shapes.values())) != 1 or len(shapes["lower"]) != 1:
            raise ServoError(f"joint limits: expected one number per joint under each key, got shapes {shapes}")
        if not all(np.isfinite(getattr(self, key)).all() for key in _KEYS):
            raise ServoError("joint limits: expected finite numbers; a joint without stops still needs bounds")
        if not (self.lower < self.upper).all():
            raise ServoError(f"joint limits: lower {self.lower.tolist()} must be below upper {self.upper.tolist()}")
        for key in _KEYS[2:]:
            if not (getattr(self, key) > 0).all():
                raise ServoError(f"joint limits: {key} must be positive, got {getattr(self, key).tolist()}")

    @property
    def dof(self) -> int:
        """Number of joints."""
        return len(self.lower)

    @staticmethod
    def from_mapping(plain: Mapping[str, Sequence[float]]) -> JointLimits:
        """Read the limits of a robot's YAML file. Unknown and missing keys are errors."""
        if set(plain) != set(_KEYS):
            missing, unknown = sorted(set(_KEYS) - set(plain)), sorted(set(plain) - set(_KEYS))
            raise ServoError(f"joint limits need exactly {', '.join(_KEYS)}; missing: {missing}; unknown: {unknown}")
        return JointLimits(**{key: np.asarray(plain[key], float) for key in _KEYS})


class Servo:
    """Turns targets at `1 / target_period` into joint references at `1 / period`, within limits whatever the targets.

    Args:
        limits: of each joint; the references never exceed them.
        period: of the robot's command loop [s], for example 0.001 (Franka) or 0.002 (UR, simulation).
        target_period: nominal time between two targets [s].
        kinematics: of the same joints; only needed for `set_pose_target`.
    """

    def __init__(
        self, limits: JointLimits, period: float, target_period: float = 0.05, kinematics: Kinematics | None = None
    ) -> None:
        if not 0 < period <= target_period:
            raise ServoError(f"expected 0 < period <= target_period, got {period} and {target_period}")
        if kinematics is not None and kinematics.dof != limits.dof:
            raise ServoError(f"limits are for {limits.dof} joints, the kinematics has {kinematics.dof}")
        self.limits = limits
        self.period = period
        self.target_period = target_period
        self.kinematics = kinematics
        self._otg = ruckig.Ruckig(limits.dof)
        self._task, self._braking = _task(limits), _task(limits)
        self._braking.control_interface = ruckig.ControlInterface.Velocity
        middle = 0.5 * (limits.lower + limits.upper)
        # Compile, before a robot waits for the first target.
        self.reset(middle)
        self._motion = _Motion([segment for segment in self._quintic_motion(self._start, self._arrival()) if segment])
        self._motion.sample(np.zeros(1))
        self.reset(middle)

    def reset(self, position: np.ndarray, velocity: np.ndarray | None = None) -> None:
        """Start from a measured joint position [dof] and velocity [dof] (default: at rest); forget all targets."""
        position = self._checked(position, "position")
        velocity = np.zeros_like(position) if velocity is None else self._checked(velocity, "velocity")
        rest = np.zeros_like(position)
        self._start = References(position, np.clip(velocity, -self.limits.velocity, self.limits.velocity), rest)
        self._end = _Arrival(np.full_like(position, np.nan), rest, rest, rest)
        self._targets = np.stack([position] * 3)
        self._ticks = 0
        self._ticks_since_target = round(self.target_period / self.period)
        self._pose: np.ndarray | None = None
        motion = self._plan(self._start, self._end)
        if motion is None:
            raise ServoError(f"no motion to rest from velocity {velocity.tolist()} at {position.tolist()}")
        self._motion = motion
        self._now = self._start

    @property
    def reference(self) -> References:
        """The reference last returned by `step` or `trajectory`, each array [dof]."""
        return self._now

    @property
    def target(self) -> np.ndarray:
        """The joint target last given or found for a pose [dof], within the position limits."""
        target: np.ndarray = self._targets[-1].copy()
        return target

    def set_target(self, position: np.ndarray) -> None:
        """Head for a joint position [dof] rad, to be reached in one target period where the limits allow.

        A target outside the position limits is moved to the nearest one inside. A second target within half a target
        period replaces the first one; one that comes late counts as that many periods.

        Raises:
            ServoError: the target is not finite or has the wrong shape. The motion goes on as before.
        """
        self._pose = None
        self._head_for(self._checked(position, "target"))

    def set_pose_target(self, pose: np.ndarray) -> None:
        """Head for an end-effector pose [7] (x y z m, quaternion wxyz) in the base frame.

        Each target period moves the joints by differential inverse kinematics, at most as far as the velocity limits
        allow in that time; a pose further away is approached for as long as no other target is given.

        Raises:
            ServoError: there is no kinematics, or the pose is not finite or has the wrong shape.
        """
        if self.kinematics is None:
            raise ServoError("set_pose_target needs a Servo with kinematics; give kinematics=, or use set_target")
        pose = np.array(pose, float)
        if pose.shape != (7,) or not np.isfinite(pose).all() or not np.any(pose[3:]):
            raise ServoError(f"expected a finite pose [7] (position, quaternion wxyz), got {pose.tolist()}")
        self._pose = pose
        self._approach_pose()

    def stop(self) -> None:
        """Brake every joint to rest from the present reference, within all limits, and forget the targets.

        A braking that would leave the position limits is not begun: the motion before it goes on to its own rest.
        """
        nowhere = np.full(self.limits.dof, np.nan)
        brake = self._time_optimal(self._now, self._now, brake=True)
        low = np.minimum(self.limits.lower, self._now.position)
        high = np.maximum(self.limits.upper, self._now.position)
        if brake is not None and brake.within(self.limits, low, high):
            rest = np.zeros_like(nowhere)
            self._motion, self._start, self._end = _Motion([brake]), self._now, _Arrival(nowhere, rest, rest, rest)
            self._ticks = 0
        self._pose = None
        self._targets = np.stack([self.preview(np.array([self.time_to_rest])).position[0]] * 3)
        self._ticks_since_target = round(self.target_period / self.period)

    @property
    def time_to_rest(self) -> float:
        """Time until the present motion ends in rest when no other target is given [s]."""
        end = self._motion.begins[-1] + self._motion.segments[-1].duration
        return max(0.0, float(end) - self._ticks * self.period)

    @property
    def knots(self) -> np.ndarray:
        """Times [n] s from now, ascending, at which the polynomial of any joint changes; the last one is that of rest.

        Quintics between the references there are the motion itself, so a controller that knows these can go on alone.
        """
        times = self._motion.knots - self._ticks * self.period
        return times[times > _TOLERANCE]

    def preview(self, times: np.ndarray) -> References:
        """References of the present motion at ascending `times` [n] s from now, each array [n, dof]; nothing moves."""
        return self._motion.sample(self._ticks * self.period + times)

    def step(self) -> References:
        """Advance by one period and return the reference at its end, each array [dof]."""
        return References(*(rows[0] for rows in self.trajectory(1)))

    def trajectory(self, n: int) -> References:
        """Advance by `n` periods and return the references at their ends, each array [n, dof]."""
        if self._pose is None:
            return self._advance(n)
        parts: list[References] = []
        while n > 0:
            due = round(self.target_period / self.period) - self._ticks_since_target
            if due <= 0:
                self._approach_pose()
            else:
                parts.append(self._advance(min(n, due)))
                n -= min(n, due)
        return References(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))

    def remember(self) -> ServoMemory:
        """Where this servo stands and what it is about to do, for `recall`; `get_state` is for another one."""
        return ServoMemory(
            self._motion, self._start, self._end, self._now, self._targets, self._pose, self._ticks,
            self._ticks_since_target,
        )  # fmt: skip

    def recall(self, memory: ServoMemory) -> None:
        """Continue exactly from what `remember` of this servo returned."""
        (
            self._motion, self._start, self._end, self._now, self._targets, self._pose, self._ticks,
            self._ticks_since_target,
        ) = memory  # fmt: skip

    def get_state(self) -> np.ndarray:
        """Everything that decides the future references, float64 [10 · dof + 9]."""
        pose = np.full(7, np.nan) if self._pose is None else self._pose
        ticks = (self._ticks, self._ticks_since_target)
        return np.concatenate([*self._start, *self._end, *self._targets, pose, ticks])

    def set_state(self, state: np.ndarray) -> None:
        """Continue exactly from what `get_state` returned."""
        dof = self.limits.dof
        if np.shape(state) != (10 * dof + 9,):
            raise ServoError(f"expected a state of {10 * dof + 9} numbers ({dof} joints), got shape {np.shape(state)}")
        rows = np.array(state[: 10 * dof], float).reshape(10, dof)
        start, end = References(*rows[:3]), _Arrival(*rows[3:7])
        motion = self._plan(start, end)
        if motion is None:
            raise ServoError("this state was not returned by get_state under the same limits and periods")
        self._start, self._end, self._targets = start, end, rows[7:]
        self._pose = None if np.isnan(state[10 * dof]) else np.array(state[10 * dof : 10 * dof + 7], float)
        self._ticks, self._ticks_since_target = int(state[-2]), int(state[-1])
        self._motion = motion
        self._now = References(*(row[0] for row in motion.sample(np.array([self._ticks * self.period]))))

    def _advance(self, n: int) -> References:
        rows = self._motion.sample(np.arange(self._ticks + 1, self._ticks + n + 1) * self.period)
        self._ticks += n
        self._ticks_since_target += n
        self._now = References(rows.position[-1], rows.velocity[-1], rows.acceleration[-1])
        return rows

    def _checked(self, values: np.ndarray, name: str) -> np.ndarray:
        array = np.array(values, dtype=float)
        if array.shape != (self.limits.dof,) or not np.isfinite(array).all():
            raise ServoError(f"{name}: expected {self.limits.dof} finite numbers, got {array.tolist()}")
        return array

    def _approach_pose(self) -> None:
        assert self.kinematics is not None
        assert self._pose is not None
        reach = self.limits.velocity * self.target_period
        self._head_for(self.kinematics.inverse(self._pose, self._targets[-1], reach))

    def _head_for(self, position: np.ndarray) -> None:
        position = np.minimum(np.maximum(position, self.limits.lower), self.limits.upper)
        periods = round(self._ticks_since_target * self.period / self.target_period)
        if periods == 0:
            self._targets = np.array([*self._targets[:2], position])
        else:
            if periods == 1:
                self._targets = np.array([*self._targets[1:], position])
            else:
                stride = (position - self._targets[-1]) / periods
                self._targets = np.stack([position - 2 * stride, position - stride, position])
            self._ticks_since_target = 0
        end = self._arrival()
        motion = self._plan(self._now, end)
        if motion is not None:
            self._motion, self._start, self._end, self._ticks = motion, self._now, end, 0

    def _arrival(self) -> _Arrival:
        """How to pass the last target: with the parabola through the last three, at its end.

        The velocity never turns against the last step between targets nor exceeds twice its mean, so that a target that
        stops is reached at rest. Where the limits forbid to be in time, the velocity that both steps share is enough: a
        single jump is then no reason to run past its end.
        """
        limits = self.limits
        rows = _passing(self._targets, self.target_period, limits.velocity, limits.acceleration, limits.jerk)
        return _Arrival(self._targets[-1], *rows)

    def _plan(self, start: References, end: _Arrival) -> _Motion | None:
        """The first of five kinds of motion, from smooth to hard, that keeps all limits; each continued until rest."""
        if isnan(end.position[0]):
            brake = self._time_optimal(start, start, brake=True)
            return _Motion([brake]) if brake else None
        # A start outside (a measured position beyond a stop) may come back inside, but not leave further.
        low, high = np.minimum(self.limits.lower, start.position), np.maximum(self.limits.upper, start.position)
        for build in (
            self._quintic_motion,
            self._gentle_motion,
            self._prompt_motion,
            self._late_motion,
            self._resting_motion,
        ):
            segments: list[_Segment] = []
            for segment in build(start, end):
                if segment is None or not segment.within(self.limits, low, high):
                    break
                segments.append(segment)
            else:
                return _Motion(segments)
        return None

    def _quintic_motion(self, start: References, end: _Arrival) -> Iterator[_Segment | None]:
        return self._smooth(start, References(end.position, end.velocity, end.acceleration), self.target_period)

    def _gentle_motion(self, start: References, end: _Arrival) -> Iterator[_Segment | None]:
        """Catch up with a steadily moving target in two periods instead of one."""
        position = end.position + end.shared_velocity * self.target_period
        ahead = References(position, end.shared_velocity, np.zeros_like(position))
        return self._smooth(start, ahead, 2 * self.target_period, end.position)

    def _smooth(
        self, start: References, end: References, duration: float, final: np.ndarray | None = None
    ) -> Iterator[_Segment | None]:
        grace = GRACE * self.target_period
        coast = References(*_coasted(*end, grace))
        yield _Quintic(start, end, duration)
        yield _Quintic(end, coast, grace)
        yield self._time_optimal(coast, _at_rest(end.position if final is None else final))

    def _prompt_motion(self, start: References, end: _Arrival) -> Iterator[_Segment | None]:
        segments = self._passing(start, References(end.position, end.velocity, np.zeros_like(end.velocity)))
        first = next(segments)
        in_time = first is not None and first.duration <= (1 + LATENESS) * self.target_period
        yield first if in_time else None
        yield from segments

    def _late_motion(self, start: References, end: _Arrival) -> Iterator[_Segment | None]:
        return self._passing(start, References(end.position, end.shared_velocity, np.zeros_like(end.velocity)))

    def _passing(self, start: References, end: References) -> Iterator[_Segment | None]:
        yield self._time_optimal(start, end, minimum_duration=self.target_period)
        yield self._time_optimal(end, _at_rest(end.position))

    def _resting_motion(self, start: References, end: _Arrival) -> Iterator[_Segment | None]:
        yield self._time_optimal(start, _at_rest(end.position))

    def _time_optimal(
        self, start: References, end: References, minimum_duration: float | None = None, brake: bool = False
    ) -> _TimeOptimal | None:
        task = self._braking if brake else self._task
        task.current_position, task.current_velocity, task.current_acceleration = (row.tolist() for row in start)
        if not brake:
            task.target_position, task.target_velocity = end.position.tolist(), end.velocity.tolist()
            task.minimum_duration = minimum_duration
        trajectory = ruckig.Trajectory(self.limits.dof)
        try:
            self._otg.calculate(task, trajectory)
        except ruckig.RuckigError:
            return None
        return _TimeOptimal(trajectory)


@compiled
def _passing(
    targets: np.ndarray, period: float, velocity: np.ndarray, acceleration: np.ndarray, jerk: np.ndarray
) -> np.ndarray:
    """Velocity, acceleration and shared velocity [3, dof] of `_Arrival` after the last three targets [3, dof]."""
    rows = np.empty((3, targets.shape[1]))
    for joint in range(targets.shape[1]):
        before = (targets[1, joint] - targets[0, joint]) / period
        last = (targets[2, joint] - targets[1, joint]) / period
        bound = min(2.0 * abs(last), velocity[joint])
        wanted = 1.5 * last - 0.5 * before
        passed = min(max(wanted, 0.0 if last > 0 else -bound), bound if last > 0 else 0.0)
        ceiling = min(acceleration[joint], jerk[joint] * GRACE * period)
        rows[0, joint] = passed
        rows[1, joint] = min(max((last - before) / period, -ceiling), ceiling) if passed == wanted else 0.0
        slower = min(abs(last), abs(before), velocity[joint])
        rows[2, joint] = np.sign(last) * slower if last * before > 0 else 0.0
    return rows


@compiled
def _coasted(position: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray, time: float) -> np.ndarray:
    """Position, velocity and acceleration [3, dof] after the acceleration has gone down to zero steadily."""
    rows = np.zeros((3, len(position)))
    for joint in range(len(position)):
        rows[0, joint] = position[joint] + (velocity[joint] + acceleration[joint] * time / 3) * time
        rows[1, joint] = velocity[joint] + acceleration[joint] * time / 2
    return rows


class _Quintic:
    """Polynomial of degree five with given position, velocity and acceleration at both ends."""

    def __init__(self, start: References, end: References, duration: float) -> None:
        self.duration = duration
        self.ends = _ends(*start, *end, duration)

    @property
    def knots(self) -> np.ndarray:
        return np.array([self.duration])

    def within(self, limits: JointLimits, low: np.ndarray, high: np.ndarray) -> bool:
        """Whether the Bézier control points of the curve and its derivatives lie inside; their hull holds the curve."""
        return _inside(self.ends, self.duration, low, high, limits.velocity, limits.acceleration, limits.jerk)

    def sample(self, times: np.ndarray) -> References:
        return References(*_sampled(self.ends, self.duration, times))


_BEZIER = np.array([
    [1, 0, 0, 0, 0, 0],
    [1, 1 / 5, 0, 0, 0, 0],
    [1, 2 / 5, 1 / 20, 0, 0, 0],
    [0, 0, 0, 1, -2 / 5, 1 / 20],
    [0, 0, 0, 1, -1 / 5, 0],
    [0, 0, 0, 1, 0, 0],
])
"""Control points of a quintic from its ends: position, velocity · T, acceleration · T² at the start and at the end."""
_MONOMIAL = np.array([[comb(5, k) * comb(k, i) * (-1) ** (k - i) for i in range(6)] for k in range(6)]) @ _BEZIER
"""Coefficients of (t / T)^k from the ends."""


@compiled
def _ends(
    position: np.ndarray,
    velocity: np.ndarray,
    acceleration: np.ndarray,
    last_position: np.ndarray,
    last_velocity: np.ndarray,
    last_acceleration: np.ndarray,
    duration: float,
) -> np.ndarray:
    """Position, velocity · T and acceleration · T² at the start and at the end [6, dof]."""
    rows = np.empty((6, len(position)))
    for joint in range(len(position)):
        rows[0, joint] = position[joint]
        rows[1, joint] = velocity[joint] * duration
        rows[2, joint] = acceleration[joint] * duration**2
        rows[3, joint] = last_position[joint]
        rows[4, joint] = last_velocity[joint] * duration
        rows[5, joint] = last_acceleration[joint] * duration**2
    return rows


@compiled
def _sampled(ends: np.ndarray, duration: float, times: np.ndarray) -> np.ndarray:
    """Position, velocity and acceleration [3, n, dof] of a quintic at `times` [n] s, by Horner's scheme."""
    rows = np.empty((3, len(times), ends.shape[1]))
    coefficients = _MONOMIAL @ ends
    for index in range(len(times)):
        t = times[index] / duration
        for joint in range(ends.shape[1]):
            position, velocity, half = 0.0, 0.0, 0.0
            for k in range(5, -1, -1):
                half = half * t + velocity
                velocity = velocity * t + position
                position = position * t + coefficients[k, joint]
            rows[0, index, joint] = position
            rows[1, index, joint] = velocity / duration
            rows[2, index, joint] = 2.0 * half / duration**2
    return rows


def _derivative_hulls(pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """Control points of three derivatives (times T^order) from those of the curve, and the order of each row.

    The curve is cut in pieces, as the hull of a piece is that much tighter.
    """
    rows, orders = [], []
    left = np.array([[comb(k, i) / 2**k if i <= k else 0.0 for i in range(6)] for k in range(6)])
    parts = [np.eye(6)]
    while len(parts) < pieces:
        parts = [half @ part for part in parts for half in (left, left[::-1, ::-1])]
    for order, scale in ((1, 5), (2, 20), (3, 60)):
        for part in parts:
            rows.append(scale * len(parts) ** order * np.diff(part, order, axis=0))
            orders += [order] * (6 - order)
    return np.concatenate(rows), np.array(orders)


_HULLS, _ORDERS = _derivative_hulls(pieces=4)


@compiled
def _inside(
    ends: np.ndarray,
    duration: float,
    low: np.ndarray,
    high: np.ndarray,
    velocity: np.ndarray,
    acceleration: np.ndarray,
    jerk: np.ndarray,
) -> bool:
    points = _BEZIER @ ends
    for joint in range(ends.shape[1]):
        for row in range(6):
            if not low[joint] - _TOLERANCE <= points[row, joint] <= high[joint] + _TOLERANCE:
                return False
    hulls = _HULLS @ points
    for row in range(len(hulls)):
        order = _ORDERS[row]
        bounds = velocity if order == 1 else acceleration if order == 2 else jerk
        for joint in range(ends.shape[1]):
            if not abs(hulls[row, joint]) <= bounds[joint] * duration**order * (1 + _TOLERANCE):
                return False
    return True


class _TimeOptimal:
    """A jerk-limited motion found by ruckig."""

    def __init__(self, trajectory: ruckig.Trajectory) -> None:
        self.trajectory = trajectory
        self.duration: float = trajectory.duration

    @property
    def knots(self) -> np.ndarray:
        phases = (np.cumsum([*profile.brake.t, *profile.t]) for profile in self.trajectory.profiles[0])
        return np.append(np.minimum(np.concatenate(list(phases)), self.duration), self.duration)

    def within(self, limits: JointLimits, low: np.ndarray, high: np.ndarray) -> bool:
        # ruckig keeps the other limits itself. Its own `position_extrema` misses some overshoots.
        profiles = self.trajectory.profiles[0]
        for joint, span in enumerate((limits.velocity * self.duration).tolist()):
            least, most, start = float(low[joint]), float(high[joint]), profiles[joint].p[0]
            if start - span < least or start + span > most:
                lowest, highest = _extremes(profiles[joint])
                if lowest < least - _TOLERANCE or highest > most + _TOLERANCE:
                    return False
        return True

    def sample(self, times: np.ndarray) -> References:
        at_time = self.trajectory.at_time
        rows = np.array([at_time(time) for time in times.tolist()])
        # One layout of memory for all motions: what is given these has been compiled for it.
        return References(*np.ascontiguousarray(rows.swapaxes(0, 1)))


def _extremes(profile: ruckig.Profile) -> tuple[float, float]:
    """Lowest and highest position of one joint, over the phases of constant jerk."""
    positions = [profile.p[-1]]
    for part in (profile.brake, profile):
        for duration, j, p, v, a in zip(part.t, part.j, part.p, part.v, part.a, strict=False):
            if duration > 0:
                turns = (turn for turn in _roots(0.5 * j, a, v) if 0 < turn < duration)
                positions += [p + time * (v + time * (a / 2 + time * j / 6)) for time in (0.0, *turns)]
    return min(positions), max(positions)


def _roots(a: float, b: float, c: float) -> tuple[float, ...]:
    """Real roots of a x² + b x + c."""
    discriminant = b * b - 4 * a * c
    if a == 0:
        return (-c / b,) if b else ()
    if discriminant < 0:
        return ()
    half = -0.5 * (b + copysign(sqrt(discriminant), b))
    return (half / a, c / half) if half else (0.0,)


_Segment = _Quintic | _TimeOptimal


class _Motion:
    """Segments one after the other; the last one ends in rest and holds for ever."""

    def __init__(self, segments: Sequence[_Segment]) -> None:
        self.segments = segments
        self.begins = list(itertools.accumulate((segment.duration for segment in segments[:-1]), initial=0.0))
        self._bounds = [begin + _TOLERANCE for begin in self.begins[1:]]

    @cached_property
    def knots(self) -> np.ndarray:
        """Where polynomials meet, times [n] s from the start."""
        parts = zip(self.begins, self.segments, strict=True)
        return np.unique(np.round(np.concatenate([begin + segment.knots for begin, segment in parts]), 9))

    def sample(self, times: np.ndarray) -> References:
        """The references at ascending `times` [n] s after the start, each array [n, dof]."""
        first, last = bisect_left(self._bounds, times[0]), bisect_left(self._bounds, times[-1])
        if first == last:
            return self.segments[first].sample(times - self.begins[first])
        edges = [0, *np.searchsorted(times, self._bounds[first:last], side="right").tolist(), len(times)]
        parts = [
            self.segments[first + k].sample(times[begin:end] - self.begins[first + k])
            for k, (begin, end) in enumerate(itertools.pairwise(edges))
            if begin < end
        ]
        return References(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))


def _task(limits: JointLimits) -> ruckig.InputParameter:
    task = ruckig.InputParameter(limits.dof)
    task.max_velocity = limits.velocity.tolist()
    task.max_acceleration = limits.acceleration.tolist()
    task.max_jerk = limits.jerk.tolist()
    return task


def _at_rest(position: np.ndarray) -> References:
    return References(position, np.zeros_like(position), np.zeros_like(position))


class Gripper:
    """Opening of a parallel gripper [m], moved towards its target at no more than the speed of its drive.

    Args:
        opening: the largest [m]; 0 is closed.
        speed: fastest change of the opening [m/s].
        period: of the command loop [s].
    """

    def __init__(self, opening: float, speed: float, period: float) -> None:
        if not (opening > 0 and speed > 0 and period > 0):
            raise ServoError(f"gripper: expected positive opening, speed and period; got {opening}, {speed}, {period}")
        self.opening, self.speed, self.period = opening, speed, period
        self.reset(opening)

    def reset(self, opening: float) -> None:
        """Start from a measured opening [m]."""
        self.reference = self.target = min(max(float(opening), 0.0), self.opening)

    def set_target(self, opening: float) -> None:
        """Head for an opening [m]; beyond the range means fully closed or open. Raises `ServoError` when not finite."""
        if not isfinite(opening):
            raise ServoError(f"gripper: expected a finite opening, got {opening}")
        self.target = min(max(float(opening), 0.0), self.opening)

    def trajectory(self, n: int) -> np.ndarray:
        """Advance by `n` periods; the openings at their ends [n] m."""
        reachable = self.speed * self.period * np.arange(1, n + 1)
        way = self.target - self.reference
        openings: np.ndarray = self.reference + (np.minimum(reachable, way) if way > 0 else np.maximum(-reachable, way))
        self.reference = float(openings[-1])
        return openings

    def get_state(self) -> np.ndarray:
        """Reference and target, float64 [2]."""
        return np.array([self.reference, self.target])

    def set_state(self, state: np.ndarray) -> None:
        """Continue exactly from what `get_state` returned."""
        self.reference, self.target = (float(value) for value in state)
