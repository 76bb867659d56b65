"""The rules of the house, read from the source: imports run one way, and packages are complete."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("datasets", "policies", "sim", "hardware")
ALLOWED = {
    "datasets": {"datasets"},
    "policies": {"policies", "datasets"},
    "sim": {"sim", "datasets"},
    "hardware": {"hardware", "sim", "policies", "datasets"},
}


def imported_modules(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(), str(path))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside_tests = ROOT / "tests" in path.parents
            assert node.level == 0 or inside_tests, f"{path}: relative import; use the full name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.level == 0}
    return names


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_one_way(folder: str) -> None:
    for path in sources(folder):
        for name in imported_modules(path):
            if name.split(".")[0] == "robot_rl":
                target = name.split(".")[1] if "." in name else ""
                assert target in ALLOWED[folder], f"{path.relative_to(ROOT)} imports {name}: that arrow runs back"


def test_nothing_is_imported_by_its_folder_name() -> None:
    for folder in ("robot_rl", *FOLDERS, "tests"):
        for path in sources(folder):
            generic = {name for name in imported_modules(path) if name.split(".")[0] in FOLDERS}
            assert not generic, f"{path.relative_to(ROOT)} imports {generic}; write robot_rl.<folder>"


def test_every_package_is_listed_once() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set()
    for folder in ("robot_rl", *FOLDERS):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.parent.name != "__pycache__":
                parts = path.parent.relative_to(ROOT).parts
                found.add(".".join(parts if folder == "robot_rl" else ("robot_rl", *parts)))
    assert sorted(found) == setuptools["packages"]


def test_the_top_package_holds_the_version_and_nothing_heavy() -> None:
    code = (
        "import sys, robot_rl.cli, robot_rl.datasets; "
        "heavy = {'torch', 'mujoco', 'robosuite', 'numba', 'hydra', 'diffusers', 'av'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)
