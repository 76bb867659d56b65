"""`robot-rl teleop`: a person moves a robot or its twin with a device, and records episodes.

The device is read in this process, which has the terminal; Supervisor, recorder, twin and policy are processes of their
own, as in `robot-rl deploy`. The run folder then holds:

```
episodes.zarr     the episodes, imported from the black boxes as soon as they are closed
bags/…            black boxes: all streams and all decisions of the Supervisor (MCAP)
logs/<node>.log   what each node said
contract.json     what is observed and how the robot is commanded
```
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_rl.arm_driver import driver_parameters
from robot_rl.camera_devices import camera_parameters, recorded_sizes
from robot_rl.flight_teleop import check_flight, flies, flight_session_parameters, observed_flight

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from robot_rl.deployment import Deployment
    from robot_rl.hardware.nodes.teleop_node import TeleopNode
    from robot_rl.hardware.robot_file import RobotFile
    from robot_rl.hardware.ros2.graph import Graph

MAPPING = (
    "yaw", "camera", "linear_gain", "angular_gain", "linear_speed", "angular_speed", "joint_speed",
    "dead_band", "smoothing", "slow", "gripper",
)  # fmt: skip
SESSION = ("episodes", "until_success", "countdown", "auto", "time_limit", "operator", "text", "timeout")

HANDBACK = 0.5
"""Without motion, until a policy gets the robot back, unless told otherwise [s]."""

LINGER = 2.0
"""After the last episode, in which a word can still correct it [s]."""

RESTARTS = 3
"""How often a node is started again before the session ends."""


class TeleopError(ValueError):
    """The session cannot be held as asked; the message says what to do."""


def main(config: DictConfig) -> int:
    """Teleoperate as configured. Returns the exit status."""
    from omegaconf import OmegaConf

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    plain.pop("hydra", None)
    return run(plain)


def run(plain: Mapping[str, Any]) -> int:
    """Hold a session by the keys of `configs/teleop.yaml`. Returns the exit status."""
    from robot_rl.hardware.ros2.graph import open_graph

    plain = dict(plain)
    if flies(plain):  # mistakes are told before anything is written
        check_flight(plain)
    else:
        camera_parameters(plain)
        driver_parameters(plain)
        plain["cameras"] = recorded_sizes(plain)
    _check_scenes(plain)
    folder = Path(plain["output"])
    if plain["check"]:
        parameters = {"robot": str(plain["robot"]), "device": str(plain["device"]), **_dotted(plain["settings"])}
        with open_graph("teleop", parameters=parameters) as graph:
            return _check(graph, float(plain["seconds"]))
    if not plain["real_time"] and not (plain["twin"] and plain["device"] == "scripted"):
        raise TeleopError("real_time=false: a person lives in real time; only device=scripted on a twin does not")
    contract = str(plain["policy"]) if plain["policy"] else str(_write_contract(folder, plain))
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    recorded, seed = recorded_before(folder / "episodes.zarr", plain["first_seed"], plain["until_success"])
    if plain["episodes"] and recorded >= plain["episodes"]:
        print(f"{folder / 'episodes.zarr'} already holds {recorded} episodes; nothing to do.")
        return 0
    with open_graph("teleop", parameters=teleop_parameters(plain, contract, recorded, seed)) as graph:
        return _hold(graph, folder, plain, contract)


def node_parameters(plain: Mapping[str, Any], folder: Path, contract: str) -> dict[str, dict[str, Any]]:
    """ROS parameters of each node beside the device's, in the order in which they are started."""
    from robot_rl.deployment import LOCKSTEP_WAIT

    if flies(plain):
        return flight_session_parameters(plain, folder, contract)
    lockstep = bool(plain["twin"]) and not plain["real_time"]
    shared = {"robot": str(plain["robot"]), "policy": contract, "use_sim_time": lockstep}
    nodes: dict[str, dict[str, Any]] = {}
    if plain["twin"]:
        cameras = ",".join(f"{name}:{size[0]}x{size[1]}" for name, size in (plain["cameras"] or {}).items())
        nodes["twin"] = {
            "robot": str(plain["robot"]), "task": plain["task"] or "lift", "cameras": cameras,
            "randomization": plain["randomization"] or "none", "real_time": not lockstep,
            **_dotted(plain["impairments"]),
        }  # fmt: skip
    if (devices := camera_parameters(plain)) is not None:
        nodes["camera"] = devices
    if (driver := driver_parameters(plain)) is not None:
        nodes["feetech"] = driver
    nodes["supervisor"] = shared | {
        "wait_for_proposal": LOCKSTEP_WAIT if lockstep else 0.0,
        "wait_for_device": lockstep,
    }
    if plain["record"]:
        nodes["recorder"] = shared | {"output": str(folder / "bags"), "dataset": str(folder / "episodes.zarr")}
    if plain["policy"]:
        nodes["policy"] = shared | {
            "mode": plain["mode"], "execute": plain["execute"] or 0, "threads": plain["threads"], "shadow": True,
            "lockstep": lockstep,
        }  # fmt: skip
    return nodes


