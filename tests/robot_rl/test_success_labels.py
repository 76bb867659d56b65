"""Which rows count as success: of marked episodes, of whole stores, and never the same episode on both sides."""

from pathlib import Path

import numpy as np
import pytest

from robot_rl.datasets import EpisodeStore
from robot_rl.success_labels import LabelError, divide, label, label_all, rows_of

from .conftest import MakeStore


def test_the_end_of_a_success_is_positive_and_what_is_just_before_it_neither(reach_store: MakeStore) -> None:
    path = reach_store(episodes=3, failures=2)
    store = EpisodeStore.open(path)
    found = label(path, positives=2, margin=3)
    assert len(found) == 5
    for number, episode in enumerate(found):
        rows = np.arange(store[number].rows.start, store[number].rows.stop)
        if number < 3:
            np.testing.assert_array_equal(episode.positive, rows[-2:])
            np.testing.assert_array_equal(episode.negative, rows[:-5])
        else:
            assert len(episode.positive) == 0
            np.testing.assert_array_equal(episode.negative, rows)


def test_a_margin_longer_than_the_episode_leaves_no_negatives(reach_store: MakeStore) -> None:
    (episode,) = label(reach_store(episodes=1), positives=1, margin=100)
    assert (len(episode.positive), len(episode.negative)) == (1, 0)


def test_unmarked_episodes_are_left_out(reach_store: MakeStore) -> None:
    path = reach_store(episodes=2)
    EpisodeStore.open(path).annotate([0], success=None)
    assert len(label(path, 1, 0)) == 1
    EpisodeStore.open(path).annotate([1], success=None)
    with pytest.raises(LabelError, match="no episode is marked as success or failure"):
        label(path, 1, 0)
    with pytest.raises(LabelError, match="no such episode store"):
        label(path.with_name("none.zarr"), 1, 0)


def test_rows_of_several_stores_are_read_as_they_were_recorded(reach_store: MakeStore, tmp_path: Path) -> None:
    shown = reach_store("shown", episodes=2, cameras=("eye",), seed=1)
    missed = reach_store("missed", episodes=3, cameras=("eye",), seed=2)
    episodes = [*label_all(shown, success=True), *label_all(missed, success=False)]
    for positive, path in ((True, shown), (False, missed)):
        rows, store = rows_of(episodes, positive), EpisodeStore.open(path)
        assert len(rows) == store.num_rows
        order = np.random.default_rng(0).permutation(len(rows))
        read = rows.read(["position", "eye"], order)
        for name in ("position", "eye"):
            whole = np.concatenate([episode.observation[name] for episode in store])
            np.testing.assert_array_equal(read[name][:, 0], whole[order])


def test_episodes_are_divided_and_every_part_has_success(reach_store: MakeStore) -> None:
    episodes = label(reach_store(episodes=6, failures=10), 1, 0)
    parts = divide(episodes, [0.1, 0.2], seed=3)
    assert sorted(map(id, episodes)) == sorted(id(each) for part in parts for each in part)
    assert all(any(len(each.positive) for each in part) for part in parts)
    assert [len(part) for part in parts] == [2, 3, 11]
    again = divide(episodes, [0.1, 0.2], seed=3)
    assert [[*map(id, part)] for part in again] == [[*map(id, part)] for part in parts]
    with pytest.raises(LabelError, match="2 episodes show success, at least 3 are needed"):
        divide(episodes[4:], [0.1, 0.2], seed=0)
