"""A PX4 vehicle described once in YAML: contract, topics' namespace and how it is flown.

Policies, recorders and importers see it as they see an arm: `streams` of observations, here those of the Supervisor's
`odometry` and `imu`, and of the cameras on board. Only the Supervisor speaks with PX4 itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from robot_rl.datasets import Contract
from robot_rl.datasets.contract import Feature
from robot_rl.hardware.px4.flight_state import FlightPlan
from robot_rl.hardware.px4.flight_supervisor import CONTROLLERS
from robot_rl.hardware.robot_file import FOLDER, CommandTopic, RobotFile, RobotFileError, Stream, shipped
from robot_rl.hardware.ros2.qos import SENSOR
from robot_rl.sim.drone.vehicle_model import load_vehicle

if TYPE_CHECKING:
    from robot_rl.sim.kinematics import Kinematics

KIND = "px4"
ODOMETRY = "odometry"
"""Topic of the Supervisor, in ENU and FLU, by the clock of the nodes."""

OBSERVED = {"position": "position", "velocity": "linear", "attitude": "orientation", "body_rates": "angular"}
"""What a vehicle's odometry gives, and the fields that hold it."""

IMU = "imu"
"""Topic of the Supervisor: PX4's inertial sensors in FLU, by the clock of the nodes."""

INERTIAL = {"accelerometer": "linear_acceleration", "gyro": "angular_velocity"}
"""What they give, and the fields that hold it."""

PICTURES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_ANY = Feature("picture", (1, 1, 3), "uint8", kind="image")  # the contract says what a picture becomes


