"""The vehicle's file that an identification gives, with what it does not tell from a vehicle like it.

Specific forces become forces by the mass, from a scale, or by the greatest thrust of a rotor, from a bench.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from robot_rl.sim.drone.identification import Identification, IdentificationError
from robot_rl.sim.drone.vehicle_model import Vehicle

PARTS = {"lag": ("rise", "fall"), "drag": ("drag_xy", "drag_z"), "inertia": ("inertia_x", "inertia_y")}
"""Parts of the file that may be kept, and what replaces them."""
STRAIGHT = 0.01
"""Of the greatest thrust; a map that is bent by less is taken as straight."""


def mass_of(found: Identification, mass: float | None, thrust_max: float | None) -> float:
    """[kg], from the mass or from the thrust of one rotor at full signal [N].

    Raises:
        IdentificationError: neither is given, or both, or the flight does not tell the thrust over the mass.
    """
    if "thrust_to_mass" in found.missing:
        raise IdentificationError(f"the thrust is not determined: {found.missing['thrust_to_mass']}")
    ratio = found.estimates["thrust_to_mass"].value
    if (mass is None) == (thrust_max is None):
        given = "neither is" if mass is None else "both are"
        raise IdentificationError(
            f"a flight tells thrust over mass, here {ratio:.4g} m/s², and not the two apart: expected mass= [kg] from "
            f"a scale or thrust_max= [N] of one rotor from a bench; {given} given"
        )
    return mass if mass is not None else 4 * (thrust_max or 0.0) / ratio


def vehicle_content(
    found: Identification,
    base: Vehicle,
    name: str,
    mass: float,
    arm: Sequence[float] | None = None,
    keep: Sequence[str] = (),
) -> dict[str, Any]:
    """Content of a file of `sim/drone/vehicle`.

    Args:
        base: what was not identified is of this vehicle.
        mass: see `mass_of` [kg].
        arm: x and y of the front left rotor [m]; None: that of `base`.
        keep: of `PARTS`, what is to be that of `base` as well.

    Raises:
        IdentificationError: something is not determined and is not to be kept.
    """
    if lacking := {
        part: reasons
        for part, names in PARTS.items()
        if part not in keep and (reasons := [found.missing[each] for each in names if each in found.missing])
    }:
        told = "; ".join(f"{part}: {reasons[0]}" for part, reasons in lacking.items())
        raise IdentificationError(
            f"the flight does not determine {told}. Fly that, or keep that of vehicle {base.name}: "
            f"keep=[{','.join(dict.fromkeys([*keep, *lacking]))}]"
        )
    value = {name: estimate.value for name, estimate in found.estimates.items()}
    content = {key: each for key, each in asdict(base).items() if each not in ({}, 0.0, False)}
    content |= {"name": name, "mass": mass, "arm": tuple(base.arm if arm is None else arm)}
    content["thrust"] = _thrust(found, mass / 4)
    if content["thrust"]["quadratic"] and base.rotor_inertia and base.thrust.get("unit") == "rpm":
        content["speed_max"] = base.greatest_speed * math.pi / 30
    if "lag" not in keep:
        content |= {key: {"linear": 1 / value[key]} for key in ("rise", "fall")}
    if "drag" not in keep:
        content["drag"] = tuple(max(0.0, mass * value[each]) for each in ("drag_xy", "drag_z"))
    if "inertia" not in keep:
        xx, yy = mass * content["arm"][1] * value["inertia_x"], mass * content["arm"][0] * value["inertia_y"]
        ratio = (xx + yy) / (base.inertia[0] + base.inertia[1])
        content["inertia"] = (xx, yy, *(ratio * each for each in base.inertia[2:]))
    return {key: _plain(each) for key, each in content.items()}


def _thrust(found: Identification, share: float) -> dict[str, Any]:
    """Of one rotor, which carries the mass `share`, in its speed as a part of the greatest."""
    linear, quadratic = found.estimates["linear"].value, found.estimates["quadratic"].value
    greatest = linear + quadratic
    if quadratic < STRAIGHT * greatest:
        if quadratic + 3 * found.estimates["quadratic"].error < 0:
            raise IdentificationError(
                f"the thrust flattens with the signal ({linear:.3g} c {quadratic:+.3g} c² m/s²), which a vehicle's "
                "file cannot say: was the throttle at its end, or the battery nearly empty?"
            )
        linear, quadratic = greatest, 0.0
    return {"linear": linear * share, "quadratic": quadratic * share, "unit": "one", "maximum": greatest * share}


def _plain(value: Any) -> Any:
    """Of a YAML file, with four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
