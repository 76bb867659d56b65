"""How the twin's streams differ from perfect ones: rate, latency, jitter, loss, noise, and faults for tests.

Every draw comes from one generator for each stream, so that a seed and the same calls give the same stream.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, get_args

import numpy as np

from robot_rl.datasets.contract import Feature

T = TypeVar("T")

Fault = Literal["", "drop", "freeze", "back", "nan"]
"""For tests: nothing is sent; stamps stand still; stamps jump back by `JUMP`; numbers become NaN."""

JUMP = 10.0
"""How far stamps jump back [s]."""


@dataclass(frozen=True)
class Impairment:
    """What happens to the messages of a topic.

    Attributes:
        latency: between stamp and arrival [s].
        jitter: added to it, uniform from zero to this [s]; the order of messages stays, as on any ROS 2 topic.
        loss: probability that a message never arrives.
        fault: see `Fault`.
    """

    latency: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    fault: Fault = ""

    def __post_init__(self) -> None:
        if not (self.latency >= 0 and self.jitter >= 0 and 0 <= self.loss <= 1):
            raise ValueError(f"expected latency and jitter >= 0 s and a loss from 0 to 1, got {self}")
        if self.fault not in get_args(Fault):
            raise ValueError(f"fault: expected one of {', '.join(map(repr, get_args(Fault)))}; got {self.fault!r}")


class Link(Generic[T]):
    """Messages on their way: what goes in comes out later, or never.

    Args:
        generator: for jitter and loss.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.impairment = Impairment()
        self._queue: deque[tuple[float, T]] = deque()

    def send(self, item: T, now: float) -> None:
        """Put a message in at a time [s]."""
        how = self.impairment
        if how.fault == "drop" or (how.loss and self.generator.random() < how.loss):
            return
        due = now + how.latency + (self.generator.uniform(0.0, how.jitter) if how.jitter else 0.0)
        self._queue.append((max(due, self._queue[-1][0]) if self._queue else due, item))

    def receive(self, now: float) -> list[T]:
        """What has arrived by a time [s], in order."""
        arrived = []
        while self._queue and self._queue[0][0] <= now + 1e-9:
            arrived.append(self._queue.popleft()[1])
        return arrived

    def clear(self, generator: np.random.Generator) -> None:
        """Forget what is on its way, and draw from another generator."""
        self._queue.clear()
        self.generator = generator


class Stamps:
    """The stamps that a stream claims, true unless there is a fault."""

    def __init__(self) -> None:
        self._last = 0.0

    def of(self, stamp: float, fault: Fault) -> float:
        """What is claimed for a true stamp [s]."""
        if fault == "freeze":
            return self._last or stamp
        self._last = stamp
        return max(0.0, stamp - JUMP) if fault == "back" else stamp


class Schedule:
    """When a stream of a rate is due, on a clock that it is asked with.

    Args:
        rate_hz: of the stream; it is due at the multiples of its period.
    """

    def __init__(self, rate_hz: float) -> None:
        self.rate_hz = rate_hz
        self._last = -1

    def due(self, now: float) -> bool:
        """Whether a multiple of the period has passed since the last time; a clock that went back begins anew."""
        index = int(now * self.rate_hz + 1e-6)
        due = index != self._last
        self._last = index
        return due


def noisy(value: np.ndarray, feature: Feature, deviation: float, generator: np.random.Generator) -> np.ndarray:
    """A measured value of a feature with normal noise of a standard deviation in its unit; rotations stay unit."""
    if not deviation:
        return value
    value = value + generator.normal(0.0, deviation, value.shape)
    if feature.rotation is not None and feature.representation in ("quaternion", "position_quaternion"):
        value[feature.rotation] /= np.linalg.norm(value[feature.rotation])
    return value
