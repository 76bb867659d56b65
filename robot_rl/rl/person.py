"""A person who takes over from a policy that explores, with a teleoperation device, in the first environment.

Their commands act while they hold the device away from its rest or hold `takeover`, and for `handback` afterwards, in
which everything stands still and the next motion can begin; the word `release` ends it at once. Else the policy acts.
The environments run at a true pace, so that a person can follow.

When the device is lost, the policy goes on. Afterwards, and after any pause of the training in which nobody looked, the
device has to come to rest before it moves anything again: what was pressed meanwhile was not meant for now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robot_rl.hardware.teleop.device import Device, Reading
from robot_rl.policies import PolicyError
from robot_rl.rl.intervention import UnderWay

TIMEOUT = 0.3
"""Age of a reading at which the device is lost [s]."""

PAUSE = 3.0
"""Between two control steps, from which on nobody has looked meanwhile [s]: an evaluation, a checkpoint."""


class Follows(Protocol):
    """A mapping, such as `robot_rl.hardware.teleop.delta_mapping.DeltaMapping`."""

    def is_deflected(self, reading: Reading) -> bool: ...
    def action(self, reading: Reading) -> NDArray[np.float32]: ...


class Person:
    """An `Intervener`.

    Args:
        device: open.
        mapping: of its readings to actions.
        rate_hz: of the control steps.
        speed: of the environments against that rate.
        handback: without motion, until the policy acts again [s].
        show: called before each step with whether the person acts, and the first episode.
        say: shows a line.
        clock, sleep: monotonic [s].

    Raises:
        PolicyError: a number makes no sense.
    """

    def __init__(
        self, device: Device, mapping: Follows, rate_hz: float, speed: float = 1.0, handback: float = 0.5,
        show: Callable[[bool, UnderWay], None] = lambda acts, episode: None, say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        if not speed > 0 or not handback >= 0:
            raise PolicyError(f"algorithm: expected speed above 0 and handback at least 0, got {speed} and {handback}")
        self._device, self._mapping, self._handback = device, mapping, handback
        self._period = 1.0 / (rate_hz * speed)
        self._show, self._say, self._clock, self._sleep = show, say, clock, sleep
        self._due = self._looked = clock()
        self._moved = -np.inf
        self._lost, self._rested, self._acts = False, False, False

    def __call__(
        self, proposed: NDArray[np.float32], episodes: Sequence[UnderWay]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        self._show(self._acts, episodes[0])
        action = self._decide(self._wait())
        self._acts = action is not None
        taken, actions = np.zeros(len(proposed), np.bool_), proposed.copy()
        if action is not None:
            taken[0], actions[0] = True, action
        return taken, actions

    def _wait(self) -> float:
        """Until the step is due; the time then. A training that is slower than that is not hurried afterwards."""
        now = self._clock()
        if now < self._due:
            self._sleep(self._due - now)
            now = self._clock()
        self._due = max(self._due, now) + self._period
        return now

    def _decide(self, now: float) -> NDArray[np.float32] | None:
        """The person's action [A]; None: the policy acts."""
        reading, words = self._device.read(now), self._device.events()
        paused, self._looked = now - self._looked > max(PAUSE, 2 * self._period), now
        if reading is None or now - reading.stamp > TIMEOUT:
            self._lose()
            return None
        if self._lost:
            self._lost = False
            self._say(f"{self._device.name}: heard again; it acts once it has been at rest")
        deflected = self._mapping.is_deflected(reading)
        if paused or "release" in words:
            self._moved, self._rested = -np.inf, False
        self._rested = self._rested or not deflected
        if deflected and self._rested:
            self._moved = now
        if not self._rested or now - self._moved > self._handback:
            return None
        return self._mapping.action(reading)

    def _lose(self) -> None:
        self._moved, self._rested = -np.inf, False
        if not self._lost:
            self._say(f"{self._device.name}: not heard; the policy goes on alone")
        self._lost = True
