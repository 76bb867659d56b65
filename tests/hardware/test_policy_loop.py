"""A policy whose action j of a chunk is (observed step + j), so that it is known what should be executed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from robot_rl.datasets import Contract, Feature
from robot_rl.hardware.alignment import Row
from robot_rl.hardware.inference import Answer, Description, Event, Failure, Ready
from robot_rl.hardware.policy_loop import InferenceFailed, PolicyLoop, Step

PERIOD = 0.05
CONTRACT = Contract(
    "counter", 1 / PERIOD, {"step": Feature("step", (1,))}, {"step": Feature("step", (1,), kind="action")}, "servo"
)


class Inference:
    """Answers when it is told to."""

    policy = Description(CONTRACT, obs_horizon=2, action_horizon=8, action_offset=0, prefix_max_length=0)

    def __init__(self) -> None:
        self.asked: list[tuple[int, np.ndarray]] = []
        self.pending: list[Event] = []
        self.seeds: list[int] = []

    def begin(self, seed: int) -> None:
        self.seeds.append(seed)

    def submit(self, request_id: int, observation: Mapping[str, np.ndarray], prefix: Any) -> None:
        self.asked.append((request_id, observation["step"].copy()))

    def events(self) -> list[Event]:
        events, self.pending = self.pending, []
        return events

    def answer(self) -> None:
        request_id, observed = self.asked[-1]
        chunk = observed[0, -1] + np.arange(8, dtype=np.float32)[None, :, None]
        self.pending.append(Answer(request_id, chunk, 0.01))


class Alignment:
    """The newest sample, of any age."""

    def __init__(self) -> None:
        self.sample: tuple[float, np.ndarray] | None = None
        self.asked: list[float] = []

    @property
    def health(self) -> dict[str, None]:
        return {"step": None}

    def take(self, topic: str, message: Any, received: float) -> None:
        self.sample = received, message

    def newest(self, feature: str) -> tuple[float, np.ndarray] | None:
        return self.sample

    def row(self, time: float) -> Row:
        if self.sample is None:
            raise LookupError("no sample")
        self.asked.append(time)
        return Row({"step": self.sample[1]}, {"step": self.sample[0]})


def make(**options: Any) -> tuple[PolicyLoop, Inference]:
    inference = Inference()
    return PolicyLoop(inference, Alignment(), execute=4, **options), inference


def observe(loop: PolicyLoop, step: int) -> None:
    loop.take("/step", np.array([step], np.float32), step * PERIOD)


def actions(steps: list[Step]) -> list[float]:
    return [float(step.action[0]) for step in steps if step.action is not None]


def test_a_chunk_that_arrives_within_the_period_acts_at_once() -> None:
    loop, inference = make()
    loop.begin(7)
    assert inference.seeds == [7]
    executed = []
    for step in range(9):
        observe(loop, step)
        steps = loop.tick(step * PERIOD)
        rows = [item.row for item in steps if item.row is not None]
        assert [row.stamps["step"] for row in rows] == [step * PERIOD]
        if step % 4 == 0:
            assert actions(steps) == []
            inference.answer()
            steps = loop.advance()
        assert loop.advance() == []
        executed += actions(steps)
    assert executed == list(range(9))
    assert [observed[0, :, 0].tolist() for _, observed in inference.asked] == [[0, 0], [3, 4], [7, 8]]
    assert loop.inference_times == [0.01] * 3


def test_the_last_action_is_held_until_a_late_chunk_arrives() -> None:
    loop, inference = make()
    loop.begin(0)
    executed: list[tuple[float, bool]] = []
    for step in range(8):
        observe(loop, step)
        steps = loop.tick(step * PERIOD)
        if step in (0, 6):
            inference.answer()
            steps += loop.advance()
        executed += [(float(item.action[0]), item.held) for item in steps if item.action is not None]
    moves = [(0.0, False), (1.0, False), (2.0, False), (3.0, False)]
    # Asked at step 4, answered within step 6: two periods are over without an action of their own.
    assert executed == [*moves, (3.0, True), (3.0, True), (4.0, False), (5.0, False)]


def test_before_the_first_chunk_nothing_is_proposed() -> None:
    loop, _ = make()
    loop.begin(0)
    for step in range(3):
        observe(loop, step)
        assert actions(loop.tick(step * PERIOD)) == []


def test_an_artificial_delay_is_counted_on_the_clock_of_the_ticks() -> None:
    loop, inference = make(delay=0.1, mode="asynchronous")
    loop.begin(0)
    executed = []
    for step in range(10):
        observe(loop, step)
        executed.append(actions(loop.tick(step * PERIOD)))
        if inference.asked and inference.asked[-1][1][0, -1, 0] == step:
            inference.answer()
            assert actions(loop.advance()) == []
    # Chunks asked at 0, 2 + 4 = 6, … are there two steps later; the second one goes on where execution stands.
    assert executed == [[], [], [0], [1], [2], [3], [4], [5], [8], [9]]


def test_in_lockstep_a_tick_waits_for_its_observation_and_for_its_chunk() -> None:
    inference, alignment = Inference(), Alignment()
    loop = PolicyLoop(inference, alignment, execute=4, lockstep=True)
    loop.begin(0)
    for step in range(2):
        observe(loop, step)
    assert loop.tick(1 * PERIOD)[0].row is not None
    inference.answer()
    assert actions(loop.advance()) == [1.0]
    assert loop.tick(2 * PERIOD) == []
    assert loop.awaited() == ["step"]
    observe(loop, 2)
    steps = loop.advance()
    assert actions(steps) == [2.0]
    assert alignment.asked == [PERIOD, 2 * PERIOD]
    assert loop.tick(3 * PERIOD) == []
    steps = loop.advance(patient=False)  # it never came
    assert [step.row.stamps["step"] for step in steps if step.row is not None] == [2 * PERIOD]


def test_seams_are_the_jumps_of_velocity_between_chunks() -> None:
    loop, inference = make()
    loop.begin(0)
    seams = []
    for step in range(9):
        observe(loop, 10 * step)  # each chunk begins ten times as far as the steps before went
        steps = loop.tick(step * PERIOD)
        if step % 4 == 0:
            inference.answer()
            steps += loop.advance()
        seams += [item.seam for item in steps if item.seam is not None]
    # The command went on by 1 in each step, then by 37.
    assert seams == pytest.approx([(37.0 - 1.0) / PERIOD] * 2)


def test_a_failed_inference_ends_the_loop_and_a_restart_allows_another_beginning() -> None:
    loop, inference = make()
    loop.begin(0)
    observe(loop, 0)
    loop.tick(0.0)
    inference.pending.append(Failure(0, "the process died: SIGKILL"))
    with pytest.raises(InferenceFailed, match="SIGKILL"):
        loop.advance()
    assert not loop.active
    with pytest.raises(InferenceFailed, match="SIGKILL"):
        loop.begin(1)
    inference.pending.append(Ready())
    loop.advance()
    loop.begin(1)
    assert loop.active


def test_a_chunk_that_is_not_finite_ends_the_loop() -> None:
    loop, inference = make()
    loop.begin(0)
    observe(loop, 0)
    loop.tick(0.0)
    inference.pending.append(Answer(0, np.full((1, 8, 1), np.nan, np.float32), 0.01))
    with pytest.raises(InferenceFailed, match="not finite"):
        loop.advance()


def test_an_answer_to_the_run_before_is_ignored() -> None:
    loop, inference = make()
    loop.begin(0)
    observe(loop, 0)
    loop.tick(0.0)
    inference.answer()
    late = inference.pending
    inference.pending = []
    loop.begin(1)
    observe(loop, 1)
    loop.tick(PERIOD)
    inference.pending = late
    assert loop.advance() == []


def test_a_missing_observation_is_raised_and_leaves_out_the_step() -> None:
    loop, _ = make()
    loop.begin(0)
    with pytest.raises(LookupError):
        loop.tick(0.0)
    assert loop.advance() == []
    observe(loop, 1)
    assert len(loop.tick(PERIOD)) == 1
