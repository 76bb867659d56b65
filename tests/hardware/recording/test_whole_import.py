"""Imports that give all or nothing, of recordings that are whole and of damaged ones."""

from pathlib import Path

import numpy as np
import pytest

from robot_rl.datasets import EpisodeStore
from robot_rl.datasets.check import check
from robot_rl.datasets.formats.trajectory import ImportFailed
from robot_rl.hardware.recording.bag import CHUNK, McapFile
from robot_rl.hardware.recording.whole_import import convert_bag, import_whole

from .test_bag_import import START, Run, panda, policy_run


def three_episodes() -> Run:
    run = policy_run(panda(), 6.0)
    for number, (begin, end) in enumerate([(0.3, 1.9), (2.0, 3.9), (4.0, 5.9)], 1):
        run.mark(START + begin, "start", number)
        run.mark(START + end, "success", number)
    return run


def damaged(bag: Path, at: float) -> None:
    """Flip a byte of the chunk that holds what was received at a time."""
    (path,) = bag.glob("*.mcap")
    content = bytearray(path.read_bytes())
    for opcode, start, body in McapFile(path).records():
        begin, end = (int.from_bytes(body[part : part + 8], "little") * 1e-9 for part in (0, 8))
        if opcode == CHUNK and begin <= at <= end:
            content[start + 500] ^= 0xFF
    assert content != path.read_bytes()
    path.write_bytes(content)


def test_a_damaged_chunk_costs_its_episode_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robot_rl.hardware.recording.black_box.CHUNK_BYTES", 20_000)
    robot, bag = panda(), three_episodes().written(tmp_path / "bag")
    whole = import_whole(bag, robot, tmp_path / "whole.zarr", encoding="png")
    assert [episode.index for episode in whole] == [0, 1, 2]
    damaged(bag, START + 3.0)
    with pytest.raises(ImportFailed, match="1 of 3 episodes cannot be imported:\n  - episode 2: the chunk at byte"):
        import_whole(bag, robot, tmp_path / "b.zarr", encoding="png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "whole.zarr"]
    done = import_whole(bag, robot, tmp_path / "b.zarr", encoding="png", skip_bad=True)
    assert [episode.index for episode in done] == [0, None, 1]
    assert check(tmp_path / "b.zarr") == []
    ours, theirs = EpisodeStore.open(tmp_path / "whole.zarr"), EpisodeStore.open(tmp_path / "b.zarr")
    for one, other in ((0, 0), (2, 1)):
        np.testing.assert_array_equal(ours[one].action, theirs[other].action)
        np.testing.assert_array_equal(ours[one].observation["wrist"], theirs[other].observation["wrist"])


def test_a_lost_begin_is_no_verdict_on_the_episode_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robot_rl.hardware.recording.black_box.CHUNK_BYTES", 20_000)
    bag = three_episodes().written(tmp_path / "bag")
    damaged(bag, START + 2.0)
    done = import_whole(bag, panda(), tmp_path / "b.zarr", skip_bad=True)
    assert [(episode.number, episode.bad) for episode in done] == [(1, True), (2, True), (3, False)]
    assert "damaged" in done[0].problem
    assert done[1].problem == "its begin is not in the bag"
    assert [episode.facts["recording"] for episode in EpisodeStore.open(tmp_path / "b.zarr")] == ["bag/3"]


@pytest.mark.slow
def test_more_episodes_for_a_store_come_all_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robot_rl.hardware.recording.black_box.CHUNK_BYTES", 20_000)
    robot, first, second = panda(), tmp_path / "first", tmp_path / "second"
    import_whole(three_episodes().written(first), robot, tmp_path / "a.zarr")
    three_episodes().written(second)
    damaged(second, START + 3.0)
    with pytest.raises(ImportFailed):
        import_whole(second, robot, tmp_path / "a.zarr")
    assert len(EpisodeStore.open(tmp_path / "a.zarr")) == 3
    import_whole(second, robot, tmp_path / "a.zarr", skip_bad=True)
    assert len(EpisodeStore.open(tmp_path / "a.zarr")) == 5


def test_a_recording_is_converted_by_what_it_notes(tmp_path: Path) -> None:
    made = convert_bag(three_episodes().written(tmp_path / "bag"), tmp_path / "a.zarr", robot="panda")
    assert len(made.store) == 3
    assert made.store.contract == panda().contract
    assert made.store.layout.encoding == {"wrist": "png"}
