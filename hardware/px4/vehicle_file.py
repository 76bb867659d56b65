"""A PX4 vehicle described once in YAML: contract, topics' namespace and how it is flown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from robot_rl.datasets import Contract, ContractError
from robot_rl.hardware.px4.flight_state import FlightPlan
from robot_rl.hardware.px4.flight_supervisor import CONTROLLERS
from robot_rl.hardware.robot_file import FOLDER, RobotFileError

KIND = "px4"
OBSERVED = ("position", "velocity", "attitude", "body_rates")
"""What a vehicle's odometry gives."""

_NEEDED = ("name", "contract", "flight")
_OPTIONAL = ("kind", "description", "namespace", "vehicle", "px4_msgs")


@dataclass(frozen=True)
class VehicleFile:
    """A vehicle under PX4.

    Attributes:
        contract: of what is observed and proposed.
        plan: limits, places and times.
        namespace: before `/fmu/...`.
        vehicle: that the twin simulates, see `robot_rl.sim.drone.vehicle_model`.
        px4_msgs: folder of a px4_msgs checkout, for a release of PX4 that is not known here; empty: none.
    """

    name: str
    contract: Contract
    plan: FlightPlan
    namespace: str = ""
    vehicle: str = "px4_sih"
    px4_msgs: str = ""

    @classmethod
    def load(cls, source: str | Path) -> VehicleFile:
        """Read a file by its path, or one of `hardware/robots` by its name.

        Raises:
            RobotFileError: it is no file of a vehicle, or malformed.
        """
        path = Path(source)
        if path.suffix not in (".yaml", ".yml"):
            path = FOLDER / f"{source}.yaml"
        if not path.is_file():
            raise RobotFileError(str(source), [f"no file {path}"])
        plain: Any = yaml.safe_load(path.read_text())
        if not isinstance(plain, dict) or plain.get("kind") != KIND:
            raise RobotFileError(str(path), [f"expected `kind: {KIND}`, as in hardware/robots/px4.yaml"])
        problems = [f"{key} is missing" for key in _NEEDED if key not in plain]
        known = (*_NEEDED, *_OPTIONAL)
        problems += [f"no key {key!r}; there are: {', '.join(known)}" for key in plain if key not in known]
        if problems:
            raise RobotFileError(str(path), problems)
        try:
            plan = FlightPlan.from_mapping(plain["flight"])
            contract = Contract.from_dict(plain["contract"])
        except (ContractError, ValueError) as error:
            raise RobotFileError(str(path), str(error).splitlines()) from error
        if odd := sorted(set(contract.observation) - set(OBSERVED)):
            raise RobotFileError(str(path), [f"contract: odometry gives {', '.join(OBSERVED)}; got {', '.join(odd)}"])
        values = {key: str(plain[key]) for key in ("namespace", "vehicle", "px4_msgs") if plain.get(key)}
        return cls(str(plain["name"]), contract, plan, **values)

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

    def for_policy(self, contract: Contract) -> VehicleFile:
        """The same vehicle under the contract of a policy, whose observations may hold more than odometry gives."""
        return replace(self, contract=contract)
