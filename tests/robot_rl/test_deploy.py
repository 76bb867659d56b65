import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from robot_rl import cli, deploy
from robot_rl.deployment import Attempt, DeployError, Deployment, NodeDied, Stopped, quantiles
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.graph import Endpoint
from robot_rl.hardware.ros2.qos import RELIABLE
from robot_rl.hardware.ros2.spin_loop import SpinLoop
from robot_rl.intervals import mcnemar, wilson
from robot_rl.node_process import NodeProcess
from robot_rl.report import write_report

SPEC = {"task": "lift", "cameras": {"agentview": [84, 96]}, "horizon": 200}


def plain(**changes):
    from omegaconf import OmegaConf

    composed = OmegaConf.to_container(cli.compose("deploy", ["policy=runs/demo", "twin=true"]), resolve=True)
    return {key: value for key, value in composed.items() if key != "hydra"} | changes


def attempts():
    return [
        Attempt(7, True, 31, "success", 3, 0, jitter=[0.001, 0.002], latency=[0.004], age=[0.02]),
        Attempt(8, False, 200, "no success within 200 steps", 5, 2, jitter=[0.003], latency=[0.006], age=[0.03]),
    ]


def results(tmp_path, outcomes=None):
    candidate = SimpleNamespace(
        name="demo", path=Path("runs/demo"), policy=SimpleNamespace(contract=SimpleNamespace(rate_hz=20.0))
    )
    return deploy._results(candidate, plain(), SPEC, 200, attempts(), outcomes, 12.3)


def test_simulated_time_goes_in_lockstep_unless_it_is_real_time() -> None:
    nodes = deploy.node_parameters(plain(impairments={"latency": 0.01}, delay=50), Path("out"), SPEC)
    assert list(nodes) == ["twin", "supervisor", "recorder", "policy"]  # as they are started
    assert nodes["twin"]["real_time"] is False
    assert nodes["twin"]["cameras"] == "agentview:84x96"
    assert nodes["twin"]["latency"] == 0.01
    assert all(nodes[name]["use_sim_time"] for name in ("supervisor", "recorder", "policy"))
    assert "use_sim_time" not in nodes["twin"]
    assert nodes["supervisor"]["wait_for_proposal"] > 0
    assert nodes["policy"]["inference_delay"] == pytest.approx(0.05)
    nodes = deploy.node_parameters(plain(real_time=True), Path("out"), SPEC)
    assert nodes["twin"]["real_time"] is True
    assert not nodes["policy"]["lockstep"]
    assert nodes["supervisor"]["wait_for_proposal"] == 0
    assert nodes["supervisor"]["homing"] == "servo"


def test_a_real_robot_has_no_twin_and_its_own_clock() -> None:
    nodes = deploy.node_parameters(plain(twin=False, record=False), Path("out"), None)
    assert list(nodes) == ["supervisor", "policy"]
    assert not any(parameters["use_sim_time"] for parameters in nodes.values())


def test_a_graph_that_is_taken_is_refused() -> None:
    panda = RobotFile.load("panda")
    arm, joints = panda.commands["joint_position"].topic, panda.streams["joint_position"].topic

    def check(topic, node, is_publisher, twin):
        harmless = Endpoint("/rosout", "", "/deploy", RELIABLE, True)
        deploy.check_alone([Endpoint(topic, "", node, RELIABLE, is_publisher), harmless], panda, twin)

    for topic in (arm, "/supervisor/status"):
        for twin in (True, False):
            with pytest.raises(DeployError, match=f"/other publishes {topic}"):
                check(topic, "/other", True, twin)
    with pytest.raises(DeployError, match="never reaches another robot"):
        check(arm, "/joint_trajectory_controller", False, twin=True)
    with pytest.raises(DeployError, match=f"/driver publishes {joints}"):
        check(joints, "/driver", True, twin=True)
    check(arm, "/joint_trajectory_controller", False, twin=False)  # what a real robot is for
    check(joints, "/driver", True, twin=False)


