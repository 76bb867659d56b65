"""The table of DDS: which offers meet which requests."""

import pytest

from robot_rl.hardware.ros2.qos import LATCHED, RELIABLE, SENSOR, Qos, mismatches


@pytest.mark.parametrize(
    ("offered", "requested", "words"),
    [
        (RELIABLE, RELIABLE, []),
        (RELIABLE, SENSOR, []),
        (SENSOR, RELIABLE, ["best effort"]),
        (LATCHED, RELIABLE, []),
        (RELIABLE, LATCHED, ["volatile"]),
        (SENSOR, LATCHED, ["best effort", "volatile"]),
        (RELIABLE, Qos(deadline=0.1), ["deadline is none"]),
        (Qos(deadline=0.2), Qos(deadline=0.1), ["deadline is 0.2 s"]),
        (Qos(deadline=0.05), Qos(deadline=0.1), []),
    ],
)
def test_offers_and_requests(offered, requested, words):
    reasons = mismatches(offered, requested)
    assert len(reasons) == len(words)
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))


@pytest.mark.parametrize(
    "wrong", [{"reliability": "maybe"}, {"durability": "eternal"}, {"depth": -1}, {"deadline": 0.0}]
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be|is '"):
        Qos(**wrong)
