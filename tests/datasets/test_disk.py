"""Small files get new content at once; what is replaced is written over only when no power cut can bring it back."""

import os
from pathlib import Path

import pytest

from robot_rl.datasets import disk
from robot_rl.datasets.disk import Disk
from robot_rl.datasets.exchange import exchange


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "zarr.json"
    path.write_bytes(b"first content")
    return path


@pytest.fixture
def exchanged(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch(), other.touch()
    if not exchange(one, other):
        pytest.skip("this file system cannot exchange names")
    one.unlink(), other.unlink()


def test_content_is_replaced_also_by_shorter_and_longer_content(file: Path) -> None:
    writing = Disk()
    for content in (b"second", b"x", b"a third one that is longer", b"", b"end"):
        writing.replace(file, content)
        assert file.read_bytes() == content
        writing.sync_folder(file.parent)
    writing.close()
    assert [path.name for path in file.parent.iterdir()] == ["zarr.json"]


def test_what_was_replaced_is_written_over_after_its_folder_is_synced_and_not_before(
    file: Path, exchanged: None
) -> None:
    writing = Disk()
    with file.open("rb") as first:  # as the drive knows it until the folder is synced
        writing.replace(file, b"second")
        writing.replace(file, b"third")
        assert first.read() == b"first content"
    with file.open("rb") as third:
        number = file.stat().st_ino
        writing.replace(file, b"fourth")
        writing.sync_folder(file.parent)
        assert third.read() == b"third"
        writing.replace(file, b"fifth")
        assert file.stat().st_ino == number, "it is used again"
        third.seek(0)
        assert third.read() == b"fifth"
    writing.close()


def test_what_a_dead_writer_left_is_not_written_over(file: Path) -> None:
    left = file.with_name("zarr.json.new")
    left.write_bytes(b"of a dead one")
    writing = Disk()
    with left.open("rb") as dead:
        writing.replace(file, b"second")
        assert dead.read() == b"of a dead one"
    assert file.read_bytes() == b"second"
    writing.close()


def test_a_backup_by_hard_links_keeps_what_it_holds(file: Path) -> None:
    writing, backup = Disk(), file.with_name("backup")
    writing.replace(file, b"second")
    writing.sync_folder(file.parent)
    os.link(file, backup)
    for content in (b"third", b"fourth", b"fifth"):
        writing.replace(file, content)
        writing.sync_folder(file.parent)
        assert backup.read_bytes() == b"second"
        assert file.read_bytes() == content
    writing.close()


def test_a_copy_in_a_forked_process_leaves_all_as_it_is(file: Path) -> None:
    writing = Disk()
    for content in (b"second", b"third"):
        writing.replace(file, content)
        writing.sync_folder(file.parent)
    before = sorted(path.name for path in file.parent.iterdir())
    child = os.fork()
    if child == 0:
        writing.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert sorted(path.name for path in file.parent.iterdir()) == before
    for path in file.parent.glob("*.new"):
        path.unlink()  # somebody tidies up
    writing.replace(file, b"fourth")
    assert file.read_bytes() == b"fourth"
    writing.close()


def test_where_names_cannot_be_exchanged_they_are_renamed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "exchange", lambda one, other: False)
    writing = Disk()
    for content in (b"second", b"third"):
        writing.replace(file, content)
        assert [path.name for path in file.parent.iterdir()] == ["zarr.json"]
        assert file.read_bytes() == content
        writing.sync_folder(file.parent)


def test_a_failure_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    writing = Disk()
    for _ in range(2):
        writing.replace(file, b"second")
        writing.sync_folder(file.parent)
    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "write", full)
        with pytest.raises(OSError, match="No space"):
            writing.replace(file, b"third")
    assert file.read_bytes() == b"second"
    assert [path.name for path in file.parent.iterdir()] == ["zarr.json"]
    writing.replace(file, b"third")
    assert file.read_bytes() == b"third"
    writing.close()


def test_the_first_of_several_errors_is_raised_and_others_are_done() -> None:
    done: list[int] = []

    def fail() -> None:
        raise OSError("on purpose")

    writing = Disk()
    with pytest.raises(OSError, match="on purpose"):
        writing.together([fail, *(lambda number=number: done.append(number) for number in range(1, 8))])
    assert sorted(done) == [*range(1, 8)]
    writing.close()
