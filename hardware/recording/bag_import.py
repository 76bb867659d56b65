"""Recordings become episodes: of the recorder while it runs, of its black boxes afterwards, and of foreign bags.

    import_bag("runs/deploy/bag", RobotFile.load("panda"), "data/deployed.zarr")

One pass over the messages, in the order in which they were received, whatever the source, so that a run gives the
same episodes when it is imported live and afterwards. A row stands at each control tick: the observation that the
policy published for it (`policy/observation`), restored from the streams' own samples, or else the row that a policy
would have seen. Its action is what was executed (see `recorded_actions`). An episode's rows run from its first action
to the observation after its last one; a bag without marks is one episode.

What an episode lacks is said by its facts: `stale_rows` (a stream was too old: its last value is repeated, with its
true stamp), `lost_samples` (the policy saw what the recorder did not receive), `filled_actions` (nobody proposed
anything).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from robot_rl.datasets import Contract, EpisodeStore
from robot_rl.hardware import observed_row
from robot_rl.hardware.alignment import Alignment, AlignmentError, StaleError
from robot_rl.hardware.px4.vehicle_file import VehicleFile, load_robot
from robot_rl.hardware.recording import episode_mark
from robot_rl.hardware.recording.bag import Bag, BagError, Recorded
from robot_rl.hardware.recording.episode_mark import VERDICTS, Mark, MarkError
from robot_rl.hardware.recording.recorded_actions import Action, RecordedActions
from robot_rl.hardware.robot_file import RobotFile, RobotFileError
from robot_rl.hardware.ros2 import messages

if TYPE_CHECKING:
    from robot_rl.datasets.writer import EpisodeWriter, StoreWriter

LAG = 2.0
"""How long a row waits for what belongs to it and is received after its tick, also on a busy computer [s]."""

SIMULATED_LAG = 30.0
"""The same on simulated time, which runs as fast as it goes and may be far ahead when a message is received [s]."""

PAUSE = 5.0
"""So long without an action divides an episode in two [s]."""

RESTART = 1.0
"""The clock of the recording began anew when it goes back by more than this [s]."""

SILENCE = 60.0
"""So long without any message divides an episode in two [s]: the recording was paused, or its clock was set."""

_SOURCES = {"policy": "policy", "device": "teleop", "script": "expert", "replay": "replay"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imported:
    """An episode of a bag.

    Attributes:
        number: in the bag, from 1.
        index: in the store, or None when nothing was stored.
        steps: number of its actions.
        facts: as in the journal.
        problem: why nothing was stored, else empty.
        bad: whether that is a fault of the recording, and nobody's wish.
    """

    number: int
    index: int | None
    steps: int
    facts: Mapping[str, Any]
    problem: str = ""
    bad: bool = False


class _Row(NamedTuple):
    time: float
    observation: Mapping[str, np.ndarray]
    stamps: Mapping[str, float]


@dataclass
class _Episode:
    """An episode that is being imported."""

    number: int
    began: float
    next_tick: int
    facts: dict[str, Any]
    part: int = 1
    row: _Row | None = None  # the last one
    held: tuple[_Row, Action] | None = None  # the last with an action, which may be the end
    gap: list[tuple[_Row, Action | None, np.ndarray | None]] = field(default_factory=list)
    """Rows since then, with a stopgap for the action, and what a policy wished."""
    writer: EpisodeWriter | None = None
    kinds: set[str] = field(default_factory=set)
    damage: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


class BagImport:
    """Turns a recording into episodes of a store.

    Args:
        robot: usually `for_policy`; its contract is that of the store.
        bag: decodes the messages.
        writer: of the store.
        namespace: of the nodes and topics in a foreign bag.
        facts: of every episode.
    """

    def __init__(
        self, robot: RobotFile | VehicleFile, bag: Bag, writer: StoreWriter, namespace: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        notes = bag.facts
        self._bag, self._writer, self._run = bag, writer, notes.get("run", bag.path.stem)
        self._contract, self._rate = robot.contract, robot.contract.rate_hz
        self._facts = dict(facts or {})
        self._robot, self._actions = robot, RecordedActions(robot)
        self._simulated = False
        self._wait(LAG)
        self._published: dict[int, tuple[dict[str, np.ndarray], dict[str, float]]] = {}
        self._known = {facts["recording"] for facts in map(writer.store.facts, range(len(writer.store)))
                       if "recording" in facts}  # fmt: skip
        self._episode: _Episode | None = None
        self._closed: Imported | None = None
        self._last = 0  # number of the episode that began last
        self._lost: list[str] = []  # what could not be read since then, between episodes
        self._noted = 0
        self._now = -np.inf
        self._whole = not notes
        resolved = json.loads(notes.get("topics", "{}"))

        def resolve(topic: str) -> str:
            return resolved.get(topic) or (topic if topic.startswith("/") else f"{namespace.rstrip('/')}/{topic}")

        self._streams = {resolve(topic): topic for topic in self._alignment.topics}
        self._commands = {resolve(command.topic): command.topic for command in robot.commands.values()}
        self._proposal, self._status = resolve("supervisor/proposal"), resolve("supervisor/status")
        self._observation, self._mark = resolve(observed_row.TOPIC), resolve(episode_mark.TOPIC)

    def push(self, recorded: Recorded) -> list[Imported]:
        """Take the next message; returns the episodes that it closed."""
        if self._whole and self._episode is None:
            self._open(1, recorded.received * 1e-9, {})
        self._note_damage()
        done = self._advance(recorded.received * 1e-9)
        try:
            return done + self._take(recorded)
        except (BagError, MarkError) as error:
            self._bag.damage.append(str(error))
            return done

    def _take(self, recorded: Recorded) -> list[Imported]:
        topic, received = recorded.topic, recorded.received * 1e-9
        if topic in self._streams:
            message = self._bag.decode(recorded)
            if self._simulated:
                # The recorder may have heard of the time later than of the message.
                received = max(received, messages.seconds(message.header.stamp))
            self._alignment.take(self._streams[topic], message, received)
        elif topic == "/clock" and not self._simulated:
            self._simulated = True
            self._wait(SIMULATED_LAG)
        elif topic == self._observation:
            self._take_observation(self._bag.decode(recorded))
        elif topic == self._proposal:
            self._actions.take_proposal(self._bag.decode(recorded))
        elif topic == self._status:
            self._actions.take_status(self._bag.decode(recorded))
        elif topic in self._commands:
            self._actions.take_command(self._commands[topic], self._bag, recorded)
        elif topic == self._mark:
            return self._take_mark(episode_mark.decode(self._bag.decode(recorded)))
        return []

    def finish(self) -> list[Imported]:
        """The recording has ended: an episode that is still open ends with it."""
        self._note_damage()
        if self._episode is None:
            return []
        return self._close(self._now, None, {} if self._whole else {"unfinished": True})

    def close(self) -> None:
        """Drop the episode that is not finished."""
        if self._episode is not None and self._episode.writer is not None:
            self._episode.writer.discard()
        self._episode = None

    def _open(self, number: int, time: float, facts: Mapping[str, Any]) -> None:
        self._episode = _Episode(number, time, self._tick(max(time, self._now - SILENCE)), dict(facts))
        self._closed = None

    def _tick(self, time: float) -> int:
        """The first control tick at or after `time` [s]."""
        return int(np.ceil(time * self._rate - 1e-6))

    def _note_damage(self) -> None:
        """What could not be read belongs to the episode that is open, or to the next one."""
        found = self._lost if self._episode is None else self._episode.damage
        found += [text for text in dict.fromkeys(self._bag.damage[self._noted :]) if text not in found]
        self._noted = len(self._bag.damage)

    def _missing(self, number: int) -> list[Imported]:
        """The episodes before `number` whose begin was lost."""
        lost, self._lost = self._lost, []
        found = [
            Imported(missing, None, 0, {}, "; ".join(["its begin is not in the bag", *lost]), bad=True)
            for missing in range(self._last + 1, number)
            if lost or self._last
        ]
        self._last = max(self._last, number)
        return found

    def _wait(self, lag: float) -> None:
        self._lag, self._alignment = lag, Alignment(self._robot, keep=2 * lag)
        self._unheard = self._contract.observation.keys() - {*self._robot.streams, *self._robot.computed}

    def _advance(self, received: float) -> list[Imported]:
        done = []
        if received < self._now - RESTART and self._episode is not None:
            done = self._close(self._now, None, {"unfinished": True, "notes": "the clock of the recording went back"})
        elif received > self._now + SILENCE and self._episode is not None:
            done = self._skip(self._episode, received - self._lag)
        self._now = received if received < self._now - RESTART else max(self._now, received)
        if self._episode is not None:
            done += self._rows(self._now - self._lag)
        return done

    def _skip(self, episode: _Episode, time: float) -> list[Imported]:
        """Nothing was received for long: go on at `time` [s]. The clock may have been set there from 1970."""
        done = self._rows(self._now)
        if self._episode is episode and episode.held is not None:
            done += self._divide(episode, f"no message for {SILENCE:g} s")
        if self._episode is not None:
            self._episode.row, self._episode.next_tick = None, max(self._episode.next_tick, self._tick(time))
        return done

    def _take_observation(self, message: Any) -> None:
        try:
            time, values, stamps = observed_row.decode_row(self._contract, message)
        except ValueError as error:
            _log.warning("%s; the row is made of the streams instead", error)
            return
        self._published[round(time * self._rate)] = values, stamps
        if len(self._published) > 10_000:
            del self._published[next(iter(self._published))]

    def _take_mark(self, mark: Mark) -> list[Imported]:
        done: list[Imported] = []
        if self._whole:
            self._whole = False
            self.close()
        if self._episode is not None and (mark.word == "start" or mark.episode != self._episode.number):
            done = self._close(mark.time, None, {})
        if mark.word == "start":
            done += self._missing(mark.episode)
            self._open(mark.episode, mark.time, mark.facts)
        elif self._episode is None and mark.episode > self._last:
            done += self._missing(mark.episode + 1)
        elif self._episode is None:
            self._judge(mark)
        elif mark.word == "discard":
            done += [Imported(self._episode.number, None, 0, {}, "discarded")]
            self.close()
        else:
            done += self._close(mark.time, VERDICTS[mark.word], mark.facts)
        return done

    def _judge(self, mark: Mark) -> None:
        """A word after the episode was closed is about that one."""
        if self._closed is None or self._closed.index is None or mark.word == "stop":
            return
        verdict = VERDICTS.get(mark.word, False)
        discarded = {"discarded": True} if mark.word == "discard" else {}
        self._writer.store.annotate(self._closed.index, success=verdict, **discarded, **mark.facts)

    def _rows(self, until: float) -> list[Imported]:
        """Make all rows up to the time `until` [s]."""
        done: list[Imported] = []
        while self._episode is not None and self._episode.next_tick / self._rate <= until + 1e-6:
            episode, tick = self._episode, self._episode.next_tick
            episode.next_tick += 1
            row = self._row(tick, episode)
            if row is None:
                continue
            episode.row = row
            supervised = self._actions.supervised
            action = self._actions.at(row.time) if supervised else self._actions.commanded(row.time)
            if action is not None:
                self._act(episode, row, action)
            elif episode.held is not None:
                stopgap = self._actions.commanded(row.time) if supervised else None
                episode.gap.append((row, stopgap, self._actions.wish(row.time)))
                if len(episode.gap) > PAUSE * self._rate:
                    done += self._divide(episode, f"no action for {PAUSE:g} s")
        return done

    def _row(self, tick: int, episode: _Episode) -> _Row | None:
        time = tick / self._rate
        published = self._published.pop(tick, None)
        try:
            if published is None:
                row = self._alignment.row(time)
                if unheard := dict.fromkeys(self._unheard, "only policies observe it"):
                    raise StaleError(unheard)
                return _Row(time, *row)
            values, stamps = published
            try:
                observation = self._alignment.restore(stamps)
                if any(
                    not np.array_equal(value, values[name]) for name, value in observation.items() if name in values
                ):
                    episode.count("lost_samples")
            except AlignmentError:
                episode.count("lost_samples")
                observation = self._alignment.row(time, by=np.inf)[0]
            return _Row(time, {**observation, **values}, stamps)
        except StaleError as error:
            if episode.row is None:
                return None
            _log.debug("episode %d at %.3f s: %s", episode.number, time, error)
            episode.count("stale_rows")
            return episode.row._replace(time=time)

    def _act(self, episode: _Episode, row: _Row, action: Action) -> None:
        """The row has an action: what stands before it is no end, and can be written."""
        if episode.held is not None:
            self._write(episode, *episode.held)
            last = episode.held[1]
            kind = action.kind if action.kind == last.kind else "command"  # who decides before and after does between
            for between, stopgap, wish in episode.gap:
                episode.count("filled_actions")
                self._write(episode, between, (stopgap or last)._replace(kind=kind, wish=wish))
            episode.gap.clear()
        episode.kinds.add(action.kind)
        episode.held = row, action

    def _write(self, episode: _Episode, row: _Row, action: Action, **flags: bool) -> None:
        if episode.writer is None:
            episode.writer = self._writer.episode()
        taken_over = action.kind == "device" and "policy" in episode.kinds
        wish = action.wish if taken_over else None
        episode.writer.add(
            row.observation, action.value, stamps=self._stamps(row, action.stamp), policy_action=wish,
            intervened=taken_over, **flags,
        )  # fmt: skip

    def _stamps(self, row: _Row, acted: float) -> dict[str, float]:
        return {"control": row.time, "action": acted, **row.stamps}

    def _divide(self, episode: _Episode, why: str) -> list[Imported]:
        done = self._finish_episode(episode, None, {"notes": why})
        part = _Episode(episode.number, episode.began, episode.next_tick, dict(episode.facts), episode.part + 1)
        self._episode = part
        return [done]

    def _close(self, time: float, success: bool | None, facts: Mapping[str, Any]) -> list[Imported]:
        done = self._rows(min(time, self._now))
        episode, self._episode = self._episode, None
        if episode is None:
            return done
        self._closed = self._finish_episode(episode, success, facts)
        return [*done, self._closed]

    def _finish_episode(self, episode: _Episode, success: bool | None, facts: Mapping[str, Any]) -> Imported:
        name = f"{self._run}/{episode.number}" + (f".{episode.part}" if episode.part > 1 else "")
        known: dict[str, Any] = {"task": "", "operator": "", "seed": None, "text": "", "source": _source(episode.kinds)}
        known |= {**self._facts, **episode.facts, **episode.counts, **facts, "recording": name, "began": episode.began}
        if episode.damage:
            if episode.writer is not None:
                episode.writer.discard()
            return Imported(episode.number, None, 0, known, "; ".join(episode.damage), bad=True)
        if episode.held is None:
            why = "no action was executed" if episode.row else "the streams did not give a single whole row"
            return Imported(episode.number, None, 0, known, why, bad=True)
        row, action = episode.held
        final = row
        if episode.gap:
            final = episode.gap[0][0]
            self._write(episode, row, action, terminated=success is True, truncated=success is not True)
        if episode.writer is None:
            return Imported(episode.number, None, 0, known, "nothing was observed after its only action", bad=True)
        if name in self._known:
            episode.writer.discard()
            return Imported(episode.number, None, episode.writer.length, known, "the store has it already")
        stamps = self._stamps(final, final.time)
        index = episode.writer.finish(final.observation, success, stamps=stamps, **known)  # type: ignore[arg-type]
        self._known.add(name)
        return Imported(episode.number, index, episode.writer.length - 1, known | {"success": success})


def import_bag(
    path: str | Path, robot: RobotFile | VehicleFile, output: str | Path, namespace: str = "",
    facts: Mapping[str, Any] | None = None, encoding: str | Mapping[str, str] = "jpeg",
) -> Iterator[Imported]:  # fmt: skip
    """Import a bag: a rosbag2 folder, `.mcap` or `.db3` file. Yields its episodes one by one, as they are stored.

    `whole_import` imports all or none of them.

    Args:
        robot: see `robot_for`.
        output: the store; made where there is none, else added to.
        namespace: of the nodes and topics in a foreign bag.
        facts: of every episode: task, operator, text, source, ...
        encoding: of pictures in a new store.

    Raises:
        BagError: it cannot be read.
        ContractError: the store has another contract.
    """
    bag = Bag(path)
    if not Path(output).exists():
        create_store(output, robot, encoding)
    with EpisodeStore.append(output, robot.contract) as writer:
        importer = BagImport(robot, bag, writer, namespace, facts)
        try:
            for recorded in bag.read():
                yield from importer.push(recorded)
            yield from importer.finish()
        finally:
            importer.close()


def robot_for(robot: str | Path, contract: str | Path | Contract | None) -> RobotFile | VehicleFile:
    """A robot's file, restricted to a contract: of a policy's folder, a store, a YAML or JSON file, or as it is.

    Raises:
        RobotFileError, ContractError: there is none, it is malformed, or both do not fit.
    """
    loaded = load_robot(robot)
    if contract is None:
        return loaded
    return loaded.for_policy(contract if isinstance(contract, Contract) else read_contract(contract))


def arm_for(robot: str | Path, contract: str | Path | Contract | None) -> RobotFile:
    """As `robot_for`, for what only arms can do. Raises RobotFileError for a vehicle, too."""
    found = robot_for(robot, contract)
    if not isinstance(found, RobotFile):
        raise RobotFileError(str(robot), ["expected an arm; this is not possible with a vehicle"])
    return found


def read_contract(path: str | Path) -> Contract:
    """The contract of a run or checkpoint folder, an exported policy, an episode store, or in a YAML or JSON file."""
    folder = Path(path)
    for file in (folder / "contract.json", folder / "checkpoints" / "best" / "contract.json"):
        if file.is_file():
            return Contract.from_dict(json.loads(file.read_text()))
    return EpisodeStore(folder).contract if folder.is_dir() else Contract.from_yaml(folder)


def create_store(
    output: str | Path, robot: RobotFile | VehicleFile, encoding: str | Mapping[str, str] = "jpeg"
) -> EpisodeStore:
    """A store for a robot's episodes, which keeps the true time of every stream and action."""
    streams = [name for name, feature in robot.contract.observation.items() if not feature.is_frame]
    about = {"robot": robot.name}
    return EpisodeStore.create(output, robot.contract, about, encoding, streams=[*streams, "action"])


def _source(kinds: set[str]) -> str:
    """Who acted in an episode, in the words of the journal."""
    if len(kinds) > 1 and "device" in kinds:
        return "intervention"
    return _SOURCES.get(next(iter(kinds), ""), "")
