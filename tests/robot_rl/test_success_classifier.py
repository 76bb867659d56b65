"""The threshold against distributions that are known, and the file beside the checkpoint."""

from statistics import NormalDist

import numpy as np
import pytest

from robot_rl.intervals import wilson
from robot_rl.policies import save_policy
from robot_rl.success_classifier import (
    LEAST,
    ClassifierError,
    Judgement,
    Rate,
    SuccessClassifier,
    choose_threshold,
)  # fmt: skip
from tests.robot_rl.rl.stored import squashed_policy


@pytest.mark.parametrize("wanted", [0.2, 0.05, 0.01])
def test_of_a_known_distribution_at_most_the_wanted_share_lies_above(wanted: float) -> None:
    """Scores are those of a normal variable: the share above a threshold is exact. The bound may fail once in forty."""
    true = [
        1 - NormalDist(2.0, 0.5).cdf(choose_threshold(np.random.default_rng(seed).normal(2.0, 0.5, 2000), wanted))
        for seed in range(60)
    ]
    assert sum(rate > wanted for rate in true) <= 5
    assert np.mean(true) > wanted / 4  # and the threshold is not simply as high as can be


@pytest.mark.parametrize("n", [5, 300, 3000])
@pytest.mark.parametrize("wanted", [0.5, 0.01])
def test_of_the_scores_themselves_as_many_are_let_through_as_the_bound_allows(n: int, wanted: float) -> None:
    scores = 1 + np.random.default_rng(n).uniform(size=n)
    passed = int((scores >= choose_threshold(scores, wanted)).sum())
    assert passed == 0 or wilson(passed, n)[1] <= wanted
    assert passed == n - 1 or wilson(passed + 1, n)[1] > wanted


def test_equal_scores_fall_on_the_safe_side() -> None:
    assert choose_threshold(np.full(1000, 0.9), 0.1) > 0.9


def test_rare_scores_do_not_lower_it_below_the_least() -> None:
    assert choose_threshold(np.full(1000, 1e-3), 0.1) == LEAST


def test_impossible_requests_are_errors() -> None:
    with pytest.raises(ClassifierError, match="between 0 and 1"):
        choose_threshold(np.zeros(3), 0.0)
    with pytest.raises(ClassifierError, match="no observation without success"):
        choose_threshold(np.zeros(0), 0.1)


def test_what_was_measured_is_kept(tmp_path) -> None:
    made = Judgement(0.7, 0.01, Rate.of(np.arange(200) < 2), Rate.of(np.arange(10) < 9))
    made.write(tmp_path)
    assert Judgement.read(tmp_path) == made
    assert made.false_positives.value == 0.01
    assert (made.false_positives.low, made.false_positives.high) == wilson(2, 200)


def test_a_policy_is_no_classifier(tmp_path) -> None:
    save_policy(squashed_policy(), tmp_path)
    with pytest.raises(ClassifierError, match="process tanh_gaussian"):
        SuccessClassifier.load(tmp_path)
    with pytest.raises(ClassifierError, match=r"success.json cannot be read"):
        Judgement.read(tmp_path)
