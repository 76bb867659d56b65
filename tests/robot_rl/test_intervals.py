"""Success-rate statistics against SciPy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from robot_rl.intervals import mcnemar, wilson


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
