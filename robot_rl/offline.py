"""Offline evaluation: how well a policy predicts recorded actions, without executing any.

At every step of the recorded episodes the policy gets the observations up to that step, and its chunk is compared with
the actions that were taken from there on. Only actions that could still be executed count. The baseline repeats the
action executed last; the first step of an episode, which has none, is left out for both.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.datasets.contract import Contract, satisfies
from robot_rl.datasets.origin import converted, names, origin
from robot_rl.policies.prediction import AnyPolicy, new_generator, predict

if TYPE_CHECKING:
    from robot_rl.datasets import EpisodeStore

WINDOWS = 4096
CONSTANT = 1e-4
"""Action elements that deviate less than this count in their own unit, not in deviations."""


class OfflineError(ValueError):
    """The policy cannot be evaluated on this data; the message says what to do."""


@dataclass(frozen=True)
class ActionErrors:
    """Mean absolute errors over many windows; S = steps of a chunk from the last observation on, A = action elements.

    Attributes:
        policy, hold: float64 [S, A], in the unit of each element, of the policy and of repeating the last action.
        count: int64 [S], windows that reach so far.
        scale: float64 [A], deviation of the recorded actions; 1 for elements that do not vary.
    """

    policy: NDArray[np.float64]
    hold: NDArray[np.float64]
    count: NDArray[np.int64]
    scale: NDArray[np.float64]

    def by_element(self, errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the steps of the chunk, [A]."""
        return np.asarray((errors * self.count[:, None]).sum(axis=0) / self.count.sum())

    def overall(self, errors: NDArray[np.float64]) -> float:
        """Mean over steps and elements, in deviations of the recorded actions."""
        return float((self.by_element(errors) / self.scale).mean())

    def to_dict(self, contract: Contract) -> dict[str, Any]:
        """Plain JSON types, with the names of the elements."""
        units = [feature.unit for feature in contract.action.values() for _ in range(feature.size)]
        policy, hold = self.by_element(self.policy), self.by_element(self.hold)
        elements = {
            name: {
                "unit": unit, "deviation": float(scale), "policy": float(p), "hold": float(h),
                "policy_normalised": float(p / scale), "hold_normalised": float(h / scale),
            }
            for name, unit, scale, p, h in zip(contract.action_names, units, self.scale, policy, hold, strict=True)
        }  # fmt: skip
        return {
            "offline_action_error": self.overall(self.policy),
            "hold_baseline_error": self.overall(self.hold),
            "windows": int(self.count[0]),
            "elements": elements,
            "by_step": {
                "policy": (self.policy / self.scale).mean(axis=1).tolist(),
                "hold": (self.hold / self.scale).mean(axis=1).tolist(),
                "policy_raw": self.policy.tolist(),
                "hold_raw": self.hold.tolist(),
                "windows": self.count.tolist(),
            },
        }


