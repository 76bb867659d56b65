"""Alignment: samples of many streams, each with its own stamps, become rows on the control clock.

The live policy node, the importer of recordings and that of foreign bags run this one code, so that their arrays are
equal element by element. What a row at time T holds depends on when the samples were measured and received, never on
the order in which the streams were pushed:

- Only samples count that were received by a time that the caller names, if it names one: nobody knew the others.
- `latest` takes the newest of them measured by T; `interpolate` takes the value at T - delay, between the two samples
  around it, or the newest one as long as the later of the two is missing.
- A row whose value is older than `max_age` is no row: `StaleError` names every stream that is to blame.

`row` chooses the times and `restore` evaluates them; who records the times of a row can restore it exactly.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from robot_rl.datasets.contract import Contract, Feature
from robot_rl.hardware import bindings
from robot_rl.hardware.robot_file import Stream

if TYPE_CHECKING:
    from robot_rl.sim.kinematics import Kinematics

KEEP = 2.0
"""How long samples are kept [s]; an importer that restores rows has to do so within that time."""

FUTURE = 0.1
"""How far a stamp may lie ahead of its reception [s]; more comes from another clock."""

RESTART = 1.0
"""How far the receiving clock may go back before all samples are forgotten [s]: simulated time began anew."""


class AlignmentError(ValueError):
    """A row cannot be restored; the message names the stream and the time."""


class StaleError(RuntimeError):
    """There is no row. `streams` says for each stream at fault how old it is and what was wrong with its messages."""

    def __init__(self, streams: Mapping[str, str]) -> None:
        self.streams = dict(streams)
        super().__init__("; ".join(f"{name}: {text}" for name, text in self.streams.items()))


class Observed(Protocol):
    """What is needed of a robot's file, see `RobotFile`."""

    @property
    def contract(self) -> Contract: ...
    @property
    def streams(self) -> Mapping[str, Stream]: ...
    @property
    def computed(self) -> Mapping[str, str]: ...
    def kinematics(self) -> Kinematics: ...


class Row(NamedTuple):
    """An observation at a control tick.

    Attributes:
        observation: by feature, in the contract's order, shapes and dtypes.
        stamps: when each value was measured [s]; `Alignment.restore` gives the observation back.
    """

    observation: dict[str, np.ndarray]
    stamps: dict[str, float]


@dataclass
class Health:
    """What became of the messages of a stream: counts, and the last thing that was wrong.

    Attributes:
        taken: samples that count.
        malformed: messages that do not hold what the robot's file says.
        reordered: samples that came late, but in time to count.
        backward: stamps further behind the newest one than `max_age`: dropped.
        future: stamps more than `FUTURE` ahead of the receiving clock: dropped.
        repeated: stamps that came before: dropped.
        problem: the last reason for a drop.
    """

    taken: int = 0
    malformed: int = 0
    reordered: int = 0
    backward: int = 0
    future: int = 0
    repeated: int = 0
    problem: str = ""


class _Sample(NamedTuple):
    time: float
    received: float
    value: np.ndarray


@dataclass
class _Buffer:
    stream: Stream
    samples: list[_Sample] = field(default_factory=list)  # ascending in time
    health: Health = field(default_factory=Health)

    def push(self, sample: _Sample, keep: float) -> None:
        if sample.time > sample.received + FUTURE:
            self.health.future += 1
            self.health.problem = f"a stamp {sample.time - sample.received:.3f} s ahead of the clock"
            return
        newest = self.samples[-1].time if self.samples else -np.inf
        if sample.time < newest - self.stream.max_age:
            self.health.backward += 1
            self.health.problem = f"a stamp {newest - sample.time:.3f} s behind the one before"
            return
        place = bisect_left(self.samples, sample.time, key=_time)
        if place < len(self.samples) and self.samples[place].time == sample.time:
            self.health.repeated += 1
            self.health.problem = "a stamp came twice"
            return
        self.health.taken += 1
        self.health.reordered += place < len(self.samples)
        insort(self.samples, sample, key=_time)
        old = bisect_left(self.samples, self.samples[-1].time - keep - self.stream.max_age, key=_time)
        if old > 1:
            # The one before stays, so that what lies between can still be interpolated.
            del self.samples[: old - 1]

    def time_for(self, tick: float, by: float) -> float | None:
        """When the value of a row at `tick` was measured, or None without any; of the samples received `by` then."""
        newest = self._last(tick, by)
        if self.stream.align == "latest" or newest is None:
            return newest
        wanted = tick - self.stream.delay
        before = self._last(wanted, by)
        if before is None or before in (newest, wanted):
            return before
        later = self.samples[bisect_right(self.samples, before, key=_time) :]
        after = next(sample.time for sample in later if sample.received <= by)
        return wanted if after - before <= self.stream.max_age else before

    def _last(self, time: float, by: float) -> float | None:
        """Time of the newest sample measured by `time` and received `by` then."""
        for index in range(bisect_right(self.samples, time, key=_time) - 1, -1, -1):
            if self.samples[index].received <= by:
                return self.samples[index].time
        return None

    def value_at(self, time: float) -> np.ndarray:
        """The sample of this time, or between the two around it."""
        after = bisect_left(self.samples, time, key=_time)
        if after < len(self.samples) and self.samples[after].time == time:
            return self.samples[after].value
        if self.stream.align == "latest" and self.stream.clock == "receive" and self.samples:
            # Every process receives at another time: the nearest one is meant.
            near = self.samples[max(0, after - 1) : after + 1]
            return min(near, key=lambda sample: abs(sample.time - time)).value
        if self.stream.align == "latest" or not 0 < after < len(self.samples):
            raise AlignmentError(f"{self.stream.topic}: no sample of time {time!r} was pushed, or it was long ago")
        before, behind = self.samples[after - 1], self.samples[after]
        part = (time - before.time) / (behind.time - before.time)
        return interpolate(self.stream.feature, before.value, behind.value, part)

    def fault(self, tick: float, time: float | None) -> str | None:
        """Why there is no value for a row at `tick` when that of `time_for` is all there is, or None."""
        if time is not None and tick - time <= self.stream.max_age:
            return None
        age = "nothing was received" if time is None else f"{tick - time:.3f} s old (limit {self.stream.max_age:g} s)"
        return f"{age}; last problem: {self.health.problem}" if self.health.problem else age


