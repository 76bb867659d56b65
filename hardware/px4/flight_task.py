"""A drone's task, flown outside of the simulator: what a policy observes of it, and how it goes.

The simulator's own world of the task follows the vehicle: odometry goes in, and what comes out (reference, gates, goal,
the last action, success) is computed as in training. Inertial sensors and pictures are the vehicle's own. The task
stands still at its beginning until an action is followed: before that PX4 may need half a second to change what it
controls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from robot_rl.datasets import Contract, ContractError, satisfies
from robot_rl.hardware.alignment import Alignment, Health, Row
from robot_rl.hardware.px4.vehicle_file import INERTIAL, OBSERVED, VehicleFile
from robot_rl.hardware.robot_file import RobotFileError, Stream
from robot_rl.sim.drone.world import DroneWorld
from robot_rl.sim.spec import resolve

OFFERED = (*OBSERVED, *INERTIAL, "reference", "next_gate", "gate_after", "poles", "goal", "last_action")
"""What a policy may observe in flight, beside the cameras of the vehicle's file."""

CONTROLLER = "px4_"
"""Before the simulator's name of a controller."""


def environment(robot: VehicleFile, contract: Contract, task: str, horizon: int = 0) -> dict[str, Any]:
    """The specification of the simulated environment that the vehicle takes the place of.

    Args:
        task: `drone/...`.
        horizon: of an episode in control steps; 0: the task's own.

    Raises:
        SpecError: there is no such task or vehicle.
    """
    return resolve({
        "task": task, "robot": robot.vehicle, "controller": contract.controller.removeprefix(CONTROLLER),
        "rate_hz": round(contract.rate_hz), "horizon": horizon or None, "randomization": "none",
        "cameras": {name: list(feature.shape[:2]) for name, feature in contract.cameras.items()},
    })  # fmt: skip


class FlightTask:
    """Brings odometry onto the control clock, as an `Alignment`, and adds to it what the task is about.

    Args:
        robot: as its file says, with all of `OBSERVED`.
        contract: of the policy.
        task, horizon: see `environment`.

    Attributes:
        result: how the task ended, for people and for `policy/status`; None before.

    Raises:
        RobotFileError, ContractError, SpecError: they do not fit.
    """

    def __init__(self, robot: VehicleFile, contract: Contract, task: str, horizon: int = 0) -> None:
        offered = (*OFFERED, *robot.cameras)
        if odd := [name for name in contract.observation if name not in offered]:
            raise ContractError(
                f"contract {contract.name!r}: no {', '.join(odd)} is heard from a vehicle;",
                [f"train with policy.observation=[...] of {', '.join(offered)}"],
            )
        if missing := [name for name in OBSERVED if name not in robot.streams]:
            raise RobotFileError(robot.name, [f"contract: a task needs {', '.join(missing)}, too"])
        self._world = DroneWorld(environment(robot, contract, task, horizon), 1)
        satisfies(contract, self._world.contract)
        heard = {**robot.contract.select(OBSERVED).observation, **contract.observation}
        self._alignment, self._names = (
            Alignment(robot.for_policy(replace(contract, observation=heard))),
            list(contract.observation),
        )
        self._time, self._action = 0.0, np.zeros(contract.action_dim, np.float32)
        self._under_way = False
        self.result: dict[str, Any] | None = None
        self._warm_up()

    def _warm_up(self) -> None:
        """Go through it once: compiled code takes half a second to load, for which no flight can wait."""
        self.begin(0)
        odometry = self._world.batch.read("odometry")
        self._world.place(odometry)
        self._world.look()
        self._world.follow(self._action[None], odometry)
        self._world.metrics(0)

    @property
    def topics(self) -> dict[str, Stream]:
        """One stream of each topic to subscribe."""
        return self._alignment.topics

    @property
    def health(self) -> dict[str, Health]:
        """By feature that is heard."""
        return self._alignment.health

    def take(self, topic: str, message: Any, received: float) -> None:
        """See `Alignment.take`."""
        self._alignment.take(topic, message, received)

    def newest(self, feature: str) -> tuple[float, np.ndarray] | None:
        """See `Alignment.newest`."""
        return self._alignment.newest(feature)

    def begin(self, seed: int) -> None:
        """The task of a seed begins with the first action that is followed."""
        self._world.begin([0], [seed])
        self._under_way, self.result = False, None

    def row(self, time: float) -> Row:
        """The observation of a control tick [s]; the task has gone on to it.

        Raises:
            StaleError: there is no odometry that is young enough.
        """
        told, stamps = self._alignment.row(time)
        odometry = np.concatenate([told[name] for name in OBSERVED])[None]
        if self._under_way:
            for _ in range(round((time - self._time) / self._world.period)):
                self._judge(self._world.follow(self._action[None], odometry))
        else:
            self._world.place(odometry)
        self._time = time
        seen = self._world.look()[0]
        own = {name: told[name] for name in told if name not in OBSERVED}
        values = {name: own[name] if name in own else seen[self._world.parts[name]] for name in self._names}
        return Row(values, {name: stamps.get(name, stamps["position"]) for name in self._names})

    def act(self, action: np.ndarray, followed: bool) -> None:
        """The policy acts on the last row.

        Args:
            action: [A].
            followed: whether the Supervisor has begun to follow this policy.
        """
        self._action, self._under_way = action, self._under_way or followed

    def _judge(self, step: tuple[np.ndarray, ...]) -> None:
        _, terminated, truncated, success = (bool(values[0]) for values in step)
        if self.result is None and (terminated or truncated):
            metrics: Mapping[str, Any] = self._world.metrics(0)
            self.result = {"success": success, "steps": int(self._world.steps[0]), **metrics}
