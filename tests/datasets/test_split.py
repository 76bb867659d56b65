"""All takes of a recording are trained on, or all are held out."""

import shutil

import numpy as np
import pytest

from robot_rl.datasets import EpisodeStore, edit, split
from tests.datasets.test_windows import make_store

LENGTHS = (3,) * 12


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("split") / "first.zarr", LENGTHS)


def recordings(store, episodes):
    """Their first actions tell them apart, whatever the facts say."""
    return {store[number].action[0].tobytes() for number in episodes.tolist()}


def every(*stores):
    return [range(len(store)) for store in stores]


@pytest.mark.parametrize("seed", range(5))
def test_copies_within_a_store_stay_together(first, tmp_path, seed):
    twice = edit.assemble(tmp_path / "twice.zarr", [*edit.whole(first), *edit.whole(first, reversed(range(12)))])
    training, held = twice.split(0.25, seed, range(24))
    assert (len(training), len(held)) == (18, 6)
    assert not recordings(twice, training) & recordings(twice, held)
    np.testing.assert_array_equal(np.sort([*training, *held]), np.arange(24))
    assert (np.diff(training) > 0).all()
    again = edit.assemble(tmp_path / "again.zarr", [*edit.whole(twice), *edit.whole(first)])
    training, held = again.split(0.25, seed, range(36))
    assert (len(training), len(held)) == (27, 9)
    assert not recordings(again, training) & recordings(again, held)


@pytest.mark.parametrize("seed", range(5))
def test_stores_of_the_same_recordings_follow_the_first(first, tmp_path, seed):
    some = edit.assemble(tmp_path / "some.zarr", edit.whole(first, [7, 3, 3, 11, 0]))
    other = make_store(tmp_path / "other.zarr", LENGTHS, offset=5.0)
    mixed = edit.assemble(tmp_path / "mixed.zarr", [*edit.whole(some), *edit.whole(other)])
    stores = first, some, mixed
    parts = split.split(stores, 0.25, seed, every(*stores))
    trained, held = (
        set.union(*(recordings(store, part[side]) for store, part in zip(stores, parts, strict=True)))
        for side in (0, 1)
    )
    assert not trained & held
    assert len(parts[0][1]) == 3
    # Of the last one's recordings twelve are new: a quarter of these, beside what the others hold out.
    assert len(parts[2][1]) - sum(part in recordings(first, parts[0][1]) for part in _each(mixed, parts[2][1])) == 3
    np.testing.assert_array_equal(parts[0][0], first.split(0.25, seed, range(12))[0])


def _each(store, episodes):
    return [store[number].action[0].tobytes() for number in episodes.tolist()]


def test_a_copy_under_another_name_is_the_same_recording(first, tmp_path):
    shutil.copytree(first.path, tmp_path / "copy.zarr")
    copy = EpisodeStore.open(tmp_path / "copy.zarr")
    (training, held), (training_too, held_too) = split.split([first, copy], 0.25, 0, every(first, copy))
    np.testing.assert_array_equal(training, training_too)
    np.testing.assert_array_equal(held, held_too)


def test_of_one_recording_nothing_is_held_out(first, tmp_path):
    one = edit.assemble(tmp_path / "one.zarr", edit.whole(first, [4, 4, 4]))
    training, held = one.split(0.5)
    assert (len(training), len(held)) == (3, 0)
