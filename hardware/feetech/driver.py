"""What an arm of servos does with commands, without bus, graph or clock: states come in, goals go out.

| mode        | goes over to                                                                                 |
|-------------|----------------------------------------------------------------------------------------------|
| `limp`      | `following`, by a command that begins where the arm stands                                   |
| `following` | `holding`, when commands stop                                                                |
| `holding`   | `following`, by a command that begins where the arm stands                                   |
| any         | `fault`, by an error of a servo or a torque that was lost                                    |
| `fault`     | `holding`, when the errors have been gone for a while; `limp` where torque was lost          |

Without torque nothing is written that a servo would move for. A trajectory also carries its way to rest, so the arm
brakes within its limits when commands stop; a fault refuses further commands, lets the arm come to rest on that way,
and then holds it where it is, so that nothing is pushed against what overloaded it. A gripper that is overloaded by
what it holds is no fault of the arm: it closes no further than it is, until that is over.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

import numpy as np

from robot_rl.hardware.bindings import Setpoints
from robot_rl.hardware.feetech import registers
from robot_rl.hardware.feetech.arm import State
from robot_rl.hardware.joint_reference import CommandError, JointReference
from robot_rl.hardware.robot_file import ARRAY, Driver, RobotFile, RobotFileError
from robot_rl.sim.servo import Gripper

Mode = Literal["limp", "following", "holding", "fault"]

ENGAGING = 0.1
"""How near the arm a command has to begin that gives it torque, or that comes after a pause [rad]."""

RECOVERY = 1.0
"""Without errors, until a fault is over [s]; the command after it has to begin where the arm stands."""

GRIPPING = 1 << 3 | 1 << 5
"""Error bits that a gripper gets by holding something: overcurrent, overload."""

SET_BACK = 1.0
"""A clock that shows so much less than before was set back [s]."""

BRAKING = 2.0
"""After which a fault does not wait for the arm to come to rest any longer [s]."""


class Goal(NamedTuple):
    """What the servos shall do now.

    Attributes:
        position: of all motors [n] rad.
        engage: they have to be given torque first.
        only: which of them may be written to [n]: one that has lost its torque would get it back by that.
    """

    position: np.ndarray
    engage: bool
    only: np.ndarray


class ArmDriver:
    """See above.

    Args:
        robot: with a driver.

    Attributes:
        mode: see above.
        problem: why it is in fault, or what was refused last; empty when all is well.
        counts: `commands` and `rejected`.

    Raises:
        RobotFileError: the file has no driver, or commands joints that it has no motors for.
    """

    def __init__(self, robot: RobotFile) -> None:
        if robot.driver is None:
            raise RobotFileError(str(robot.path), [f"driver: missing; {robot.name} is driven by drivers of its own"])
        self._robot, self._driver = robot, robot.driver
        self.names = tuple(self._driver.motors)
        elements = robot.commands["joint_position"].elements or robot.streams["joint_position"].elements
        if missing := set(elements) - set(self.names):
            raise RobotFileError(str(robot.path), [f"driver.motors: missing {', '.join(sorted(missing))}"])
        self._arm = [self.names.index(name) for name in elements]
        self._jaw = _jaw(robot, self._driver, self.names)
        self._ceiling = np.array(robot.limits.acceleration, float)
        self._period = 1.0 / robot.command_rate_hz
        self._reference = JointReference(np.zeros(len(self._arm)))
        # Compiled now, not while the arm moves.
        self._reference.follow(0.0, np.ones(1), np.zeros((1, len(self._arm))))
        self._reference.sample(np.ones(1))
        self._gripper = None
        if robot.gripper is not None and self._jaw is not None:
            self._gripper = Gripper(robot.gripper.opening, robot.gripper.speed, self._period)
        self.mode: Mode = "limp"
        self.problem = ""
        self.counts: Counter[str] = Counter()
        self._state: State | None = None
        self._goal: np.ndarray | None = None
        self._time = self._commanded = self._faulty = self._faulted = -np.inf
        self._engage = self._holds = self._yields = False

    @property
    def at_rest(self) -> bool:
        """Whether the arm is not commanded to move."""
        return self.mode == "limp" or not np.abs(self._reference.present.velocity).max() > 1e-3

    def command(self, setpoints: Setpoints, now: float) -> None:
        """A command has come. One that is refused changes nothing; `problem` says why.

        Args:
            setpoints: as `bindings.decode_command` gives them.
            now: the clock [s].
        """
        self.counts["commands"] += 1
        try:
            if self.mode == "fault":
                raise CommandError(f"refused: {self.problem}")
            if self._state is None:
                raise CommandError("refused: the arm has not been seen yet")
            if setpoints.feature == "gripper_opening":
                self._move_gripper(float(setpoints.position[-1, 0]))
            else:
                self._follow(setpoints, now)
        except CommandError as error:
            self.refuse(str(error))

    def refuse(self, problem: str) -> None:
        """A command cannot be followed."""
        self.counts["rejected"] += 1
        if self.mode != "fault":
            self.problem = problem

    def step(self, state: State, now: float) -> Goal | None:
        """The next cycle: the newest state, and what is to be done; None while the arm is limp.

        Args:
            now: the clock [s].
        """
        self._state = state
        if now < self._time - SET_BACK:
            self._begin_anew(now)
        self._watch(state, now)
        self._time = max(now, self._time)
        if self.mode == "limp":
            return None
        if self.mode == "following" and now - self._commanded > self._driver.timeout:
            self.mode = "holding"
        if self._goal is None:
            self._goal = state.position.copy()
        position = self._reference.sample(np.array([self._time])).position[-1]
        if self.mode == "fault" and self._faulted > 0 and (self.at_rest or now - self._faulted > BRAKING):
            self._relax(state)
            self._faulted = -np.inf
            position = self._reference.present.position
        self._goal[self._arm] = position
        if self._gripper is not None and self._jaw is not None and self.mode != "fault":
            here = self._opening(float(state.position[self._jaw]))
            if self._yields and self._gripper.target < here:
                self._gripper.reset(here)
            self._goal[self._jaw] = self._angle(float(self._gripper.trajectory(1)[-1]))
        engage, self._engage = self._engage, False
        only = np.ones(len(self.names), bool) if engage else state.torque.astype(bool)
        return Goal(self._goal.copy(), engage, only)

    def _begin_anew(self, now: float) -> None:
        """The clock was set back: what was commanded is of a time to come. Hold, until there is a command of now."""
        self._reference.hold(self._reference.present.position)
        self._time, self._commanded = now, -np.inf
        self._faulty, self._faulted = min(self._faulty, now), min(self._faulted, now)

    def lost(self) -> None:
        """The bus was lost: whatever the arm does now, the next command has to begin where it stands."""
        self._state, self._goal = None, None
        self.mode, self._faulted = "limp", -np.inf
        self._engage = self._holds = False

    def _follow(self, setpoints: Setpoints, now: float) -> None:
        assert self._state is not None
        here, before = self._state.position[self._arm], self._time
        times = (now if setpoints.start is None else setpoints.start) + setpoints.times
        first = setpoints.position[min(int(np.searchsorted(times, before, "right")), len(times) - 1)]
        if self.mode == "following" and times[-1] <= before and self._is_there(setpoints.position[-1]):
            # At rest a command is one point, which a slow transport makes past; what it asks for has been done.
            self._commanded, self.problem = now, ""
            return
        if self.mode != "following" and (away := float(np.abs(first - here).max())) > ENGAGING:
            raise CommandError(f"the command begins {away:.3f} rad away from the arm; start where it stands")
        if self.mode == "limp":
            self._reference.hold(here)
        if self._robot.commands[setpoints.feature].type == ARRAY:
            self._reference.approach(before, first, self._period, max(now, before) + self._period, self._ceiling)
        else:
            rows = setpoints.position, setpoints.velocity, setpoints.acceleration
            self._reference.follow(before, times, *rows)
        if self.mode == "limp":
            self._take_hold(self._state)
        self.mode, self._commanded, self.problem = "following", now, ""

    def _is_there(self, position: np.ndarray) -> bool:
        return self.at_rest and bool(np.abs(position - self._reference.present.position).max() < 1e-3)

    def _take_hold(self, state: State) -> None:
        self._goal = state.position.copy()
        self._engage = self._holds = True
        if self._gripper is not None and self._jaw is not None:
            self._gripper.reset(self._opening(float(state.position[self._jaw])))

    def _move_gripper(self, opening: float) -> None:
        # Alone it gives no torque: the arm says when.
        if self._gripper is not None and self.mode != "limp":
            self._gripper.set_target(opening)

    def _watch(self, state: State, now: float) -> None:
        errors = state.errors.copy()
        if self._jaw is not None:
            self._yields = bool(errors[self._jaw] & GRIPPING)
            errors[self._jaw] &= ~GRIPPING
        words = {name: registers.errors(int(bits)) for name, bits in zip(self.names, errors, strict=True) if bits}
        problems = [f"{name}: {', '.join(said)}" for name, said in words.items()]
        if self._holds and not self._engage and not state.torque.all():
            fallen = [name for name, holds in zip(self.names, state.torque, strict=True) if not holds]
            problems.append(f"{', '.join(fallen)}: no torque any longer, as after a loss of power")
            self._holds = False
        if problems:
            self._faulty = now
            self.problem = "; ".join(problems)
            if self.mode != "fault":
                self.mode, self._faulted = "fault", now
        elif self.mode == "fault" and now - self._faulty > RECOVERY:
            self.mode, self.problem = "holding" if self._holds else "limp", ""

    def _relax(self, state: State) -> None:
        """Hold the arm where it is."""
        assert self._goal is not None
        self._reference.hold(state.position[self._arm])
        self._goal = state.position.copy()
        if self._gripper is not None and self._jaw is not None:
            self._gripper.reset(self._opening(float(state.position[self._jaw])))

    def _angle(self, opening: float) -> float:
        scale = self._robot.commands["gripper_opening"].scale
        return opening if scale is None else float(scale.to_graph(opening))

    def _opening(self, angle: float) -> float:
        scale = self._robot.commands["gripper_opening"].scale
        return angle if scale is None else float(scale.to_value(angle))


def _jaw(robot: RobotFile, driver: Driver, names: tuple[str, ...]) -> int | None:
    """Which motor moves the gripper."""
    if robot.gripper is None:
        return None
    elements = robot.commands["gripper_opening"].elements or robot.streams["gripper_opening"].elements
    if len(elements) != 1 or elements[0] not in driver.motors:
        raise RobotFileError(str(robot.path), [f"driver: a gripper is one motor of its own, got {list(elements)}"])
    return names.index(elements[0])
