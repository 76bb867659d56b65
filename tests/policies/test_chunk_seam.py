"""Seams of motions whose jumps are known."""

import numpy as np

from robot_rl.policies.chunk_seam import chunk_seams

RATE = 20.0


def test_a_straight_motion_has_no_seam_and_an_offset_is_one() -> None:
    actions = np.outer(np.arange(12), [0.3, 0.4])
    switched = np.isin(np.arange(12), [4, 8])
    none = np.zeros(12, bool)
    smooth = chunk_seams(actions, switched, none, RATE)
    np.testing.assert_allclose(np.concatenate(smooth), 0, atol=1e-12)
    actions[8:] += [0.03, 0.04]
    seams = chunk_seams(actions, switched, none, RATE)
    np.testing.assert_allclose(seams.between, [0, 0.05 * RATE], atol=1e-12)
    # Steps 5 and 9 follow a seam, 0 and 1 have no velocity before them.
    assert len(seams.within) == 12 - 2 - 2 - 2
    np.testing.assert_allclose(seams.within, 0, atol=1e-12)


def test_a_constant_acceleration_is_the_jump_of_every_step() -> None:
    actions = 0.5 * 2.0 * (np.arange(9.0)[:, None] / RATE) ** 2
    seams = chunk_seams(actions, np.arange(9) == 5, np.zeros(9, bool), RATE)
    np.testing.assert_allclose(seams.between, [2.0 / RATE])
    np.testing.assert_allclose(seams.within, 2.0 / RATE)


def test_stopping_for_want_of_an_action_and_going_on_are_seams() -> None:
    actions = np.array([0, 0, 1, 2, 3, 3, 3, 4, 5], float)[:, None]
    held = np.isin(np.arange(9), [0, 1, 5, 6])
    seams = chunk_seams(actions, np.arange(9) == 7, held, 1.0)
    assert seams.between.tolist() == [1, 1]
    assert seams.within.tolist() == [0]


def test_short_episodes_have_none() -> None:
    for steps in (1, 2):
        seams = chunk_seams(np.zeros((steps, 3)), np.zeros(steps, bool), np.ones(steps, bool), RATE)
        assert [len(part) for part in seams] == [0, 0]
