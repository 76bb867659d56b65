"""Few demonstrations become many: segments that are rigid to an object are moved along with it.

Mandlekar et al. 2023, MimicGen: a demonstration is cut where it changes from one object to the next (`subtasks` of the
task's file). In a new scene each segment's poses of the end-effector are moved by T_new T_source⁻¹, T the pose of the
object when the segment begins, and executed after a straight way to the first of them. A segment without an object
stays where it is in the base frame. Nothing but poses, gripper targets and the object's motion is looked at, so that a
person's demonstrations serve as well as an expert's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robot_rl.datasets import ContractError, EpisodeStore, satisfies
from robot_rl.sim.arm import ArmEnv
from robot_rl.sim.controllers import arm_kinematics
from robot_rl.sim.rotation import (
    matrix_from_6d,
    matrix_from_quaternion,
    matrix_from_vector,
    quaternion_from_matrix,
    quaternion_to_6d,
    vector_from_matrix,
)
from robot_rl.sim.spec import family_of, load

LIFTED = 0.015
"""An object is grasped when it has gone this far in the closed gripper [m]."""
APPROACH = 0.1
"""The first segment begins this far from where the gripper closes [m]; the way there is made anew."""
SPEED, TURN_SPEED = 0.4, 1.5
"""Highest on the way to a segment [m/s] and [rad/s]."""
PEAK = 1.875
"""Highest over mean speed of a minimum-jerk motion, 10 s³ - 15 s⁴ + 6 s⁵ (Flash and Hogan 1985)."""
RADIAN = 0.2
"""Metres that one radian counts when the nearest demonstration is chosen."""
PATIENCE = 10
"""Steps to hold the last pose before giving up."""
FORGETTING = 0.8
"""Part of a deviation by noise that is left after one step."""


class MultiplicationError(ValueError):
    """These demonstrations cannot be multiplied in this environment; the message says why."""


@dataclass(frozen=True)
class Segment:
    """A part of a demonstration that belongs to one object.

    Attributes:
        object: its name; None: the base frame.
        frame: float64 [4, 4], pose of the object when the segment began, in the base frame.
        poses: float64 [n, 4, 4], targets of the end-effector in the base frame.
        openings: float64 [n], targets of the gripper [m].
    """

    object: str | None
    frame: np.ndarray
    poses: np.ndarray
    openings: np.ndarray


@dataclass(frozen=True)
class Demonstration:
    """A successful episode, cut into segments.

    Attributes:
        episode: its number in the store.
    """

    episode: int
    segments: tuple[Segment, ...]


class Multiplier:
    """Acts in an environment with the segments of the demonstration whose objects lie nearest.

    Args:
        env: with one arm; its controller takes joint or end-effector targets.
        demonstrations: at least one, for this task.
        noise: standard deviation of what each step adds to the executed poses, against the length and turn of the step;
            it adds up and fades.
        generator: of the noise.

    Attributes:
        intended: the last action without its noise, [A].
        failed: whether the segments are over and the task is still not done.
        facts: `source_episode`, the demonstration in use.
    """

    def __init__(
        self, env: ArmEnv, demonstrations: Sequence[Demonstration], noise: float, generator: np.random.Generator
    ) -> None:
        self._env, self._noise, self._generator = env, noise, generator
        self._arm = env.arm_model.arms[0]
        self._kinematics = arm_kinematics(env.model, self._arm)
        self._reach = np.asarray(self._arm.limits["velocity"], float) / env.contract.rate_hz
        self._turns = {each["object"]: each.get("turns", 1) for each in env.task["subtasks"]}
        poses = env.object_poses()
        near = min(demonstrations, key=lambda each: self._distance(each, poses))
        self.facts = {"source_episode": near.episode}
        self._upcoming = list(near.segments)
        self._symmetry: dict[str, np.ndarray] = {}
        self._poses: list[np.ndarray] = []
        self._openings: list[float] = []
        self._opening = float(near.segments[0].openings[0])
        self._pose = transform_of(self._kinematics.forward(self._joints()))
        self._deviation = np.zeros((2, 3))
        self._idle = 0
        self.intended = np.zeros(env.contract.action_dim, np.float32)

    @property
    def failed(self) -> bool:
        return self._idle > PATIENCE

    def act(self) -> np.ndarray:
        """The action to execute now, float32 [A]."""
        if not self._poses and self._upcoming:
            self._begin(self._upcoming.pop(0))
        before = self._pose
        if self._poses:
            self._pose, self._opening = self._poses.pop(0), self._openings.pop(0)
        else:
            self._idle += 1
        self.intended = self._action(self._pose)
        if self._noise == 0:
            return self.intended
        step = np.array([_way(before, self._pose), _turn(before, self._pose)])
        kick = self._noise * step[:, None] * self._generator.standard_normal((2, 3))
        self._deviation = FORGETTING * self._deviation + kick
        disturbed = self._pose.copy()
        disturbed[:3, 3] += self._deviation[0]
        disturbed[:3, :3] = matrix_from_vector(self._deviation[1]) @ disturbed[:3, :3]
        return self._action(disturbed)

    def _begin(self, segment: Segment) -> None:
        poses = segment.poses
        if segment.object is not None:
            new = transform_of(self._env.object_poses()[segment.object])
            if segment.object not in self._symmetry:
                self._symmetry[segment.object] = nearest_symmetry(segment.frame, new, self._turns[segment.object])
            poses = moved(poses, segment.frame, new @ self._symmetry[segment.object])
        now = transform_of(self._kinematics.forward(self._joints()))
        way = bridge(now, poses[0], 1.0 / self._env.contract.rate_hz)
        # On the way the gripper keeps its last target.
        self._poses = [*way, *poses]
        self._openings = [*[self._opening] * len(way), *segment.openings.tolist()]

    def _distance(self, demonstration: Demonstration, poses: Mapping[str, np.ndarray]) -> float:
        total = 0.0
        for segment in demonstration.segments[:1]:
            if segment.object is None:
                continue
            new = transform_of(poses[segment.object])
            new = new @ nearest_symmetry(segment.frame, new, self._turns[segment.object])
            total += _way(segment.frame, new) + RADIAN * _turn(segment.frame, new)
        return total

    def _joints(self) -> np.ndarray:
        joints: np.ndarray = self._env.data.qpos[self._env.model.jnt_qposadr[self._arm.joints]]
        return joints

    def _action(self, pose: np.ndarray) -> np.ndarray:
        quaternion = quaternion_from_matrix(pose[:3, :3])
        if self._env.contract.controller == "servo_ee_pose":
            target = np.concatenate([pose[:3, 3], quaternion_to_6d(quaternion)])
        else:
            target = self._kinematics.inverse(np.concatenate([pose[:3, 3], quaternion]), self._joints(), self._reach)
        return np.append(target, self._opening).astype(np.float32)


def read_demonstrations(path: str, env: ArmEnv) -> list[Demonstration]:
    """The successful episodes of a store, cut by the task's subtasks.

    Raises:
        MultiplicationError: the task has no subtasks, the store another task or other actions than the environment, no
            successful episode, or no poses of the objects.
    """
    task, contract = env.task["name"], env.contract
    subtasks = subtasks_of(env.specification["task"])
    store = EpisodeStore.open(path)
    if contract.controller not in ("servo_joint_position", "servo_ee_pose"):
        raise MultiplicationError(
            f"controller {contract.controller}: to multiply takes joint or end-effector targets; choose "
            "controller=joint_position or controller=ee_pose"
        )
    there = store.contract
    try:
        satisfies(replace(there, observation={}), contract)
    except ContractError as error:
        raise MultiplicationError(f"{path}: {error}") from error
    objects = [f"{each['object']}_pose" for each in subtasks if each["object"] is not None]
    if missing := sorted(set(objects) - set(there.observation)):
        raise MultiplicationError(f"{path}: no observation {', '.join(missing)}; record the demonstrations with it")
    chosen = store.select(success=True, task=task)
    if len(chosen) == 0:
        raise MultiplicationError(f"{path}: none of its {len(store)} episodes is a success of the task {task}")
    arm = env.arm_model.arms[0]
    kinematics = arm_kinematics(env.model, arm)
    demonstrations = []
    for index in chosen:
        episode = store[int(index)]
        parts = there.split_action(episode.action.astype(float))
        if there.controller == "servo_ee_pose":
            targets = np.stack([_transform(row[:3], matrix_from_6d(row[3:])) for row in parts["ee_pose"]])
        else:
            targets = np.stack([transform_of(kinematics.forward(row)) for row in parts["joint_position"]])
        poses = {name: episode.observation[f"{name}_pose"].astype(float) for name in _objects(subtasks)}
        try:
            segments = cut(subtasks, targets, parts["gripper_opening"][:, 0], poses)
        except MultiplicationError as error:
            raise MultiplicationError(
                f"{path}, episode {index}: {error}; `robot-rl data relabel --success false` leaves it out"
            ) from error
        demonstrations.append(Demonstration(int(index), segments))
    return demonstrations


def subtasks_of(task: str | Mapping[str, Any]) -> list[dict[str, Any]]:
    """The subtasks of a task's file.

    Raises:
        MultiplicationError: it has none.
    """
    if family_of({"task": task}) != "arm":
        raise MultiplicationError(
            f"demonstrations of {task} cannot be multiplied: expected a task of an arm, with subtasks in its file of "
            "sim/task"
        )
    content = load("task", task)
    if not content.get("subtasks"):
        raise MultiplicationError(f"task {content['name']} has no subtasks in its file, which multiplying needs")
    return list(content["subtasks"])


def cut(
    subtasks: Sequence[Mapping[str, Any]], targets: np.ndarray, openings: np.ndarray, objects: Mapping[str, np.ndarray]
) -> tuple[Segment, ...]:
    """Cut an episode of T actions into segments.

    Args:
        targets: of the end-effector [T, 4, 4].
        openings: targets of the gripper [T] m.
        objects: pose [T+1, 7] of each object that a subtask names.

    Raises:
        MultiplicationError: an object that shall be grasped is not.
    """
    start, segments = 0, []
    for subtask in subtasks:
        name, stop = subtask["object"], len(targets)
        begin = start
        if subtask.get("until") == "grasped":
            closed, stop = grasp(openings, objects[name][:, :3], start)
            away = np.linalg.norm(targets[start:closed, :3, 3] - targets[closed, :3, 3], axis=-1) > APPROACH
            begin = start + int(np.flatnonzero(away)[-1]) if away.any() else start
        frame = np.eye(4) if name is None else transform_of(objects[name][start])
        segments.append(Segment(name, frame, targets[begin:stop], openings[begin:stop]))
        start = stop
    return tuple(segments)


def grasp(openings: np.ndarray, positions: np.ndarray, start: int = 0) -> tuple[int, int]:
    """The rows in which the gripper closes for good, and in which the object has come along with it.

    Args:
        openings: targets of the gripper [T] m.
        positions: of the object [T+1, 3] m.
        start: row to search from.

    Raises:
        MultiplicationError: the object does not move while the gripper is closed.
    """
    closed = openings < 0.5 * (openings.min() + openings.max())
    edges = np.diff(np.concatenate([[False], closed[start:], [False]]).astype(int))
    runs = zip(start + np.flatnonzero(edges == 1), start + np.flatnonzero(edges == -1), strict=True)
    # Grasps that slipped carry the object less far than the one that holds.
    travels = [
        (np.linalg.norm(positions[first : last + 1] - positions[first], axis=-1), int(first)) for first, last in runs
    ]
    travel, first = max(travels, key=lambda each: float(each[0].max()), default=(np.zeros(1), 0))
    if travel.max() < LIFTED:
        raise MultiplicationError(f"the object never goes {LIFTED} m in the closed gripper")
    # A row is left for what follows, also when the episode ends with the grasp.
    return first, min(first + int(np.argmax(travel >= LIFTED)), len(openings) - 1)


def moved(poses: np.ndarray, source: np.ndarray, new: np.ndarray) -> np.ndarray:
    """End-effector poses [n, 4, 4] that are to an object at `new` [4, 4] what `poses` are to it at `source` [4, 4]."""
    placed: np.ndarray = new @ np.linalg.inv(source) @ poses
    return placed


def nearest_symmetry(source: np.ndarray, new: np.ndarray, turns: int) -> np.ndarray:
    """The turn [4, 4] of an object about its z axis that makes it look the same and turns the gripper least.

    Args:
        source, new: poses of the object [4, 4].
        turns: directions in which the object looks the same; 0: all of them.
    """
    relative = new[:3, :3].T @ source[:3, :3]
    yaw = float(np.arctan2(relative[1, 0] - relative[0, 1], relative[0, 0] + relative[1, 1]))
    if turns:
        yaw = 2 * np.pi / turns * round(yaw * turns / (2 * np.pi)) if turns > 1 else 0.0
    return _transform(np.zeros(3), matrix_from_vector(np.array([0.0, 0.0, yaw])))


def bridge(start: np.ndarray, end: np.ndarray, period: float) -> np.ndarray:
    """Poses [n, 4, 4], one a period [s], between two poses: a straight line and one turn, smooth and of bounded speed.

    Neither end is among them.
    """
    way, turn = end[:3, 3] - start[:3, 3], vector_from_matrix(end[:3, :3] @ start[:3, :3].T)
    seconds = PEAK * max(_way(start, end) / SPEED, _turn(start, end) / TURN_SPEED)
    times = np.linspace(0.0, 1.0, int(np.ceil(seconds / period)) + 1)[1:-1]
    shares = times**3 * (10 - 15 * times + 6 * times**2)
    poses = [_transform(start[:3, 3] + s * way, matrix_from_vector(s * turn) @ start[:3, :3]) for s in shares]
    return np.array(poses).reshape(-1, 4, 4)


def transform_of(pose: np.ndarray) -> np.ndarray:
    """Matrix [4, 4] of a pose [7]."""
    return _transform(pose[:3], matrix_from_quaternion(pose[3:]))


def _transform(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, position
    return matrix


def _way(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(other[:3, 3] - one[:3, 3]))


def _turn(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(vector_from_matrix(other[:3, :3] @ one[:3, :3].T)))


def _objects(subtasks: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(each["object"] for each in subtasks if each["object"] is not None))
