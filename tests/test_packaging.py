"""What gets installed: the wheel by pip, and the steps of `colcon build`; both as ROS 2 expects to find a package."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from xml.etree import ElementTree

import pytest

import robot_rl

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NODES = sorted(name for name in PYPROJECT["project"]["scripts"] if name.startswith("robot_rl_"))
AMENT_FILES = {
    "share/ament_index/resource_index/packages/robot_rl",
    "share/robot_rl/package.xml",
    *(f"share/robot_rl/launch/{path.name}" for path in (ROOT / "launch").glob("*.launch.py")),
    *(f"lib/robot_rl/{name}" for name in NODES),
}


BROUGHT = {"omegaconf": "hydra-core", "llvmlite": "numba", "lz4": "mcap", "zstandard": "mcap"}
"""Modules that come with a dependency which is declared."""

ELSEWHERE = {"robosuite", "rclpy", "rcl_interfaces", "launch", "launch_ros"}
"""What comes without its own dependencies (see Makefile), or with ROS 2."""


def test_whatever_is_imported_is_a_declared_dependency() -> None:
    project = PYPROJECT["project"]
    declared = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    known = {re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[]", each)[0]).lower() for each in declared}
    assert set(BROUGHT.values()) <= known
    distributions = packages_distributions()
    # Where they are not installed: a module's name and the distribution's.
    named = {"hid": "hidapi", "rerun": "rerun-sdk", "serial": "pyserial"}
    unknown = set()
    for folder in ("robot_rl", "datasets", "hardware", "launch", "policies", "sim"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found = [node.module]
                tops = {name.partition(".")[0] for name in found} - sys.stdlib_module_names - ELSEWHERE - {"robot_rl"}
                for top in tops - BROUGHT.keys():
                    makers = {each.replace("_", "-").lower() for each in distributions.get(top, [])} or {
                        named.get(top, top)
                    }
                    if not makers & known:
                        unknown.add(f"{top}: {path.relative_to(ROOT)}")
    assert not unknown


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The tracked files alone, with their modes and links, so that building leaves nothing in the working tree."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    folder = tmp_path / "source"
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def executables(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if os.access(path, os.X_OK)}


@pytest.mark.slow
def test_wheel_installs_into_a_clean_environment(tmp_path: Path, source: Path) -> None:
    files = [path.relative_to(source) for path in source.rglob("*.yaml")]
    data = {"/".join(path.parts) for path in files if path.parts[0] not in ("tests", "docs", "launch")}
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    said = subprocess.run(build, check=True, timeout=240, capture_output=True, text=True)
    assert "Warning" not in said.stderr + said.stdout
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"robot_rl"}
    inside = {name.removeprefix("robot_rl/") for name in names}
    assert {name.removeprefix("robot_rl/") for name in data} <= inside, "a YAML file is missing from the wheel"

    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True, timeout=240)
    # The dependencies come from the environment under test, whose editable robot_rl is not reachable by PYTHONPATH.
    code = (
        "import importlib, pathlib, sys\n"
        "for name in sys.argv[2:]:\n"
        "    module = importlib.import_module(name)\n"
        "    assert pathlib.Path(module.__path__[0]).is_relative_to(sys.argv[1]), module.__path__\n"
    )
    site = sysconfig.get_paths()["purelib"]
    packages = PYPROJECT["tool"]["setuptools"]["packages"]
    subprocess.run([python, "-c", code, environment, *packages], check=True, cwd=tmp_path, env={"PYTHONPATH": site})
    shown = subprocess.run(
        [environment / "bin" / "robot-rl", "train", "--show", "dataset=x.zarr"],
        check=True, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": site},
    )  # fmt: skip
    assert "training" in shown.stdout

    assert all((environment / name).is_file() for name in AMENT_FILES)
    assert executables(environment / "lib" / "robot_rl") == set(NODES)
    for name in NODES:  # each runs the console script of its own name, with the arguments as they are
        (environment / "bin" / name).write_text('#!/bin/sh\nprintf "%s|" "$(basename "$0")" "$@"\n')
        command = [environment / "lib" / "robot_rl" / name, "--ros-args", "-p", "task:=a b"]
        printed = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True).stdout
        assert printed == f"{name}|--ros-args|-p|task:=a b|"


@pytest.mark.slow
def test_editable_install_has_the_files_of_ros_too(tmp_path: Path, source: Path) -> None:
    prefix = tmp_path / "prefix"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    subprocess.run([*install, "--prefix", prefix, "-e", source], check=True, timeout=240)
    assert all((prefix / name).is_file() for name in AMENT_FILES)
    assert executables(prefix / "lib" / "robot_rl") == set(NODES)


@pytest.mark.slow
def test_colcon_build_installs_what_ros_looks_for(tmp_path: Path, source: Path) -> None:
    """The commands that colcon runs for a package of build type ament_python (colcon_core/task/python/build.py)."""
    prefix, build_base = tmp_path / "install", tmp_path / "build"
    site = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    build_base.mkdir()
    environment = os.environ | {"PYTHONPATH": str(site), "PYTHONWARNINGS": "ignore"}
    steps = ["egg_info", "--egg-base", os.path.relpath(build_base, source)]
    steps += ["build", "--build-base", build_base / "build"]
    steps += ["install", "--prefix", prefix, "--record", build_base / "install.log"]
    steps += ["--single-version-externally-managed"]
    command = [sys.executable, "setup.py", *steps]
    before = set(source.rglob("*"))
    subprocess.run(command, check=True, cwd=source, env=environment, capture_output=True, timeout=240)
    assert set(source.rglob("*")) == before, "the build left something in the source"
    assert all((prefix / name).is_file() for name in AMENT_FILES)
    assert executables(prefix / "lib" / "robot_rl") == {*NODES, "robot-rl"}
    # colcon is run by the system's Python, the scripts by the one in use: that of an active environment.
    for name in NODES:
        assert (prefix / "lib" / "robot_rl" / name).read_text().splitlines()[0] == "#!/usr/bin/env python3"
    active = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(site)}
    shown = subprocess.run(
        [prefix / "lib" / "robot_rl" / "robot-rl", "--help"],
        check=True, cwd=tmp_path, capture_output=True, text=True, env=active,
    )  # fmt: skip
    assert "deploy" in shown.stdout


def test_colcon_can_read_the_distribution() -> None:
    """colcon evaluates what setup.py declares as Python literals (colcon_python_setup_py's get_setup_information)."""
    code = (
        "from distutils.core import run_setup\n"
        "distribution = run_setup('setup.py', script_args=('--version',), stop_after='config')\n"
        "data = {k: v for k, v in vars(distribution).items() if not k.startswith('_') and not callable(v)\n"
        "        and k not in ('cmdclass', 'distclass', 'ext_modules', 'metadata')\n"
        "        and k not in distribution.display_option_names}\n"
        "data['metadata'] = {k: v for k, v in vars(distribution.metadata).items()\n"
        "                    if k not in ('license_files', 'provides_extras')}\n"
        "print(repr(data))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", f"import setuptools\n{code}"]
    printed = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout
    read = ast.literal_eval(printed.splitlines()[-1])
    assert read["metadata"]["name"] == "robot_rl"
    assert read["metadata"]["license"] == "Apache-2.0"
    destinations = {f"{folder}/{Path(name).name}" for folder, names in read["data_files"] for name in names}
    assert destinations >= AMENT_FILES


def test_the_oldest_setuptools_of_a_robot_computer_can_read_the_project() -> None:
    """ROS 2 Jazzy builds with setuptools 68.1, which refuses the licence fields of PEP 639 (setuptools 77)."""
    project = PYPROJECT["project"]
    assert "license-files" not in project
    assert not isinstance(project.get("license"), str)
    assert "license" in project["dynamic"]
    assert PYPROJECT["build-system"]["requires"] == ["setuptools>=68"]


def test_every_node_has_an_executable_and_every_executable_a_node() -> None:
    folder = ROOT / "launch" / "executables"
    assert executables(folder) == {path.name for path in folder.iterdir()} == set(NODES)
    for name in NODES:
        module, function = PYPROJECT["project"]["scripts"][name].split(":")
        assert (module, function) == (f"robot_rl.hardware.nodes.{name.removeprefix('robot_rl_')}_node", "main")
        assert (ROOT / "hardware" / "nodes" / f"{module.split('.')[-1]}.py").is_file()


# The order and rules of the schema of REP 149 (format 3). colcon builds a package that breaks them without ROS.
ORDER = ["name", "version", "description", "maintainer", "license", "url", "author", "depend", "export"]
DEPENDENCY = re.compile(r"(build|build_export|buildtool|buildtool_export|exec|doc|test)_depend|depend|conflict|replace")
EMAIL = re.compile(r"[-a-zA-Z0-9_%+]+(\.[-a-zA-Z0-9_%+]+)*@[-a-zA-Z0-9%]+(\.[-a-zA-Z0-9%]+)*\.[a-zA-Z]{2,}")


def test_the_manifest_follows_format_3() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert package.tag == "package"
    assert package.attrib == {"format": "3"}
    tags = ["depend" if DEPENDENCY.fullmatch(element.tag) else element.tag for element in package]
    assert set(tags) <= set(ORDER)
    assert tags == sorted(tags, key=ORDER.index)
    assert [tags.count(tag) for tag in ("name", "version", "description", "export")] == [1, 1, 1, 1]
    assert package.findtext("name") == PYPROJECT["project"]["name"] == "robot_rl"
    assert re.fullmatch("[a-z](_?[a-z0-9]+)*", package.findtext("name", ""))
    assert package.findtext("version") == robot_rl.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", robot_rl.__version__)
    assert (package.findtext("description") or "").strip()
    maintainers = package.findall("maintainer")
    assert maintainers
    for maintainer in maintainers:
        assert (maintainer.text or "").strip()
        assert EMAIL.fullmatch(maintainer.attrib["email"]), f"colcon refuses {maintainer.attrib['email']}"
    licenses = package.findall("license")
    assert [each.text for each in licenses] == ["Apache-2.0"]
    assert all((ROOT / each.attrib["file"]).is_file() for each in licenses)
    dependencies = [element.text or "" for element in package if DEPENDENCY.fullmatch(element.tag)]
    assert dependencies == sorted(set(dependencies))
    assert all(re.fullmatch("[a-z](_?[a-z0-9]+)*", name) for name in dependencies)
    assert [element.text for element in package.findall("export/build_type")] == ["ament_python"]


def test_the_manifest_names_the_ros_packages_in_use() -> None:
    """Every `pkg/msg/Type`, `pkg/srv/Type` and `pkg/action/Type` that hardware and launch files speak of."""
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {element.text for element in package.findall("exec_depend")}
    used = set()
    for path in [*(ROOT / "hardware").rglob("*.py"), *(ROOT / "hardware").rglob("*.yaml")]:
        used |= set(re.findall(r"\b([a-z]\w*_(?:msgs|srvs|interfaces))/(?:msg|srv|action)/[A-Z]", path.read_text()))
    for path in (ROOT / "launch").glob("*.launch.py"):
        used |= set(re.findall(r"^from (\w+)", path.read_text(), re.MULTILINE)) - {"__future__"}
    used.remove("px4_msgs")  # built from PX4's own repository, in the vehicle's release, where there is a drone
    assert used <= declared, f"package.xml lacks {sorted(used - declared)}"


def test_the_readme_names_every_extra() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in PYPROJECT["project"]["optional-dependencies"] if f"`{name}` for" not in text] == []


def test_the_robot_computer_keeps_the_numpy_of_ros() -> None:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert steps[0] == ["FROM", "ros:jazzy"]
    (environment,) = [step for word, step in steps if word == "RUN" and " -m venv " in step]
    (install,) = [step for word, step in steps if word == "RUN" and step.startswith("pip install")]
    # The models that the files of shipped robots name; no dependency that pip could resolve.
    assert "pip install --no-cache-dir --no-deps robosuite==1.5.2" in install
    assert "--system-site-packages" in environment
    assert '"numpy<2"' in install
    (extras,) = re.findall(r"robot_rl\[(.*?)\]", install)
    assert set(extras.split(",")) <= set(PYPROJECT["project"]["optional-dependencies"])
    prefix = environment.split()[-1]
    assert f"PATH={prefix}/bin:$PATH AMENT_PREFIX_PATH={prefix}" in [step for word, step in steps if word == "ENV"]
