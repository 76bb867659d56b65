"""The control loop of a policy on a robot: observations in, actions out. No clock, threads or network here.

    loop.begin(seed)
    loop.take(topic, message, received)                # whenever a message comes
    steps = loop.tick(time)                            # at each multiple of the control period
    steps = loop.advance()                             # whenever something has come since: a message, a chunk

A control step begins with its tick, takes a row of observations and ends with an action: at once when the `ChunkRunner`
has one, otherwise as soon as the chunk that it waits for arrives. When the next tick comes first, the robot is told to
stay where it was sent last, so that the Supervisor hears of its source in every period.

A sample that was measured at the tick arrives a little later, and is awaited: see `rhythm`.

With `lockstep` simulated time waits for the action of every tick, and a step waits also for a chunk that is to be there
by its artificial delay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_rl.hardware.alignment import Row
from robot_rl.hardware.inference import Answer, Description, Event, Failure
from robot_rl.hardware.rhythm import Rhythm, Samples
from robot_rl.policies.chunk_runner import ChunkRunner, Mode, StarvedError, UnknownRequestError
from robot_rl.policies.prefix import Prefix

_EPSILON = 1e-6  # clocks are floats


class Computes(Protocol):
    """What the loop needs of `Inference`."""

    policy: Description

    def begin(self, seed: int) -> None: ...
    def submit(self, request_id: int, observation: Mapping[str, NDArray[Any]], prefix: Prefix | None) -> None: ...
    def events(self) -> list[Event]: ...


class Aligns(Samples, Protocol):
    """What the loop needs of `Alignment`."""

    def take(self, topic: str, message: Any, received: float) -> None: ...
    def row(self, time: float) -> Row: ...


@dataclass(frozen=True)
class Step:
    """Something that a control step came to.

    Attributes:
        time: the tick that it belongs to.
        row: observed just now, or None.
        action: to be proposed now, or None.
        held: the action is the last one again, for want of a chunk.
        seam: the jump of the commanded velocity where a new chunk took over or there was none, else None: see
            `robot_rl.policies.chunk_seam`; without the gripper.
    """

    time: float
    row: Row | None = None
    action: NDArray[np.float32] | None = None
    held: bool = False
    seam: float | None = None


class InferenceFailed(RuntimeError):  # noqa: N818
    """There will be no chunk; the loop has ended. The message says why."""


class PolicyLoop:
    """Runs a policy on a robot.

    Args:
        inference: computes the chunks.
        alignment: brings the streams onto the control clock.
        execute, mode: see `ChunkRunner`.
        delay: added to each inference, by the clock of the ticks [s].
        lockstep: see the module.

    Attributes:
        active: between `begin` and `end`.
        failure: why no chunk can be computed at present, or None.
        inference_times: how long each chunk took to compute [s], since they were last taken.
    """

    def __init__(
        self,
        inference: Computes,
        alignment: Aligns,
        *,
        execute: int | None = None,
        mode: Mode = "receding_horizon",
        delay: float = 0.0,
        lockstep: bool = False,
    ) -> None:
        contract = inference.policy.contract
        steps = int(np.ceil(delay * contract.rate_hz - _EPSILON))
        self._inference, self._alignment = inference, alignment
        self._runner = ChunkRunner(inference.policy, 1, execute=execute, mode=mode, delay=steps)
        self._names = list(contract.observation)
        self._delay, self._lockstep, self._rate_hz = delay, lockstep, contract.rate_hz
        smooth = [part for name, part in contract.action_slices.items() if name != "gripper_opening"]
        self._smooth = np.r_[tuple(smooth or contract.action_slices.values())]
        self._rhythm = Rhythm(alignment)
        self._asked: dict[int, float] = {}
        self._answers: list[Answer] = []
        self._time: float | None = None
        self._observed = True
        self._last: NDArray[np.float32] | None = None
        self._before: NDArray[np.float32] | None = None
        self.active = False
        self.failure: str | None = None
        self.inference_times: list[float] = []

    def begin(self, seed: int) -> None:
        """Start anew from the next tick on, with a generator of this seed.

        Raises:
            InferenceFailed: the inference process failed and does not answer again yet.
        """
        self.end()
        if self.failure is not None:
            raise InferenceFailed(self.failure)
        self._runner.flush()
        self._inference.begin(seed)
        self.active = True

    def end(self) -> None:
        """Act no longer."""
        self.active, self._time, self._last, self._before = False, None, None, None
        self._asked.clear()
        self._answers.clear()

    def take(self, topic: str, message: Any, received: float) -> None:
        """Take a message; see `Alignment.take`."""
        self._alignment.take(topic, message, received)
        self._rhythm.listen()

    @property
    def waiting(self) -> bool:
        """Whether a control step has begun that came to no action yet."""
        return self._time is not None

    def awaited(self) -> list[str]:
        """Features whose next sample, by the rhythm so far, belongs to the present tick and has not come."""
        return [] if self._time is None or self._observed else self._rhythm.awaited(self._time)

    def tick(self, time: float) -> list[Step]:
        """Begin the control step of a time [s], ending the one before.

        Raises:
            StaleError: an observation is too old; the step is left out.
            InferenceFailed: there will be no chunk; `end` was called.
        """
        steps = []
        if self.active and self._time is not None and self._observed and self._last is not None:
            steps.append(self._hold(self._time, self._last))
        self._time, self._observed = time, False
        return [*steps, *self.advance()]

    def advance(self, patient: bool = True) -> list[Step]:
        """Go on with the present control step as far as that is possible now.

        Args:
            patient: wait for samples that are to come.

        Raises:
            StaleError, InferenceFailed: see `tick`.
        """
        self._listen()
        if not self.active or self._time is None:
            return []
        time, steps = self._time, []
        if not self._observed:
            if patient and self.awaited():
                return []
            self._observed = True
            row = self._look(time)
            steps.append(Step(time, row=row))
            self._runner.observe({name: row.observation[name][None] for name in self._names})
            self._deliver(time)
            if (request := self._runner.request()) is not None:
                self._asked[request.id] = time
                self._inference.submit(request.id, request.observation, request.prefix)
        else:
            self._deliver(time)
        waiting = any(self._due(asked, time) for asked in self._asked.values())
        if waiting and self._lockstep:
            return steps
        try:
            action = self._runner.next_action()[0]
        except StarvedError:
            if waiting or self._last is None:
                return steps
            return [*steps, self._hold(time, self._last)]
        return [*steps, self._act(time, action, bool(self._runner.switched[0]))]

    def _hold(self, time: float, last: NDArray[np.float32]) -> Step:
        self._runner.next_action(hold=last[None])
        return self._act(time, last, self._before is not last, held=True)

    def _act(self, time: float, action: NDArray[np.float32], switched: bool, held: bool = False) -> Step:
        seam = None
        if switched and self._last is not None and self._before is not None:
            bend = (action - 2 * self._last + self._before)[self._smooth]
            seam = float(np.linalg.norm(bend)) * self._rate_hz
        self._before, self._last, self._time = self._last, action, None
        return Step(time, action=action, held=held, seam=seam)

    def _look(self, time: float) -> Row:
        try:
            return self._alignment.row(time)
        except BaseException:
            self._time = None
            raise

    def _due(self, asked: float, time: float) -> bool:
        return asked + self._delay <= time + _EPSILON

    def _listen(self) -> None:
        for event in self._inference.events():
            if isinstance(event, Answer):
                self.inference_times.append(event.seconds)
                if event.id in self._asked:
                    self._answers.append(event)
            elif isinstance(event, Failure):
                self.failure = event.reason
                if self.active:
                    self.end()
                    raise InferenceFailed(event.reason)
            else:
                self.failure = None

    def _deliver(self, time: float) -> None:
        for answer in list(self._answers):
            if self._due(self._asked[answer.id], time):
                self._answers.remove(answer)
                del self._asked[answer.id]
                try:
                    self._runner.deliver(answer.id, answer.chunk)
                except UnknownRequestError:
                    continue
                except ValueError as error:
                    self.end()
                    raise InferenceFailed(str(error)) from error
