"""What every foreign format is read into: one attempt, and how attempts become a store.

Nothing is half imported: the store appears when all is read, and when some episodes are bad it appears only on request,
without them. All bad ones are named, not only the first.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.datasets.contract import Contract
from robot_rl.datasets.disk import explain_write_errors
from robot_rl.datasets.errors import StepError, StoreError
from robot_rl.datasets.store import Episode, EpisodeStore

Progress = Callable[[int, int], None]
"""Called with the number of episodes done so far, and of all."""


class BadEpisode(StoreError):  # noqa: N818
    """An episode of a foreign data set cannot be imported; the message says why."""


class ImportFailed(StoreError):  # noqa: N818
    """Some episodes are bad and there is no store. `bad` holds (name of the episode, reason)."""

    def __init__(self, path: Path, bad: Sequence[tuple[str, str]], total: int) -> None:
        self.bad = tuple(bad)
        lines = [f"{path}: {len(bad)} of {total} episodes cannot be imported:", *(f"  - {n}: {why}" for n, why in bad)]
        super().__init__("\n".join([*lines, "Nothing was written. Import the others with --skip-bad."]))


@dataclass
class Trajectory:
    """One attempt of T steps.

    Attributes:
        name: of it where it comes from.
        observation: low-dimensional, by name [T + 1, ...]; the last row is the final observation.
        action: float32 [T, A].
        frames: of each camera, an iterator over T + 1 pictures; closed when the episode is done.
        reward: [T]; None for zeros.
        terminated, truncated: whether the last action ended the task, or the episode was cut off after it.
        success: whether it reached its goal; None when nobody said.
        facts: task, source, seed, ... and anything else for the journal.
        stamps: seconds [T + 1], by stream.
        sim_state: [T + 1, S], where there is one.
        policy_action: [T, A] with NaN where there was none; None: as the action.
        intervened: bool [T]; None for none.
    """

    name: str
    observation: dict[str, np.ndarray]
    action: np.ndarray
    frames: dict[str, Iterator[np.ndarray]] = field(default_factory=dict)
    reward: np.ndarray | None = None
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    stamps: dict[str, np.ndarray] = field(default_factory=dict)
    sim_state: np.ndarray | None = None
    policy_action: np.ndarray | None = None
    intervened: np.ndarray | None = None


@dataclass(frozen=True)
class Imported:
    """A store that was made, and the episodes that it lacks: (name, reason)."""

    store: EpisodeStore
    bad: tuple[tuple[str, str], ...]


def import_trajectories(
    source: Path,
    output: str | Path,
    contract: Contract,
    loaders: Mapping[str, Callable[[], Trajectory]],
    provenance: Mapping[str, Any],
    *,
    encoding: str | Mapping[str, str] = "jpeg",
    streams: Sequence[str] = (),
    sim_state_size: int = 0,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Imported:
    """Make a store of trajectories.

    Args:
        source: where they come from, for messages.
        output: must not exist; it appears when it is complete.
        provenance: with `converted_from`; an `id` is that of the store that was exported.
        loaders: by the name of the episode, in the order of the store; each may raise `BadEpisode`.
        skip_bad: import the others when some are bad.

    Raises:
        ImportFailed: some episodes are bad, or all are.
    """
    output = Path(output)
    if output.exists():
        raise StoreError(f"{output} exists already. Choose another path.")
    if not loaders:
        raise StoreError(f"{source} holds no episode.")
    beside = output.with_name(f".{output.name}.importing")
    bad: list[tuple[str, str]] = []
    if "id" in provenance:
        provenance = {**provenance, "converted_from": {**provenance["converted_from"], "id": provenance["id"]}}
    with explain_write_errors(output, "writing the imported store"):
        shutil.rmtree(beside, ignore_errors=True)
        try:
            EpisodeStore.create(beside, contract, provenance, encoding, sim_state_size, streams)
            with EpisodeStore.append(beside) as writer:
                for number, (name, load) in enumerate(loaders.items()):
                    try:
                        _write(writer, load())
                    except (BadEpisode, StepError) as error:
                        bad.append((name, str(error)))
                    if progress is not None:
                        progress(number + 1, len(loaders))
            if bad and (not skip_bad or len(bad) == len(loaders)):
                raise ImportFailed(source, bad, len(loaders))
            beside.rename(output)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return Imported(EpisodeStore(output), tuple(bad))


def trajectories(store: EpisodeStore, progress: Progress | None = None) -> Iterable[Episode]:
    """The episodes of a store, one after the other, for a writer of another format."""
    if not len(store):
        raise StoreError(f"{store.path} holds no episode to write.")
    for episode in store:
        yield episode
        if progress is not None:
            progress(episode.index + 1, len(store))


def _write(writer: Any, found: Trajectory) -> None:
    steps = len(found.action)
    if not steps:
        raise BadEpisode("it has no action")
    lengths = {name: len(values) for name, values in (*found.observation.items(), *found.stamps.items())}
    if wrong := {name: length for name, length in lengths.items() if length != steps + 1}:
        raise BadEpisode(f"{steps} actions need {steps + 1} observations; {wrong}")
    facts = dict(found.facts)
    known = {key: facts.pop(key) for key in ("task", "source", "seed", "operator", "text") if key in facts}
    reward = np.zeros(steps) if found.reward is None else found.reward
    proposed = [None] * steps if found.policy_action is None else found.policy_action
    with writer.episode(**known) as episode:

        def row(step: int) -> dict[str, Any]:
            pictures = {name: _next(name, frames, step, steps) for name, frames in found.frames.items()}
            return pictures | {name: values[step] for name, values in found.observation.items()}

        def state(step: int) -> np.ndarray | None:
            return None if found.sim_state is None else found.sim_state[step]

        for step in range(steps):
            last = step == steps - 1
            policy_action = proposed[step]
            if policy_action is not None and not np.isfinite(policy_action).all():
                policy_action = None
            episode.add(
                row(step), found.action[step], float(reward[step]), last and found.terminated, last and found.truncated,
                {name: float(values[step]) for name, values in found.stamps.items()}, state(step), policy_action,
                found.intervened is not None and bool(found.intervened[step]),
            )  # fmt: skip
        stamps = {name: float(values[steps]) for name, values in found.stamps.items()}
        episode.finish(row(steps), found.success, state(steps), stamps, **facts)


def _next(name: str, frames: Iterator[np.ndarray], step: int, steps: int) -> np.ndarray:
    for frame in frames:
        return frame
    raise BadEpisode(f"{name}: {step} pictures where {steps + 1} are needed")
