"""Statistics of success rates and of returns against SciPy's tests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp, ttest_rel

from robot_rl.intervals import mcnemar, paired_t, student, wilson


@given(trials=st.integers(1, 500), share=st.floats(0, 1), confidence=st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_is_scipys(trials, share, confidence):
    successes = round(share * trials)
    expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert wilson(successes, trials, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_at_the_ends():
    low, high = wilson(100, 100)
    assert (round(low, 4), high) == (0.963, 1.0)
    assert wilson(0, 100)[0] == 0.0


@pytest.mark.parametrize("counts", [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="successes"):
        wilson(*counts)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_a_sign_test_of_the_discordant_pairs(pairs):
    first, second = zip(*pairs, strict=True)
    test = mcnemar(first, second)
    assert test.only_first == sum(pair == (True, False) for pair in pairs)
    assert test.only_second == sum(pair == (False, True) for pair in pairs)
    discordant = test.only_first + test.only_second
    expected = binomtest(test.only_first, discordant).pvalue if discordant else 1.0
    assert test.p_value == pytest.approx(expected, abs=1e-12)


def test_mcnemar_of_very_many_episodes_does_not_overflow():
    assert mcnemar([True] * 3000, [False] * 3000).p_value == 0.0
    assert mcnemar([True, False] * 2000, [False, True] * 2000).p_value == 1.0


def test_mcnemar_needs_pairs():
    with pytest.raises(ValueError, match="3 and 2"):
        mcnemar([True] * 3, [True] * 2)


RETURNS = st.floats(-1e4, 1e4).map(lambda value: round(value, 2))


@given(st.lists(RETURNS, min_size=2, max_size=40, unique=True))
def test_student_is_scipys(values):
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert student(values) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-6)


@given(st.lists(st.tuples(RETURNS, RETURNS), min_size=2, max_size=40, unique_by=lambda pair: pair[0] - pair[1]))
def test_paired_t_is_scipys(pairs):
    first, second = zip(*pairs, strict=True)
    found, expected = paired_t(first, second), ttest_rel(first, second)
    assert found.difference == pytest.approx(sum(first) / len(first) - sum(second) / len(second), abs=1e-6)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    interval = expected.confidence_interval(0.95)
    assert found.difference_interval == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-6)


def test_means_of_one_or_of_equal_values():
    assert student([3.0]) is None
    assert student([3.0, 3.0]) == (3.0, 3.0)
    one = paired_t([3.0], [1.0])
    assert (one.difference, one.difference_interval, one.p_value) == (2.0, None, None)
    assert paired_t([3.0, 4.0], [3.0, 4.0]).p_value == 1.0
    assert paired_t([3.0, 4.0], [2.0, 3.0]).p_value == 0.0
    with pytest.raises(ValueError, match="at least one"):
        student([])
    with pytest.raises(ValueError, match="3 and 2"):
        paired_t([1.0] * 3, [1.0] * 2)
