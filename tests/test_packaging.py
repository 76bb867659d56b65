"""The wheel: built, installed into an environment of its own, and every subpackage imported from there."""

import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_wheel_installs_into_a_clean_environment(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(build, check=True, timeout=240)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"robot_rl"}
    data = [
        name for name in tracked.split("\0") if name.endswith(".yaml") and name.split("/")[0] not in ("tests", "docs")
    ]
    inside = {name.removeprefix("robot_rl/") for name in names}
    assert all(name.removeprefix("robot_rl/") in inside for name in data), "a YAML file is missing from the wheel"

    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True, timeout=240)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    # The dependencies come from the environment under test, whose editable robot_rl is not reachable by PYTHONPATH.
    code = (
        "import importlib, pathlib, sys\n"
        "for name in sys.argv[2:]:\n"
        "    module = importlib.import_module(name)\n"
        "    assert pathlib.Path(module.__file__).is_relative_to(sys.argv[1]), module.__file__\n"
    )
    site = sysconfig.get_paths()["purelib"]
    subprocess.run([python, "-c", code, environment, *packages], check=True, cwd=tmp_path, env={"PYTHONPATH": site})
    shown = subprocess.run(
        [environment / "bin" / "robot-rl", "train", "--show", "dataset=x.zarr"],
        check=True, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": site},
    )  # fmt: skip
    assert "training" in shown.stdout