def test_a_policy_does_not_act_on_while_what_has_failed_is_started_again() -> None:
    """The person is asked to set the scene next."""
    called, callbacks = [], {}

    def client(name, service_type):
        answer = SimpleNamespace(success=True, message="")
        return SimpleNamespace(ready=True, call=lambda request, done, timeout: called.append(name) or done(answer))

    graph = SimpleNamespace(
        stopped=False, client=client, spin=lambda until=None, timeout=None: until is not None and until(),
        publisher=lambda topic, kind: SimpleNamespace(publish=lambda message: None),
        subscribe=lambda topic, kind, callback, qos: callbacks.update({topic: callback}),
    )  # fmt: skip
    recorder = SimpleNamespace(name="recorder", starts=1, running=True, ended="recorder node ended: SIGKILL")
    deployment = Deployment(graph, [recorder], 20.0, False, False, True)
    acts = SimpleNamespace(values=[SimpleNamespace(key="state", value="running")], message="")
    callbacks["policy/status"](SimpleNamespace(message=acts))
    with pytest.raises(NodeDied):
        deployment.run(0, 10, {}, lambda: setattr(recorder, "running", False))
    assert called == ["policy/start", "policy/stop"]


@pytest.mark.parametrize(
    ("begin", "state"), [(lambda it: it.insist("supervisor/home"), "idle"), (lambda it: it.bring(0), "ready")]
)
def test_an_interrupt_ends_what_is_asked_for_again_and_again(begin, state) -> None:
    asked, callbacks = [], {}
    graph = SpinLoop(lambda: None)

    def client(name, service_type):
        answer = SimpleNamespace(success=False, message="it moves still")
        return SimpleNamespace(call=lambda request, done, timeout: asked.append(name) or done(answer))

    graph.client, graph.publisher = client, lambda topic, kind: None
    graph.spin = partial(graph.spin, time.sleep)
    graph.subscribe = lambda topic, kind, callback, qos: callbacks.update({topic: callback})
    deployment = Deployment(graph, [], 20.0, False, False, False)
    told = SimpleNamespace(message="", values=[SimpleNamespace(key="state", value=state)])
    callbacks["supervisor/status"](SimpleNamespace(message=SimpleNamespace(status=[told])))
    graph.call_later(0.2, graph.stop)
    with pytest.raises(Stopped):
        begin(deployment)
    assert 0 < len(asked) < 20


def test_results_count_episodes_actions_and_times(tmp_path) -> None:
    outcomes = [SimpleNamespace(success=True, steps=30, success_step=30, metrics={})] * 2
    found = results(tmp_path, outcomes)
    assert found["success_rate"] == 0.5
    assert found["success_interval"] == list(wilson(1, 2))
    assert found["limited_actions"] == 8
    assert found["held_actions"] == 2
    assert found["actions"] == 231
    assert found["jitter_ms"]["median"] == 2.0
    assert found["latency_ms"] == {"median": 5.0, "p99": pytest.approx(5.98)}
    assert found["comparison"]["p_value"] == mcnemar([True, False], [True, True]).p_value
    assert quantiles([]) == {"median": None, "p99": None}


def test_files_hold_the_results_and_the_report_shows_them(tmp_path) -> None:
    folder = deploy._begin(tmp_path / "run", plain())
    outcomes = [SimpleNamespace(success=True, steps=30, success_step=30, metrics={})] * 2
    deploy._write(folder, attempts(), outcomes, results(tmp_path, outcomes))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"success_rate", "success_interval", "episodes", "jitter_ms", "latency_ms", "limited_actions"} <= set(
        metrics
    )
    rows = list(csv.DictReader((folder / "deployment" / "episodes.csv").open()))
    assert [(row["seed"], row["success"], row["other_success"]) for row in rows] == [("7", "1", "1"), ("8", "0", "1")]
    assert yaml.safe_load((folder / "deployment" / "config.yaml").read_text())["robot"] == "panda"
    page = write_report(folder).read_text()
    assert "1 of 2 episodes succeeded on the twin of panda over ROS 2" in page
    assert "newest observation to command" in page


