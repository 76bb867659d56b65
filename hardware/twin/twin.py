"""The twin: a simulated robot that is commanded as a real one is, at joint level and at the robot's own rate.

It runs the physics of any arm task of `sim` and what a robot has below its command topics: references (see
`joint_reference`) and the torque loop. What an in-process environment does above that, Servo and inverse kinematics,
happens outside, in the Supervisor, as with a real robot. It knows no graph and no wall clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from typing import Any

import numpy as np

from robot_rl.hardware.joint_reference import CommandError, JointReference
from robot_rl.sim.arm import ArmEnv
from robot_rl.sim.arm_model import PHYSICS_PERIOD
from robot_rl.sim.controllers import ServoController
from robot_rl.sim.servo import Gripper, References

ENGAGING = 0.1
"""After a reset, how near the arm the first command has to begin [rad]; drives refuse to jump, as Franka's do."""


class Twin:
    """A simulated robot.

    Args:
        spec: of the environment, see `robot_rl.sim.spec.resolve`; its controller is not used.
        seed: of the first episode.

    Attributes:
        env: the environment; it must not be stepped.
        seed: of the present episode.
        divergences: how often the physics diverged; the episode then begins anew.
    """

    def __init__(self, spec: str | Mapping[str, Any], seed: int = 0) -> None:
        plain = {"task": spec} if isinstance(spec, str) else dict(spec)
        self.env = ArmEnv({**plain, "controller": "joint_position"})
        controller = self.env.controller
        assert isinstance(controller, ServoController)
        self._controller = controller
        self._arms = self.env.arm_model.arms
        self._grippers = [Gripper(arm.gripper.max_opening, arm.gripper.speed, PHYSICS_PERIOD) for arm in self._arms]
        self._references = [JointReference(arm.home) for arm in self._arms]
        self._ticks = 0
        self.divergences = 0
        self.reset(seed)

    @property
    def time(self) -> float:
        """Simulated time since the twin was made [s]; resets do not turn it back."""
        return self._ticks * PHYSICS_PERIOD

    @property
    def success(self) -> bool:
        """Whether the task is done in the present state."""
        return self.env.success

    def reset(self, seed: int) -> None:
        """Begin the episode of a seed, in the same state as `sim`'s `reset(seed=seed)`; the arms hold still."""
        self.env.reset(seed=seed)
        self.seed = seed
        self._engaged = [False] * len(self._arms)
        state = self.state()
        for arm, reference, gripper in zip(self._arms, self._references, self._grippers, strict=True):
            reference.hold(state[f"{arm.prefix}joint_position"])
            gripper.reset(float(state[f"{arm.prefix}gripper_opening"][0]))

    def follow(
        self,
        after: np.ndarray,
        position: np.ndarray,
        velocity: np.ndarray | None = None,
        acceleration: np.ndarray | None = None,
        arm: int = 0,
    ) -> None:
        """Go through points, instead of what was commanded before; see `JointReference.follow`.

        Args:
            after: times of the points from now [n] s, ascending; those that are not after now are left out.
            position, velocity, acceleration: of the joints there, each [n, dof] in rad and s.

        Raises:
            CommandError: the points are malformed or all past, or the first after a reset begins elsewhere.
        """
        self._engage(arm, position)
        self._references[arm].follow(
            self.time, self.time + np.asarray(after, float), position, velocity, acceleration
        )  # fmt: skip

    def follow_position(self, position: np.ndarray, period: float, arm: int = 0) -> None:
        """Take a setpoint [dof] rad as forward controllers do: reached a command period [s] later, then held.

        Raises:
            CommandError: see `follow`.
        """
        position = np.array(position, float)
        self._engage(arm, position[None])
        arrival = self.time + max(period, PHYSICS_PERIOD)
        ceiling = np.asarray(self._arms[arm].limits["acceleration"], float)
        self._references[arm].approach(self.time, position, period, arrival, ceiling)

    def move_gripper(self, opening: float, arm: int = 0) -> None:
        """Head for an opening [m], at the gripper's own speed. Raises `CommandError` when it is not finite."""
        if not np.isfinite(opening):
            raise CommandError(f"gripper: expected a finite opening, got {opening}")
        self._grippers[arm].set_target(opening)

    def advance(self, until: float) -> int:
        """Run the physics as far as a time [s], in whole steps; how many there were."""
        steps = floor((until - self.time) / PHYSICS_PERIOD + 1e-6)
        if steps <= 0:
            return 0
        times = (self._ticks + 1 + np.arange(steps)) * PHYSICS_PERIOD
        rows = [reference.sample(times) for reference in self._references]
        openings = np.stack([gripper.trajectory(steps) for gripper in self._grippers], 1)
        before = self.env.time
        self._controller.follow(
            rows[0] if len(rows) == 1 else References(*map(np.hstack, zip(*rows, strict=True))), openings
        )
        self._ticks += steps
        # MuJoCo resets a state that is no longer finite, and with it the time.
        if self.env.time < before + (steps - 0.5) * PHYSICS_PERIOD:
            self.divergences += 1
            self.reset(self.seed)
        return steps

    def _engage(self, arm: int, position: np.ndarray) -> None:
        here = self._references[arm].present.position
        if self._engaged[arm] or not len(position) or position[0].shape != here.shape:
            return
        away = np.abs(position[0] - here).max()
        if away > ENGAGING:
            raise CommandError(f"the first command begins {away:.3f} rad away from the arm; start where it stands")
        self._engaged[arm] = bool(np.isfinite(away))

    def state(self) -> dict[str, np.ndarray]:
        """All low-dimensional features of the present state, float64; a superset of the environment's contract."""
        return self.env.state()

    def image(self, camera: str) -> np.ndarray:
        """Picture of a camera of the contract, uint8 [height, width, 3]."""
        height, width, _ = self.env.contract.observation[camera].shape
        return self.env.image(camera, height, width)

    def close(self) -> None:
        """Free rendering resources."""
        self.env.close()
