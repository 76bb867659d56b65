"""The Supervisor: the safety layer between every source of actions and the robot. No clock, threads or network here.

    lease = supervisor.acquire("flow", "policy", now)
    supervisor.propose(Proposal(lease.id, sequence, stamp, action), now)      # heartbeat(lease.id, now) beside it
    command, status = supervisor.tick(now, observation)                       # at least once per control period

The reference that is commanded always belongs to a motion that ends in rest and was checked as a whole until there:
within position, velocity, acceleration and jerk limits (by the Servo) and free by every `Check` (at samples of
`CHECK_SPACING`). A proposal only ever replaces it by another such motion that starts in the present reference, so no
proposal, hand-over or fault makes the stream jump. The declared safe state is rest: the arm brakes within its limits.

| from                        | to          | when                                                                  |
|-----------------------------|-------------|-----------------------------------------------------------------------|
| idle, ready, held           | homing      | `home()`, observations are fresh                                      |
| homing                      | ready       | the arm rests in the home pose, and the controller says so if it was  |
|                             |             | given the whole way                                                   |
| held                        | ready       | a lease is granted, observations are fresh, the arm is at rest        |
| ready                       | running     | first accepted proposal of a policy, script or replay                 |
| ready                       | intervening | first accepted proposal of a person's device                          |
| running                     | intervening | a device acquires the lease: it takes over, the other lease ends      |
| running, intervening        | ready       | the lease is released, or granted to the next source once it expired  |
| ready, homing               | held        | a fault: observations stop, the arm does not follow the commands, the |
|                             |             | clock goes back, a check blocks the way home, the controller does not |
|                             |             | go it, or `hold()`                                                    |
| running, intervening        | held        | such a fault, or actions or heartbeats stop                           |
| ready, held                 | idle        | `disengage()`, the arm is at rest                                     |
| any but stopped             | stopped     | `emergency_stop()`                                                    |
| stopped                     | idle        | `clear()`, the arm is at rest                                         |

On the way to `held` and `stopped` the lease ends, so a source that comes back has to acquire a new one. Commands are
sent from homing on until the next `idle`; `held` and `stopped` brake, then keep commanding the place of rest. On a way
home that the controller was given as a whole (`route`) none are sent, but all else is watched as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isfinite

import numpy as np

from robot_rl.datasets import Contract
from robot_rl.hardware.safety.homing import Approach, Route, control_periods, plan_route
from robot_rl.hardware.safety.lease import Lease, LeaseRefused, SourceKind
from robot_rl.hardware.safety.motion_check import Check
from robot_rl.hardware.safety.proposal import Proposal
from robot_rl.hardware.safety.supervision import FOLLOWING, Supervision
from robot_rl.hardware.safety.supervisor_state import (
    LAG,
    TRANSITIONS,
    Command,
    Observation,
    State,
    Status,
    Watchdog,
)
from robot_rl.sim.compiled import compiled
from robot_rl.sim.rotation import matrix_from_6d, quaternion_from_matrix
from robot_rl.sim.servo import Gripper, References, Servo, ServoError

CHECK_SPACING = 0.05
"""Largest motion of any joint between two checked positions [rad]; the checks' own margins must cover that much."""

ROUTE_PATIENCE = 5.0
"""How much longer than planned a controller may take for the way home until it says that it is there [s]."""


class SupervisorError(RuntimeError):
    """A request does not fit the present state, or the contract cannot be supervised; nothing has changed."""


