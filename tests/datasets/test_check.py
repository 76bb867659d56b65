"""Check finds every kind of damage and names the episode; repair restores what can be and throws nothing away."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from robot_rl.datasets import Contract, EpisodeStore, NotAStore, StoreDamaged, StoreLocked, chunks, journal
from robot_rl.datasets.check import Finding, check, repair
from robot_rl.datasets.disk import Disk
from robot_rl.datasets.resample import resample

Record = Callable[..., None]
Same = Callable[..., None]


@pytest.fixture(autouse=True)
def light_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "ROW_CHUNK_BYTES", 1 << 12)
    monkeypatch.setattr(chunks, "FRAME_CHUNK_BYTES", 1 << 16)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(1)
        file.seek(offset)
        file.write(bytes([old[0] ^ 0xFF]))


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and "damaged" not in file.parts and file.name != "writer.lock"
    }


def test_a_whole_store_has_no_findings_and_repair_leaves_every_byte(store: EpisodeStore) -> None:
    before, calls = contents(store.path), []
    assert check(store, lambda done, total: calls.append((done, total))) == []
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert repair(store) == []
    assert contents(store.path) == before


Damage = Callable[[Path], object]
RESTORABLE: dict[str, tuple[Damage, str]] = {
    "root header cut": (lambda path: (path / "zarr.json").write_text("{"), "zarr.json"),
    "root header gone": (lambda path: (path / "zarr.json").unlink(), "zarr.json"),
    "copy of the attributes gone": (lambda path: (path / "meta/zarr.json").unlink(), "meta/zarr.json"),
    "group header gone": (lambda path: (path / "data/zarr.json").unlink(), "data/zarr.json"),
    "ends header empty": (lambda path: (path / "meta/episode_ends/zarr.json").write_bytes(b""), "meta/episode_ends"),
    "ends gone": (lambda path: (path / "meta/episode_ends/c.0").unlink(), "meta/episode_ends"),
    "ends wrong": (lambda path: flip(path / "meta/episode_ends/c.0", 8), "meta/episode_ends"),
    "ends and their header gone": (lambda path: shutil.rmtree(path / "meta/episode_ends"), "meta/episode_ends"),
    "array header cut": (lambda path: os.truncate(path / "data/opening/zarr.json", 60), "data/opening"),
    "array header gone": (lambda path: (path / "data/action/zarr.json").unlink(), "data/action"),
    "frame header gone": (lambda path: (path / "frames/wrist/bytes/zarr.json").unlink(), "frames/wrist/bytes"),
    "checksum header gone": (lambda path: (path / "meta/checksum/zarr.json").unlink(), "meta/checksum"),
    **{
        f"a line of the journal: {title}": (
            lambda path, line=line: (path / "meta/facts.jsonl").write_bytes(
                line + b"\n" + (path / "meta/facts.jsonl").read_bytes()
            ),
            "meta/facts.jsonl",
        )
        for title, line in {"text": b"x", "line ends of others": b"x\rx\x0bx", "nested": b"[" * 200_000}.items()
    },
}


@pytest.mark.parametrize("name", RESTORABLE)
def test_what_can_be_restored_is_restored_to_the_last_byte(
    store: EpisodeStore, record: Record, same: Same, name: str
) -> None:
    damage, where = RESTORABLE[name]
    before = contents(store.path)
    damage(store.path)
    damaged = contents(store.path)
    findings = check(store.path)
    assert [finding.where for finding in findings] == [where]
    assert findings[0].episode is None
    done = repair(store.path)
    assert len(done) in (1, 2)
    assert all(line.startswith(where) for line in done)
    assert contents(store.path) == before
    assert check(store.path) == []
    evidence = {str(file.relative_to(store.path)): file for file in (store.path / "meta/damaged").rglob("*.*")}
    for path, data in damaged.items():
        if data != before[path]:
            assert any(kept.endswith(path) and file.read_bytes() == data for kept, file in evidence.items())
    with EpisodeStore.append(store.path) as writer:
        record(writer, 9)
    restored = EpisodeStore.open(store.path)
    for number, steps in enumerate((3, 4, 5)):
        same(restored[number], number, steps)
    same(restored[3], 9)
    assert check(store.path) == []


@pytest.mark.parametrize(
    ("damage", "episodes"),
    [
        (lambda path: flip(path / "meta/statistics/action/c.0.0.0", 6), [0]),
        (lambda path: (path / "meta/statistics/joint_position/c.0.0.0").unlink(), [0, 1, 2]),
        (lambda path: shutil.rmtree(path / "meta/statistics/action"), [0, 1, 2]),
    ],
)
def test_statistics_are_made_of_the_rows_again(store: EpisodeStore, damage: Damage, episodes: list[int]) -> None:
    before = contents(store.path)
    damage(store.path)
    found = {finding.episode for finding in check(store.path)}
    assert found in ({*episodes}, {None})
    done = [line for line in repair(store.path) if "made of the rows again" in line]
    assert sum(int(line.split()[-2]) for line in done) == len(episodes), done
    assert contents(store.path) == before
    assert check(store.path) == []
    np.testing.assert_array_equal(EpisodeStore.open(store.path).select(), [0, 1, 2])


def test_statistics_of_lost_rows_are_left_alone(store: EpisodeStore) -> None:
    flip(store.path / "data/joint_position/c.0.0", 5 * 8)  # of episode 1
    before = contents(store.path)
    repair(store.path)
    assert all(data == before[path] for path, data in contents(store.path).items() if "statistics" in path)


@pytest.mark.parametrize(
    "name",
    ["data/joint_position/c.0.0", "frames/wrist/bytes/c.0", "meta/checksum/c.0", "meta/statistics/action/c.1.0.0"],
)
@pytest.mark.parametrize("more", [-1, 5])
def test_chunk_files_have_their_full_size(store: EpisodeStore, name: str, more: int) -> None:
    """Nothing that is committed is missing, but no reader of Zarr takes such a file."""
    before, file = contents(store.path), store.path / name
    size = file.stat().st_size
    os.truncate(file, size + more)
    damaged = file.read_bytes()
    file.with_name(f"{file.name}.new").touch()  # a repair was killed
    assert check(store.path) == [Finding(None, name, f"expected a chunk of {size} bytes, found {size + more}")]
    (done,) = repair(store.path)
    assert done.startswith(f"{name}: ")
    file.with_name(f"{file.name}.new").unlink()
    assert contents(store.path) == before
    assert check(store.path) == []
    assert [kept.read_bytes() for kept in store.path.glob(f"meta/damaged/*/{name}")] == [damaged[size:]] * (more > 0)


def test_what_is_mended_twice_is_kept_twice(store: EpisodeStore) -> None:
    file = store.path / "meta/statistics/action/c.0.0.0"
    flip(file, 6)
    with file.open("ab") as more:
        more.write(b"whose?")
    repair(store.path)
    first, second = sorted(store.path.glob(f"meta/damaged/*/{file.relative_to(store.path)}*"))
    assert first.read_bytes() == b"whose?"
    assert len(second.read_bytes()) == file.stat().st_size
    assert check(store.path) == []


def test_a_chunk_that_is_just_being_made_is_no_damage(store: EpisodeStore) -> None:
    (store.path / "data/joint_position/c.9.0").touch()
    assert check(store.path) == []


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (lambda file: file.unlink(), 3),
        (lambda file: shutil.rmtree(file.parent), 3),
        (lambda file: os.truncate(file, 0), 3),
        (lambda file: os.truncate(file, 7), 2),
    ],
)
def test_lost_checksums_are_made_of_the_rows_again(store: EpisodeStore, damage: Damage, lost: int) -> None:
    before, file = contents(store.path), store.path / "meta/checksum/c.0"
    damage(file)
    findings = check(store.path)
    assert {finding.episode for finding in findings} == {None}
    cause = f"the checksums of {lost} episodes are lost; a repair makes them of the rows again"
    assert Finding(None, "meta/checksum/c.0", cause) in findings
    done = repair(store.path)
    assert f"meta/checksum/c.0: was lost, made of the rows of {lost} episodes again" in done[-1]
    assert contents(store.path) == before
    assert check(store.path) == []


def test_without_checksums_statistics_and_frames_tell_what_is_damaged(store: EpisodeStore) -> None:
    (store.path / "meta/checksum/c.0").unlink()
    flip(store.path / "data/joint_position/c.0.0", 5 * 8)  # of episode 1
    flip(store.path / "frames/wrist/bytes/c.0", 300)  # of episode 0
    assert [finding.episode for finding in check(store.path)] == [None, 0, 1]
    statistics = (store.path / "meta/statistics/joint_position/c.0.0.0").read_bytes()
    repair(store.path)
    assert [finding.episode for finding in check(store.path)] == [0, 1, 1]
    assert (store.path / "meta/statistics/joint_position/c.0.0.0").read_bytes() == statistics
    assert EpisodeStore.open(store.path).select().tolist() == [2]


LOST: dict[str, tuple[Damage, dict[int, str]]] = {
    "a byte of a row": (lambda path: flip(path / "data/joint_position/c.0.0", 5 * 8), {1: "rows do not match"}),
    "a byte of a frame": (lambda path: flip(path / "frames/wrist/bytes/c.0", 300), {0: "frame does not match"}),
    "all frames": (
        lambda path: (path / "frames/range/bytes/c.0").unlink(),
        {0: "is missing", 1: "is missing", 2: "is missing"},
    ),
    "half of an array": (
        lambda path: os.truncate(path / "data/opening/c.0.0", 6 * 4),
        {1: "too short", 2: "too short"},
    ),
    "a checksum": (lambda path: flip(path / "meta/checksum/c.0", 8), {2: "rows do not match"}),
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_lost_is_marked_and_left_out_of_training(store: EpisodeStore, same: Same, name: str) -> None:
    damage, causes = LOST[name]
    copy = store.path.with_name("copy")
    shutil.copytree(store.path, copy)
    damage(store.path)
    findings = [finding for finding in check(store.path) if finding.episode is not None]
    for number, cause in causes.items():
        assert any(finding.episode == number and cause in finding.cause for finding in findings), findings
    assert {finding.episode for finding in findings} == set(causes)
    assert str(findings[0]).startswith(f"episode {min(causes)}: ")
    before = {path: data for path, data in contents(store.path).items() if path != "meta/facts.jsonl"}
    repair(store.path)
    after = contents(store.path)
    assert all(after[path].startswith(data) for path, data in before.items()), "nothing is taken away"
    repaired = EpisodeStore.open(store.path)
    assert len(repaired) == 3
    assert repaired.select().tolist() == [number for number in range(3) if number not in causes]
    for number in repaired.select():
        same(repaired[number], number, steps=3 + number)
    assert repair(store.path) == [], "a second repair has nothing to do"
    for path in copy.rglob("c.*"):
        shutil.copy(path, store.path / path.relative_to(copy))
    assert repair(store.path) == [f"episode {number}: marked as whole again" for number in sorted(causes)]
    assert EpisodeStore.open(store.path).select().tolist() == [0, 1, 2]


def test_frames_that_do_not_decode_are_found_even_with_a_right_checksum(
    tmp_path: Path, contract: Contract, record: Record
) -> None:
    import zlib

    store = EpisodeStore.create(tmp_path / "a", contract.select(["wrist"]), encoding="png")
    with EpisodeStore.append(store.path) as writer, writer.episode() as episode:
        frame = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
        writer._place_frame = lambda *_: (0, 9, zlib.crc32(bytes(9)))  # type: ignore[method-assign]
        writer._packers["wrist"].place(bytes(9))
        episode.add({"wrist": frame}, np.zeros(3))
        episode.finish({"wrist": frame}, success=True)
    assert check(store.path) == [Finding(0, "frames/wrist", check(store.path)[0].cause)]
    assert "these 9 bytes are no png frame" in check(store.path)[0].cause


def test_a_clock_that_is_set_while_an_episode_runs_is_no_damage(tmp_path: Path, contract: Contract) -> None:
    store = EpisodeStore.create(tmp_path / "a", contract.select(["opening"]))
    with EpisodeStore.append(store.path) as writer, writer.episode() as episode:
        for stamp in (1.0, 0.5):
            episode.add({"opening": [0]}, np.zeros(3), stamps={"control": stamp})
        episode.finish({"opening": [0]}, success=True, stamps={"control": 2.0})
    assert check(store.path) == []
    assert repair(store.path) == []
    made = resample(EpisodeStore.open(store.path), tmp_path / "b", rate_hz=10)
    assert made[0].timestamp["control"].tolist() == [1.0, 2.0]
    assert check(made) == []


def test_facts_that_are_gone_are_found(store: EpisodeStore) -> None:
    lines = (store.path / "meta/facts.jsonl").read_text().splitlines(keepends=True)
    (store.path / "meta/facts.jsonl").write_text("".join(lines[:1] + lines[2:]))
    assert check(store.path) == [Finding(1, "meta/facts.jsonl", "holds no facts of it")]
    assert repair(store.path) == []


def test_leftovers_of_a_killed_writer_are_no_damage(store: EpisodeStore, record: Record, same: Same) -> None:
    before = contents(store.path)
    with EpisodeStore.append(store.path) as writer:
        for name, array in writer._arrays.items():
            if name in store.layout.row_arrays:
                array.set_length(99)
        journal.append(store.path / "meta/facts.jsonl", 3, {"success": True, "tags": ["dead"]}, Disk(), begin=True)
    (store.path / "meta/facts.jsonl").open("a").write('{"episode": 3, "se')
    (store.path / "data/action/zarr.json.new").write_text("{")
    assert check(store.path) == []
    assert zarr.open_group(store.path, mode="r")["data/action"].shape == (99, 3)
    repair(store.path)
    assert zarr.open_group(store.path, mode="r")["data/action"].shape == (15, 3)
    after = contents(store.path)
    assert {path for path in before if before[path] != after[path]} == {"meta/facts.jsonl"}
    with EpisodeStore.append(store.path) as writer:
        record(writer, 3)
    store.refresh()
    same(store[3], 3)
    assert "tags" not in store.facts(3)
    assert check(store) == []


def test_a_contract_that_is_lost_twice_cannot_be_restored(store: EpisodeStore) -> None:
    for path in ("zarr.json", "meta/zarr.json"):
        (store.path / path).write_text("{}")
    with pytest.raises(StoreDamaged, match="both copies of the attributes are lost"):
        repair(store.path)


def test_repair_needs_the_lock_and_a_store(store: EpisodeStore, tmp_path: Path) -> None:
    with EpisodeStore.append(store.path), pytest.raises(StoreLocked):
        repair(store.path)
    for act in (check, repair):
        with pytest.raises(NotAStore):
            act(tmp_path / "nothing")


def test_a_damaged_store_is_neither_opened_nor_appended_to_silently(store: EpisodeStore) -> None:
    (store.path / "data/opening/zarr.json").write_text("{}")
    with pytest.raises(StoreDamaged, match=r"data/opening/zarr\.json is not the header.*--repair"):
        EpisodeStore.append(store.path)
    with pytest.raises(StoreDamaged, match="--repair"):
        EpisodeStore.open(store.path)[0].observation["opening"]
    flip(store.path / "meta/episode_ends/c.0", 8)
    with pytest.raises(StoreDamaged, match="do not increase"):
        EpisodeStore.open(store.path)