@dataclass(frozen=True)
class VehicleFile:
    """A vehicle under PX4.

    Attributes:
        contract: of what is observed and proposed.
        plan: limits, places and times.
        namespace: before `/fmu/...`.
        vehicle: that the twin simulates, as `robot_rl.sim.drone.vehicle_model.load_vehicle` takes it.
        px4_msgs: folder of a px4_msgs checkout, for a release of PX4 that is not known here; empty: none.
        cameras: on board, by the feature that a policy or a recording sees.
    """

    name: str
    contract: Contract
    plan: FlightPlan
    namespace: str = ""
    vehicle: str | Mapping[str, Any] = "px4_sih"
    px4_msgs: str = ""
    cameras: Mapping[str, Stream] = field(default_factory=dict)

    @property
    def streams(self) -> dict[str, Stream]:
        """Of the observations that are heard; a policy may see others, which `FlightTask` computes."""
        oldest = self.plan.watchdog.observation
        told = {
            **{name: Stream(_ANY, ODOMETRY, "nav_msgs/msg/Odometry", key) for name, key in OBSERVED.items()},
            **{name: Stream(_ANY, IMU, "sensor_msgs/msg/Imu", key) for name, key in INERTIAL.items()},
        }
        heard = {name: replace(stream, qos=SENSOR, max_age=oldest) for name, stream in told.items()} | {**self.cameras}
        features = self.contract.observation
        return {name: replace(heard[name], feature=feature) for name, feature in features.items() if name in heard}

    @property
    def computed(self) -> dict[str, str]:
        """Of what an arm computes by its kinematics a vehicle has nothing."""
        return {}

    @property
    def commands(self) -> dict[str, CommandTopic]:
        """Proposals tell what was flown; what PX4 is commanded is in its own messages."""
        return {}

    def kinematics(self) -> Kinematics:
        """A vehicle has none. Raises RobotFileError."""
        raise RobotFileError(self.name, ["a vehicle has no joints"])

    @classmethod
    def load(cls, source: str | Path) -> VehicleFile:
        """Read a file by its path, or one of `hardware/robots` by its name.

        Raises:
            RobotFileError: there is none, it is no file of a vehicle, or malformed; every problem is listed.
        """
        path = Path(source)
        if path.suffix not in (".yaml", ".yml"):
            path = FOLDER / f"{source}.yaml"
        if not path.is_file():
            raise RobotFileError(str(source), [f"no such file; shipped are {', '.join(shipped())}"])
        from robot_rl.hardware.px4.vehicle_file_reader import read

        return read(path)

    def with_controller(self, controller: str) -> VehicleFile:
        """The same vehicle, commanded at another level, one of `CONTROLLERS`.

        Raises:
            RobotFileError: there is no such controller.
        """
        if controller not in CONTROLLERS:
            raise RobotFileError(self.name, [f"controller: expected one of {list(CONTROLLERS)}, got {controller!r}"])
        if controller == self.contract.controller:
            return self
        action = {name: {"shape": [size], "kind": "action"} for name, size in CONTROLLERS[controller].items()}
        plain = self.contract.to_dict() | {"controller": controller, "action": action}
        return replace(self, contract=Contract.from_dict(plain))

    def with_silence(self, seconds: float) -> VehicleFile:
        """The same vehicle, which lands when nobody has flown it for another time [s]."""
        return replace(self, plan=replace(self.plan, patience=replace(self.plan.patience, silence=seconds)))

    def for_policy(self, contract: Contract) -> VehicleFile:
        """The same vehicle under the contract of a policy, whose observations may hold more than odometry gives.

        Its watchdog waits for actions as long as it may where they come seldom, see `FlightPlan.for_period`.

        Raises:
            RobotFileError: they come so seldom that it would end each before the next.
        """
        try:
            plan = self.plan.for_period(1 / contract.rate_hz)
        except ValueError as error:
            raise RobotFileError(self.name, [str(error)]) from error
        return replace(self, contract=contract, plan=plan)

    def with_room(self, lower: np.ndarray, upper: np.ndarray) -> VehicleFile:
        """The same vehicle within a fence that holds a box [3] m, too."""
        limits, (low, high) = self.plan.limits, self.plan.limits.fence
        (left, back, _), (right, front, top) = lower.tolist(), upper.tolist()
        fence = (
            (min(low[0], left), min(low[1], back), low[2]),
            (max(high[0], right), max(high[1], front), max(high[2], top)),
        )
        altitude = max(limits.altitude, top)
        return replace(self, plan=replace(self.plan, limits=replace(limits, fence=fence, altitude=altitude)))

    def for_task(self, home: Sequence[float], vehicle: str | Mapping[str, Any] = "") -> VehicleFile:
        """The same vehicle, which waits where a task begins.

        Args:
            home: there [3] m, in the world.
            vehicle: to simulate instead; what it hovers with and turns at comes with it.

        Raises:
            RobotFileError: that place is not within the fence.
            SpecError: there is no such vehicle.
        """
        changes: dict[str, Any] = {"home": tuple(float(number) for number in home)}
        if vehicle:
            model = load_vehicle(vehicle)
            roll, pitch, yaw = (float(rate) for rate in model.max_rates)
            limits = replace(self.plan.limits, rates=(roll, pitch, yaw))
            changes |= {"hover_throttle": float(model.hover_throttle), "limits": limits}
        try:
            return replace(self, plan=replace(self.plan, **changes), vehicle=vehicle or self.vehicle)
        except ValueError as error:
            raise RobotFileError(self.name, str(error).splitlines()) from error

    def save(self, path: Path) -> None:
        """Write the file, for nodes that are started with it."""
        plain = {
            "name": self.name, "kind": KIND, "namespace": self.namespace, "vehicle": self.vehicle,
            "px4_msgs": self.px4_msgs, "contract": self.contract.to_dict(), "flight": asdict(self.plan),
            "cameras": {name: _plain(stream) for name, stream in self.cameras.items()},
        }  # fmt: skip
        lists = json.loads(json.dumps(plain))  # YAML would mark tuples
        path.write_text(yaml.safe_dump(lists, sort_keys=False))


def picture_stream(values: Mapping[str, Any]) -> Stream:
    """Where a camera's pictures come from. Raises TypeError where its topic is missing."""
    return Stream(_ANY, **{"type": PICTURES[0], "qos": SENSOR, **values})


def _plain(stream: Stream) -> dict[str, Any]:
    """What `vehicle_file_reader` reads."""
    keys = ("topic", "type", "camera_info", "frame_id", "clock", "max_age", "latency", "rate_hz")
    return {key: getattr(stream, key) for key in keys} | {"qos": asdict(stream.qos)}


def load_robot(source: str | Path) -> RobotFile | VehicleFile:
    """An arm or a vehicle, by name or path.

    Raises:
        RobotFileError: there is no such file, or it is malformed; every problem is listed.
    """
    path = Path(source)
    path = path if path.suffix else FOLDER / f"{source}.yaml"
    return VehicleFile.load(source) if path.is_file() and _kind(path) == KIND else RobotFile.load(source)


def _kind(path: Path) -> Any:
    """The entry `kind` of a robot's file; None without one, or where the file is no YAML."""
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError:
        return None
    return content.get("kind") if isinstance(content, Mapping) else None
