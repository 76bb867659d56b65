"""The contact sheet holds a clip of every episode and its facts, and the viewer's absence is said."""

import re
import sys
from pathlib import Path

import pytest

from robot_rl import cli

from .conftest import MakeStore


def test_every_episode_has_a_clip_its_facts_and_its_signals(reach_store: MakeStore, tmp_path: Path) -> None:
    store = reach_store(episodes=3, failures=1, cameras=("top",))
    assert cli.main(["data", "view", str(store), "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert len(re.findall(r'<video src="data:video/mp4;base64,', page)) == 4
    assert page.count(">success<") == 3
    assert page.count(">failure<") == 1
    assert page.count("<svg") == 4
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_store_without_cameras_and_a_choice_of_episodes(reach_store: MakeStore, tmp_path: Path) -> None:
    store = reach_store(episodes=3)
    assert cli.main(["data", "view", str(store), "--episodes", "1-2", "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "<video" not in page
    assert page.count("<svg") == 2
    assert "2 of them are shown" in page


def test_what_is_missing_is_said(
    reach_store: MakeStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(reach_store(episodes=1, cameras=("top",)))
    assert cli.main(["data", "view", store, "--cameras", "elbow"]) == 1
    assert "there are: top" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert cli.main(["data", "view", store, "--rerun"]) == 1
    assert "robot_rl[view]" in capsys.readouterr().err
