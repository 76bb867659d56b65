"""A run folder never loses what a command reads, nor episodes that nobody asked to remove."""

from pathlib import Path
from typing import Any

import pytest

from robot_rl import run_folder
from robot_rl.checkpoint import ResumeError
from robot_rl.datasets import EpisodeStore
from tests.robot_rl.rl.line import CONTRACT
from tests.robot_rl.rl.stored import store_episodes

CONFIG: dict[str, Any] = {"training": {"steps": 10}}


def judged(folder: Path, read: Path | None = None, overwrite: bool = False, **config: Any) -> str:
    recordings = [] if read is None else [{"path": str(read)}]
    return run_folder.judge(folder, CONFIG | config, recordings, True, overwrite)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a replay of two episodes, a trained policy, and a store of somebody's."""
    folder = tmp_path / "run"
    folder.mkdir()
    store_episodes(folder / "replay.zarr", [3, 4], [True, False])
    store_episodes(folder / "mine.zarr", [3], [True])
    (folder / "checkpoints" / "best").mkdir(parents=True)
    (folder / "config.yaml").write_text("training: {steps: 10}\n")
    return folder


@pytest.mark.parametrize("name", ["replay.zarr", "checkpoints/best", "."])
def test_a_beginning_never_removes_what_the_command_reads(name: str, run: Path) -> None:
    with pytest.raises(ResumeError, match="lies where a new training replaces what is in"):
        judged(run, run / name, overwrite=True)
    with pytest.raises(ResumeError, match="choose another output="):
        judged(run, overwrite=True, warm_start=str(run / name))
    link = run.parent / "link"
    link.symlink_to(run / name)
    with pytest.raises(ResumeError, match="choose another output="):
        judged(run, link, overwrite=True)


def test_a_store_beside_the_training_may_be_read(run: Path) -> None:
    assert judged(run, run / "mine.zarr", overwrite=True) == "begin"
    run_folder.begin(run, CONFIG)
    assert len(EpisodeStore.open(run / "mine.zarr")) == 1
    assert not (run / "replay.zarr").exists()


@pytest.mark.parametrize("begun", [True, False])
def test_episodes_without_checkpoints_are_removed_only_where_that_is_asked_for(begun: bool, run: Path) -> None:
    (run / "checkpoints" / "best").rmdir()
    if not begun:
        (run / "config.yaml").unlink()
        (run / "checkpoints").rmdir()
    with pytest.raises(ResumeError, match=r"replay.zarr holds 2 episodes.*overwrite=true to remove them"):
        judged(run)
    assert judged(run, overwrite=True) == "begin"


def test_a_training_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("training: {steps: 10}\n")
    EpisodeStore.create(tmp_path / "replay.zarr", CONTRACT)
    assert judged(tmp_path) == "begin"