def teleop_parameters(plain: Mapping[str, Any], contract: str, recorded: int, seed: int) -> dict[str, Any]:
    """ROS parameters of the `teleop` node."""
    handback = plain["handback"] if plain["handback"] is not None else HANDBACK if plain["policy"] else 0.0
    scripted = {}
    if plain["device"] == "scripted" and plain["episodes"] and flies(plain):
        scripted["scripted.flights"] = plain["episodes"] - recorded  # then that pilot lands
    return {
        "robot": str(plain["robot"]), "policy": contract, "device": str(plain["device"]),
        "twin": bool(plain["twin"]) and not flies(plain), "acts": bool(plain["policy"]),
        "task": plain["task"] or ("lift" if plain["twin"] and not flies(plain) else ""),
        "use_sim_time": bool(plain["twin"]) and not plain["real_time"], "recorded": recorded, "seed": seed,
        "handback": float(handback), "frame": plain["frame"] or "",
        **{key: plain[key] for key in (*MAPPING, *SESSION)}, **scripted, **_dotted(plain["settings"]),
    }  # fmt: skip


def recorded_before(path: Path, first_seed: int, until_success: bool) -> tuple[int, int]:
    """How many episodes of the store count already, and the seed to go on with."""
    from robot_rl.datasets import EpisodeStore

    if not path.exists():
        return 0, first_seed
    store = EpisodeStore.open(path)
    kept = [facts for facts in map(store.facts, range(len(store))) if not facts.get("discarded")]
    counted = sum(facts.get("success") is True or not until_success for facts in kept)
    seeds = [facts["seed"] + 1 for facts in kept if isinstance(facts.get("seed"), int)]
    return counted, max([first_seed, *seeds])


