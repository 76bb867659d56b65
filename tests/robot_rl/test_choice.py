"""By what the best policy of a training is chosen, for each source of success."""

from typing import Any

import numpy as np
import pytest

from robot_rl.choice import Choice, lasted
from robot_rl.rollout import Outcome
from robot_rl.success_source import SuccessSource

PEG, HOPPER = {"task": "peg"}, {"task": "gym/Hopper-v5"}


def outcome(success: bool = False, reward: float = 0.0, shown: str = "") -> Outcome:
    """`shown`: 1 where the classifier would see success, an observation before the first step and one after each."""
    steps = max(1, len(shown) - 1)
    flags = np.zeros(steps, np.bool_)
    seen = {"light": np.array([[float(mark)] for mark in shown])} if shown else None
    return Outcome(
        0, 1 if success else None, np.full(steps, reward / steps), np.zeros((steps, 1), np.float32), flags, flags,
        terminated=success, truncated=not success, observations=seen,
    )  # fmt: skip


def by_task(spec: dict[str, str] = PEG) -> Choice:
    return Choice(SuccessSource({"name": "task"}), spec, 4)


def by_key() -> Choice:
    return Choice(SuccessSource({"name": "key", "key": "s"}), PEG, 4)


def by_classifier() -> Choice:
    def sees(observation: dict[str, np.ndarray]) -> np.ndarray:
        return np.asarray(observation["light"][:, 0] > 0.5)

    classifier: Any = sees
    return Choice(SuccessSource({"name": "classifier", "path": "there", "persistence": 2}, classifier), PEG, 4)


def test_the_tasks_success_chooses_and_ties_are_decided_by_the_return() -> None:
    choice = by_task()
    row, rank = choice.judge([outcome(True, 1.0), outcome(False, 0.5)], [])
    assert (row, rank) == ({"success_rate": 0.5, "mean_return": 0.75}, [0.5, 0.75])
    assert choice.by == "success, then return of 4 evaluation episodes"
    assert not choice.looks
    best = {"step": 1, **row, "by": choice.by, "rank": rank}
    assert choice.replaces(best, [0.5, 0.75])  # as good, and newer
    assert choice.replaces(best, [0.6, 0.0])
    assert not choice.replaces(best, [0.5, 0.7])
    assert not choice.replaces({"step": 1, **row}, [0.5, 0.7])  # of a training from before ranks were kept


@pytest.mark.parametrize("spec", [PEG, HOPPER])
def test_a_return_that_is_no_number_is_worse_than_any(spec: dict[str, str]) -> None:
    choice = by_task(spec)
    (row, bad), (_, good) = (choice.judge([outcome(True, reward)], []) for reward in (np.nan, -1.0))
    best = {"step": 1, **row, "by": choice.by}
    assert choice.replaces({**best, "rank": bad}, good)
    assert choice.replaces({**best, "rank": bad}, bad)
    assert not choice.replaces({**best, "rank": good}, bad)


def test_a_task_without_success_is_judged_by_its_return() -> None:
    choice = by_task(HOPPER)
    row, rank = choice.judge([outcome(True, 10.0), outcome(True, 20.0)], [])
    assert (row, rank) == ({"mean_return": 15.0}, [15.0])
    assert choice.by == "return of 4 evaluation episodes"
    assert choice.replaces({"step": 0, "mean_return": 14.0}, rank)
    assert not choice.replaces({"step": 0, "mean_return": 16.0}, rank)


def test_a_classifier_judges_evaluations_as_it_judges_training() -> None:
    """Two in succession count, and the observation before the first step does not."""
    choice = by_classifier()
    outcomes = [
        outcome(shown="01100"),
        outcome(shown="11010"),
        outcome(True, 9.0, shown="00001"),
        outcome(shown="0011"),
    ]
    row, rank = choice.judge(outcomes, [True] * 4)
    assert row == {"success_rate": 0.25, "mean_return": 2.25, "judged_success_rate": 0.5}
    assert rank == [0.5]  # the task has no say
    assert choice.looks
    assert choice.evaluated(PEG) == {**PEG, "ends_at_success": False}
    assert by_key().evaluated(PEG) == PEG
    # A best one that the task has chosen does not stand against it.
    assert choice.replaces({"step": 0, "success_rate": 1.0, "mean_return": 1.0}, [0.0])


def test_a_person_with_a_key_is_asked_in_training_alone() -> None:
    choice, recent = by_key(), list[bool]()
    ranks = []
    for ended in ([], [True], [True, True], [True], [False, False, True]):
        recent = choice.remember(recent, ended)
        _, rank = choice.judge([outcome(True, 1.0)], recent)
        ranks.append(rank)
    assert recent == [True, False, False, True]  # the last four
    none, one, three, four, half = (rank[0] for rank in ranks)
    assert none < one < three < four  # one success of one proves less than four of four
    assert half < four
    assert choice.by == "success of the last 4 training episodes"
    assert by_task().remember([], [True]) == []


@pytest.mark.parametrize(
    ("shown", "persistence", "expected"),
    [("", 1, False), ("0", 1, False), ("1", 1, True), ("1", 2, False), ("0110", 2, True), ("01010", 2, False)],
)
def test_success_lasts_for_so_many_steps_in_succession(shown: str, persistence: int, expected: bool) -> None:
    assert lasted(np.array([mark == "1" for mark in shown], np.bool_), persistence) is expected


def test_persistence_is_that_of_training() -> None:
    """Against the counter that ends training episodes, on random sequences."""
    from robot_rl.rl.success_detector import persisted

    draw = np.random.default_rng(0)
    for _ in range(200):
        shown, persistence = draw.random(draw.integers(1, 12)) < 0.6, int(draw.integers(1, 5))
        count, hit = np.zeros(1, np.int64), False
        for each in shown:
            count, success = persisted(count, np.array([each]), persistence)
            hit |= bool(success[0])
        assert lasted(shown, persistence) == hit
