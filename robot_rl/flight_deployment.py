"""`robot-rl deploy` on a vehicle under PX4: its nodes, its file, and the cycle of one flight.

    idle -> take-off -> at the start of the task -> recording -> policy acts -> the task is over -> holds, goes back

It stays in the air between flights that follow each other at once; left alone it lands, and takes off again. What the
policy node finds by the vehicle's odometry is success, on the twin as on a vehicle; a person may say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.deployment import LOCKSTEP_WAIT, DeployError, Deployment

if TYPE_CHECKING:
    from robot_rl.hardware.px4.flight_state import FlightLimits
    from robot_rl.hardware.px4.vehicle_file import VehicleFile

HAND_OVER = 100
"""Control steps that PX4 may take until it follows a policy, in which its task does not go on."""

HOLDS = 3
"""So often the start of the task is held for `HOLD`: PX4's position controller takes so long to come within 2 cm."""

HOLD = 2.0
"""After which the way to the start is asked for again: a vehicle that is left alone lands [s]."""

PREFLIGHT = 20.0
"""For so long a vehicle that has just been connected may not be ready for a take-off [wall s]."""

ROOM = 2.0
"""Around the way that a task leads, where there is no room but the twin's [m]."""

_HEARD = 0.5  # s; a status from before is no longer on its way
_BRAKES, _LANDS, _ARRIVES = 5.0, 60.0, 120.0  # wall s


class FlightDeployment(Deployment):
    """Speaks with the nodes of a vehicle's deployment, see `Deployment`.

    A vehicle takes off once for each time that a person asks. What is refused, and what somebody has ended meanwhile (a
    pilot, a stop, a landing), is not asked for again.

    Args:
        simulated: whether the vehicle is the twin, which takes off as often as it has to.
        start_of: where the task of a seed begins [3] m; default: the home place of the vehicle's file.
    """

    begins = "the vehicle then takes off"
    stop_is_latched = "the emergency stop is latched; clear it with `robot-rl vehicle clear`"

    def __init__(
        self, *arguments: Any, simulated: bool = False, start_of: Callable[[int], Sequence[float]] | None = None
    ) -> None:
        super().__init__(*arguments)
        self._simulated, self._start_of = simulated, start_of

    def prepare(self, seed: int, home: bool = True) -> None:
        """Bring the vehicle to the start of the task, from the ground or from where it holds.

        Raises:
            DeployError: it does not get there.
        """
        self.call("policy/stop")
        self._check_stop()
        if self.state == "stopped":
            self.wait(lambda: self.call("supervisor/clear")[0], _LANDS, "the twin to land")
            self.wait(lambda: self.state != "stopped", 5.0, "the end of the stop")
        if self._start_of is not None:
            self.set_parameter("supervisor", "home", [*self._start_of(seed)])
        self._fly_to_start(from_ground=True)
        for _ in range(HOLDS):
            self._hold()
            self._fly_to_start()
        self.set_parameter("policy", "seed", seed)
        if self._simulated:
            self.set_parameter("px4_twin", "seed", seed)

    def _hold(self) -> None:
        arrived = self._clock
        self.wait(lambda: self._clock > arrived + HOLD, 60.0, "the vehicle to hold its position")

    def _check_stop(self) -> None:
        if not self._simulated:
            super()._check_stop()

    def _fly_to_start(self, from_ground: bool = False) -> None:
        rests = "the vehicle to hold its position, or to stand"
        self.wait(self._rests, _LANDS if self._simulated else _BRAKES, rests)
        if self.state not in ("ready", "held") and not (from_ground and self.state == "idle"):
            raise DeployError(f"the vehicle does not fly to the start of the task: {self.state} ({self._reason})")
        if self._simulated:
            self.insist("supervisor/home", _LANDS)  # its estimates are not there from the first moment
        else:
            with suppress(DeployError):  # the answer says what forbids it still
                self.wait(self._is_decided, PREFLIGHT, "the vehicle to be ready")
            done, message = self.call("supervisor/home")
            if not done:
                raise DeployError(f"the vehicle does not fly to the start of the task: {message}")
        asked = self._clock
        arrives = "the vehicle to be at the start of the task"
        self.wait(lambda: self._clock > asked + _HEARD and self.state != "homing", _ARRIVES, arrives)
        if self.state != "ready":
            raise DeployError(f"the vehicle did not get to the start of the task: {self.state} ({self._reason})")

    def _is_decided(self) -> bool:
        """Whether nothing forbids a take-off, or what does is no matter of waiting: somebody flies the vehicle."""
        status = self._status()
        return not status.get("preflight") or status.get("armed") == "True"

    def _rests(self) -> bool:
        return self.state in ("idle", "stopped") or self._status().get("phase") == "holding"