def test_a_folder_of_something_else_is_left_alone(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        deploy._begin(tmp_path, plain())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_recordings_of_an_earlier_deployment_are_kept(tmp_path) -> None:
    folder = deploy._begin(tmp_path, plain())
    (folder / "bags" / "one").mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    (folder / "logs" / "policy.log").write_text("old")
    deploy._begin(tmp_path, plain())
    assert (folder / "bags" / "one").exists()
    assert not (folder / "metrics.json").exists()
    assert not list((folder / "logs").iterdir())


def test_a_node_that_ends_before_the_policy_acts_is_no_failure_of_the_policy(monkeypatch) -> None:
    monkeypatch.setattr(deploy, "_say_line", lambda line: None)
    died = NodeDied(SimpleNamespace(name="recorder", starts=1, ended="recorder node ended: SIGKILL"))
    went = iter([died, None, died, None])

    def moment(*_):
        if (error := next(went)) is not None:
            raise error
        return Attempt(7, True, 31, "success")

    deployment = SimpleNamespace(prepare=moment, run=moment, restart=lambda process: None)
    bar = SimpleNamespace(set_postfix=lambda **_: None, update=lambda: None)
    found: list[Attempt] = []
    deploy._run_episodes(deployment, found, bar, plain(episodes=1), 200, SPEC, None)
    # Ended on the way to the start, and again while the policy acted.
    assert [(attempt.success, attempt.reason) for attempt in found] == [(False, "recorder node ended: SIGKILL")]


def test_what_was_finished_before_a_failure_is_kept(tmp_path, monkeypatch) -> None:
    from robot_rl.evaluate import Candidate

    policy = SimpleNamespace(contract=RobotFile.load("panda").contract)
    candidate = SimpleNamespace(name="demo", path=Path("runs/demo"), policy=policy)
    monkeypatch.setattr(Candidate, "load", lambda *_: candidate)
    monkeypatch.setattr(deploy, "_environment", lambda *_: SPEC)

    def fails(folder, candidate, robot, plain, spec, horizon, finished):
        deploy._begin(folder, plain)
        finished += attempts()
        raise DeployError("the policy node ended: SIGKILL")

    monkeypatch.setattr(deploy, "_deploy", fails)
    with pytest.raises(DeployError, match="SIGKILL"):
        deploy.main(cli.compose("deploy", ["policy=runs/demo", "twin=true", f"output={tmp_path / 'run'}"]))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["episodes"], metrics["success_rate"], metrics["comparison"]) == (2, 0.5, None)
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("robot", "message"),
    [("ur5e", "action.joint_position.shape: [7] against [6]"), ("px4", "was trained for lift, and px4 is a vehicle")],
)
def test_another_robot_is_refused_before_anything_is_started_or_lost(tmp_path, monkeypatch, robot, message) -> None:
    from robot_rl.evaluate import Candidate

    policy = SimpleNamespace(contract=RobotFile.load("panda").contract)
    candidate = SimpleNamespace(name="demo", path=Path("runs/demo"), policy=policy)
    monkeypatch.setattr(Candidate, "load", lambda *_: candidate)
    monkeypatch.setattr(deploy, "_environment", lambda *_: SPEC)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match=re.escape(message)):
        deploy.main(cli.compose("deploy", ["policy=runs/demo", "twin=true", f"robot={robot}", f"output={tmp_path}"]))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_missing_policy_is_named(capsys) -> None:
    assert cli.main(["deploy", "twin=true"]) == 1
    assert "policy= is missing" in capsys.readouterr().err


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Starts a script in the place of a node."""
    started = []

    def start(script, **parameters):
        lines = []
        process = NodeProcess("policy", parameters, tmp_path / "log", lines.append)
        arguments = process._arguments
        monkeypatch.setattr(process, "_arguments", [sys.executable, "-c", script, *arguments[4:]])
        process.start()
        started.append(process)
        return process, lines

    yield start
    for process in started:
        process.stop(0.1)


def wait(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_node_is_given_its_parameters_and_its_log_is_kept(node, tmp_path) -> None:
    script = "import json, sys; print(json.dumps(sys.argv[1:]))"
    process, lines = node(script, path='a "b"', rate=20.0, lockstep=True, seed=3)
    wait(lambda: not process.running)
    assert "policy node ended: exit code 0" in process.ended
    options, *pairs = json.loads(lines[0])
    assert options == "--ros-args"
    assert pairs[::2] == ["-p"] * 4
    values = dict(pair.split(":=") for pair in pairs[1::2])
    assert {key: yaml.safe_load(value) for key, value in values.items()} == {
        "path": 'a "b"', "rate": 20.0, "lockstep": True, "seed": 3,
    }  # fmt: skip
    assert (tmp_path / "log").read_text() == lines[0] + "\n"


def test_a_node_that_dies_tells_how_and_what_it_said_last(node) -> None:
    process, _ = node("import os, signal; print('out of tea', flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    wait(lambda: not process.running)
    assert process.ended == "policy node ended: SIGKILL\n    out of tea"


def test_a_node_that_does_not_listen_is_killed(node) -> None:
    process, lines = node(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    )
    wait(lambda: lines == ["on"])
    process.stop(0.2)
    assert not process.running
    assert "SIGKILL" in process.ended


def test_a_node_ends_with_the_process_that_started_it(tmp_path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from robot_rl.node_process import NodeProcess\n"
        f"process = NodeProcess('policy', {{}}, Path({str(tmp_path / 'log')!r}), print)\n"
        "process._arguments = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "process.start(); print(process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    wait(lambda: not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_policy_runs_on_the_twin_in_processes_of_their_own(tmp_path, ros_domain) -> None:
    """A policy without training fails, but everything else has to be there, and episodes as the policy saw them."""
    pytest.importorskip("cyclonedds")
    from robot_rl.datasets import EpisodeStore
    from robot_rl.hardware.observed_row import decode_row
    from robot_rl.hardware.recording.bag import Bag
    from robot_rl.hardware.recording.bag_import import import_bag, robot_for

    policy = untrained(tmp_path / "policy")
    out = tmp_path / "out"
    arguments = [f"policy={policy}", "twin=true", "episodes=2", "horizon=30", "first_seed=100", f"output={out}"]
    assert cli.main(["deploy", *arguments]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["episodes"] == 2
    assert metrics["jitter_ms"]["p99"] == 0  # of simulated time
    assert metrics["latency_ms"]["median"] == 0
    rows = list(csv.DictReader((out / "deployment" / "episodes.csv").open()))
    assert [row["seed"] for row in rows] == ["100", "101"]
    assert all(int(row["steps"]) >= 30 for row in rows)
    store = EpisodeStore.open(out / "episodes.zarr")
    assert len(store) == 2
    assert [episode.facts["seed"] for episode in store] == [100, 101]
    assert [episode.success for episode in store] == [False, False]

    (folder,) = (out / "bags").iterdir()
    robot = robot_for("panda", policy)
    assert len(list(import_bag(folder, robot, tmp_path / "later.zarr"))) == 2
    later = EpisodeStore.open(tmp_path / "later.zarr")
    bag = Bag(folder)
    seen = [decode_row(robot.contract, bag.decode(item)) for item in bag.read() if item.topic == "/policy/observation"]
    observed = np.stack([row["joint_position"] for _, row, _ in seen])
    for one, other in zip(store, later, strict=True):
        np.testing.assert_array_equal(one.action, other.action)
        for name in robot.contract.observation:
            np.testing.assert_array_equal(one.observation[name], other.observation[name])
        rows_of = np.array([np.abs(observed - row).sum(axis=1).min() for row in one.observation["joint_position"][:30]])
        assert (rows_of == 0).all()


def untrained(folder: Path) -> Path:
    from robot_rl import sim
    from robot_rl.datasets.statistics import merge, summarise
    from robot_rl.policies import build_policy, save_policy

    spec = {"task": "lift", "robot": "panda", "controller": "joint_position"}
    env = sim.make(spec)
    contract, rest = env.contract.select(["joint_position", "cube_pose"]), env.rest_action()
    env.close()
    rows = np.random.default_rng(0).uniform(-0.1, 0.1, (200, 15)) + np.append(rest, np.eye(7)[3])
    parts = {"action": rows[:, :8], "joint_position": rows[:, :7], "cube_pose": rows[:, 8:]}
    statistics = {name: merge({k: value[None] for k, value in summarise(part).items()}) for name, part in parts.items()}
    config = {"denoiser": {"name": "mlp", "width": 16, "depth": 1, "time_features": 8}}
    return save_policy(build_policy(config, contract, statistics), folder, {"environment": spec})
