"""Statistics of success rates and of returns, of one policy and of two on the same seeds.

Of success the Wilson interval and the exact McNemar test, of returns Student's interval and his paired test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a binomial proportion (Wilson, 1927), without continuity correction.

    Unlike the normal approximation it stays within [0, 1] and has a width at 0 and 100 %.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"expected 0 <= successes <= trials and at least one trial, got {successes} of {trials}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a share between 0 and 1, got {confidence}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, shrink = successes / trials, 1 + z * z / trials
    center = (rate + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # Exact at the ends, where rounding would leave 1e-17.
    return (0.0 if successes == 0 else center - half), (1.0 if successes == trials else center + half)


@dataclass(frozen=True)
class PairedTest:
    """Two success rates on the same episodes.

    Attributes:
        only_first, only_second: episodes in which just one of the two succeeded.
        p_value: probability of so uneven a split, or a more uneven one, if both were equally good; two-sided.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> PairedTest:
    """The exact test of McNemar (1947): the episodes that only one of the two won are tosses of a fair coin."""
    if len(first) != len(second):
        raise ValueError(f"paired outcomes are of the same episodes, got {len(first)} and {len(second)}")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(tosses, k) for k in range(fewer + 1))
    # Integers until the division: 2**tosses overflows a float for more than 1023 episodes.
    return PairedTest(only_first, only_second, min(1.0, 2 * tail / 2**tosses))


def student(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval of the mean of values whose spread is unknown (Student, 1908); None of one value, which shows none."""
    if not values:
        raise ValueError("expected at least one value")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a share between 0 and 1, got {confidence}")
    if len(values) == 1:
        return None
    from scipy.special import stdtrit

    mean, error = fmean(values), stdev(values) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, 0.5 + confidence / 2)) * error
    return mean - half, mean + half


@dataclass(frozen=True)
class PairedDifference:
    """Two means over the same episodes.

    Attributes:
        difference: of the first from the second.
        difference_interval: 95 %; None of one episode.
        p_value: probability of so large a difference, or a larger one, if both were equally good; two-sided. None of
            one episode.
    """

    difference: float
    difference_interval: tuple[float, float] | None
    p_value: float | None


def paired_t(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """Student's test of the differences within pairs, which over many episodes need not be normal."""
    if len(first) != len(second):
        raise ValueError(f"paired outcomes are of the same episodes, got {len(first)} and {len(second)}")
    differences = [a - b for a, b in zip(first, second, strict=True)]
    interval, mean = student(differences), fmean(differences)
    if interval is None:
        return PairedDifference(mean, None, None)
    error = stdev(differences) / math.sqrt(len(differences))
    if error == 0:
        return PairedDifference(mean, interval, 1.0 if mean == 0 else 0.0)
    from scipy.special import stdtr

    return PairedDifference(mean, interval, 2 * float(stdtr(len(differences) - 1, -abs(mean) / error)))