class Supervisor(Supervision):
    """Turns observations and proposals into commands that never exceed a limit.

    Args:
        contract: whose action is `joint_position` [dof], or `ee_pose` [9] (position_rotation_6d) for a Servo with
            kinematics, absolute, and `gripper_opening` [1] where there is a gripper.
        servo: of the arm, for the Supervisor alone; its target period is the control period.
        home: joint position [dof] rad.
        gripper: of the same period, if the contract commands one.
        checks: what else may forbid a joint position; a failing check stops the motion before it begins.
        watchdog: the time-outs; default: those of `Watchdog`.
        homing_speed: of the fastest joint on the way home [rad/s].
        periods: of the servo in one tick.
    """

    def __init__(
        self,
        contract: Contract,
        servo: Servo,
        home: np.ndarray,
        gripper: Gripper | None = None,
        checks: Sequence[Check] = (),
        watchdog: Watchdog | None = None,
        homing_speed: float = 0.5,
        periods: int = 1,
    ) -> None:
        watchdog = watchdog or Watchdog()
        super().__init__(contract.action_dim, watchdog)
        self._servo, self._gripper, self._checks = servo, gripper, tuple(checks)
        self._pose_actions = "ee_pose" in contract.action
        _supervisable(contract, servo, gripper)
        self._home = np.array(home, float)
        limits = servo.limits
        inside = self._home.shape == (limits.dof,) and (limits.lower <= home).all() and (home <= limits.upper).all()
        if not inside:
            raise SupervisorError(f"home: expected {limits.dof} positions within the limits, got {self._home.tolist()}")
        if not (homing_speed > 0 and 1 <= periods <= round(servo.target_period / servo.period)):
            raise SupervisorError(f"homing_speed {homing_speed} or periods {periods}: too small, or ticks are too rare")
        self._slices = contract.action_slices
        self._watchdog, self._homing_speed, self._periods = watchdog, homing_speed, periods
        self._observation: Observation | None = None
        self._now = -np.inf
        self._acted = -np.inf
        self._engaged = False  # whether the servo stands where the arm is, and may command it
        self._approach, self._homing_ticks = Approach(servo, self._home, homing_speed), 0
        self._route: Route | None = None
        self._route_due = np.inf
        self._asked = self._home, self._home
        # One row for each tick of the last LAG seconds, the oldest overwritten by the newest.
        self._commanded = np.zeros((max(2, int(np.ceil(LAG / (periods * servo.period)))), limits.dof))
        self._ticks = 0
        self._astray: str | None = None

    @property
    def gripper_target(self) -> float | None:
        """The opening that the gripper heads for [m]; None without a gripper."""
        return None if self._gripper is None else self._gripper.target

    @property
    def at_rest(self) -> bool:
        """Whether the commanded arm stands still until something is proposed."""
        return not self._engaged or self._servo.time_to_rest == 0.0

    @property
    def route(self) -> Route | None:
        """The way home that the controller is to go by itself, while it does."""
        return self._route

    def acquire(self, source: str, kind: SourceKind, now: float) -> Lease:
        """Grant a source the lease; the arm brakes until its first proposal.

        Raises:
            LeaseRefused: another source holds the lease, or the state does not allow one.
        """
        if self._state not in (State.READY, State.HELD, *FOLLOWING):
            raise LeaseRefused(f"source {source!r}: no lease while {self._state} ({self._reason}); home the arm first")
        if self._state is State.HELD and not (self.at_rest and self._is_observed(now)):
            raise LeaseRefused(f"source {source!r}: held ({self._reason}); wait for rest and fresh observations")
        if self._state is State.HELD and self._astray:
            raise LeaseRefused(f"source {source!r}: held, and {self._astray}; disengage and home")
        lease = self._desk.acquire(source, kind, now)
        self._brake()
        self._acted = now
        if self._state is State.HELD:
            self._enter(State.READY, f"lease granted to {source!r}")
        elif self._state is State.RUNNING:
            if kind == "device":
                self._enter(State.INTERVENING, f"{source!r} takes over")
            else:
                self._enter(State.READY, f"lease granted to {source!r}, the last one had expired")
        elif self._state is State.INTERVENING:
            self._enter(State.READY, f"lease granted to {source!r}, the last one had expired")
        return lease

    def propose(self, proposal: Proposal, now: float) -> str | None:
        """Follow an action from now on, or count and return the reason why not."""
        reason = self._follow(proposal, now)
        if reason is not None:
            self.reject(reason)
        return reason

    def home(self, now: float, as_route: bool = False) -> None:
        """Move to the home pose.

        Args:
            now: the clock [s].
            as_route: plan the whole way and leave it to the controller: give it `route` and tell by `route_begins`,
                `route_ends` and `route_fails` what comes of it. The arm has to be at rest.

        Raises:
            SupervisorError: unless idle, ready or held, and observed; or the whole way cannot be planned.
        """
        if State.HOMING not in TRANSITIONS[self._state]:
            raise SupervisorError(f"cannot home while {self._state} ({self._reason}); release or clear the stop")
        if not self._is_observed(now) or self._observation is None:
            raise SupervisorError("cannot home without a fresh observation; start the robot's driver")
        if as_route and not self.at_rest:
            raise SupervisorError("the controller is given the way home from rest only, and the arm still moves; wait")
        if self._state is State.IDLE:
            self._engage(self._observation)
        self._brake()
        if as_route:
            route = plan_route(self._servo, self._home, self._homing_speed, self._head_home)
            if isinstance(route, str):
                self._engaged = self._state is not State.IDLE
                raise SupervisorError(f"way home blocked: {route}")
            self._route, self._route_due = route, now + route.duration + ROUTE_PATIENCE
        self._desk.revoke()
        self._enter(State.HOMING, "asked to home")

    def route_begins(self) -> None:
        """The controller has accepted the route, and moves."""
        if self._route is not None:
            self._route.begun = True

    def route_ends(self) -> None:
        """The controller has gone the route to its end."""
        if self._route is not None:
            self._route.ended = True

    def route_fails(self, reason: str) -> None:
        """The controller does not go the route, or not to its end, and does not move: the arm is held where it is."""
        if self._route is not None:
            self._desk.revoke()
            self._stand_where_observed()
            self._enter(State.HELD, f"way home by the controller: {reason}")

    def disengage(self) -> None:
        """Stop commanding the arm, which then may be moved by others. Raises `SupervisorError` unless at rest."""
        if State.IDLE not in TRANSITIONS[self._state] or self._state is State.STOPPED or not self.at_rest:
            raise SupervisorError(f"cannot disengage while {self._state}, or the arm still moves; release or wait")
        self._desk.revoke()
        self._engaged = False
        self._enter(State.IDLE, "disengaged")

    def hold(self, reason: str) -> None:
        """Brake and end the lease; the next lease or homing goes on. Does nothing when idle, held or stopped."""
        if State.HELD in TRANSITIONS[self._state]:
            self._halt(State.HELD, reason)

    def emergency_stop(self, reason: str) -> None:
        """Brake at once and stay stopped until `clear()`, whatever anyone proposes. Never fails."""
        if self._state is not State.STOPPED:
            self._halt(State.STOPPED, f"emergency stop: {reason}")

    def clear(self) -> None:
        """Undo the emergency stop, on purpose. Raises `SupervisorError` unless stopped and at rest."""
        if self._state is not State.STOPPED or not self.at_rest:
            raise SupervisorError(f"nothing to clear while {self._state}, or the arm still moves; wait for its rest")
        self._engaged = False
        self._enter(State.IDLE, "emergency stop cleared")

    def until_rest(self, spacing: float = np.inf) -> tuple[np.ndarray, References]:
        """The motion after the last command until rest: times [m] s after it, at most `spacing` apart, and references.

        Quintics between them are the motion itself. A controller that has it brings the arm to rest as planned, when no
        further command arrives.
        """
        knots = self._servo.knots if self._engaged else np.zeros(0)
        grid = np.arange(spacing, knots[-1], spacing) if len(knots) and np.isfinite(spacing) else np.zeros(0)
        times = np.union1d(knots, grid)
        return times, References(*(rows[1:] for rows in self._servo.preview(np.append(0.0, times))))

    def tick(
        self, now: float, observation: Observation | None = None, missed: int = 0
    ) -> tuple[Command | None, Status]:
        """Advance by `periods` periods of the robot.

        Args:
            now: the clock [s].
            observation: the newest one, again or not; None when there is none.
            missed: ticks that were left out, during which the robot went on along what `until_rest` or `route` had
                told it.

        Returns:
            What to send, None before homing and while the controller goes a route; and the status to publish.
        """
        if not now >= self._now:
            self._observation = None
            self._desk.revoke()
            if self._state not in (State.IDLE, State.HELD, State.STOPPED):
                self._halt(State.HELD, "clock went back")
        self._now = now
        if observation is not None:
            self._observe(observation, now)
        if fault := self._fault(now):
            self._halt(State.HELD, fault)
        elif self._state is State.READY and self._desk.expired(now):
            self._desk.revoke()
        if self._route is not None:
            self._go_along(self._route, missed)
        elif self._engaged:
            self._skip(missed)
            if self._state is State.HOMING:
                self._approach_home()
        return (self._command() if self._engaged and self._route is None else None), self.status

    def _observe(self, observation: Observation, now: float) -> None:
        """Take over an observation that is newer and makes sense; others age the last one, which the watchdog sees."""
        position = observation.joint_position
        if self._observation is not None and observation.stamp <= self._observation.stamp:
            if observation.stamp < self._observation.stamp:
                self._rejected["observation_out_of_order"] += 1
        elif not observation.stamp <= now + self._watchdog.skew:
            self._rejected["observation_from_the_future"] += 1
        elif not _fits(position, self._home.shape):
            self._rejected["observation_wrong_shape"] += 1
        elif not all(map(isfinite, (*position.tolist(), observation.gripper_opening))):
            self._rejected["observation_non_finite"] += 1
        else:
            self._observation = observation
            self._astray = self._strays(position) if self._engaged else None

    def _is_observed(self, now: float) -> bool:
        return self._observation is not None and now - self._observation.stamp <= self._watchdog.observation

    def _fault(self, now: float) -> str | None:
        if self._state in (State.IDLE, State.HELD, State.STOPPED):
            return None
        if not self._is_observed(now):
            return "observations stopped"
        if self._astray:
            return self._astray
        if self._state not in FOLLOWING:
            return None
        if self._desk.expired(now):
            return "heartbeat of the lease stopped"
        return "actions stopped" if now - self._acted > self._watchdog.action else None

    def _strays(self, position: np.ndarray) -> str | None:
        """Which joint is not where it was commanded to be, in any of the last ticks."""
        joint, error = _furthest(self._commanded, np.array(position, float))
        if error <= self._watchdog.following_error:
            return None
        return f"joint {joint + 1} is {error:.3f} rad away from where it was commanded"

    def _follow(self, proposal: Proposal, now: float) -> str | None:
        if reason := self._screening.rejection(proposal, self._desk, now):
            return reason
        if self._state not in (State.READY, *FOLLOWING):
            return "wrong_state"
        target = self._joint_target(proposal.action)
        if target is None:
            return "unreachable"
        self._acted = now
        self._accepted += 1
        if self._state is State.READY:
            holder = self._desk.holder
            assert holder is not None
            following = State.INTERVENING if holder.kind == "device" else State.RUNNING
            self._enter(following, f"{holder.source!r} acts")
        if self._gripper is not None:
            self._gripper.set_target(float(proposal.action[self._slices["gripper_opening"]][0]))
        forbidden = self._head_for(target)
        self._limited += bool(forbidden or self._asks_too_much(target))
        return forbidden

    def _asks_too_much(self, target: np.ndarray) -> bool:
        """Whether a target, after the two before it, asks for more than the limits allow.

        That is a position out of range, or steps between targets [dof] that no joint may do in a control period. How
        far the arm lags behind targets within the limits does not count.
        """
        limits, (before, last) = self._servo.limits, self._asked
        self._asked = last, target
        bounds = limits.lower, limits.upper, limits.velocity, limits.acceleration
        return _is_too_much(before, last, target, *bounds, self._servo.target_period)

    def _joint_target(self, action: np.ndarray) -> np.ndarray | None:
        if not self._pose_actions:
            return np.array(action[self._slices["joint_position"]], float)
        kinematics = self._servo.kinematics
        assert kinematics is not None
        pose = np.asarray(action[self._slices["ee_pose"]], float)
        reach = self._servo.limits.velocity * self._servo.target_period
        if np.linalg.norm(np.cross(pose[3:6], pose[6:9])) < 1e-3 or np.abs(pose).max() > 1e3:
            return None
        quaternion = quaternion_from_matrix(matrix_from_6d(pose[3:]))
        target = kinematics.inverse(np.concatenate([pose[:3], quaternion]), self._servo.target, reach)
        return target if np.isfinite(target).all() else None

    def _head_for(self, target: np.ndarray) -> str | None:
        """Begin the motion to a target unless a check forbids it; then the motion before goes on to its rest."""
        before = self._servo.remember()
        self._servo.set_target(target)
        forbidden = self._forbidden(self._path())
        if forbidden:
            self._servo.recall(before)
        return forbidden

    def _path(self) -> np.ndarray:
        """Positions [n, dof] of the present motion until its rest, from now on, at most `CHECK_SPACING` apart."""
        servo, period = self._servo, self._servo.target_period
        times = np.arange(ceil(servo.time_to_rest / period) + 1) * period
        position, velocity, _ = servo.preview(times)
        finer = _finer(times, velocity, servo.limits.acceleration, period)
        return position if len(finer) == len(times) else servo.preview(finer).position

    def _forbidden(self, path: np.ndarray) -> str | None:
        return next((forbidden for check in self._checks if (forbidden := check(path))), None)

    def _brake(self) -> None:
        if not self._engaged:
            return
        before = self._servo.remember()
        self._servo.stop()
        self._asked = self._servo.target, self._servo.target
        # The motion before was free until its rest; braking leaves its path a little.
        if self._forbidden(self._path()):
            self._servo.recall(before)
        if self._gripper is not None:
            self._gripper.set_target(self._gripper.reference)

    def _engage(self, observation: Observation) -> None:
        """Begin to command the arm, from where it is."""
        try:
            self._servo.reset(observation.joint_position)
        except ServoError as error:
            raise SupervisorError(f"cannot home from where the arm stands: {error}") from error
        if self._gripper is not None:
            self._gripper.reset(observation.gripper_opening)
        self._engaged = True
        self._commanded[:] = self._servo.reference.position
        self._astray = None

    def _approach_home(self) -> None:
        self._homing_ticks -= self._periods
        if self._homing_ticks < 0 and (target := self._approach.target()) is not None:
            self._homing_ticks += control_periods(self._servo)
            if forbidden := self._head_home(target):
                self._halt(State.HELD, f"way home blocked: {forbidden}")
        elif self.at_rest and (self._servo.target == self._home).all():
            self._enter(State.READY, "home")

    def _head_home(self, target: np.ndarray) -> str | None:
        if self._stands_free():
            return self._head_for(target)
        # An arm that starts where it may not stand has to be allowed to leave.
        self._servo.set_target(target)
        return None

    def _go_along(self, route: Route, missed: int) -> None:
        """Keep the reference where the controller is on its route, and see the end of it."""
        if route.begun:
            route.advance((1 + missed) * self._periods)
            self._note()
        if route.ended and route.done:
            self._enter(State.READY, "home")
        elif self._now > self._route_due:
            reason = "did not end in time" if route.begun else "was not begun in time"
            self.route_fails(reason)

    def _stand_where_observed(self) -> None:
        """Command, from now on, the place where the arm is, once a controller has moved it elsewhere or not at all."""
        if self._observation is not None:
            position = np.clip(self._observation.joint_position, self._servo.limits.lower, self._servo.limits.upper)
            self._servo.reset(position)
            self._commanded[:] = position

    def _stands_free(self) -> bool:
        return not self._forbidden(self._servo.reference.position[None])

    def _halt(self, state: State, reason: str) -> None:
        self._desk.revoke()
        if self._route is not None and self._astray:
            self._stand_where_observed()
        else:
            self._brake()
        self._enter(state, reason)

    def _enter(self, state: State, reason: str) -> None:
        super()._enter(state, reason)
        self._approach, self._homing_ticks = Approach(self._servo, self._home, self._homing_speed), 0
        if state is not State.HOMING:
            self._route = None

    def _skip(self, missed: int) -> None:
        """Catch up with a robot that went on by itself, at most until its rest."""
        count = min(missed * self._periods, int(np.ceil(self._servo.time_to_rest / self._servo.period)))
        if count > 0:
            self._servo.trajectory(count)

    def _command(self) -> Command:
        references = self._servo.trajectory(self._periods)
        self._note()
        opening = None if self._gripper is None else self._gripper.trajectory(self._periods)
        return Command(*references, opening)

    def _note(self) -> None:
        """Keep where the arm was commanded to be by this tick."""
        self._commanded[self._ticks % len(self._commanded)] = self._servo.reference.position
        self._ticks += 1


