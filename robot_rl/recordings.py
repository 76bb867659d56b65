"""The recorded episodes of a training: which of them are trained on, which are held out, and their statistics."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from robot_rl.corrections import corrected, step_weights
from robot_rl.datasets import Contract, ContractError, EpisodeStore
from robot_rl.datasets.contract import united
from robot_rl.datasets.origin import converted, origin
from robot_rl.datasets.source import ACTIONS
from robot_rl.datasets.split import split
from robot_rl.datasets.statistics import Statistics
from robot_rl.datasets.windows import Batch, Mixture, Windows, estimated
from robot_rl.policies import Policy
from robot_rl.seed import FIRST_EVALUATION_SEED, FIRST_VALIDATION_SEED


class RecordingsError(ValueError):
    """The data cannot be trained on; the message says what to do."""


@dataclass(frozen=True)
class Recording:
    """One store, with the indices of the episodes for training and of those held out, and its share of the samples."""

    store: EpisodeStore
    weight: float
    training: np.ndarray
    held_out: np.ndarray


class Recordings:
    """One or several episode stores of the same contract.

    Args:
        paths: of the stores.
        weights: share of each store among the training samples; None: by their numbers of training rows.
        held_out: share of each store's recordings that training and all statistics leave out, see `datasets.split`.
        include_failures: train on failed episodes too.
        seed: of the split.
        labels: `executed`, `intended` or a recorded feature, which then is the action of `contract`; see `Windows`.
        intervention_weight, policy_weight: of the steps of corrected episodes, see `corrections`.
        observation: features that several stores have to agree on; None: all.

    Raises:
        RecordingsError: a store is missing or holds no episode to train on, or nothing is left to learn from.
        ContractError: the stores' contracts differ.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        weights: Sequence[float] | None = None,
        held_out: float = 0.1,
        include_failures: bool = False,
        seed: int = 0,
        labels: str = "executed",
        intervention_weight: float = 1.0,
        policy_weight: float = 1.0,
        observation: Sequence[str] | None = None,
    ) -> None:
        if not paths:
            raise RecordingsError("dataset= is missing: give an episode store, or a list as in dataset=[a.zarr,b.zarr]")
        if weights is not None and (len(weights) != len(paths) or min(weights) <= 0):
            raise RecordingsError(
                f"dataset_weights={list(weights)}: expected {len(paths)} positive numbers, one for each dataset"
            )
        if not 0 <= held_out < 1:
            raise RecordingsError(f"held_out={held_out}: expected a share of at least 0 and below 1")
        stores = [_open(Path(path)) for path in paths]
        wanted = None if observation is None or len(stores) == 1 else {*observation, labels}
        self.contract = _seen(stores[0].contract, wanted)
        """Of all stores, with the widest bounds."""
        for store, path in zip(stores[1:], paths[1:], strict=True):
            try:
                # Named by their paths, as contracts of one robot often have the same name.
                other = replace(_seen(store.contract, wanted), name=str(path))
                both = united(replace(self.contract, name=str(paths[0])), other)
                self.contract = replace(both, name=self.contract.name)
            except ContractError as error:
                raise ContractError(
                    f"{paths[0]} and {path} cannot be trained on together:", error.differences,
                    _advice(self.contract, store.contract),
                ) from error  # fmt: skip
        if labels not in ACTIONS:
            self.contract = estimated(self.contract, labels)
        chosen = [_choose(store, include_failures) for store in stores]
        splits = split(stores, held_out, seed, chosen)
        if weights is None:
            weights = [
                store.statistics(training)["action"].count for store, (training, _) in zip(stores, splits, strict=True)
            ]
        self.parts = [
            Recording(store, float(weight), training, held)
            for store, weight, (training, held) in zip(stores, weights, splits, strict=True)
        ]
        self.seed, self.labels = seed, labels
        self._step_weights = self._weigh(float(intervention_weight), float(policy_weight))

    def statistics(self) -> dict[str, Statistics]:
        """Of each low-dimensional feature and of `action`, over the training episodes, each store by its share."""
        found = self._mixture(self.parts).statistics([part.training for part in self.parts])
        return found if self.labels in ACTIONS else {**found, "action": found[self.labels]}

    def windows(self, policy: Policy, batch_size: int, **options: Any) -> Windows:
        """Endless shuffled batches of what the policy needs, from the training episodes."""
        return self._mixture(self.parts).windows(
            policy.obs_horizon, policy.action_horizon, action_offset=policy.action_offset,
            episodes=[part.training for part in self.parts], observation=list(policy.contract.observation),
            batch_size=batch_size, seed=self.seed, labels=self.labels, weights=self._step_weights, **options,
        )  # fmt: skip

    def held_out_batches(self, policy: Policy, batch_size: int, number: int) -> Iterator[Batch]:
        """At most that many batches of the held-out episodes, always the same ones; none when nothing is held out."""
        kept = [index for index, part in enumerate(self.parts) if len(part.held_out)]
        parts = [self.parts[index] for index in kept]
        if not parts:
            return
        weights = None if self._step_weights is None else [self._step_weights[index] for index in kept]
        available = sum(part.store.statistics(part.held_out)["action"].count for part in parts)
        windows = self._mixture(parts).windows(
            policy.obs_horizon, policy.action_horizon, action_offset=policy.action_offset,
            episodes=[part.held_out for part in parts], observation=list(policy.contract.observation),
            batch_size=min(batch_size, available), seed=self.seed, labels=self.labels, weights=weights,
        )  # fmt: skip
        yield from itertools.islice(windows, max(1, min(number, available // batch_size)))

    def environment(self) -> dict[str, Any] | None:
        """Specification of the simulated environment that the first store was recorded in, where there is one."""
        spec = self.parts[0].store.provenance.get("environment")
        return dict(spec) if isinstance(spec, Mapping) else None

    def evaluation_episodes(self) -> int:
        """How many of the training episodes begin as those of an evaluation, which would know them then."""
        seeds = [part.store.facts(int(number)).get("seed") for part in self.parts for number in part.training]
        return sum(isinstance(seed, int) and FIRST_EVALUATION_SEED <= seed < FIRST_VALIDATION_SEED for seed in seeds)

    def describe(self) -> list[dict[str, Any]]:
        """For the provenance of a policy, and to know the same data again: plain JSON types."""
        return [
            {
                "path": str(part.store.path),
                "weight": part.weight,
                "training_episodes": len(part.training),
                "held_out_episodes": len(part.held_out),
                "training_rows": int(part.store.statistics(part.training)["action"].count),
                "split": hashlib.sha256(np.asarray(part.training, np.int64).tobytes()).hexdigest()[:16],
            }
            for part in self.parts
        ]

    @cached_property
    def origins(self) -> dict[str, list[int] | None] | None:
        """The training episodes by the id of the store that they were first recorded into, see `datasets.origin`.

        Of a store that was converted, None: perhaps all. None as a whole: the origin of some is not known.
        """
        firsts = [origin(part.store, number) for part in self.parts for number in part.training.tolist()]
        found: dict[Any, list[int]] = {}
        for first in firsts:
            found.setdefault(first["id"], []).append(first["episode"])
        from_others = {name: None for part in self.parts for name in converted(part.store.provenance)}
        return None if None in found else {**found, **from_others}

    def _mixture(self, parts: Sequence[Recording]) -> Mixture:
        """Of what they hold that is trained on, and no text."""
        names = [name for name, feature in self.contract.observation.items() if feature.kind != "text"]
        return Mixture([(part.store, part.weight) for part in parts], names)

    def _weigh(self, intervention: float, policy: float) -> list[np.ndarray] | None:
        """Weights of all rows of each store, one on average over the samples; None where every step counts alike."""
        given = f"intervention_weight={intervention:g}, policy_weight={policy:g}"
        if not (0 <= intervention < np.inf and 0 <= policy < np.inf):
            raise RecordingsError(f"{given}: expected numbers of at least 0")
        if intervention == policy == 1:
            return None
        if not any(corrected(part.store, part.training) for part in self.parts):
            raise RecordingsError(
                f"{given}: no policy acted in any of the episodes, so that there is nothing to weigh. Record "
                "corrections with `robot-rl teleop policy=…`, or leave both weights at 1."
            )
        weights, mean, total = [], 0.0, sum(part.weight for part in self.parts)
        for part in self.parts:
            rows = step_weights(part.store, np.union1d(part.training, part.held_out), intervention, policy)
            starts, lengths = part.store.episode_starts[part.training], part.store.lengths[part.training]
            trained = np.concatenate([
                rows[first : first + count] for first, count in zip(starts, lengths, strict=True)
            ])
            mean += part.weight / total * float(trained.mean())
            weights.append(rows)
        if mean == 0:
            raise RecordingsError(f"{given}: no step is left to learn from")
        return [rows / np.float32(mean) for rows in weights]


def _seen(contract: Contract, wanted: Collection[str] | None) -> Contract:
    """With the wanted features that there are; a policy that wants others says so itself."""
    return contract if wanted is None else contract.select([name for name in contract.observation if name in wanted])


def _advice(a: Contract, b: Contract) -> str:
    """What can be done with stores of these contracts."""
    common = [name for name in a.observation if name in b.observation]
    try:
        united(a.select(common), replace(b.select(common), name=a.name))
    except ContractError:
        return "Convert one of them, or train on one."
    return f"Observe what both hold, by policy.observation=[{','.join(common)}] or some of these, or train on one."


def _open(path: Path) -> EpisodeStore:
    if not path.exists():
        raise RecordingsError(
            f"{path}: no such episode store; record one with `robot-rl collect task=lift output={path}`"
        )
    store = EpisodeStore.open(path)
    if len(store) == 0:
        raise RecordingsError(f"{path} holds no episode; record some with `robot-rl collect task=lift output={path}`")
    return store


def _choose(store: EpisodeStore, include_failures: bool) -> np.ndarray:
    if include_failures:
        return store.select()
    chosen = store.select(success=True)
    if len(chosen) == 0:
        whole = len(store.select())
        damaged = len(store) - whole
        raise RecordingsError(
            f"{store.path}: none of its {len(store)} episodes is marked as a success"
            + (f" and whole; {damaged} are marked as damaged, see `robot-rl data check`" if damaged else "")
            + (". Mark them with `robot-rl data tag`, or take all with include_failures=true." if whole else ".")
        )
    return chosen
