"""`--ros-args` by rcl's rules; the expected values are those of ROS 2 Jazzy's documentation and parsers."""

import math

import pytest

from robot_rl.hardware.ros2.arguments import Arguments
from robot_rl.hardware.ros2.graph import GraphError


def given(*argv, name="robot", namespace=""):
    return Arguments(name, ["--ros-args", *argv], namespace)


def values(*argv, **node):
    return given(*argv, **node).parameters


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("state", "/arm/state"),
        ("supervisor/state", "/arm/supervisor/state"),
        ("/state", "/state"),
        ("~/state", "/arm/robot/state"),
        ("~", "/arm/robot"),
        ("{node}/state", "/arm/robot/state"),
    ],
)
def test_names_resolve(name, full):
    assert given(namespace="arm").resolve(name) == full


@pytest.mark.parametrize("name", ["", "a b", "a//b", "a/", "1a", "/", "a-b", "~a"])
def test_wrong_names_are_refused(name):
    with pytest.raises(GraphError, match="no topic or service name"):
        given().resolve(name)


@pytest.mark.parametrize(
    ("rule", "name", "full"),
    [
        ("state:=joint_states", "state", "/arm/joint_states"),
        ("state:=/joint_states", "/arm/state", "/joint_states"),
        ("/arm/state:=~/own", "state", "/arm/robot/own"),
        ("robot:state:=x", "state", "/arm/x"),
        ("other:state:=x", "state", "/arm/state"),
        ("rostopic://state:=x", "state", "/arm/x"),
        ("state:=x", "~/state", "/arm/robot/state"),
        ("~/home:=/home", "~/home", "/home"),
    ],
)
def test_remappings(rule, name, full):
    assert given("-r", rule, namespace="/arm").resolve(name) == full


def test_node_names_and_namespaces_are_remapped():
    arguments = given("-r", "__node:=left", "-r", "__ns:=/arms", "-r", "state:=x")
    assert (arguments.name, arguments.namespace, arguments.full_name) == ("left", "/arms", "/arms/left")
    assert arguments.resolve("state") == "/arms/x"
    assert given("-r", "other:__node:=left").full_name == "/robot"
    assert given("-r", "robot:__name:=left").full_name == "/left"
    with pytest.raises(GraphError, match="no node name"):
        given("-r", "__node:=a-b")


def test_the_first_rule_wins():
    assert given("-r", "a:=b", "-r", "a:=c", "-r", "b:=d").resolve("a") == "/b"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("Off", False),
        ("3", 3),
        ("-0x10", -16),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("text", "text"),
        ("'3'", "3"),
        ("2026-01-01", "2026-01-01"),
        ("a:b", "a:b"),
        ("", ""),
        ("[1, 2]", [1, 2]),
        ("[1, 2.5]", [1.0, 2.5]),
        ("[a, 'b']", ["a", "b"]),
        ("[]", []),
        ("/joint_states", "/joint_states"),
    ],
)
def test_values_are_typed_as_rcl_types_them(text, value):
    got = values("-p", f"x:={text}")["x"]
    assert got == value
    assert type(got) is type(value)


def test_parameters_of_other_nodes_are_left_out():
    assert values("-p", "robot:a:=1", "-p", "other:b:=2", "-p", "c.d:=3") == {"a": 1, "c.d": 3}


def test_files_with_wildcards_nesting_and_precedence(tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text(
        "/arm/robot: {ros__parameters: {exact: 1}}\n"
        "/**: {ros__parameters: {exact: 0, everywhere: yes, limits: {low: -1.0, high: 1}}}\n"
        "/*/robot: {ros__parameters: {one_level: a}}\n"
        "/*: {ros__parameters: {root: 1}}\n"
        "arm: {robot: {ros__parameters: {nested: [1, 2]}}, other: {ros__parameters: {foreign: 1}}}\n"
    )
    expected = {
        "exact": 1,
        "everywhere": True,
        "limits.low": -1.0,
        "limits.high": 1,
        "one_level": "a",
        "nested": [1, 2],
    }
    assert values("--params-file", str(file), namespace="/arm") == expected
    assert values("--params-file", str(file), "-p", "exact:=2", namespace="/arm")["exact"] == 2
    second = tmp_path / "second.yaml"
    second.write_text("robot:\n  ros__parameters:\n    root: 2\n")
    assert values("--params-file", str(file), "--params-file", str(second))["root"] == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-p", "x=1"], "name:=value"),
        (["-p"], "needs a value"),
        (["-r", "ab"], "from:=to"),
        (["--params-file", "/nowhere.yaml"], "No such file"),
        (["--log-level", "loud"], "debug, info"),
        (["--unknown"], "unknown ROS argument"),
        (["-p", "x:=[1, a]"], "of one type"),
        (["-p", "x:=[1"], "-p x"),
        (["--", "free"], "unknown argument 'free'"),
    ],
)
def test_errors_say_what_was_expected(argv, message):
    with pytest.raises(GraphError, match=message):
        given(*argv)


def test_a_file_without_nodes_is_refused(tmp_path):
    file = tmp_path / "flat.yaml"
    file.write_text("rate: 5\n")
    with pytest.raises(GraphError, match="outside of ros__parameters"):
        given("--params-file", str(file))


def test_logging():
    assert given("--log-level", "debug").log_level == 10
    assert given("--log-level", "rcl:=debug").log_level == 20
    assert not given("--disable-rosout-logs").rosout
    assert not given("--disable-stdout-logs", "--enable-external-lib-logs", "--log-config-file", "x").stdout