@compiled
def _finer(times: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray, period: float) -> np.ndarray:
    """Times with others between, so that no joint goes further than `CHECK_SPACING` from one to the next.

    Args:
        times: `period` [s] apart [n].
        velocity: at these times [n, dof] rad/s.
        acceleration: of no joint is larger [dof] rad/s².
    """
    count = 1
    parts = np.empty(len(times) - 1, np.int64)
    for index in range(len(parts)):
        fastest = 0.0
        for joint in range(len(acceleration)):
            speeds = abs(velocity[index, joint]) + abs(velocity[index + 1, joint])
            fastest = max(fastest, 0.5 * (speeds + acceleration[joint] * period))
        parts[index] = int(np.ceil(fastest * period / CHECK_SPACING))
        count += parts[index]
    finer = np.empty(count)
    finer[count - 1] = times[len(parts)]
    count = 0
    for index in range(len(parts)):
        for part in range(parts[index]):
            finer[count] = times[index] + period / parts[index] * part
            count += 1
    return finer


@compiled
def _is_too_much(
    before: np.ndarray,
    last: np.ndarray,
    target: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    velocity: np.ndarray,
    acceleration: np.ndarray,
    period: float,
) -> bool:
    """Whether three targets [dof] `period` [s] apart ask any joint for more than its limits."""
    for joint in range(len(target)):
        step = (target[joint] - last[joint]) / period
        bend = (target[joint] - 2 * last[joint] + before[joint]) / period**2
        if not lower[joint] <= target[joint] <= upper[joint]:
            return True
        if abs(step) > velocity[joint] or abs(bend) > acceleration[joint]:
            return True
    return False


