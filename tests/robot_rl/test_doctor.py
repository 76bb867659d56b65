"""The doctor on machines that lack something: it names the command that mends it, and fails only where it must."""

import importlib.metadata
import sys

import pytest

from robot_rl import doctor


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions that the doctor finds in place of the installed ones; an empty one means that it is missing."""
    changed: dict[str, str] = {}
    found = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: changed.get(name, found(name)))
    monkeypatch.setattr(doctor, "_renders", lambda backend: backend == "osmesa")
    return changed


def lines(capsys: pytest.CaptureFixture[str], expected: int) -> str:
    assert doctor.main([]) == expected
    return capsys.readouterr().out


def test_nothing_essential_is_missing_here(installed: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    out = lines(capsys, 0)
    assert "FAIL" not in out
    assert f"ok    torch              {importlib.metadata.version('torch')}\n" in out
    assert "ok    rendering          osmesa\n" in out


@pytest.mark.parametrize("name", ["numpy", "daqp", "gymnasium"])
def test_a_missing_package_is_essential(
    installed: dict[str, str], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    installed[name] = ""
    out = lines(capsys, 1)
    assert f"FAIL  {name:18} missing\n" in out
    assert f"→ pip install '{name}>=" in out or f"→ pip install '{name}<" in out


def test_a_version_out_of_range_is_told_with_the_range(
    installed: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    installed["mujoco"] = "4.0.0"
    out = lines(capsys, 1)
    assert "FAIL  mujoco             4.0.0, expected <3.10,>=3.5\n" in out
    assert "→ pip install 'mujoco<3.10,>=3.5'" in out


def test_without_robosuite_an_extra_or_a_renderer_the_rest_works(
    installed: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed |= {"robosuite": "", "onnxruntime": ""}
    monkeypatch.setattr(doctor, "_renders", lambda backend: False)
    out = lines(capsys, 0)
    assert "→ pip install --no-deps robosuite==1.5.2" in out
    assert '→ pip install "robot_rl[export]"' in out
    assert "no EGL and no OSMesa" in out
    assert "→ sudo apt-get install libegl1 libgl1" in out


def test_what_cannot_be_imported_does_not_end_the_report(
    installed: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "robot_rl.hardware.ros2", None)
    monkeypatch.setitem(sys.modules, "psutil", None)
    out = lines(capsys, 0)
    assert "note  ros                cannot be tried: " in out
    assert "note  machine            cannot be tried: " in out


def test_a_backend_renders_or_not() -> None:
    assert not doctor._renders("no_such_backend")
