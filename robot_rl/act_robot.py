"""A robot, or its twin, for `robot-rl act`: the nodes around it, the person beside it, and the environment of it.

Supervisor, drivers and twin are started as for `robot-rl deploy`; this process takes the place of the policy node. Who
watches needs no other program: a person sets the scene and presses Enter before each episode, the space bar is an
emergency stop at any time while the robot may move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_rl.arm_driver import driver_parameters
from robot_rl.attended import Keys
from robot_rl.camera_devices import camera_parameters
from robot_rl.datasets import Contract
from robot_rl.deploy import DISCOVERY, RESTARTS, ROBOT_HORIZON, check_alone, node_parameters, show_log
from robot_rl.deployment import DeployError, Deployment, NodeDied
from robot_rl.hardware.px4.vehicle_file import VehicleFile, load_robot
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.graph import open_graph
from robot_rl.hardware.terminal import Terminal
from robot_rl.node_process import NodeProcess
from robot_rl.rl.environments import AbandonedError
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.robot_environment import RobotEnvironment

_SIMULATED = ("controller", "randomization", "environment", "processes")


@dataclass(frozen=True)
class ActedOn:
    """What `open_robot` opens.

    Attributes:
        environment: the robot.
        keys: that were pressed since the last call; None without a terminal.
        stopping: whether somebody wants the program to end.
    """

    environment: RobotEnvironment
    keys: Callable[[], str] | None
    stopping: Callable[[], bool]


def check(plain: Mapping[str, Any], success: str, method: str) -> None:
    """Tell mistakes before anything is connected.

    Raises:
        FinetuneError: the keys do not fit a robot.
        CameraDevicesError, CameraError, ArmDriverError, CalibrationError, RobotFileError: see `robot-rl deploy`.
    """
    if plain["robot"] is None:
        raise FinetuneError("robot= is missing: a file of hardware/robots or the path of one, as of robot-rl deploy")
    if isinstance(load_robot(str(plain["robot"])), VehicleFile):
        raise FinetuneError(f"robot={plain['robot']}: a vehicle cannot be an actor; learn to fly in simulation")
    if plain["num_envs"] != 1:
        raise FinetuneError(f"num_envs={plain['num_envs']}: a robot is one environment; start an actor for each robot")
    given = [key for key in _SIMULATED if plain[key] is not None]
    if given:
        raise FinetuneError(f"{', '.join(given)}: of environments in this process; leave them out with ros and twin")
    if method == "hil":
        raise FinetuneError(
            "hil: its expert acts in simulation alone. Take algorithm=rlpd at the learner, and shadow=true here: who "
            "takes over the robot is learned from in the same way"
        )
    if success == "task" and not plain["twin"]:
        raise FinetuneError(
            "success=task: nobody computes whether a task is achieved on a robot. Choose success=key or "
            "success=classifier at the learner"
        )
    if success == "key" and plain["twin"] and not plain["real_time"]:
        raise FinetuneError("success=key: a person lives in real time; add real_time=true")
    camera_parameters(plain)
    driver_parameters(plain)


@contextmanager
def open_robot(
    plain: Mapping[str, Any], spec: Mapping[str, Any], contract: Contract, success: str, say: Callable[[str], None]
) -> Iterator[ActedOn]:
    """Start what belongs to the robot, and end it in an order that is safe.

    Args:
        plain: configuration of `robot-rl act`.
        spec: of the learner's environment; a twin simulates its task.
        contract: of the learner's environments, which the robot has to satisfy.
        success: who says that the task is achieved.
        say: is told what the person should know.

    Raises:
        ContractError: the robot does not offer what the contract needs; every difference is listed.
        DeployError, NodeDied: it does not start.
    """
    robot = RobotFile.load(str(plain["robot"])).for_policy(contract)
    folder, twin = Path(plain["output"]), bool(plain["twin"])
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    file = folder / "contract.json"
    file.write_text(contract.to_json())
    cameras = {name: list(feature.shape[:2]) for name, feature in contract.cameras.items()}
    simulated = {**spec, "cameras": cameras} if twin else None
    horizon = plain["horizon"] or (int(spec["horizon"]) if twin else ROBOT_HORIZON)
    lockstep = twin and not plain["real_time"]
    nodes = node_parameters({**plain, **_DEPLOYED, "policy": str(file)}, folder, simulated)
    del nodes["policy"]  # this process
    attended = not twin and bool(plain["attended"])
    with ExitStack() as stack:
        terminal = stack.enter_context(Terminal()) if attended or success == "key" else None
        graph = stack.enter_context(open_graph("actor", parameters={"use_sim_time": lockstep}))
        processes = [
            NodeProcess(name, parameters, folder / "logs" / f"{name}.log", show_log(name, plain["verbose"]))
            for name, parameters in nodes.items()
        ]
        deployment = Deployment(graph, processes, contract.rate_hz, twin, lockstep, records=False)
        keys = None if terminal is None else Keys(graph, terminal.keys, deployment.emergency_stop)
        prepare = _Prepare(deployment, bool(plain["home"]), twin, attended, keys, say)
        environment = RobotEnvironment(
            graph,
            robot,
            contract,
            horizon,
            prepare,
            lockstep=lockstep,
            twin=twin,
            judged=success == "task",
            shadow=bool(plain["shadow"]),
        )
        stack.callback(deployment.wind_down)
        stack.callback(environment.end)
        graph.spin(timeout=DISCOVERY)
        check_alone(graph.endpoints(), robot, twin or bool(plain["port"]))
        say(f"Starting {', '.join(process.name for process in processes)}; their logs are in {folder / 'logs'}")
        deployment.start()
        yield ActedOn(environment, None if keys is None else keys.take, lambda: graph.stopped)


class _Prepare:
    """Brings scene and robot to the start of an episode, waiting for the robot and for the person."""

    def __init__(
        self, deployment: Deployment, home: bool, twin: bool, attended: bool, keys: Keys | None,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._deployment, self._home, self._twin = deployment, home, twin
        self._attended, self._keys, self._say = attended, keys, say

    def __call__(self, seed: int) -> None:
        deployment = self._deployment
        try:
            if deployment.state == "stopped" and not self._twin:
                self._say(
                    deployment.stop_is_latched
                    + ("" if self._attended else ", then call /supervisor/home: the robot moves home, and acts")
                )
                # Nobody else is asked whether the robot may move where it is not attended.
                rests = ("stopped",) if self._attended else ("stopped", "idle")
                deployment.wait(lambda: deployment.state not in rests, math.inf, "the emergency stop to be cleared")
            if self._attended:
                self._say("Set the scene and press Enter; the robot then moves home, and acts.  [space] EMERGENCY STOP")
                self._pressed()
                deployment.wait(self._asked, math.inf, "Enter")
            deployment.bring(seed, self._home)
            self._pressed()  # what was pressed before says nothing about the episode
        except DeployError as error:
            raise AbandonedError(str(error)) from error
        except NodeDied as died:
            if died.process.starts > RESTARTS:
                raise
            self._say(f"{died}\n  it is started again")
            deployment.restart(died.process)
            raise AbandonedError(str(died).splitlines()[0]) from died

    def _asked(self) -> bool:
        pressed = self._pressed()
        return "\n" in pressed or "\r" in pressed

    def _pressed(self) -> str:
        return "" if self._keys is None else self._keys.take()


_DEPLOYED = {
    "record": False, "first_seed": 0, "mode": "receding_horizon", "execute": None, "delay": 0, "guidance": None,
    "device": "cpu",
}  # fmt: skip
"""Keys of `robot-rl deploy` that mean nothing here, for the nodes that are started in the same way."""
