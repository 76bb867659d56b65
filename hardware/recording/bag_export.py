"""Episodes become a rosbag2 recording, as if the robot of a file had been recorded.

    export_bag(EpisodeStore.open("lift.zarr"), "panda", "lift_bag", "mcap")

Each feature is published on the topic of its stream in the robot's file, once for every stamp that it has: a sample
that stands in several rows is one message with its true stamp. Joint actions stand on the robot's command topic, marks
say where episodes begin, end and how they went, and `store/row` holds what no topic can tell (see `store_row`).

Episodes whose clocks begin anew or overlap are laid one after the other: their stamps in the bag are later by whole
seconds, those in `store/row` as they were.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from robot_rl.datasets import Episode, EpisodeStore
from robot_rl.datasets.disk import explain_write_errors
from robot_rl.datasets.errors import StoreError
from robot_rl.datasets.formats.trajectory import Progress, trajectories
from robot_rl.datasets.layout import CONTROL
from robot_rl.hardware import bindings
from robot_rl.hardware.recording import episode_mark, store_row
from robot_rl.hardware.recording.bag_import import arm_for
from robot_rl.hardware.recording.black_box import BlackBox, Topic
from robot_rl.hardware.recording.episode_mark import Mark, Word
from robot_rl.hardware.recording.sqlite_bag import SqliteBag
from robot_rl.hardware.recording.store_row import StoreRow
from robot_rl.hardware.robot_file import TRAJECTORY, RobotFile
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.qos import RELIABLE, Qos

Storage = Literal["mcap", "sqlite3"]
LAYOUT, EPISODES = "layout", "episodes"
"""In the notes of a bag: the attributes of the store that it was made of, and how many episodes that had."""

GAP = 2
"""Between episodes whose clocks overlap, and before the first of a clock that begins at zero [s]."""

_VERDICTS: dict[bool | None, Word] = {True: "success", False: "failure", None: "stop"}


class BagWriter(Protocol):
    """What writes messages, in either storage."""

    def add_topic(self, topic: Topic) -> None:
        """Make a topic known."""

    def write(self, topic: str, received: int, cdr: bytes) -> None:
        """Add a message received at `received` [ns]."""

    def close(self) -> None:
        """Finish the bag."""


def export_bag(
    store: EpisodeStore, robot: str, path: str | Path, storage: Storage = "mcap", progress: Progress | None = None
) -> None:
    """Write all episodes of a store as one bag.

    Args:
        robot: name or path of its file, which must offer everything that the store observes, at its rate.
        path: folder of the bag; must not exist, appears when it is complete.
        progress: called with the number of episodes done, and of all.

    Raises:
        StoreError: the path exists, or there is no episode.
        RobotFileError, ContractError: there is no such robot, or it does not fit; every difference is listed.
    """
    path = Path(path)
    if path.exists():
        raise StoreError(f"{path} exists already. Choose another path.")
    if storage not in get_args(Storage):
        raise StoreError(f"storage {storage!r}: expected one of {', '.join(get_args(Storage))}")
    found = arm_for(robot, store.contract)
    notes = {
        "run": store.path.stem, "robot": robot, "contract": store.contract.to_json(), "topics": "{}",
        LAYOUT: json.dumps(store.layout.to_dict()), EPISODES: str(len(store)),
    }  # fmt: skip
    beside = path.with_name(f".{path.name}.writing")
    with explain_write_errors(path, "writing the bag"):
        shutil.rmtree(beside, ignore_errors=True)
        try:
            folder = beside / path.name
            writer: BagWriter = BlackBox(folder, notes) if storage == "mcap" else SqliteBag(folder, notes)
            try:
                export = _Export(store, found, writer)
                for episode in trajectories(store, progress):
                    export.add(episode)
            finally:
                writer.close()
            folder.rename(path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


@dataclass
class _Sent:
    """The samples of a topic or camera that were written last, so that they are not written again."""

    stamp: dict[str, float] = field(default_factory=dict)
    value: dict[str, bytes] = field(default_factory=dict)


class _Export:
    def __init__(self, store: EpisodeStore, robot: RobotFile, writer: BagWriter) -> None:
        self._robot, self._writer = robot, writer
        self._row = StoreRow(store.layout)
        self._lowdim = [name for name in robot.streams if name in store.layout.lowdim]
        self._cameras = list(store.contract.cameras)
        self._streams = store.layout.streams
        self._received = 0
        self._pictures = dict.fromkeys(self._cameras, 0)
        self._names: dict[str, None] = {}

    def add(self, episode: Episode) -> None:
        """Write an episode behind the others."""
        stamps = {name: episode.timestamp[name] for name in (CONTROL, *self._streams, *self._cameras)}
        shift = self._shift(stamps[CONTROL])
        facts = dict(episode.facts)
        word = _VERDICTS[facts.pop("success", None)]
        begin, end = (float(stamps[CONTROL][row]) + shift for row in (0, -1))
        self._send(episode_mark.TOPIC, episode_mark.encode(Mark("start", begin, episode.index + 1, facts)), begin)
        sent, columns = _Sent(), _columns(episode)
        places = {
            name: episode.store.array(f"frames/{name}/offset").slice(episode.rows.start, episode.rows.stop)
            for name in self._cameras
        }
        shown: dict[str, Any] = {}
        pictures = {name: episode.observation[name] for name in self._cameras}
        for row in range(episode.length + 1):
            time = float(stamps[CONTROL][row]) + shift
            at = {name: float(values[row]) for name, values in stamps.items()}
            self._samples({name: columns[name][row] for name in self._lowdim}, at, shift, time, sent)
            for name in self._cameras:
                if row and at[name] == stamps[name][row - 1] and places[name][row] == places[name][row - 1]:
                    continue
                shown[name] = self._picture(name, pictures[name][row], at[name] + shift, time)
            if row < episode.length:
                self._command(episode, columns["action"][row], at.get("action", at[CONTROL]) + shift, time)
            values = {key: column[row] for key, column in columns.items()}
            values |= {f"stamp/{name}": stamp for name, stamp in at.items()}
            values |= {f"picture/{name}": (stamp.sec, stamp.nanosec) for name, stamp in shown.items()}
            self._send(store_row.TOPIC, self._row.encode(messages.stamp(time), {"row": row, **values}), time)
        self._send(episode_mark.TOPIC, episode_mark.encode(Mark(word, end, episode.index + 1)), end)

    def _shift(self, control: np.ndarray) -> int:
        """Whole seconds by which an episode comes later in the bag."""
        begin, last = float(control[0]), self._received * 1e-9
        if begin > last and begin >= 1.0:
            return 0
        return int(np.ceil(last + GAP - begin))

    def _samples(
        self, values: Mapping[str, np.ndarray], at: Mapping[str, float], shift: int, time: float, sent: _Sent
    ) -> None:
        """Publish what is new of the low-dimensional streams."""
        groups: dict[tuple[str, float], dict[str, np.ndarray]] = {}
        fresh = set()
        for name, value in values.items():
            key = self._robot.streams[name].topic, at.get(name, at[CONTROL])
            groups.setdefault(key, {})[name] = value
            if sent.stamp.get(name) != key[1] or sent.value[name] != value.tobytes():
                fresh.add(key)
            sent.stamp[name], sent.value[name] = key[1], value.tobytes()
        for key in sorted(fresh):
            for topic, message in bindings.encode_observations(self._robot, groups[key], key[1] + shift).items():
                self._send(topic, message, time, self._robot.streams[next(iter(groups[key]))].qos)

    def _picture(self, name: str, picture: np.ndarray, stamp: float, time: float) -> Any:
        """Publish a picture; returns the stamp of its header, which no other of the camera has."""
        stream = self._robot.streams[name]
        message = bindings.encode_observation(stream, picture, stamp)
        wanted = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        known = self._pictures[name] = max(wanted, self._pictures[name] + 1)
        message.header.stamp = messages.type_of("builtin_interfaces/msg/Time")(*divmod(known, 10**9))
        self._send(stream.topic, message, time, stream.qos)
        return message.header.stamp

    def _command(self, episode: Episode, action: np.ndarray, stamp: float, time: float) -> None:
        """Publish an action on joints as the robot's controllers take it: to be reached at the end of the period."""
        parts = episode.store.contract.split_action(action)
        for name, command in self._robot.commands.items():
            if name not in parts:
                continue
            value = np.asarray(parts[name], float)
            value = value if command.scale is None else command.scale.to_graph(value)
            if command.type == TRAJECTORY:
                header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(stamp))
                after = messages.duration(1 / episode.store.contract.rate_hz)
                point = messages.make(
                    "trajectory_msgs/msg/JointTrajectoryPoint", positions=value, time_from_start=after
                )
                message = messages.make(TRAJECTORY, header=header, joint_names=list(command.elements), points=[point])
            else:
                message = messages.make(
                    command.type, data=np.repeat(value, max(1, len(command.elements)) // len(value))
                )
            self._send(command.topic, message, time, command.qos)

    def _send(self, topic: str, message: Any, time: float, qos: Qos = RELIABLE) -> None:
        topic = topic if topic.startswith("/") else f"/{topic}"
        name = message.__msgtype__
        if topic not in self._names:
            text = messages.typestore().generate_msgdef(name, ros_version=2)[0]
            self._writer.add_topic(Topic(topic, name, text, messages.type_hash(name), qos))
            self._names[topic] = None
        # No two messages at the same time: so every reader gives them in this order.
        self._received = max(self._received + 1, round(time * 1e9))
        self._writer.write(topic, self._received, messages.encode(message))


def _columns(episode: Episode) -> dict[str, np.ndarray]:
    """Every array of an episode's rows but pictures and stamps, [T + 1, ...]."""
    final = {
        "action": episode.action, "policy_action": episode.policy_action, "reward": episode.reward,
        "terminated": episode.terminated, "truncated": episode.truncated, "intervened": episode.intervened,
    }  # fmt: skip
    found = {name: np.concatenate([values, np.zeros_like(values[:1])]) for name, values in final.items()}
    found |= {name: episode.observation[name] for name in episode.store.layout.lowdim}
    states = episode.sim_state if episode.store.layout.sim_state_size else np.zeros((episode.length + 1, 0))
    return found | {"sim_state": states}
