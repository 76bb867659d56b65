"""What is told of a camera's delivery, against frames whose times are known."""

import numpy as np
import pytest

from robot_rl.hardware.cameras.camera import Counts, Frame
from robot_rl.hardware.cameras.camera_check import delivery

PICTURE = np.zeros((48, 64, 3), np.uint8)


def test_rate_jitter_age_and_losses():
    stamps = np.arange(90) / 30
    stamps[1::2] += 0.002
    kept = np.delete(stamps, [40, 41])
    frames = [Frame(PICTURE, stamp, stamp + 0.05) for stamp in kept]
    measured = delivery(frames, Counts(frames=88, dropped=2))
    assert measured.size == (48, 64)
    assert measured.rate == pytest.approx(87 / (stamps[-1] - stamps[0]))
    # Intervals are 35.3 and 31.3 ms in turn; about their median they spread by 4 ms at most, whatever was lost.
    assert 0.0 <= measured.jitter[0] <= measured.jitter[1] <= 0.004 + 1e-9
    assert measured.jitter[1] == pytest.approx(0.004, abs=1e-3)
    assert measured.age == pytest.approx((0.05, 0.05))
    assert (measured.frames, measured.dropped, measured.steps_back) == (88, 2, 0)


def test_stamps_that_do_not_rise_are_told():
    frames = [Frame(PICTURE, stamp, 1.0) for stamp in (0.0, 0.1, 0.1, 0.05, 0.2)]
    assert delivery(frames, Counts()).steps_back == 2


def test_too_few_frames_tell_nothing():
    assert delivery([Frame(PICTURE, 0.0, 0.0)] * 2, Counts()) is None
