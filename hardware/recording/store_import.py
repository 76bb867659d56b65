"""A bag that was made of a store becomes that store again: same rows, stamps, facts and pictures.

It goes by the messages on `store/row` alone (see `store_row`); the first pass over the bag finds the episodes, then the
pictures of each camera are read in a pass of their own, one at a time, so that no episode has to fit in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.datasets.formats.trajectory import BadEpisode, Imported, Progress, Trajectory, import_trajectories
from robot_rl.datasets.layout import CONTROL, Layout
from robot_rl.hardware import bindings
from robot_rl.hardware.recording import episode_mark, store_row
from robot_rl.hardware.recording.bag import Bag, BagError, Recorded
from robot_rl.hardware.recording.bag_export import EPISODES, LAYOUT
from robot_rl.hardware.recording.bag_import import robot_for
from robot_rl.hardware.recording.episode_mark import VERDICTS
from robot_rl.hardware.recording.store_row import StoreRow
from robot_rl.hardware.robot_file import Stream

_MARK = f"/{episode_mark.TOPIC}"


def is_of_store(bag: Bag) -> bool:
    """Whether a bag was made of a store."""
    return LAYOUT in bag.facts


def import_store_bag(
    path: str | Path, output: str | Path, *, robot: str = "", encoding: str | Mapping[str, str] = "png",
    skip_bad: bool = False, progress: Progress | None = None,
) -> Imported:  # fmt: skip
    """Make a store of a bag that was made of one.

    Args:
        output: must not exist; it appears when it is complete.
        robot: name or path of its file; by default as noted in the bag.
        encoding: of the frames; PNG keeps them exactly.
        skip_bad: import the other episodes when some are bad.

    Raises:
        BagError: it was not made of a store, or cannot be read.
        ImportFailed: some episodes are bad, and not to be skipped.
    """
    bag = Bag(path)
    notes = bag.facts
    if LAYOUT not in notes:
        raise BagError(f"{path} was not made of a store")
    layout = Layout.from_dict(json.loads(notes[LAYOUT]))
    streams = {
        name: stream
        for name, stream in robot_for(robot or notes["robot"], layout.contract).streams.items()
        if name in layout.contract.cameras
    }
    found = _find(bag, StoreRow(layout))
    pictures = {name: _Pictures(Path(path), stream) for name, stream in streams.items()}
    loaders: dict[str, Callable[[], Trajectory]] = {
        f"episode {number - 1}": partial(_trajectory, StoreRow(layout), part, pictures)
        for number, part in ((number, found.get(number, _Part())) for number in range(1, int(notes[EPISODES]) + 1))
    }
    provenance = {**layout.provenance, "converted_from": {"format": "rosbag2", "bag": Path(path).name}}
    return import_trajectories(
        Path(path), output, layout.contract, loaders, provenance, encoding=encoding, streams=layout.streams,
        sim_state_size=layout.sim_state_size, skip_bad=skip_bad, progress=progress,
    )  # fmt: skip


@dataclass
class _Part:
    """What a bag says of an episode."""

    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[np.ndarray] = field(default_factory=list)
    word: str = ""
    problems: list[str] = field(default_factory=list)


def _find(bag: Bag, format_: StoreRow) -> dict[int, _Part]:
    """The episodes by their numbers in the bag, which begin at 1."""
    found: dict[int, _Part] = {}
    current = 0

    def part(number: int) -> _Part:
        return found.setdefault(number, _Part())

    damage = 0
    for recorded in bag.read():
        if recorded.topic not in (_MARK, store_row.TOPIC):
            continue
        new, damage = bag.damage[damage:], len(bag.damage)
        try:
            message = bag.decode(recorded)
            if recorded.topic == _MARK:
                mark = episode_mark.decode(message)
                current = mark.episode
                if mark.word == "start":
                    part(current).facts = dict(mark.facts)
                else:
                    part(current).word = mark.word
            else:
                part(current).rows.append(format_.decode(message))
        except (BagError, ValueError) as error:
            part(current).problems.append(str(error))
        part(current).problems += new
    part(current).problems += bag.damage[damage:]
    return found


def _trajectory(format_: StoreRow, part: _Part, pictures: Mapping[str, _Pictures]) -> Trajectory:
    layout, contract = format_.layout, format_.layout.contract
    if not part.rows:
        raise BadEpisode("; ".join(["none of its rows is in the bag", *part.problems]))
    rows = np.array(part.rows).reshape(len(part.rows), len(format_.names))
    columns = {key: rows[:, where] for key, where in format_.slices.items()}
    numbers = columns["row"][:, 0].astype(int).tolist()
    if not part.word or numbers != list(range(len(numbers))) or len(numbers) < 2:
        lacking = sorted({*range(max(numbers, default=0) + 1)} - {*numbers})
        what = f"rows {_ranges(lacking)} are missing" if lacking else "its end is missing"
        raise BadEpisode("; ".join([what, *part.problems]))
    steps = len(rows) - 1

    def shaped(name: str) -> np.ndarray:
        feature = contract.observation[name]
        return columns[name].astype(feature.dtype).reshape(-1, *feature.shape)

    return Trajectory(
        "",
        {name: shaped(name) for name in layout.lowdim},
        columns["action"][:steps].astype(np.float32),
        frames={
            name: camera.read(columns[f"picture/{name}"].astype(int).tolist()) for name, camera in pictures.items()
        },
        reward=columns["reward"][:steps, 0],
        terminated=bool(columns["terminated"][steps - 1, 0]),
        truncated=bool(columns["truncated"][steps - 1, 0]),
        success=VERDICTS[part.word],
        facts=part.facts,
        stamps={name: columns[f"stamp/{name}"][:, 0] for name in (CONTROL, *layout.streams, *contract.cameras)},
        sim_state=columns["sim_state"] if layout.sim_state_size else None,
        policy_action=columns["policy_action"][:steps].astype(np.float32),
        intervened=columns["intervened"][:steps, 0].astype(bool),
    )


class _Pictures:
    """The pictures of one camera, in the order of their stamps, which rise."""

    def __init__(self, path: Path, stream: Stream) -> None:
        self._stream, self._bag = stream, Bag(path)
        self._messages = (found for found in self._bag.read() if found.topic == stream.topic)
        self._next: tuple[tuple[int, int], Any] | None = None
        self._done = False

    def read(self, stamps: list[list[int]]) -> Iterator[np.ndarray]:
        """The picture of each of these stamps (seconds, nanoseconds), decoded when it is asked for.

        Raises:
            BadEpisode: the bag does not hold it, or it does not decode.
        """
        shown: tuple[tuple[int, int], np.ndarray] | None = None
        for row, (second, nanosecond) in enumerate(stamps):
            wanted = (second, nanosecond)
            if shown is None or shown[0] != wanted:
                shown = wanted, self._decoded(wanted, row)
            yield shown[1]

    def _decoded(self, wanted: tuple[int, int], row: int) -> np.ndarray:
        while (found := self._peek()) is not None and found[0] < wanted:
            self._next = None
        if found is None or found[0] != wanted:
            raise BadEpisode(f"{self._stream.feature.name}: the picture of row {row} is missing")
        try:
            return bindings.decode(self._stream, found[1])
        except bindings.BindingError as error:
            raise BadEpisode(f"row {row}: {error}") from error

    def _peek(self) -> tuple[tuple[int, int], Any] | None:
        while self._next is None and not self._done:
            recorded: Recorded | None = next(self._messages, None)
            if recorded is None:
                self._done = True
                break
            try:
                message = self._bag.decode(recorded)
            except BagError:
                continue  # its row misses it
            self._next = (message.header.stamp.sec, message.header.stamp.nanosec), message
        return self._next


def _ranges(numbers: list[int]) -> str:
    """`3-5, 9`."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in zip(starts, ends, strict=True))
