"""A person who takes over: who acts when, what is kept of it, and a device that is lost. On a clock of its own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.datasets import EpisodeStore
from robot_rl.hardware.opened import Opened
from robot_rl.hardware.teleop.device import Reading
from robot_rl.policies import PolicyError
from robot_rl.recordings import Recordings
from robot_rl.rl.off_policy_learner import OffPolicyLearner
from robot_rl.rl.person import Person
from robot_rl.rl.sac import SAC
from tests.robot_rl.rl.line import Line
from tests.robot_rl.rl.stored import squashed_policy, store_episodes
from tests.robot_rl.rl.test_off_policy import settings

PUSHED = 0.25
"""What the person does on the line; the policy's own actions are never so."""
REST, PUSH, GONE = "rest", "push", "gone"


@dataclass
class SoFar:
    intervened: list[bool] = field(default_factory=list)
    success: bool = False


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


class Hand(Opened):
    """A device that says `state`, or what `plan` holds for each reading in turn."""

    name = "hand"

    def __init__(self, plan: str = "") -> None:
        self.state, self.words, self.age = REST, list[str](), 0.0
        self.plan = iter(plan)

    def read(self, now: float) -> Reading | None:
        self.state = {"r": REST, "p": PUSH, "g": GONE}.get(next(self.plan, ""), self.state)
        if self.state == GONE:
            return None
        return Reading(now - self.age, twist=np.full(6, PUSHED if self.state == PUSH else 0.0))

    def events(self) -> list[str]:
        words, self.words = self.words, []
        return words


class Straight:
    """The first axis is the action."""

    def is_deflected(self, reading: Reading) -> bool:
        assert reading.twist is not None
        return bool(reading.twist.any())

    def action(self, reading: Reading) -> np.ndarray:
        assert reading.twist is not None
        return reading.twist[:1].astype(np.float32)


def acts(plan: str, **options: Any) -> str:
    """P where the policy and H where the person acted, step by step of 0.1 s."""
    clock, said = Clock(), ""
    person = Person(
        Hand(plan), Straight(), 10.0, say=lambda line: None, clock=clock, sleep=clock.sleep, **options
    )  # fmt: skip
    proposed = np.full((3, 1), 0.7, np.float32)
    for _ in plan:
        taken, action = person(proposed, [SoFar()] * 3)
        assert not taken[1:].any()
        assert (action[1:] == proposed[1:]).all()
        said += "H" if taken[0] else "P"
    return said


@pytest.mark.parametrize(
    ("plan", "handback", "expected"),
    [
        ("rrpprr", 0.0, "PPHHPP"),
        ("rpprrrrr", 0.25, "PHHHHPPP"),  # stands still, then hands back
        ("rprrpr", 0.25, "PHHHHH"),  # the next motion in time
        ("pprpp", 0.0, "PPPHH"),  # held from the beginning: it has to rest first
        ("rppgpprpp", 0.5, "PHHPPPPHH"),  # lost: the policy at once, and after a rest the person again
    ],
)
def test_the_person_acts_while_the_device_is_moved(plan: str, handback: float, expected: str) -> None:
    assert acts(plan, handback=handback) == expected


def test_what_is_executed_is_the_persons_and_stands_still_until_it_is_handed_back() -> None:
    clock, hand = Clock(), Hand("rprrr")
    person = Person(hand, Straight(), 10.0, handback=0.25, clock=clock, sleep=clock.sleep)
    proposed = np.full((1, 1), 0.7, np.float32)
    done = [float(person(proposed, [SoFar()])[1][0, 0]) for _ in range(5)]
    assert done == pytest.approx([0.7, PUSHED, 0.0, 0.0, 0.7])
    assert proposed[0, 0] == np.float32(0.7)


def test_the_word_release_hands_back_at_once() -> None:
    clock, hand = Clock(), Hand()
    person = Person(hand, Straight(), 10.0, handback=5.0, clock=clock, sleep=clock.sleep)

    def taken() -> bool:
        return bool(person(np.zeros((1, 1), np.float32), [SoFar()])[0][0])

    assert not taken()
    hand.state = PUSH
    assert taken()
    hand.words = ["release"]
    assert not taken()
    assert not taken()  # still held: not meant anew
    hand.state = REST
    assert not taken()
    hand.state = PUSH
    assert taken()