def observed(plain: Mapping[str, Any]) -> RobotFile:
    """The robot with the features that are recorded: its own, those of the twin's task, and cameras.

    Raises:
        RobotFileError, ContractError: the robot does not offer what is asked for.
        TeleopError: there is no such feature.
    """
    from robot_rl.datasets import Contract
    from robot_rl.datasets.contract import Feature
    from robot_rl.hardware.robot_file import RobotFile

    robot = RobotFile.load(str(plain["robot"]))
    cameras = {name: [int(number) for number in size] for name, size in (plain["cameras"] or {}).items()}
    if plain["twin"]:
        from robot_rl import sim
        from robot_rl.hardware.twin.topics import simulated

        body = robot.model.sim if robot.model else ""
        env = sim.make({"task": plain["task"] or "lift", "robot": body, "cameras": cameras})
        try:
            offered = simulated(robot, env.contract)
        finally:
            env.close()
    else:
        pictures = {n: Feature(n, (*size, 3), dtype="uint8", kind="image") for n, size in cameras.items()}
        own = robot.contract
        offered = robot.for_policy(
            Contract(own.name, own.rate_hz, {**own.observation, **pictures}, own.action, own.controller)
        )
    if plain["observation"] is None:
        return offered
    known = offered.contract.observation
    if unknown := set(plain["observation"]) - set(known):
        raise TeleopError(f"observation: there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return offered.for_policy(offered.contract.select([*plain["observation"], *cameras]))


def _check_scenes(plain: Mapping[str, Any]) -> None:
    from robot_rl.seed import FIRST_EVALUATION_SEED
    from robot_rl.sim.spec import family_of, load

    if plain["twin"] and not 0 <= plain["first_seed"] < FIRST_EVALUATION_SEED:
        raise TeleopError(
            f"first_seed={plain['first_seed']}: expected 0 to {FIRST_EVALUATION_SEED - 1}; others are for evaluation"
        )
    if family_of(plain) == "drone" and not flies(plain):
        raise TeleopError(f"task={plain['task']}: {plain['robot']} is an arm; give robot=px4, or a vehicle's own file")
    if plain["randomization"] is None:
        return
    if not plain["twin"]:
        raise TeleopError("randomization: only the scene of a twin is randomised; add twin=true, or leave it out")
    load("randomization", plain["randomization"])


def _write_contract(folder: Path, plain: Mapping[str, Any]) -> Path:
    """What is recorded, beside the store, which must hold the same."""
    from robot_rl.datasets import EpisodeStore
    from robot_rl.datasets.contract import equal

    contract = observed_flight(plain) if flies(plain) else observed(plain).contract
    store = folder / "episodes.zarr"
    if store.exists():
        equal(EpisodeStore.open(store).contract, contract)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "contract.json"
    path.write_text(contract.to_json())
    return path


def _hold(graph: Graph, folder: Path, plain: Mapping[str, Any], contract: str) -> int:
    from robot_rl.deploy import DISCOVERY, check_alone, show_log
    from robot_rl.deployment import Deployment, Stopped
    from robot_rl.hardware.nodes.teleop_node import make_node
    from robot_rl.hardware.px4.vehicle_file import load_robot
    from robot_rl.node_process import NodeProcess

    with ExitStack() as stack:
        graph.spin(timeout=DISCOVERY)
        if graph.stopped:
            return 130
        check_alone(graph.endpoints(), load_robot(str(plain["robot"])), bool(plain["twin"] or plain["port"]))
        node = make_node(graph, _ring)
        node.listens = False
        stack.callback(node.device.close)
        processes = [
            NodeProcess(name, parameters, folder / "logs" / f"{name}.log", show_log(name, plain["verbose"]))
            for name, parameters in node_parameters(plain, folder, contract).items()
        ]
        rate_hz = 1.0 / node.period
        sets_scene = bool(plain["twin"]) and not flies(plain)
        deployment = Deployment(graph, processes, rate_hz, sets_scene, not plain["real_time"], bool(plain["record"]))
        stack.callback(_end, node, deployment, folder)
        try:
            print(f"Starting {', '.join(process.name for process in processes)}; their logs are in {folder / 'logs'}")
            deployment.start()
            _listen(stack, graph, node)
            node.listens = True
            if not flies(plain):
                node.home()
            _follow(node, deployment)
        except Stopped:
            return 130 if plain["episodes"] else 0
    return 0


def _listen(stack: ExitStack, graph: Graph, node: TeleopNode) -> None:
    """Beside another device, the keys of the terminal say the words of the session."""
    from robot_rl.hardware.teleop.device import DeviceError
    from robot_rl.hardware.teleop.keyboard import Keyboard

    if node.device.name == "keyboard" or not sys.stdin.isatty():
        return
    try:
        keys = stack.enter_context(Keyboard())
    except DeviceError:
        return

    def listen() -> None:
        keys.read(graph.now())
        for word in keys.events():
            node.hear(word)

    graph.timer(0.02, listen, "wall")
    print(
        "Enter record  y success  n failure  x discard  z redo  t reset  h home  v land  c clear  SPACE EMERGENCY STOP"
    )


def _follow(node: TeleopNode, deployment: Deployment) -> None:
    """Until a person ends it, or there are enough episodes."""
    from robot_rl.deployment import NodeDied

    done: list[float] = []

    def over() -> bool:
        if node.session.phase != "done" or node.flying:
            done.clear()
            return False
        done.append(time.monotonic())
        return done[-1] - done[0] > LINGER

    while True:
        try:
            deployment.wait(over, 1e9, "the end")
            return
        except NodeDied as died:
            print(f"{died}\n  it is started again", file=sys.stderr)
            if died.process.name == "recorder":
                node.lost_recorder("the recorder has ended")
            if died.process.starts > RESTARTS:
                raise
            deployment.restart(died.process)


def _end(node: TeleopNode, deployment: Deployment, folder: Path) -> None:
    if node.session.phase == "recording":
        node.hear("discard")
    node.close()
    deployment.wind_down()
    values = node.session.statistics.values
    print(
        f"episodes: {values['kept']} kept, {values['discarded']} discarded, success {float(values['success']):.0%}, "
        f"{values['mean_length']} s each, {values['episodes_per_hour']} per hour"
    )
    if (store := folder / "episodes.zarr").exists():
        from robot_rl.datasets import EpisodeStore

        print(f"{store}: episodes {len(EpisodeStore.open(store))}; look at them with `robot-rl data view {store}`")


def _check(graph: Graph, seconds: float) -> int:
    """Show what the device says until Ctrl-C."""
    from robot_rl.hardware.recording.bag_import import robot_for
    from robot_rl.hardware.teleop.devices import make_device
    from robot_rl.hardware.teleop.live_values import describe

    robot = robot_for(str(graph.parameter("robot", "panda", "name of a robot, or path of its file").value), None)
    name = str(graph.parameter("device", "keyboard", "to be checked").value)
    with make_device(name, graph, robot) as device:
        print(f"{name}: move it, press its buttons; Ctrl-C ends. x forward, y left, z up, right-handed.")
        words: list[str] = []

        def show() -> None:
            words.extend(device.events())
            line = describe(device.read(graph.now()), graph.now(), words[-3:])
            print(
                f"\r\x1b[2K{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True
            )

        graph.timer(0.1, show, "wall")
        graph.spin(timeout=seconds or None)
    print()
    return 0


def _ring(text: str) -> None:
    """A cue for ears and eyes."""
    print(f"\a>>> {text}", flush=True)


def _dotted(settings: Mapping[str, Any] | None, prefix: str = "") -> dict[str, Any]:
    """Nested keys with dots, as parameters are named."""
    flat: dict[str, Any] = {}
    for key, value in (settings or {}).items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
