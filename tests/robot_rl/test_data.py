"""`robot-rl data` as it is typed: what it prints, its exit status, and that a mistake changes nothing."""

import json
from pathlib import Path

import pytest

from robot_rl import cli
from robot_rl.datasets import EpisodeStore

from .conftest import MakeStore

Output = pytest.CaptureFixture[str]


@pytest.fixture
def store(reach_store: MakeStore) -> Path:
    """Three successful episodes and a failed one."""
    return reach_store(episodes=3, failures=1, cameras=("top",))


def facts(path: Path) -> bytes:
    return (path / "meta" / "facts.jsonl").read_bytes()


def test_info_counts_what_is_there(store: Path, capsys: Output) -> None:
    assert cli.main(["data", "info", str(store), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    episodes = list(EpisodeStore.open(store))
    assert (found["episodes"], found["successful"]) == (4, 3)
    assert found["rows"] == sum(episode.length + 1 for episode in episodes)
    assert (found["tasks"], found["sources"]) == (["reach"], ["expert"])
    assert found["contract"]["observation"]["goal"]["shape"] == [2]
    assert cli.main(["data", "info", str(store)]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("position", "goal", "top", "target", "provenance"))


def test_a_whole_store_passes(store: Path, capsys: Output) -> None:
    assert cli.main(["data", "check", str(store)]) == 0
    assert "all episodes are whole" in capsys.readouterr().out


def test_check_names_the_episode_and_repair_marks_it(store: Path, capsys: Output) -> None:
    second = int(EpisodeStore.open(store).episode_starts[1])
    with (store / "data" / "position" / "c.0.0").open("r+b") as file:
        file.seek(second * 8)
        file.write(b"\x00\x00\x80\x40")
    assert cli.main(["data", "check", str(store)]) == 1
    out = capsys.readouterr().out
    assert "episode 1: data" in out
    assert "check --repair" in out
    assert cli.main(["data", "repair", str(store)]) == 1
    assert "episode 1: marked as damaged" in capsys.readouterr().out
    assert EpisodeStore.open(store).select(success=True).tolist() == [0, 2]
    assert cli.main(["data", "check", str(store)]) == 1
    assert "marked as damaged, which leaves them out of training" in capsys.readouterr().out


def test_repair_brings_back_a_store_that_cannot_be_opened(store: Path, capsys: Output) -> None:
    header = (store / "zarr.json").read_bytes()
    (store / "zarr.json").write_text("{")
    assert cli.main(["data", "info", str(store)]) == 1
    captured = capsys.readouterr()
    assert "--repair" in captured.err
    assert cli.main(["data", "check", str(store)]) == 1
    assert cli.main(["data", "check", "--repair", str(store)]) == 0
    assert json.loads((store / "zarr.json").read_bytes()) == json.loads(header)
    assert len(EpisodeStore.open(store)) == 4


def test_tag_writes_facts_that_reading_sees(store: Path, capsys: Output) -> None:
    assert (
        cli.main(["data", "tag", str(store), "success=false", 'tags=["blurry"]', "note=a b", "--episodes", "0,2-3"])
        == 0
    )
    found = EpisodeStore.open(store)
    assert found.select(success=True).tolist() == [1]
    assert (found.facts(2)["note"], found.facts(2)["tags"]) == ("a b", ["blurry"])
    assert found.facts(2)["seed"] == 2
    assert "3 episodes" in capsys.readouterr().out


@pytest.mark.parametrize("episodes", ["0,9", "-1", "two", "3-1", "", "1-4"])
def test_wrong_episodes_change_nothing(store: Path, capsys: Output, episodes: str) -> None:
    before = facts(store)
    assert cli.main(["data", "tag", str(store), "success=false", f"--episodes={episodes}"]) == 1
    assert f"--episodes {episodes}" in capsys.readouterr().err
    assert facts(store) == before


@pytest.mark.parametrize("fact", ["success=yes", "success", "=1", "speed=NaN"])
def test_wrong_facts_change_nothing(store: Path, capsys: Output, fact: str) -> None:
    before = facts(store)
    assert cli.main(["data", "tag", str(store), fact, "--episodes", "0-3"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert facts(store) == before


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        ("seed=abc", "seed='abc': expected a whole number or null"),
        ("seed=true", "seed=True: expected a whole number or null"),
        ("success=1", "success=1: expected true, false or null"),
        ("task=3", "task=3: expected text"),
        ("text=null", "text=None: expected text"),
        ("source=[1]", "source=[1]: expected text"),
        ("operator=false", "operator=False: expected text"),
        ("tags=[slow]", "tags='[slow]': expected a list of texts"),
        ("origin=x", "origin='x': expected a mapping"),
    ],
)
def test_facts_of_a_meaning_have_their_type(store: Path, capsys: Output, fact: str, expected: str) -> None:
    before = facts(store)
    assert cli.main(["data", "tag", str(store), fact, "--episodes", "0"]) == 1
    assert expected in capsys.readouterr().err
    assert facts(store) == before


def test_view_names_the_cameras_that_there_are(store: Path, capsys: Output) -> None:
    assert cli.main(["data", "view", str(store), "--cameras", "nosuch"]) == 1
    assert "data: no camera nosuch; there are: top\n" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("info",), ("check",), ("check", "--repair"), ("tag", "a=1", "--episodes=0")])
def test_what_is_no_store_is_left_alone(tmp_path: Path, capsys: Output, arguments: tuple[str, ...]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"x")
    for path in (folder, folder / "a.png", tmp_path / "absent"):
        verb, *rest = arguments
        assert cli.main(["data", verb, str(path), *rest]) == 1
        error = capsys.readouterr().err
        assert "no episode store" in error
        assert "Traceback" not in error
    assert [path.name for path in folder.iterdir()] == ["a.png"]
