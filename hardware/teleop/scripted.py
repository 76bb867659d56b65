"""A person played by the scripted expert of a task: looks at the robot's own streams, moves by twists, says words.

For tests and demonstrations. It sees what a person sees: joints, gripper and the poses of objects by their topics, and
what `teleop/status` and `twin/success` say. As the person of a running policy it watches (see `progress`), takes over
when the robot has hardly come on for `patience` seconds, and keeps it for `correction` seconds, or else until the task
is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from robot_rl.datasets import Contract
from robot_rl.datasets.contract import Feature
from robot_rl.hardware import bindings
from robot_rl.hardware.opened import Opened
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.robot_file import RobotFile
from robot_rl.hardware.ros2.graph import Graph, Received
from robot_rl.hardware.ros2.qos import LATCHED
from robot_rl.hardware.safety.supervisor_messages import pairs
from robot_rl.hardware.teleop.device import ANGULAR_SPEED, LINEAR_SPEED, DeviceError, Reading
from robot_rl.hardware.teleop.progress import Progress
from robot_rl.hardware.teleop.scripted_flight import ScriptedFlight, make_flight
from robot_rl.sim.expert.scene import Goal, Scene, rotation_of
from robot_rl.sim.rotation import vector_from_matrix

GAIN = 4.0
"""Velocity towards the goal for each metre and radian of distance [1/s]."""

SEEN = 0.3
"""Success has to last so long until the person believes it [s]."""

LITTLE = 0.25
"""Share of the way that the person would make, below which a policy does not come on."""


def twist_towards(scene: Scene, goal: Goal) -> np.ndarray:
    """Velocity [6] of a hand that brings the gripper to a goal, in the base frame."""
    way = GAIN * (goal.position - scene.position) + goal.velocity
    turn = GAIN * vector_from_matrix(goal.rotation @ scene.rotation.T)
    return np.concatenate([_shortened(way, min(goal.speed, LINEAR_SPEED)), _shortened(turn, ANGULAR_SPEED)])


class Scripted(Opened):
    """See above.

    Args:
        graph: of the node.
        robot: whose contract observes the poses of the task's objects, see `sees`.
        task: with an expert in `sim.expert`.
        words: say `record` and `success` as well.
        patience: without progress, before it moves [s]; 0: it moves from the beginning.
        correction: after which it gives the robot back [s]; 0: when the task is done.
        time_limit: after which it says `failure` [s].

    Raises:
        DeviceError: there is no such expert, or the robot has no model or no gripper.
    """

    name = "scripted"

    def __init__(
        self, graph: Graph, robot: RobotFile, task: str, words: bool = True, patience: float = 0.0,
        correction: float = 0.0, time_limit: float = 20.0,
    ) -> None:  # fmt: skip
        try:
            self._decide = import_module(f"robot_rl.sim.expert.{task}").decide
        except ModuleNotFoundError as error:
            raise DeviceError(f"scripted: there is no expert for task {task!r}") from error
        if robot.gripper is None or robot.model is None:
            raise DeviceError(f"scripted: {robot.name} needs a gripper and a model")
        self._graph, self._robot, self._kinematics = graph, robot, robot.kinematics()
        self._max_opening, self._says = robot.gripper.opening, words
        self._patience, self._correction, self._time_limit = patience, correction, time_limit
        self._gripper_speed = robot.gripper.speed
        self._progress, self._acts, self._acted = Progress(patience), False, 0.0
        home = rotation_of(self._kinematics.forward(np.array(robot.home)))
        self._home_yaw = float(np.arctan2(home[1, 0], home[0, 0]))
        self._seen: dict[str, np.ndarray] = {}
        self._phase, self._since, self._said, self._ready = "", 0.0, False, False
        self._succeeded = np.inf
        self._leased, self._rested = False, 0.0
        self._words: list[str] = []
        for feature, stream in robot.streams.items():
            if not stream.feature.is_frame:
                graph.subscribe(stream.topic, stream.type, partial(self._observe, feature), stream.qos)
        graph.subscribe("teleop/status", "diagnostic_msgs/msg/DiagnosticArray", self._on_status, LATCHED)
        graph.subscribe("twin/success", "std_msgs/msg/Bool", self._on_success, LATCHED)

    def read(self, now: float) -> Reading | None:
        """Where it wants the gripper to go now."""
        if self._says:
            self._talk(now)
        records = self._phase == "recording" and not self._said
        scene = self._scene() if records else None
        if records and scene is None:
            return None
        if scene is None:
            self._forget()
            return self._rest(now)
        goal = self._decide(scene)
        self._acts = self._wants(scene, goal, now)
        # Without the robot in its hand it lets go now and then, as a person has to.
        if not self._acts or (not self._leased and now - self._rested > SEEN):
            return self._rest(now)
        gripper = min(goal.opening / self._max_opening, 1.0)
        return Reading(now, twist=twist_towards(scene, goal), gripper=gripper, buttons=frozenset({"takeover"}))

    def events(self) -> list[str]:
        """Words since the last call."""
        words, self._words = self._words, []
        return words

    def _rest(self, now: float) -> Reading:
        self._rested = now
        return Reading(now, twist=np.zeros(6))

    def _forget(self) -> None:
        self._acts = False
        self._progress.reset()

    def _wants(self, scene: Scene, goal: Goal, now: float) -> bool:
        """Whether it wants to move the robot itself."""
        if not self._patience:
            return True
        if self._acts:
            if not self._leased:
                self._acted = now
            if not self._correction or now - self._acted < self._correction:
                return True
            self._words.append("release")
            self._forget()
        elif self._leased:  # the hand-back is under way
            self._forget()
            return False
        gap = goal.opening - scene.opening
        opening = np.clip(GAIN * gap, -self._gripper_speed, self._gripper_speed)
        wanted = np.append(twist_towards(scene, goal), opening)
        return self._progress.look(now, scene.position, scene.rotation, scene.opening, wanted) < LITTLE

    def _talk(self, now: float) -> None:
        seconds, word = now - self._since, ""
        if self._phase == "idle" and self._ready:
            word = "record"
        elif self._phase == "recording" and min(seconds, now - self._succeeded) > SEEN:
            word = "success"
        elif self._phase == "recording" and seconds > self._time_limit:
            word = "failure"
        if word and not self._said:
            self._words.append(word)
            self._said = True

    def _scene(self) -> Scene | None:
        if "joint_position" not in self._seen or "gripper_opening" not in self._seen:
            return None
        joints = self._seen["joint_position"]
        pose = self._kinematics.forward(joints)
        objects = {
            name.removesuffix("_pose"): value
            for name, value in self._seen.items() if name.endswith("_pose") and name != "ee_pose"
        }  # fmt: skip
        if not objects:
            return None
        still = np.zeros(3)
        return Scene(
            pose[:3], rotation_of(pose), still, still, float(self._seen["gripper_opening"][0]), self._max_opening,
            self._home_yaw, objects, dict.fromkeys(objects, still),
        )  # fmt: skip

    def _observe(self, feature: str, received: Received) -> None:
        try:
            self._seen[feature] = bindings.decode(self._robot.streams[feature], received.message)
        except bindings.BindingError:
            return

    def _on_status(self, received: Received) -> None:
        values = pairs(received.message.status[0])
        if values.get("phase", "") != self._phase:
            self._phase, self._since, self._said = values["phase"], received.received, False
        self._leased = values.get("leased") == "True"
        self._ready = values.get("busy") == "False" and values.get("state") not in ("", "stopped")

    def _on_success(self, received: Received) -> None:
        self._succeeded = received.received if received.message.data else np.inf


def sees(robot: RobotFile, objects: Sequence[str]) -> RobotFile:
    """The robot with the poses of objects, which a person sees even where nobody records them."""
    names = [f"{name}_pose" for name in objects]
    poses = {name: Feature(name, (7,), frame="base", representation="position_quaternion") for name in names}
    whole = RobotFile.load(robot.path)
    own = {name: whole.contract.observation[name] for name in ("joint_position", "gripper_opening")}
    action, controller = robot.contract.action, robot.contract.controller
    return whole.for_policy(Contract(whole.name, whole.contract.rate_hz, {**own, **poses}, action, controller))


def make(graph: Graph, robot: RobotFile | VehicleFile) -> Scripted | ScriptedFlight:
    """With the parameters `scripted.task`, `.objects`, `.words`, `.patience`, `.correction` and `.time_limit`."""
    if isinstance(robot, VehicleFile):
        return make_flight(graph, robot)

    def setting(name: str, default: Any, text: str) -> Any:
        return graph.parameter(f"scripted.{name}", default, text, read_only=True).value

    seen = sees(robot, setting("objects", ["cube"], "that it has to see, by the topics of their poses"))
    return Scripted(
        graph, seen, setting("task", "lift", "whose expert plays the person"),
        setting("words", True, "it says record, success and failure, too"),
        setting("patience", 0.0, "without progress of a policy, before it takes over [s]; 0: acts from the beginning"),
        setting("correction", 0.0, "after which it gives the robot back [s]; 0: when the task is done"),
        setting("time_limit", 20.0, "after which it gives an episode up [s]"),
    )  # fmt: skip


def _shortened(vector: np.ndarray, length: float) -> np.ndarray:
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-9))