class Alignment:
    """Turns the samples of a robot's streams into rows of its contract.

    Args:
        robot: usually `for_policy`; features that it neither streams nor computes are none of the rows.
        keep: how long samples are kept [s].
    """

    def __init__(self, robot: Observed, keep: float = KEEP) -> None:
        offered = {*robot.streams, *robot.computed}
        self._features = {name: feature for name, feature in robot.contract.observation.items() if name in offered}
        self._computed = dict(robot.computed)
        self._keep = keep
        self._buffers = {name: _Buffer(stream) for name, stream in robot.streams.items()}
        self._forward: Callable[[np.ndarray], np.ndarray] | None = None
        if self._computed:
            self._forward = robot.kinematics().forward
        self._needed = {"joint_position" if name in self._computed else name for name in self._features}
        self._clock = -np.inf

    @property
    def topics(self) -> dict[str, Stream]:
        """One stream of each topic to subscribe."""
        return {buffer.stream.topic: buffer.stream for buffer in self._buffers.values()}

    @property
    def health(self) -> dict[str, Health]:
        """By feature, since the last `clear`."""
        return {name: replace(buffer.health) for name, buffer in self._buffers.items()}

    def take(self, topic: str, message: Any, received: float) -> None:
        """Push all features of a message.

        Args:
            topic: as in the robot's file, before any remapping.
            received: when it was received [s]. Live: the node's clock; from a bag: the bag's receive time.
        """
        for name, buffer in self._buffers.items():
            if buffer.stream.topic != topic:
                continue
            try:
                value = bindings.decode(buffer.stream, message)
                stamp = bindings.stamp_of(buffer.stream, message, received)
            except bindings.ElsewhereError:
                continue
            except bindings.BindingError as error:
                buffer.health.malformed += 1
                buffer.health.problem = str(error)
                continue
            self.push(name, stamp, received, value)

    def push(self, feature: str, stamp: float, received: float, value: np.ndarray) -> None:
        """Add a decoded sample that was measured at `stamp` [s] (by `bindings.stamp_of`) and received at `received`."""
        if received < self._clock - RESTART:
            self.clear()
        self._clock = max(self._clock, received)
        self._buffers[feature].push(_Sample(stamp, received, value), self._keep)

    def clear(self) -> None:
        """Forget all samples, for example when simulated time begins anew."""
        self._clock = -np.inf
        for buffer in self._buffers.values():
            buffer.samples.clear()

    def newest(self, feature: str) -> tuple[float, np.ndarray] | None:
        """Time and value of the newest sample of a stream, whatever the tick."""
        samples = self._buffers[feature].samples
        return (samples[-1].time, samples[-1].value) if samples else None

    def has(self, time: float) -> bool:
        """Whether every stream of the contract has a sample of exactly this time: simulated time can go on."""
        return all(
            buffer.samples[bisect_right(buffer.samples, time, key=_time) - 1].time == time if buffer.samples else False
            for buffer in (self._buffers[name] for name in self._needed)
        )

    def row(self, time: float, by: float = np.inf) -> Row:
        """The row of a control tick [s].

        Args:
            by: samples received later than that do not count [s].

        Raises:
            StaleError: a stream has no sample that is young enough.
        """
        chosen = {name: self._buffers[name].time_for(time, by) for name in self._needed}
        faults = {name: self._buffers[name].fault(time, chosen[name]) for name in self._needed}
        if stale := {name: fault for name, fault in sorted(faults.items()) if fault is not None}:
            raise StaleError(stale)
        times = {name: at for name, at in chosen.items() if at is not None}
        stamps = {name: times["joint_position" if name in self._computed else name] for name in self._features}
        return Row(self.restore(stamps), stamps)

    def restore(self, stamps: Mapping[str, float]) -> dict[str, np.ndarray]:
        """The observation whose values were measured at these times, as `row` returned them.

        Raises:
            AlignmentError: such a sample was never pushed, or is no longer kept.
        """
        observation = {}
        for name, feature in self._features.items():
            if name in self._computed:
                assert self._forward is not None
                value = self._forward(self._buffers["joint_position"].value_at(stamps[name]))
                value[3:] = bindings.canonical(name, value[3:])
            else:
                value = self._buffers[name].value_at(stamps[name])
            observation[name] = value.astype(feature.dtype)
        return observation


def interpolate(feature: Feature, before: np.ndarray, after: np.ndarray, part: float) -> np.ndarray:
    """Between two values, `part` of the way: rotations on the great circle (slerp), all else linearly."""
    value: np.ndarray = before + part * (after - before)
    where = feature.rotation
    if where is not None:
        one, other = before[where], after[where]
        other = -other if one @ other < 0 else other
        angle = np.arctan2(np.linalg.norm(other - (one @ other) * one), one @ other)
        if angle > 1e-9:
            mixed = (np.sin((1 - part) * angle) * one + np.sin(part * angle) * other) / np.sin(angle)
        else:
            mixed = one
        value[where] = bindings.canonical(feature.name, mixed)
    return value


def _time(sample: _Sample) -> float:
    return sample.time
