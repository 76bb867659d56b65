"""Quality of service of a topic, in ROS 2's words, and the rules by which two ends match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Qos:
    """What a publisher offers or a subscription requests; `depth` 0 keeps all samples, `deadline` is in seconds."""

    reliability: Literal["reliable", "best_effort"] = "reliable"
    durability: Literal["volatile", "transient_local"] = "volatile"
    depth: int = 10
    deadline: float | None = None

    def __post_init__(self) -> None:
        if self.reliability not in ("reliable", "best_effort"):
            raise ValueError(f"reliability is 'reliable' or 'best_effort', not {self.reliability!r}")
        if self.durability not in ("volatile", "transient_local"):
            raise ValueError(f"durability is 'volatile' or 'transient_local', not {self.durability!r}")
        if self.depth < 0 or (self.deadline is not None and self.deadline <= 0):
            raise ValueError(f"depth must be >= 0 and a deadline > 0, not {self.depth} and {self.deadline}")


RELIABLE = Qos()
"""The default of ROS 2: nothing is lost while both ends live; who comes late misses the past."""

SENSOR = Qos(reliability="best_effort", depth=5)
"""ROS 2's sensor data profile: the newest sample matters, a lost one does not."""

LATCHED = Qos(durability="transient_local", depth=1)
"""Who comes late still gets the last sample, from publishers that latch as well."""


def mismatches(offered: Qos, requested: Qos) -> list[str]:
    """Why a subscription asking for `requested` never hears a publisher offering `offered`; empty when it does."""
    reasons = []
    if offered.reliability == "best_effort" and requested.reliability == "reliable":
        reasons.append("the publisher is best effort, the subscription asks for reliable")
    if offered.durability == "volatile" and requested.durability == "transient_local":
        reasons.append("the publisher is volatile, the subscription asks for transient local")
    if requested.deadline is not None and (offered.deadline is None or offered.deadline > requested.deadline):
        offer = "none" if offered.deadline is None else f"{offered.deadline:g} s"
        reasons.append(f"the publisher's deadline is {offer}, the subscription asks for {requested.deadline:g} s")
    return reasons
