"""`robot-rl teleop` on a vehicle under PX4: what it can be asked for, its contract, and its nodes.

A pilot flies by velocity and yaw rate; nothing takes off or lands but by a word of the pilot.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robot_rl.datasets import Contract
from robot_rl.deployment import LOCKSTEP_WAIT


class FlightSessionError(ValueError):
    """A session with a vehicle cannot be held as asked; the message says what to do."""


def flies(plain: Mapping[str, Any]) -> bool:
    """Whether `robot` names a vehicle's file. Raises `RobotFileError` when there is no such file."""
    from robot_rl.hardware.px4.vehicle_file import VehicleFile, load_robot

    return isinstance(load_robot(str(plain["robot"])), VehicleFile)


def check_flight(plain: Mapping[str, Any]) -> None:
    """Raises `FlightSessionError` for what only arms can do, and what a vehicle would not wait for."""
    from robot_rl.hardware.px4.vehicle_file import VehicleFile

    texts = {
        "policy": "correcting a policy by hand is not possible with a vehicle",
        "cameras": "cameras of a vehicle are not recorded yet",
        "camera_devices": "cameras of a vehicle are not recorded yet",
        "randomization": "the twin of a vehicle has no scene",
        "port": "a vehicle has no serial arm",
    }
    if wrong := [f"{key}: {text}; leave it out" for key, text in texts.items() if plain[key] is not None]:
        raise FlightSessionError("\n".join(wrong))
    silence = VehicleFile.load(str(plain["robot"])).plan.patience.silence
    if plain["countdown"] + 1.0 > silence:
        raise FlightSessionError(
            f"countdown={plain['countdown']}: nobody flies meanwhile, and after {silence:g} s (`patience.silence` in "
            "the vehicle's file) the vehicle lands; count down for less"
        )
    observed_flight(plain)


def observed_flight(plain: Mapping[str, Any]) -> Contract:
    """What is recorded: the vehicle's own observations, or those that are named, and the pilot's velocities.

    Raises:
        RobotFileError: there is no such vehicle.
        FlightSessionError: it does not observe what is named.
    """
    from robot_rl.hardware.px4.vehicle_file import VehicleFile
    from robot_rl.hardware.teleop.flight_mapping import CONTROLLER

    contract = VehicleFile.load(str(plain["robot"])).with_controller(CONTROLLER).contract
    wanted = plain["observation"]
    if wanted is None:
        return contract
    if unknown := set(wanted) - set(contract.observation):
        known = ", ".join(contract.observation)
        raise FlightSessionError(f"observation: there is no {', '.join(sorted(unknown))}; there are {known}")
    return contract.select(list(wanted))


def flight_session_parameters(plain: Mapping[str, Any], folder: Path, contract: str) -> dict[str, dict[str, Any]]:
    """ROS parameters of each node beside the device's, in the order in which they are started."""
    lockstep = bool(plain["twin"]) and not plain["real_time"]
    robot = str(plain["robot"])
    shared = {"robot": robot, "policy": contract, "use_sim_time": lockstep}
    nodes: dict[str, dict[str, Any]] = {}
    if plain["twin"]:
        nodes["px4_twin"] = {
            "robot": robot, "seed": plain["first_seed"], "real_time": not lockstep, **(plain["impairments"] or {}),
        }  # fmt: skip
    nodes["px4"] = shared | {"wait_for_proposal": LOCKSTEP_WAIT if lockstep else 0.0, "wait_for_device": lockstep}
    if plain["record"]:
        nodes["recorder"] = shared | {"output": str(folder / "bags"), "dataset": str(folder / "episodes.zarr")}
    return nodes
