"""What every node does on the command line before it joins a graph."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from robot_rl.hardware.nodes.command_line import node_main

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
NODES = sorted(name for name in SCRIPTS if name.startswith("robot_rl_"))


def main_of(name):
    module, _, function = SCRIPTS[name].partition(":")
    return getattr(importlib.import_module(module), function)


@pytest.mark.parametrize("name", NODES)
def test_help_says_what_it_is_and_where_its_parameters_stand(name, capsys):
    assert main_of(name)(["--help"]) == 0
    said = capsys.readouterr().out
    assert f"usage: {name} [--ros-args" in said
    (section,) = re.findall(r"under `(\w+)`", said)
    assert f"### `{section}`" in (ROOT / "docs" / "ros2.md").read_text()


@pytest.mark.parametrize("name", NODES)
def test_what_is_no_ros_argument_is_told_in_words(name, capsys, ros_domain):
    assert main_of(name)(["controller:=px4_velocity"]) == 2
    said = capsys.readouterr().err
    assert f"{name}: unknown argument 'controller:=px4_velocity'" in said
    assert "--ros-args -p name:=value" in said


def test_a_parameter_of_another_type_is_told_in_words(capsys, ros_domain):
    assert main_of("robot_rl_px4")(["--ros-args", "-p", "robot:=3"]) == 2
    assert "parameter robot is a str" in capsys.readouterr().err


def test_an_interrupt_that_nobody_waits_for_ends_it_without_a_traceback(capsys):
    def run(argv):
        raise KeyboardInterrupt

    assert node_main(run)([]) == 130
    assert capsys.readouterr().err == ""
