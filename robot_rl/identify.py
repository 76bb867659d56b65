"""`robot-rl identify`: a quadrotor's parameters from the log of a flight, as a vehicle's file for the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from robot_rl.hardware.px4.flight_log import read_flight_log
from robot_rl.sim.drone.identification import Identification, IdentificationError, identify
from robot_rl.sim.drone.identified_vehicle import PARTS, mass_of, vehicle_content
from robot_rl.sim.drone.vehicle_model import load_vehicle

if TYPE_CHECKING:
    from omegaconf import DictConfig

WORDS = {
    "thrust_to_mass": "greatest thrust over mass", "linear": "of it linear in the rotor speed",
    "quadratic": "of it quadratic", "thrust_curve": "THR_MDL_FAC that fits", "hover_throttle": "hover throttle",
    "delay": "delay of commands", "rise": "rotor lag, rising", "fall": "rotor lag, falling",
    "drag_xy": "drag across, over mass", "drag_z": "drag along the thrust, over mass",
    "inertia_x": "roll inertia over mass and arm", "inertia_y": "pitch inertia over mass and arm",
}  # fmt: skip
"""Of the quantities of `Identification`, in the order of the table."""
FIELDS = {"lag": ("rise", "fall"), "drag": ("drag",), "inertia": ("inertia",)}
"""Of a vehicle's file, for each of `PARTS`."""
NORMAL = 1.96
"""Standard errors to either side that make an interval of 95 %."""


def main(config: DictConfig) -> int:
    """Print what was found and write the vehicle's file. Returns the exit status."""
    from omegaconf import OmegaConf

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    _check(plain)
    base = load_vehicle(plain["vehicle"])
    end = float("inf") if plain["end"] is None else float(plain["end"])
    log = read_flight_log(Path(plain["log"]), plain["start"], end)
    found = identify(log)
    print(f"{plain['log']}: {log.time[-1] - log.time[0]:.0f} s in the air, THR_MDL_FAC {log.thrust_curve:g}")
    print(table(found))
    mass = mass_of(found, plain["mass"], plain["thrust_max"])
    name = Path(plain["output"] or "identified").stem
    content = vehicle_content(found, base, name, mass, plain["arm"], plain["keep"])
    print(_advice(found, content))
    if plain["output"]:
        path = Path(plain["output"])
        load_vehicle(content)  # before anything is written: that it can fly
        text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(_comments(plain, found, content) + text)
        partial.replace(path)
        print(f"{path}: written; `robot-rl collect task=drone/hover robot={path}` flies it")
    return 0


def table(found: Identification) -> str:
    """The quantities with their 95 % intervals, and of what is not determined, why."""
    lines = [f"{'':34} {'value':>9}   95 % interval"]
    for name, words in WORDS.items():
        if name in found.estimates:
            each = found.estimates[name]
            low, high = each.value - NORMAL * each.error, each.value + NORMAL * each.error
            lines.append(f"{words:34} {each.value:9.4g}   {low:.4g} to {high:.4g} {each.unit}".rstrip())
        else:
            lines.append(f"{words:34} {'–':>9}   not determined")
    lines.append(f"{'left of the specific force':34} {found.residual:9.2g}   m/s² (standard deviation)")
    lines += [f"Not determined: {reason}" for reason in dict.fromkeys(found.missing.values())]
    return "\n".join(lines)


def _advice(found: Identification, content: Mapping[str, Any]) -> str:
    """What goes into other files than the vehicle's."""
    hover, curve = found.estimates["hover_throttle"].value, found.estimates["thrust_curve"].value
    lines = [
        f"mass {content['mass']:.4g} kg, greatest thrust of a rotor {content['thrust']['maximum']:.4g} N",
        f"for px4.yaml:            hover_throttle: {hover:.3f}   (with the THR_MDL_FAC that was flown)",
        f"for PX4:                 THR_MDL_FAC {min(max(curve, 0.0), 1.0):.2f}: throttle is then thrust, as in the "
        f"simulator, and hover_throttle {load_vehicle(content).hover_throttle:.3f}",
    ]
    if "delay" in found.estimates:
        delay = found.estimates["delay"]
        low, high = (max(0.0, delay.value + sign * NORMAL * delay.error) for sign in (-1, 1))
        lines.append(f"for a randomization:     command: {{delay: [{low:.3f}, {high:.3f}]}}")
    return "\n".join(lines)


def _comments(plain: Mapping[str, Any], found: Identification, content: Mapping[str, Any]) -> str:
    source = f"mass= {plain['mass']:g} kg" if plain["mass"] is not None else f"thrust_max= {plain['thrust_max']:g} N"
    own = {"name", "mass", "thrust", *([] if plain["arm"] is None else ["arm"])}
    own |= {name for part, names in FIELDS.items() if part not in plain["keep"] for name in names}
    kept = [name for name in content if name not in own]
    scaled = "" if "inertia" in plain["keep"] else "; inertia about z as there, scaled with x and y"
    delay = found.estimates.get("delay")
    late = "not determined" if delay is None else f"{delay.value:.4f} s, standard error {delay.error:.4f} s"
    return (
        f"# Identified from {Path(plain['log']).name} with {source}.\n"
        f"# As {plain['vehicle']}: {', '.join(kept)}{scaled}.\n"
        f"# Delay of commands: {late}.\n"
    )


def _check(plain: Mapping[str, Any]) -> None:
    """Everything that can be wrong before the log is read. Raises IdentificationError."""
    if plain["log"] is None:
        raise IdentificationError("log= is missing: give PX4's log of a flight, log=flight.ulg")
    for key in ("mass", "thrust_max", "end"):
        value = plain[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
            raise IdentificationError(f"{key}: expected a positive number, got {value!r}")
    arm = plain["arm"]
    numbers = isinstance(arm, list) and all(isinstance(each, int | float) and each > 0 for each in arm)
    if arm is not None and not (numbers and len(arm) == 2):
        raise IdentificationError(f"arm: expected x and y [m] such as [0.177, 0.177], got {arm!r}")
    if odd := sorted({str(each) for each in plain["keep"]} - set(PARTS)):
        raise IdentificationError(f"keep: expected of {', '.join(PARTS)}; got {', '.join(odd)}")
    if plain["output"] is not None:
        path = Path(plain["output"])
        if path.suffix not in (".yaml", ".yml"):
            raise IdentificationError(f"output: expected a vehicle's file that ends in .yaml, got {path}")
        if path.exists() and not plain["overwrite"]:
            raise IdentificationError(f"{path} is there already; overwrite=true replaces it")
        if not path.parent.is_dir():
            raise IdentificationError(f"{path.parent}: there is no such folder to write {path.name} to")
