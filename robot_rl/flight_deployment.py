"""`robot-rl deploy` on a vehicle under PX4: its nodes, its file, and the cycle of one flight.

    idle -> take-off -> at the start of the task -> recording -> policy acts -> the task is over -> holds, goes back

It stays in the air between flights that follow each other at once; left alone it lands, and takes off again. What the
policy node finds by the vehicle's odometry is success, on the twin as on a vehicle; a person may say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_rl.deployment import LOCKSTEP_WAIT, DeployError, Deployment

if TYPE_CHECKING:
    from robot_rl.hardware.px4.vehicle_file import VehicleFile

HAND_OVER = 100
"""Control steps that PX4 may take until it follows a policy, in which its task does not go on."""

HOLDS = 3
"""So often the start of the task is held for `HOLD`: PX4's position controller takes so long to come within 2 cm."""

HOLD = 2.0
"""After which the way to the start is asked for again: a vehicle that is left alone lands [s]."""

ROOM = 2.0
"""Around the way that a task leads, where there is no room but the twin's [m]."""

_HEARD = 0.5  # s; a status from before is no longer on its way
_LANDS, _ARRIVES = 60.0, 120.0  # wall s


class FlightDeployment(Deployment):
    """Speaks with the nodes of a vehicle's deployment, see `Deployment`."""

    def prepare(self, seed: int, home: bool = True) -> None:
        """Bring the vehicle to the start of the task, from the ground or from where it holds."""
        self.call("policy/stop")
        if self.state == "stopped":
            if not self._lockstep:
                raise DeployError("the emergency stop is latched; clear it with `robot-rl vehicle clear`")
            self.insist("supervisor/clear", _LANDS)
        self._fly_to_start()
        for _ in range(HOLDS):
            self._hold()
            self._fly_to_start()
        self.set_parameter("policy", "seed", seed)
        if any(process.name == "px4_twin" for process in self._processes):
            self.set_parameter("px4_twin", "seed", seed)

    def _hold(self) -> None:
        arrived = self._clock
        self.wait(lambda: self._clock > arrived + HOLD, 60.0, "the vehicle to hold its position")

    def _fly_to_start(self) -> None:
        self.insist("supervisor/home", _LANDS)
        asked = self._clock
        arrives = "the vehicle to be at the start of the task"
        self.wait(lambda: self._clock > asked + _HEARD and self.state != "homing", _ARRIVES, arrives)
        if self.state != "ready":
            raise DeployError(f"the vehicle did not get to the start of the task: {self.state} ({self._reason})")


def file_for_task(robot: str, spec: Mapping[str, Any], seed: int, twin: bool, episodes: int = 1) -> VehicleFile:
    """The vehicle's file with the start of the task as its home; a twin simulates the vehicle of the training data, in
    a room that holds the task.

    Args:
        robot: name or path of the vehicle's file.
        spec: of the environment.
        seed: of the first flight.
        episodes: number of flights.

    Raises:
        RobotFileError, SpecError: the task does not fit the vehicle.
    """
    from robot_rl.hardware.px4.vehicle_file import VehicleFile
    from robot_rl.sim.drone.world import DroneWorld

    world = DroneWorld(spec, episodes)
    world.begin(range(episodes), range(seed, seed + episodes))
    way = world.table[:, :, :3].reshape(-1, 3)
    vehicle = VehicleFile.load(robot)
    if twin:
        vehicle = vehicle.with_room(way.min(0) - ROOM, way.max(0) + ROOM)
    return vehicle.for_task(world.table[0, 0, :3].tolist(), spec["robot"] if twin else "")


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
