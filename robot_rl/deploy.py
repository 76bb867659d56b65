"""`robot-rl deploy`: a policy on a robot through ROS 2, or on its twin, by one command.

The run folder then holds:

```
metrics.json                success_rate, success_interval, episodes, jitter_ms, latency_ms, limited_actions, …
deployment/episodes.csv     one row for each episode, beside that of the same seed in this process
deployment/results.json     everything that was measured; the configuration in config.yaml
logs/<node>.log             what each node said
bags/…                      black boxes: all streams and all decisions of the Supervisor (MCAP)
episodes.zarr               the episodes, imported from the black boxes
report.html                 all of it on one page
```

`jitter_ms` is how late the control steps begin, `latency_ms` the time from the stamp of the newest observation to the
Supervisor's command that follows the action. On simulated time both are times of that clock.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_rl.arm_driver import driver_parameters
from robot_rl.camera_devices import camera_parameters
from robot_rl.intervals import mcnemar, wilson
from robot_rl.metric_log import write_results

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from tqdm import tqdm

    from robot_rl.attended import Keys
    from robot_rl.deployment import Attempt, Deployment
    from robot_rl.evaluate import Candidate
    from robot_rl.hardware.px4.vehicle_file import VehicleFile
    from robot_rl.hardware.robot_file import RobotFile
    from robot_rl.hardware.ros2.graph import Endpoint
    from robot_rl.rollout import Outcome

ROBOT_HORIZON = 400
"""Control steps of an episode on a real robot, unless told otherwise."""

RESTARTS = 3
"""How often a node is started again before the deployment gives up."""

DISCOVERY = 1.0
"""How long others on the graph are looked for before anything is started [s]."""

RETRIES = 3
"""How often the start of an episode is tried again."""

KEYS = {"s": "success", "f": "failure", "d": "discard"}
HELP = "[s]uccess  [f]ailure  [d]iscard  [space] EMERGENCY STOP  [Ctrl-C] end"


def main(config: DictConfig) -> int:
    """Deploy as configured. Returns the exit status."""
    from omegaconf import OmegaConf

    from robot_rl.deployment import DeployError, NodeDied
    from robot_rl.evaluate import Candidate, EvaluateError
    from robot_rl.hardware.px4.vehicle_file import VehicleFile, load_robot
    from robot_rl.report import write_report
    from robot_rl.rollout import check_execution
    from robot_rl.sim.spec import family_of

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    plain.pop("hydra", None)
    if plain["policy"] is None:
        raise EvaluateError("policy= is missing: give a run folder of `robot-rl train`, or a checkpoint folder")
    if plain["episodes"] < 1:
        raise EvaluateError("episodes: expected at least 1")
    camera_parameters(plain)  # mistakes are told before anything is written
    driver_parameters(plain)
    check_execution(plain["mode"], plain["delay"], plain["guidance"])
    candidate = Candidate.load(str(plain["policy"]), "cpu", plain["threads"])
    folder = Path(plain["output"])
    robot = load_robot(str(plain["robot"]))
    flies = isinstance(robot, VehicleFile)
    if not flies:
        robot.for_policy(candidate.policy.contract)
    elif not plain["home"]:
        raise EvaluateError("home=false: a vehicle begins each flight where its task begins; leave it out")
    spec = _environment(candidate, plain) if plain["twin"] or flies else None
    if flies and spec is not None and family_of(spec) != "drone":
        raise EvaluateError(f"{plain['policy']} was trained for {spec['task']}, and {plain['robot']} is a vehicle")
    horizon = plain["horizon"] or (ROBOT_HORIZON if spec is None else int(spec["horizon"]))
    began = time.perf_counter()
    attempts: list[Attempt] = []
    problem: Exception | None = None
    try:
        interrupted = _deploy(folder, candidate, robot, plain, spec, horizon, attempts)
    except (DeployError, NodeDied) as error:
        if not attempts:
            raise
        interrupted, problem = True, error  # what was finished before counts
    seconds = time.perf_counter() - began
    outcomes = None
    if attempts and spec is not None and plain["twin"] and plain["compare"] and not interrupted:
        from robot_rl.rollout import run_episodes

        seeds = [attempt.seed for attempt in attempts]
        execution = {key: plain[key] for key in ("execute", "mode", "delay", "guidance")}
        outcomes = run_episodes(candidate.policy, spec, seeds, description="the same in this process", **execution)
    if not attempts:
        print("No episode was finished.", file=sys.stderr)
        return 130 if interrupted else 1
    results = _results(candidate, plain, spec, horizon, attempts, outcomes, seconds)
    _write(folder, attempts, outcomes, results)
    print(_say(folder, results))
    print(f"Report: {write_report(folder)}")
    if problem is not None:
        raise problem
    return 130 if interrupted else 0


def node_parameters(
    plain: Mapping[str, Any], folder: Path, spec: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """ROS parameters of each node of the deployment, in the order in which they are started.

    Args:
        plain: the configuration.
        folder: the run folder.
        spec: of the twin's environment; None for a real robot.
    """
    from robot_rl.deployment import LOCKSTEP_WAIT

    lockstep = spec is not None and not plain["real_time"]
    shared = {"robot": str(plain["robot"]), "use_sim_time": lockstep}
    policy = str(plain["policy"])
    nodes: dict[str, dict[str, Any]] = {}
    if spec is not None:
        rendered = ",".join(f"{name}:{size[0]}x{size[1]}" for name, size in (spec["cameras"] or {}).items())
        nodes["twin"] = {
            "robot": str(plain["robot"]), "task": spec["task"], "cameras": rendered, "real_time": not lockstep,
            "seed": plain["first_seed"], **(plain["impairments"] or {}),
        }  # fmt: skip
    if (cameras := camera_parameters(plain)) is not None:
        nodes["camera"] = cameras
    if (driver := driver_parameters(plain)) is not None:
        nodes["feetech"] = driver
    nodes["supervisor"] = shared | {
        "policy": policy, "wait_for_proposal": LOCKSTEP_WAIT if lockstep else 0.0, "homing": plain["homing"],
    }  # fmt: skip
    if plain["record"]:
        nodes["recorder"] = shared | {
            "policy": policy, "output": str(folder / "bags"), "dataset": str(folder / "episodes.zarr"),
        }  # fmt: skip
    nodes["policy"] = shared | {
        "policy": policy, "mode": plain["mode"], "execute": plain["execute"] or 0, "lockstep": lockstep,
        "inference_delay": 1e-3 * plain["delay"], "guidance": float(plain["guidance"] or 0.0),
        "device": plain["device"], "threads": plain["threads"],
    }  # fmt: skip
    return nodes


def check_alone(endpoints: Sequence[Endpoint], robot: RobotFile | VehicleFile, here: bool) -> None:
    """Refuse to deploy where somebody else commands the robot, and what is started here where there is a robot.

    Raises:
        DeployError: naming who is there already.
    """
    from robot_rl.deployment import DeployError
    from robot_rl.hardware.px4 import px4_messages
    from robot_rl.hardware.px4.vehicle_file import VehicleFile
    from robot_rl.hardware.safety.supervisor_messages import STATUS

    if isinstance(robot, VehicleFile):
        topics = px4_messages.table(prefix=robot.namespace)
        commands = {topics[base].name for base in px4_messages.COMMANDS}
        streams = {topics[base].name for base in px4_messages.OUTPUTS}
    else:
        commands = {command.topic for command in robot.commands.values()}
        streams = {stream.topic for stream in robot.streams.values()}
    found = sorted({
        f"{endpoint.node} {'publishes' if endpoint.is_publisher else 'listens to'} {endpoint.topic}"
        for endpoint in endpoints
        if (endpoint.is_publisher and (endpoint.topic in commands or endpoint.topic.endswith(f"/{STATUS}")))
        or (here and endpoint.topic in (streams if endpoint.is_publisher else commands))
    })  # fmt: skip
    if found:
        raise DeployError(
            f"this ROS 2 graph is taken: {'; '.join(found)}. End that first, or choose another ROS_DOMAIN_ID"
            + (", so that what is meant for this one never reaches another robot" if here else "")
        )


def _begin(folder: Path, plain: Mapping[str, Any]) -> Path:
    """Empty the run folder of the last deployment's results; recordings are never deleted."""
    import yaml

    from robot_rl.evaluate import EvaluateError

    known = {"metrics.json", "deployment", "logs", "bags", "report.html", "episodes.zarr"}
    entries = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()
    if entries - known and not {"deployment", "logs"} & entries:
        raise EvaluateError(f"{folder} holds {', '.join(sorted(entries))}, no deployment; choose another output=")
    for name in ("deployment", "logs"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    for name in ("metrics.json", "report.html"):
        (folder / name).unlink(missing_ok=True)
    (folder / "deployment" / "config.yaml").write_text(yaml.safe_dump(dict(plain), sort_keys=False))
    return folder


def _environment(candidate: Candidate, plain: Mapping[str, Any]) -> dict[str, Any]:
    """What the twin simulates: the environment of the training data, without randomisation."""
    from robot_rl.sim.spec import resolve

    spec = resolve(candidate.environment({"task": plain["task"], "randomization": "none"}))
    cameras = {name: list(feature.shape[:2]) for name, feature in candidate.policy.contract.cameras.items()}
    return {**spec, "cameras": cameras}


def _deploy(
    folder: Path,
    candidate: Candidate,
    robot: RobotFile | VehicleFile,
    plain: Mapping[str, Any],
    spec: Mapping[str, Any] | None,
    horizon: int,
    attempts: list[Attempt],
) -> bool:
    """Add the episodes that count; whether a person has ended them early."""
    from tqdm import tqdm

    from robot_rl.attended import Keys
    from robot_rl.deployment import Deployment, Stopped
    from robot_rl.flight_deployment import HAND_OVER, FlightDeployment, file_for_task, flight_parameters, start_of
    from robot_rl.hardware.px4.flight_task import FlightTask
    from robot_rl.hardware.px4.vehicle_file import VehicleFile
    from robot_rl.hardware.ros2.graph import open_graph
    from robot_rl.hardware.terminal import Terminal
    from robot_rl.node_process import NodeProcess

    twin = bool(plain["twin"])
    kind: Callable[..., Deployment] = Deployment
    nodes, sets_scene = {}, twin
    vehicle, file = None, folder / "deployment" / "robot.yaml"
    if isinstance(robot, VehicleFile):
        assert spec is not None
        vehicle = file_for_task(robot, spec, plain["first_seed"], twin, plain["episodes"])
        FlightTask(vehicle, candidate.policy.contract, spec["task"], horizon)  # refuses what its node could not fly
        nodes = flight_parameters(plain, folder, spec, file, horizon)
        kind = partial(FlightDeployment, simulated=twin, start_of=start_of(spec))
        sets_scene, horizon = False, horizon + HAND_OVER
    else:
        nodes = node_parameters(plain, folder, spec)
    with ExitStack() as stack:
        terminal = None if twin else stack.enter_context(Terminal())
        graph = stack.enter_context(open_graph("deploy"))
        processes = [
            NodeProcess(name, parameters, folder / "logs" / f"{name}.log", show_log(name, plain["verbose"]))
            for name, parameters in nodes.items()
        ]
        lockstep = twin and not plain["real_time"]
        deployment = kind(graph, processes, candidate.policy.contract.rate_hz, sets_scene, lockstep, plain["record"])
        stack.callback(deployment.wind_down)
        keys = None if terminal is None else Keys(graph, terminal.keys, deployment.emergency_stop)
        try:
            graph.spin(timeout=DISCOVERY)
            if graph.stopped:
                raise Stopped
            check_alone(graph.endpoints(), robot, twin or bool(plain.get("port")))
            _begin(folder, plain)
            if vehicle is not None:
                vehicle.save(file)
            print(f"Starting {', '.join(process.name for process in processes)}; their logs are in {folder / 'logs'}")
            deployment.start()
            with tqdm(total=plain["episodes"], desc="deploy", unit="episode", disable=None) as bar:
                _run_episodes(deployment, attempts, bar, plain, horizon, spec, keys)
        except Stopped:
            return True
    return False


def _run_episodes(
    deployment: Deployment, attempts: list[Attempt], bar: tqdm[Any], plain: Mapping[str, Any], horizon: int,
    spec: Mapping[str, Any] | None, keys: Keys | None,
) -> None:  # fmt: skip
    from robot_rl.deployment import Attempt, DeployError, NodeDied

    facts = {"task": plain["task"] or (spec or {}).get("task") or "robot"}
    seed, failed = plain["first_seed"], 0
    while len(attempts) < plain["episodes"]:
        acts = False
        try:
            if keys is not None:
                _ask_for_scene(deployment, keys, len(attempts))
            deployment.prepare(seed, plain["home"])
            acts = True
            attempt = deployment.run(seed, horizon, facts, _verdict(keys))
            failed = 0
        except DeployError as error:
            failed += 1
            if keys is None and failed > RETRIES:
                raise
            _say_line(str(error) if keys is not None else f"{error}; tried again")
            continue
        except NodeDied as died:
            _say_line(f"{died}\n  it is started again" + (f"; the episode of seed {seed} has failed" if acts else ""))
            if died.process.starts > RESTARTS:
                raise
            attempt = Attempt(seed, reason=str(died).splitlines()[0])
            deployment.restart(died.process)
            if not acts:
                continue  # the policy has not failed
        seed += 1
        if attempt.kept:
            attempts.append(attempt)
            successes = sum(each.success for each in attempts)
            bar.set_postfix(success=f"{successes / len(attempts):.0%}", refresh=False)
            bar.update()


def _verdict(keys: Keys | None) -> Callable[[], str | None]:
    """What the person says of the episode that begins; keys that were pressed before say nothing about it."""
    if keys is None:
        return lambda: None
    keys.take()
    return lambda: next((KEYS[key] for key in keys.take() if key in KEYS), None)


def _ask_for_scene(deployment: Deployment, keys: Keys, number: int) -> None:
    _say_line(f"Episode {number + 1}: set the scene and press Enter; {deployment.begins}.  {HELP}")
    keys.take()
    deployment.wait(lambda: not {"\n", "\r"}.isdisjoint(keys.take()), math.inf, "Enter")


def _results(
    candidate: Candidate, plain: Mapping[str, Any], spec: Mapping[str, Any] | None, horizon: int,
    attempts: Sequence[Attempt], outcomes: Sequence[Outcome] | None, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    from robot_rl.deployment import quantiles
    from robot_rl.provenance import provenance

    successes = [attempt.success for attempt in attempts]
    compared = None
    if outcomes is not None:
        here = [outcome.success for outcome in outcomes]
        compared = {
            "success_rate": sum(here) / len(here), "success_interval": list(wilson(sum(here), len(here))),
            **mcnemar(successes, here).__dict__, "metrics": _metrics([outcome.metrics for outcome in outcomes]),
        }  # fmt: skip
    return {
        "policy": candidate.name,
        "path": str(candidate.path),
        "robot": str(plain["robot"]),
        "twin": plain["twin"],
        "clock": "simulated" if plain["twin"] and not plain["real_time"] else "wall",
        "environment": spec,
        "horizon": horizon,
        "rate_hz": candidate.policy.contract.rate_hz,
        "success_rate": sum(successes) / len(successes),
        "success_interval": list(wilson(sum(successes), len(successes))),
        "episodes": len(successes),
        "successes": sum(successes),
        "jitter_ms": quantiles([value for attempt in attempts for value in attempt.jitter]),
        "latency_ms": quantiles([value for attempt in attempts for value in attempt.latency]),
        "observation_age_ms": quantiles([value for attempt in attempts for value in attempt.age]),
        "limited_actions": sum(attempt.limited for attempt in attempts),
        "held_actions": sum(attempt.held for attempt in attempts),
        "actions": sum(attempt.steps for attempt in attempts),
        "comparison": compared,
        "metrics": _metrics([attempt.metrics for attempt in attempts]),
        "seconds": round(seconds, 1),
        "provenance": provenance(("robot_rl", "torch", "numpy", "mujoco")),
    }


def _metrics(episodes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What a vehicle's task measures, on average over the episodes that have it."""
    found: dict[str, list[float]] = {}
    for episode in episodes:
        for name, value in episode.items():
            if name not in ("success", "steps") and value not in (None, "None"):
                found.setdefault(name, []).append(float(value))
    return {name: sum(values) / len(values) for name, values in found.items()}


def _write(
    folder: Path, attempts: Sequence[Attempt], outcomes: Sequence[Outcome] | None, results: Mapping[str, Any]
) -> None:
    with (folder / "deployment" / "episodes.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        other = ["other_success", "other_steps", "other_success_step"] if outcomes is not None else []
        measured = sorted(_metrics([attempt.metrics for attempt in attempts]))
        writer.writerow(["seed", "success", "steps", "success_step", "limited", "held", "reason", *other, *measured])
        for index, attempt in enumerate(attempts):
            row = [
                attempt.seed, int(attempt.success), attempt.steps, attempt.success_step or "", attempt.limited,
                attempt.held, attempt.reason,
            ]  # fmt: skip
            if outcomes is not None:
                outcome = outcomes[index]
                row += [int(outcome.success), outcome.steps, outcome.success_step or ""]
            writer.writerow([*row, *(attempt.metrics.get(name, "") for name in measured)])
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    (folder / "deployment" / "results.json").write_text(text)
    keys = (
        "success_rate", "success_interval", "episodes", "jitter_ms", "latency_ms", "limited_actions",
        "observation_age_ms", "held_actions", "actions", "comparison", "metrics",
    )  # fmt: skip
    write_results(folder, {**{key: results[key] for key in keys}, "seconds": {"deploy": results["seconds"]}})


def _say(folder: Path, results: Mapping[str, Any]) -> str:
    low, high = results["success_interval"]
    lines = {
        "success": f"{results['success_rate']:.1%} of {results['episodes']} episodes (95 % interval {low:.1%} to "
        f"{high:.1%}), in {results['seconds']:.0f} s",
    }
    if (other := results["comparison"]) is not None:
        lines["in process"] = (
            f"{other['success_rate']:.1%} on the same seeds; only here {other['only_first']}, only there "
            f"{other['only_second']} (exact McNemar p = {other['p_value']:.3g})"
        )
    for key, name in (("jitter_ms", "jitter"), ("latency_ms", "latency")):
        values = results[key]
        if values["median"] is not None:
            words = f"median {values['median']:.2f} ms, 99 % below {values['p99']:.2f} ms"
            lines[name] = words + (" of simulated time" if results["clock"] == "simulated" else "")
    lines["actions"] = (
        f"{results['actions']}, of which limited {results['limited_actions']}, held {results['held_actions']}"
    )
    lines["black boxes"] = f"{folder}/bags" if (folder / "bags").exists() else "not recorded"
    return "\n".join(f"{name:12} {value}" for name, value in lines.items())


def show_log(name: str, verbose: bool) -> Callable[[str], None]:
    def show(line: str) -> None:
        # ROS 2's own form: [LEVEL] [time] [name]: text
        if verbose or not line.startswith(("[INFO]", "[DEBUG]")):
            _say_line(f"[{name}] {line}")

    return show


def _say_line(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
