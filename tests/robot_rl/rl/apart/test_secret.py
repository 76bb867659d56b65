"""Where the secret comes from."""

import stat
from pathlib import Path

import pytest

from robot_rl.rl.apart.secret import FILE, VARIABLE, find, find_or_make
from robot_rl.rl.on_policy import FinetuneError


def test_one_is_made_once_and_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    made = find_or_make(None, tmp_path)
    assert len(made) >= 32
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert find_or_make(None, tmp_path) == made == find(tmp_path / FILE)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_file_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "from the environment")
    (tmp_path / "secret").write_text("from the file, longer\n")
    assert find_or_make(tmp_path / "secret", tmp_path) == b"from the file, longer"
    assert find_or_make(None, tmp_path) == b"from the environment"
    assert not (tmp_path / FILE).exists()
    monkeypatch.delenv(VARIABLE)
    assert find(None) is None


def test_short_and_missing_ones_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "short")
    with pytest.raises(FinetuneError, match=r"ROBOT_RL_SECRET: expected a secret of 16 or more characters, got 5"):
        find(None)
    with pytest.raises(FinetuneError, match="No such file"):
        find(tmp_path / "nowhere")