def test_a_lost_device_is_told_once_and_moves_nothing() -> None:
    clock, hand, told = Clock(), Hand(), list[str]()
    person = Person(hand, Straight(), 10.0, say=told.append, clock=clock, sleep=clock.sleep)

    def taken(state: str, age: float = 0.0) -> bool:
        hand.state, hand.age = state, age
        return bool(person(np.zeros((1, 1), np.float32), [SoFar()])[0][0])

    assert [taken(REST), taken(PUSH)] == [False, True]
    assert [taken(GONE), taken(GONE), taken(PUSH, age=0.5)] == [False] * 3  # an old reading is none
    assert told == ["hand: not heard; the policy goes on alone"]
    assert not taken(PUSH)
    assert told[1:] == ["hand: heard again; it acts once it has been at rest"]
    assert [taken(REST), taken(PUSH)] == [False, True]


def test_what_was_pressed_during_a_pause_of_the_training_moves_nothing() -> None:
    clock, hand = Clock(), Hand()
    person = Person(hand, Straight(), 10.0, handback=0.0, clock=clock, sleep=clock.sleep)

    def taken(state: str) -> bool:
        hand.state = state
        return bool(person(np.zeros((1, 1), np.float32), [SoFar()])[0][0])

    assert [taken(REST), taken(PUSH)] == [False, True]
    clock.now += 20.0  # an evaluation
    assert [taken(PUSH), taken(PUSH), taken(REST), taken(PUSH)] == [False, False, False, True]


def test_steps_come_at_the_control_rate_and_are_not_made_up_for() -> None:
    clock = Clock()
    person = Person(Hand(), Straight(), 10.0, speed=0.5, clock=clock, sleep=clock.sleep)
    for learned in (0.05, 0.05, 0.7, 0.0):
        person(np.zeros((1, 1), np.float32), [SoFar()])
        clock.now += learned
    person(np.zeros((1, 1), np.float32), [SoFar()])
    assert clock.slept == [0.15, 0.15, 0.2]  # of 0.2 s each, less what learning took; none after the slow one


def test_the_person_is_shown_each_step_of_the_first_episode() -> None:
    clock, shown = Clock(), list[tuple[bool, int]]()
    first, second = SoFar(), SoFar([True] * 9)
    person = Person(
        Hand("rpp"), Straight(), 10.0, show=lambda acts, episode: shown.append((acts, len(episode.intervened))),
        clock=clock, sleep=clock.sleep,
    )  # fmt: skip
    for _ in range(3):
        taken, _ = person(np.zeros((2, 1), np.float32), [first, second])
        first.intervened.append(bool(taken[0]))
    assert shown == [(False, 0), (False, 1), (True, 2)]


@pytest.mark.parametrize("wrong", [{"speed": 0.0}, {"handback": -0.1}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(PolicyError, match="expected speed above 0 and handback at least 0"):
        Person(Hand(), Straight(), 10.0, **wrong)


def test_what_the_person_did_is_stored_and_lies_in_both_buffers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    store_episodes(tmp_path / "demo.zarr", [5, 6], [True, True])
    chosen = settings(demonstration_share=0.5, start_steps=30, batch=8)
    clock = Clock()
    hand = Hand("rrrppprrrr" * 8)
    person = Person(hand, Straight(), 10.0, handback=0.0, clock=clock, sleep=clock.sleep)
    recorded = Recordings([tmp_path / "demo.zarr"], held_out=0.0)
    method = SAC(squashed_policy(), 1, temperature=0.1)
    line = Line(2)
    learner = OffPolicyLearner(
        method, line, chosen, tmp_path / "own.zarr", 0, 100, recorded, new=True, intervener=person
    )  # fmt: skip
    with learner as training:
        rows = [training.iterate() for _ in range(4)]
        intervened = np.concatenate([each.intervened for each in training.writer.store])
        assert training._demonstrations is not None
        assert 0 < intervened.sum() == len(training._demonstrations) - 11
        assert training._own is not None
        assert len(training._own) == training.writer.store.num_steps
        assert training.explorer.interventions == 4 * 3
    # The first environment alone, three steps of ten; what was executed is what the line was told.
    told = np.stack(line.log)[:, :, 0]
    assert (told[:, 0] == PUSHED).tolist() == ([False] * 3 + [True] * 3 + [False] * 4) * 4
    assert not (told[:, 1] == PUSHED).any()
    assert all(row["intervention_rate"] == pytest.approx(3 / 20) for row in rows)
    for episode in EpisodeStore.open(tmp_path / "own.zarr"):
        marked = episode.intervened
        assert ((episode.action == PUSHED)[:, 0] == marked).all()
        assert (episode.policy_action[marked] != PUSHED).all()
        np.testing.assert_array_equal(episode.action[~marked], episode.policy_action[~marked])