def action_errors(
    policy: AnyPolicy, store: EpisodeStore, episodes: Sequence[int] | NDArray[np.int64], *, seed: int = 0,
    batch_size: int = 256, limit: int = WINDOWS,
) -> ActionErrors:  # fmt: skip
    """Errors over the windows of some episodes; over `limit` of them, drawn at random, where there are more.

    Raises:
        ContractError: the store does not offer what the policy needs.
    """
    from tqdm import tqdm

    satisfies(policy.contract, store.contract)
    # One action more at the front, where it is needed: the one executed last.
    offset = min(policy.action_offset, -1)
    horizon = policy.action_horizon + policy.action_offset - offset
    windows = store.windows(
        policy.obs_horizon, horizon, episodes=episodes, action_offset=offset, batch_size=batch_size, seed=seed,
        observation=list(policy.contract.observation),
    )  # fmt: skip
    some = windows.num_windows > limit
    batches = itertools.islice(windows, -(-limit // batch_size)) if some else windows.epoch()
    steps, dims = policy.action_horizon + policy.action_offset, policy.contract.action_dim
    sums, count = np.zeros((2, steps, dims)), np.zeros(steps, np.int64)
    generator = new_generator(policy, seed)
    total = min(limit, windows.num_windows)
    with tqdm(total=total, desc="offline", unit="window", disable=None) as bar:
        for batch in batches:
            predicted = predict(policy, batch["observation"], [generator])[:, -steps:]
            recorded, valid = batch["action"].numpy(), batch["action_valid"].numpy()
            last, now = -1 - offset, -offset
            counted = valid[:, now:] & valid[:, last, None]
            errors = np.abs(
                np.stack([predicted, np.broadcast_to(recorded[:, last, None], predicted.shape)]) - recorded[:, now:]
            )
            sums += np.where(counted[..., None], errors, 0).sum(axis=1)
            count += counted.sum(axis=0)
            bar.update(len(recorded))
    if not count.any():
        raise OfflineError(f"{store.path}: no episode of more than one step among {len(episodes)}")
    deviation = np.asarray(store.statistics(episodes)["action"].std, np.float64)
    means = sums / np.maximum(count, 1)[:, None]
    return ActionErrors(means[0], means[1], count, np.where(deviation < CONSTANT, 1.0, deviation))


@dataclass(frozen=True)
class Trace:
    """One recorded episode and the chunks that the policy predicts along it.

    Attributes:
        recorded: float32 [T, A].
        steps: int64 [n], the steps at which the chunks begin.
        chunks: float32 [n, S, A], from these steps on.
    """

    episode: int
    recorded: NDArray[np.float32]
    steps: NDArray[np.int64]
    chunks: NDArray[np.float32]


def trace(policy: AnyPolicy, store: EpisodeStore, episode: int, every: int, seed: int = 0) -> Trace:
    """Predict a chunk at every `every`-th step of an episode."""
    windows = store.windows(
        policy.obs_horizon, 1, episodes=[episode], batch_size=64, shuffle=False,
        observation=list(policy.contract.observation),
    )  # fmt: skip
    generator = new_generator(policy, seed)
    steps, chunks = [], []
    for batch in windows.epoch():
        chosen = batch["step"] % every == 0
        if chosen.any():
            observation = {name: value[chosen] for name, value in batch["observation"].items()}
            steps.append(batch["step"][chosen].numpy())
            chunks.append(predict(policy, observation, [generator])[:, -policy.action_offset :])
    return Trace(episode, store[episode].action, np.concatenate(steps), np.concatenate(chunks))


def unseen_episodes(store: EpisodeStore, provenance: Mapping[str, Any]) -> tuple[NDArray[np.int64], str]:
    """The episodes of a store that a policy was not trained on, and what they are, in words.

    Those are all successful ones, or all if none is marked as such or failures were trained on, without what the policy
    or the one that it began with was trained on: also in a store that was merged, edited or resampled.

    Raises:
        OfflineError: that is none, or nobody knows which.
    """
    made: Mapping[str, Any] | None = provenance
    seen: set[int] = set()
    while made:
        seen |= _seen(store, made)
        made = made.get("base")
    successful, every = store.select(success=True), store.select()
    failures_count = not len(successful) or not seen & {*every.tolist()} <= {*successful.tolist()}
    chosen, kind = (every, "episodes") if failures_count else (successful, "successful episodes")
    unseen = chosen[~np.isin(chosen, list(seen))]
    if seen and not len(unseen):
        raise OfflineError(
            f"{store.path} holds what the policy was trained on, and no episode was held out; give another data set, "
            "or dataset_episodes=all to measure the error on the training data"
        )
    return unseen, f"{len(unseen)} episodes held out from training" if seen else f"all {len(unseen)} {kind}"


def _seen(store: EpisodeStore, made: Mapping[str, Any]) -> set[int]:
    """The episodes of a store that a training saw, by its provenance.

    Raises:
        OfflineError: nobody knows which.
    """
    parts, trained = made.get("recordings", ()), made.get("episodes")
    firsts = [origin(store, number) for number in range(len(store))]
    unknown = OfflineError(
        f"{store.path} has recordings in common with what the policy was trained on, and nobody knows which of its "
        "episodes were held out; give another data set, or choose dataset_episodes= yourself"
    )
    if trained is not None and all(first["id"] is not None for first in firsts):
        sets: dict[str, Any] = {key: None if seen is None else {*seen} for key, seen in trained.items()}
        found = [sets.get(first["id"], set()) for first in firsts]
        others = any(first["id"] not in trained for first in firsts)
        if None in found or (others and converted(store.provenance) & trained.keys()):
            raise unknown
        return {number for number, first in enumerate(firsts) if first["episode"] in found[number]}
    for part in parts:
        for every in (store.select(success=True), store.select()):
            held = _split_again(store, every, part, int(made.get("seed", 0)))
            if held is not None:
                return {*every.tolist()} - {*held.tolist()}
        if "path" in part and Path(part["path"]).resolve() == Path(store.path).resolve():
            raise OfflineError(
                f"{store.path} has changed since the policy was trained on it, so that nobody knows which episodes "
                "were held out; give another data set, or choose dataset_episodes= yourself"
            )
        if Path(part.get("path", "")).name in names(store.provenance):
            raise unknown
    return set()


def _split_again(
    store: EpisodeStore, episodes: NDArray[np.int64], part: Mapping[str, Any], seed: int
) -> NDArray[np.int64] | None:
    """The held-out episodes of the training's split, or None if the store is not what was split."""
    training, held_out = int(part["training_episodes"]), int(part["held_out_episodes"])
    if len(episodes) != training + held_out:
        return None
    trained, held = store.split(held_out / len(episodes), seed=seed, episodes=episodes)
    fingerprint = hashlib.sha256(np.asarray(trained, np.int64).tobytes()).hexdigest()[:16]
    rows = int(store.statistics(trained)["action"].count)
    return held if (fingerprint, rows) == (part["split"], part["training_rows"]) else None