@compiled
def _furthest(commanded: np.ndarray, position: np.ndarray) -> tuple[int, float]:
    """The joint that is furthest outside of where it was commanded [ticks, dof], and how far [rad]."""
    furthest, most = 0, -np.inf
    for joint in range(len(position)):
        low, high = np.inf, -np.inf
        for row in range(len(commanded)):
            low, high = min(low, commanded[row, joint]), max(high, commanded[row, joint])
        error = max(low - position[joint], position[joint] - high)
        if error > most:
            furthest, most = joint, error
    return furthest, most


def _fits(values: object, shape: tuple[int, ...]) -> bool:
    return isinstance(values, np.ndarray) and values.shape == shape and values.dtype.kind in "fiu"


def _supervisable(contract: Contract, servo: Servo, gripper: Gripper | None) -> None:
    arm = {"ee_pose": 9} if "ee_pose" in contract.action else {"joint_position": servo.limits.dof}
    wanted = arm | ({"gripper_opening": 1} if gripper is not None else {})
    found = {name: feature.size for name, feature in contract.action.items()}
    if found != wanted or any(feature.mode != "absolute" for feature in contract.action.values()):
        raise SupervisorError(f"contract {contract.name!r}: expected the absolute actions {wanted}, got {found}")
    if "ee_pose" in found and servo.kinematics is None:
        raise SupervisorError(f"contract {contract.name!r} commands poses; give the Servo kinematics")
    if abs(servo.target_period * contract.rate_hz - 1) > 1e-6:
        raise SupervisorError(f"contract at {contract.rate_hz} Hz, but servo with period {servo.target_period} s")
    if gripper is not None and gripper.period != servo.period:
        raise SupervisorError(f"periods of gripper {gripper.period} and servo {servo.period} differ")
