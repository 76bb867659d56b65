"""The share of the way that was made, for motions whose share is known."""

import numpy as np
import pytest

from robot_rl.hardware.teleop.progress import Progress
from robot_rl.sim.rotation import matrix_from_vector

PERIOD, SPEED = 0.05, 0.2


def shares(
    velocity=(0.0, 0.0, 0.0), turning=(0.0, 0.0, 0.0), opening=0.0, wanted=(SPEED, 0, 0, 0, 0, 0, 0), seconds=1.0
):
    """What `look` says of a steady motion, while the same is wanted all the time."""
    progress = Progress(0.5)
    return [
        progress.look(
            10.0 + time, np.array(velocity) * time, matrix_from_vector(np.array(turning) * time), 0.04 + opening * time,
            np.array(wanted, float),
        )
        for time in np.arange(0.0, seconds + 1e-9, PERIOD)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("motion", "share"),
    [
        ({"velocity": (SPEED, 0, 0)}, 1.0),
        ({"velocity": (SPEED / 2, 0, 0)}, 0.5),
        ({"velocity": (0, SPEED, 0)}, 0.0),
        ({"velocity": (-SPEED, 0, 0)}, -1.0),
        ({"velocity": (5 * SPEED, 0, 0)}, 1.0),
        ({"turning": (0, 0, 0.5), "wanted": (0, 0, 0, 0, 0, 1.0, 0)}, 0.5),
        ({"opening": -0.05, "wanted": (0, 0, 0, 0, 0, 0, -0.1)}, 0.5),
        ({"wanted": (0.01, 0, 0, 0, 0, 0, 0)}, 1.0),  # as good as there
    ],
)
def test_the_share_of_a_steady_motion(motion, share):
    assert shares(**motion)[-1] == pytest.approx(share, abs=1e-6)


def test_nothing_is_judged_before_it_was_watched_long_enough():
    assert shares()[:10] == [1.0] * 10
    assert shares()[11] == 0.0


def test_what_was_longer_ago_is_forgotten():
    progress, place = Progress(0.5), 0.0
    said = []
    for number in range(40):
        place += PERIOD * SPEED * (number > 20)
        wanted = np.array([SPEED, 0, 0, 0, 0, 0, 0])
        said.append(progress.look(number * PERIOD, np.array([place, 0, 0]), np.eye(3), 0.04, wanted))
    assert said[20] == 0.0
    assert said[25] == pytest.approx(0.5)
    assert said[-1] == pytest.approx(1.0)
    progress.reset()
    assert progress.look(2.0, np.zeros(3), np.eye(3), 0.04, wanted) == 1.0
