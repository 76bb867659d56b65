"""What actors send, committed to the learner's store once, however often it comes.

Each episode keeps in its facts which `actor` it is of and its `number` there. An actor sends its episodes in order, so
what a store holds of it is known by a count, which is read from the facts again after a crash.
"""

from __future__ import annotations

import numpy as np

from robot_rl.datasets.errors import StepError
from robot_rl.datasets.layout import CONTROL
from robot_rl.datasets.store import Episode as StoredEpisode
from robot_rl.datasets.writer import StoreWriter
from robot_rl.rl.apart.messages import Arrays, MessageError, Recorded

_COLUMNS = {
    "action": 2, "policy_action": 2, "intervened": 1, "reward": 1, "terminated": 1, "truncated": 1,
}  # fmt: skip


class Reception:
    """Commits episodes to a store. For one thread.

    Args:
        writer: of the store, whose contract is that of all actors.

    Attributes:
        received: by actor, how many of its episodes the store holds.
    """

    def __init__(self, writer: StoreWriter) -> None:
        self._writer = writer
        self.received: dict[str, int] = {}
        for number in range(len(writer.store)):
            facts = writer.store.facts(number)
            if "actor" in facts:
                self._count(str(facts["actor"]), int(facts["number"]))

    def take(self, actor: str, recorded: Recorded) -> int | None:
        """Commit an episode; returns its number in the learner's store, None where it was there already.

        Raises:
            MessageError: it does not fit the contract, or one before it never came. Nothing was committed.
        """
        known = self.received.get(actor, 0)
        if recorded.number < known:
            return None
        if recorded.number > known:
            raise MessageError(
                f"expected episode {known} of actor {actor}, got {recorded.number}: those between would be lost"
            )
        number = self._commit(actor, recorded)
        self._count(actor, recorded.number)
        return number

    def _commit(self, actor: str, recorded: Recorded) -> int:
        arrays, facts = recorded.arrays, dict(recorded.facts)
        T = self._check(arrays)
        columns = {name: arrays[f"observation/{name}"] for name in self._writer.store.contract.observation}
        streams = (CONTROL, *self._writer.store.contract.cameras)
        stamps = [{name: float(arrays[f"timestamp/{name}"][row]) for name in streams} for row in range(T + 1)]
        success = facts.pop("success", None)
        given = {key: facts.pop(key, None) for key in ("task", "source", "seed", "operator", "text")}
        given = {key: value for key, value in given.items() if value is not None}
        try:
            with self._writer.episode(**given) as episode:
                for row in range(T):
                    taken = {
                        key: arrays[key][row] for key in ("policy_action", "intervened", "terminated", "truncated")
                    }
                    if np.isnan(taken["policy_action"]).all():
                        taken["policy_action"] = None
                    episode.add(
                        {name: column[row] for name, column in columns.items()}, arrays["action"][row],
                        reward=float(arrays["reward"][row]), stamps=stamps[row], **taken,
                    )  # fmt: skip
                facts |= {"actor": actor, "number": recorded.number}
                last = {name: column[T] for name, column in columns.items()}
                return episode.finish(last, success=success, stamps=stamps[T], **facts)
        except (StepError, TypeError) as error:
            raise MessageError(f"episode {recorded.number} of actor {actor} cannot be stored: {error}") from error

    def _check(self, arrays: Arrays) -> int:
        """T, of columns that are all there and as long as each other."""
        contract = self._writer.store.contract
        wanted = dict.fromkeys(_COLUMNS, 0)
        wanted |= {f"observation/{name}": 1 for name in contract.observation}
        wanted |= {f"timestamp/{name}": 1 for name in (CONTROL, *contract.cameras)}
        problems = [f"{name}: missing" for name in wanted if name not in arrays]
        problems += [f"{name}: no such column" for name in arrays if name not in wanted]
        T = len(arrays["reward"]) if arrays.get("reward", np.zeros(())).ndim == 1 else 0
        if T < 1:
            problems.append("reward: expected one for each of at least 1 step")
        for name, more in wanted.items():
            column = arrays.get(name)
            if column is not None and (column.ndim < _COLUMNS.get(name, 1) or len(column) != T + more):
                problems.append(f"{name}: expected {T + more} rows, got shape {list(column.shape)}")
        if problems:
            raise MessageError("an episode does not fit:\n" + "\n".join(f"  - {line}" for line in problems))
        return T

    def _count(self, actor: str, number: int) -> None:
        self.received[actor] = max(self.received.get(actor, 0), number + 1)


def packed(episode: StoredEpisode, version: int) -> Recorded:
    """An episode of an actor's store, to be sent.

    Args:
        version: of the newest parameters that the actor has.
    """
    arrays: Arrays = {f"observation/{name}": value for name, value in episode.observation.items()}
    arrays |= {f"timestamp/{name}": value for name, value in episode.timestamp.items()}
    arrays |= {name: getattr(episode, name) for name in _COLUMNS}
    return Recorded(episode.index, episode.facts, version, arrays)
