"""diffusion_policy's replay buffer: round trips, buffers as it makes them, and damaged ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from robot_rl.datasets import EpisodeStore, StoreError
from robot_rl.datasets.check import check
from robot_rl.datasets.formats import diffusion_policy
from robot_rl.datasets.formats.trajectory import ImportFailed

LENGTHS = (6, 3, 8)


def make_theirs(path: Path, store: object = None) -> Path:
    """A buffer like that of PushT: float pictures, state and action."""
    draw = np.random.default_rng(0)
    root = zarr.open_group(store or path, mode="w", zarr_format=2)
    rows = sum(LENGTHS)
    columns = {
        "img": draw.integers(0, 255, (rows, 12, 12, 3)).astype(np.float32),
        "state": draw.normal(size=(rows, 5)).astype(np.float32),
        "action": draw.normal(size=(rows, 2)).astype(np.float32),
    }
    for name, values in columns.items():
        root.create_array(f"data/{name}", data=values, chunks=(4, *values.shape[1:]))
    root.create_array("meta/episode_ends", data=np.cumsum(LENGTHS))
    return path


def test_round_trip(store: EpisodeStore, tmp_path: Path, same: Callable[..., None]) -> None:
    diffusion_policy.write(store, tmp_path / "out.zarr")
    back = diffusion_policy.read(tmp_path / "out.zarr", tmp_path / "back.zarr").store
    assert not check(back)
    same(back, store)


def test_what_is_written_is_laid_out_as_diffusion_policy_reads_it(store: EpisodeStore, tmp_path: Path) -> None:
    diffusion_policy.write(store, tmp_path / "out.zarr")
    root = zarr.open_group(tmp_path / "out.zarr", mode="r", zarr_format=2)
    ends = root["meta/episode_ends"][:]
    np.testing.assert_array_equal(ends, np.cumsum(store.lengths))
    # Its reader demands that every array below `data` has as many rows as the last end says.
    assert {array.shape[0] for _, array in root["data"].arrays()} == {int(ends[-1])}
    np.testing.assert_array_equal(root["data/action"], np.concatenate([episode.action for episode in store]))
    pictures = np.concatenate([episode.observation["top"][:-1] for episode in store])
    np.testing.assert_array_equal(root["data/top"], pictures)


@pytest.mark.parametrize("zipped", [False, True])
def test_their_buffers(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / ("pusht.zarr.zip" if zipped else "pusht.zarr")
    if zipped:
        storage = zarr.storage.ZipStore(path, mode="w")
        make_theirs(path, storage)
        storage.close()
    else:
        make_theirs(path)
    made = diffusion_policy.read(path, tmp_path / "in.zarr", encoding="png", rate_hz=10).store
    assert not check(made)
    assert made.lengths.tolist() == [*LENGTHS]
    source: object = zarr.storage.ZipStore(path, mode="r") if zipped else path
    root = zarr.open_group(source, mode="r")
    np.testing.assert_array_equal(made[1].observation["img"][:-1], root["data/img"][6:9])
    np.testing.assert_array_equal(made[1].action, root["data/action"][6:9])
    np.testing.assert_array_equal(made[1].observation["state"][-1], root["data/state"][8])
    assert made.select(success=True).tolist() == [0, 1, 2]


def test_a_missing_chunk_and_wrong_ends_are_said(tmp_path: Path) -> None:
    path = make_theirs(tmp_path / "pusht.zarr")
    (chunk,) = path.glob("data/action/1.0")
    chunk.write_bytes(b"garbage")
    with pytest.raises(ImportFailed) as failed:
        diffusion_policy.read(path, tmp_path / "in.zarr")
    # Rows 4 to 7 stand in that chunk, which are of the first two episodes.
    assert [name for name, _ in failed.value.bad] == ["episode 0", "episode 1"]
    assert diffusion_policy.read(path, tmp_path / "in.zarr", skip_bad=True).store.lengths.tolist() == [8]
    zarr.open_group(path, mode="a")["meta/episode_ends"][:] = np.array([6, 5, 17])
    with pytest.raises(StoreError, match="does not increase"):
        diffusion_policy.read(path, tmp_path / "x.zarr")
    with pytest.raises(StoreError, match="episode store already"):
        diffusion_policy.read(tmp_path / "in.zarr", tmp_path / "x.zarr")