def start_of(spec: Mapping[str, Any]) -> Callable[[int], list[float]]:
    """Where the task of an environment begins for a seed [3] m, in the world."""
    from robot_rl.sim.drone.world import DroneWorld

    world = DroneWorld(spec, 1)

    def start(seed: int) -> list[float]:
        world.begin([0], [seed])
        return _place(world.table[0, 0])

    return start


def file_for_task(
    vehicle: VehicleFile, spec: Mapping[str, Any], seed: int, twin: bool, episodes: int = 1
) -> VehicleFile:
    """The vehicle's file with the start of the task as its home. A twin simulates the vehicle of the training data, in
    a room that holds the task; the limits of a vehicle stay, and have to hold the task.

    Args:
        spec: of the environment.
        seed: of the first flight.
        episodes: number of flights.

    Raises:
        RobotFileError, SpecError: the task does not fit the vehicle.
    """
    from robot_rl.hardware.robot_file import RobotFileError
    from robot_rl.sim.drone.world import DroneWorld

    world = DroneWorld(spec, episodes)
    world.begin(range(episodes), range(seed, seed + episodes))
    way = world.table[:, :, :3].reshape(-1, 3)
    if twin:
        vehicle = vehicle.with_room(way.min(0) - ROOM, way.max(0) + ROOM)
    elif problems := _beyond(vehicle.plan.limits, way, world.table[:, :, 3:6]):
        raise RobotFileError(vehicle.name, problems)
    return vehicle.for_task(_place(world.table[0, 0]), spec["robot"] if twin else "")


def _place(row: NDArray[np.float32]) -> list[float]:
    return [round(number, 6) for number in row[:3].tolist()]


def _beyond(limits: FlightLimits, way: NDArray[np.float32], velocity: NDArray[np.float32]) -> list[str]:
    """Limits of a vehicle that a task asks it to leave; one line for each."""
    (low, high), problems = limits.fence, []
    lower, upper = way.min(0), way.max(0)
    if (lower < low).any() or (upper > high).any():
        led = [[round(float(number), 2) for number in corner] for corner in (lower, upper)]
        problems.append(f"limits.fence: {[list(low), list(high)]} does not hold the way of the task, {led}")
    if upper[2] > limits.altitude:
        problems.append(f"limits.altitude: {limits.altitude} m, and the task leads to {upper[2]:.2f} m")
    if (speed := float(np.linalg.norm(velocity, axis=-1).max())) > limits.speed:
        problems.append(f"limits.speed: {limits.speed} m/s, and the task asks for {speed:.2f} m/s")
    return problems


def flight_parameters(
    plain: Mapping[str, Any], folder: Path, spec: Mapping[str, Any], robot: Path, horizon: int
) -> dict[str, dict[str, Any]]:
    """ROS parameters of each node, in the order in which they are started; see `deploy.node_parameters`.

    Args:
        robot: path of the file that they all read.
    """
    lockstep = plain["twin"] and not plain["real_time"]
    policy = str(plain["policy"])
    shared = {"robot": str(robot), "policy": policy, "use_sim_time": lockstep}
    nodes: dict[str, dict[str, Any]] = {}
    if plain["twin"]:
        seen = ",".join(f"{name}:{height}x{width}" for name, (height, width) in spec["cameras"].items())
        nodes["px4_twin"] = {
            "robot": str(robot), "seed": plain["first_seed"], "real_time": not lockstep, "task": spec["task"],
            "cameras": seen, **(plain["impairments"] or {}),
        }  # fmt: skip
    nodes["px4"] = shared | {"wait_for_proposal": LOCKSTEP_WAIT if lockstep else 0.0}
    if plain["record"]:
        nodes["recorder"] = shared | {"output": str(folder / "bags"), "dataset": str(folder / "episodes.zarr")}
    nodes["policy"] = shared | {
        "task": spec["task"], "horizon": horizon, "mode": plain["mode"], "execute": plain["execute"] or 0,
        "lockstep": lockstep, "inference_delay": 1e-3 * plain["delay"], "guidance": float(plain["guidance"] or 0.0),
        "device": plain["device"], "threads": plain["threads"],
    }  # fmt: skip
    return nodes
