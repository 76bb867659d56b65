"""The launch files against stand-ins for ROS 2's launch system, and against the parameters that the nodes declare."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from robot_rl.deploy import node_parameters
from robot_rl.flight_deployment import flight_parameters
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.policies.chunk_runner import Mode

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))
NODES = ("camera", "feetech", "policy", "px4", "px4_twin", "recorder", "replay", "supervisor", "teleop", "twin")
REQUIRED = {"deploy": ["policy:=runs/demo"]}


def describe(file: str, *arguments: str) -> dict[str, Any]:
    """What `ros2 launch robot_rl <file>.launch.py <arguments>` would declare and start."""
    command = [sys.executable, HERE / "describe.py", ROOT / "launch" / f"{file}.launch.py", *arguments]
    environment = os.environ | {"PYTHONPATH": str(HERE / "ros_stubs"), "PYTHONDONTWRITEBYTECODE": "1"}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def started(file: str, *arguments: str) -> dict[str, dict[str, Any]]:
    """The started nodes by name, with their parameters."""
    answer = describe(file, *arguments)
    assert "error" not in answer, answer["error"]
    nodes = [entry for entry in answer["started"] if "executable" in entry]
    return {node["executable"].removeprefix("robot_rl_"): node for node in nodes}


def declared(node: str) -> dict[str, Any]:
    """Name and default of each parameter that a node declares by name, read from its source and what it imports."""
    found: dict[str, Any] = {"use_sim_time": False}
    pending, seen = [ROOT / "hardware" / "nodes" / f"{node}_node.py"], set()
    while pending:
        path = pending.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        for item in ast.walk(ast.parse(path.read_text())):
            if isinstance(item, ast.ImportFrom) and item.module and item.module.startswith("robot_rl.hardware"):
                names = [item.module, *(f"{item.module}.{alias.name}" for alias in item.names)]
                pending += [ROOT / (name.removeprefix("robot_rl.").replace(".", "/") + ".py") for name in names]
            elif isinstance(item, ast.Call):
                called = item.func.attr if isinstance(item.func, ast.Attribute) else getattr(item.func, "id", "")
                arguments = item.args[1:] if called == "_setting" else item.args
                if called in ("parameter", "_setting") and isinstance(arguments[0], ast.Constant):
                    found[arguments[0].value] = ast.literal_eval(arguments[1])
    return found


def test_all_files_are_here() -> None:
    assert [path.name.split(".")[0] for path in FILES] == ["deploy", "drone", "feetech", "record", "teleop", "twin"]


@pytest.mark.parametrize("file", [path.name.split(".")[0] for path in FILES])
def test_arguments_are_documented_and_reach_nodes_in_the_type_they_declare(file: str) -> None:
    arguments = describe(file, *REQUIRED.get(file, []))["arguments"]
    for name, argument in arguments.items():
        assert argument["description"], f"{name} has no description"
        if argument["default"] in ("true", "false"):
            assert argument["choices"] == ["true", "false"], name
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    nodes = started(file, *REQUIRED.get(file, []), *(["twin:=true"] if "twin" in arguments else []))
    assert nodes
    for name, node in nodes.items():
        assert node["package"] == "robot_rl"
        assert node["executable"] in scripts
        known = declared(name)
        for parameter, value in node["parameters"].items():
            assert parameter in known, f"{name} declares no parameter {parameter}"
            assert type(value) is type(known[parameter]), (
                f"{name}.{parameter}: {value!r}, declared {known[parameter]!r}"
            )


@pytest.mark.parametrize("file", ["deploy", "teleop"])
def test_included_files_take_their_arguments_from_the_command_line(file: str) -> None:
    arguments = ["twin:=true", "robot:=ur5e", "task:=stack", "seed:=7", "loss:=0.1", "output:=bags"]
    nodes = started(file, *REQUIRED.get(file, []), *arguments)
    assert {"twin", "supervisor", "recorder"} <= set(nodes)
    assert all(node["parameters"]["robot"] == "ur5e" for node in nodes.values())
    twin = nodes["twin"]["parameters"]
    assert (twin["task"], twin["seed"], twin["loss"], twin["real_time"]) == ("stack", 7, 0.1, True)
    assert nodes["recorder"]["parameters"]["output"] == "bags"
    assert "twin" not in started(file, *REQUIRED.get(file, []))
    assert "recorder" not in started(file, *REQUIRED.get(file, []), "record:=false")


@pytest.mark.parametrize("file", ["deploy", "teleop"])
def test_the_driver_of_a_feetech_arm_is_started_where_it_is_wanted(file: str) -> None:
    arguments = [*REQUIRED.get(file, []), "robot:=so101", "port:=/dev/ttyACM1"]
    assert "feetech" not in started(file, *arguments)
    driver = started(file, *arguments, "feetech:=true")["feetech"]["parameters"]
    assert driver == {"robot": "so101", "port": "/dev/ttyACM1", "calibration": ""}


@pytest.mark.parametrize("real_time", [pytest.param(True, marks=pytest.mark.slow), False])
def test_deploy_starts_what_the_program_of_the_same_name_starts(real_time: bool) -> None:
    spec = {"task": "lift", "cameras": {"agentview": [84, 84]}}
    plain = {
        "policy": "runs/demo", "robot": "panda", "real_time": real_time, "first_seed": 3, "impairments": {"loss": 0.1},
        "record": True, "mode": "real_time", "execute": 4, "guidance": 5.0, "delay": 0, "device": "cuda", "threads": 2,
        "homing": "servo",
    }  # fmt: skip
    expected = node_parameters(plain, Path("runs/deploy"), spec)
    nodes = started(
        "deploy", "policy:=runs/demo", "twin:=true", f"real_time:={str(real_time).lower()}", "seed:=3", "loss:=0.1",
        "cameras:=agentview:84x84", "mode:=real_time", "execute:=4", "guidance:=5", "device:=cuda", "threads:=2",
    )  # fmt: skip
    assert list(nodes) == list(expected)
    for name, parameters in expected.items():
        assert declared(name) | nodes[name]["parameters"] == declared(name) | parameters


@pytest.mark.slow
@pytest.mark.parametrize("real_time", [True, False])
def test_drone_starts_what_deploy_starts_for_a_vehicle(real_time: bool) -> None:
    plain = {
        "policy": "runs/figure8", "twin": True, "real_time": real_time, "first_seed": 0, "impairments": None,
        "record": True, "mode": "receding_horizon", "execute": 4, "guidance": None, "delay": 0, "device": "cuda",
        "threads": 2,
    }  # fmt: skip
    spec = {"task": "drone/corridor", "cameras": {"onboard": [48, 64]}}
    expected = flight_parameters(plain, Path("runs/drone"), spec, Path("vehicle.yaml"), 500)
    nodes = started(
        "drone", "robot:=vehicle.yaml", "policy:=runs/figure8", "task:=drone/corridor", "horizon:=500", "execute:=4",
        "cameras:=onboard:48x64", "device:=cuda", "threads:=2", "twin:=true", "record:=true",
        f"real_time:={str(real_time).lower()}",
    )  # fmt: skip
    assert list(nodes) == list(expected)
    for name, parameters in expected.items():
        assert declared(name) | nodes[name]["parameters"] == declared(name) | parameters
    assert [name for name, node in nodes.items() if node["ends_all"]] == ["px4"]


def test_drone_starts_neither_policy_nor_recorder_nor_twin_unasked() -> None:
    assert list(started("drone")) == ["px4"]
    assert list(started("drone", "record:=true")) == ["px4", "recorder"]
    assert list(started("drone", "policy:=runs/figure8")) == ["px4", "policy"]


def test_the_supervisor_ends_the_launch_and_the_recorder_has_time_to_finish() -> None:
    nodes = started("deploy", "policy:=runs/demo", "twin:=true")
    assert [name for name, node in nodes.items() if node["ends_all"]] == ["supervisor"]
    assert min(nodes["recorder"]["timeouts"]) >= 30.0


def test_the_modes_are_those_of_the_chunk_runner() -> None:
    assert describe("deploy")["arguments"]["mode"]["choices"] == list(get_args(Mode))


def test_a_device_is_started_where_one_is_named() -> None:
    assert any("No device" in entry.get("log", "") for entry in describe("teleop", "device:=")["started"])
    assert "teleop" not in started("teleop", "device:=")
    assert started("teleop", "device:=spacemouse")["teleop"]["parameters"]["device"] == "spacemouse"


@pytest.mark.parametrize(
    ("file", "arguments", "word"),
    [
        ("deploy", [], "policy"),
        ("deploy", ["policy:=runs/demo", "twin:=perhaps"], "twin"),
        ("deploy", ["policy:=runs/demo", "mode:=fast"], "mode"),
        ("twin", ["real_time:=2"], "real_time"),
        ("drone", ["controller:=ctbr"], "controller"),
        ("drone", ["policy:=runs/figure8", "mode:=fast"], "mode"),
    ],
)
def test_impossible_arguments_are_refused(file: str, arguments: list[str], word: str) -> None:
    answer = describe(file, *arguments)
    assert f"argument '{word}'" in answer["error"]


@pytest.mark.parametrize("node", NODES)
def test_the_guide_lists_the_parameters_that_the_node_declares(node: str) -> None:
    text = (ROOT / "docs" / "ros2.md").read_text()
    section = re.search(rf"^### `{node}`\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", section[1], re.MULTILINE)
    listed = {name: yaml.safe_load(default) for name, default in rows}
    known = declared(node)
    del known["use_sim_time"]
    assert listed == known


@pytest.mark.alone
def test_what_is_launched_works_together(tmp_path: Path, ros_domain: int) -> None:
    """All of deploy.launch.py but the policy, started as launch does: brings the twin home and leaves a bag."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    contract = tmp_path / "contract.json"
    contract.write_text(RobotFile.load("panda").contract.to_json())
    places = [f"output:={tmp_path}/bags", f"dataset:={tmp_path}/episodes.zarr"]
    nodes = started("deploy", f"policy:={contract}", "twin:=true", "real_time:=false", *places)
    processes = []
    with ExitStack() as stack:
        for name in ("twin", "supervisor", "recorder"):
            file = tmp_path / f"{name}.yaml"
            file.write_text(yaml.safe_dump({"/**": {"ros__parameters": nodes[name]["parameters"]}}))
            module = scripts[nodes[name]["executable"]].split(":")[0]
            command = [sys.executable, "-P", "-m", module, "--ros-args", "--params-file", str(file)]
            processes.append(subprocess.Popen(command, cwd=tmp_path))
            stack.callback(end, processes[-1])
        client = [sys.executable, "-P", HERE / "go_home.py"]
        subprocess.run(client, check=True, timeout=150, cwd=tmp_path)
        for process in processes:
            process.send_signal(signal.SIGINT)
        assert [process.wait(60) for process in processes] == [0] * len(processes)
    assert list((tmp_path / "bags").rglob("*.mcap"))


def end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
