"""Weights of corrected episodes in training, against weights written down by hand."""

import dataclasses

import numpy as np
import pytest

from robot_rl.corrections import step_weights
from robot_rl.datasets import Contract, ContractError, EpisodeStore
from robot_rl.policies import build_policy
from robot_rl.recordings import Recordings, RecordingsError

CONTRACT = Contract.from_dict({
    "name": "slide", "rate_hz": 10,
    "observation": {"x": {"shape": [2], "unit": "m"}},
    "action": {"x": {"shape": [2], "unit": "m", "mode": "absolute"}},
})  # fmt: skip
POLICY = {"denoiser": {"name": "mlp", "width": 8, "depth": 1, "time_features": 4}, "encoder": {"name": "low_dim"}}
INTERVENED = [[False, False, True], [False, True, True, False]]


def record(path, corrected, contract=CONTRACT):
    """Two demonstrations of three and four steps, or corrected episodes of the same lengths."""
    EpisodeStore.create(path, contract)
    generator = np.random.default_rng(1)
    with EpisodeStore.append(path, contract) as writer:
        for marks in INTERVENED:
            with writer.episode(task="slide", source="intervention" if corrected else "teleop") as episode:
                for mark in marks:
                    x, action = generator.normal(size=(2, 2)).astype(np.float32)
                    more = {"policy_action": action, "intervened": mark} if corrected else {}
                    episode.add({"x": x}, action, **more)
                episode.finish({"x": x}, success=True)
    return path


def test_each_step_has_the_weight_of_who_decided_it(tmp_path):
    store = EpisodeStore.open(record(tmp_path / "corrections.zarr", True))
    weights = step_weights(store, np.arange(2), intervention=2.0, policy=0.5)
    # The row after the last action of an episode counts for nothing.
    assert weights.tolist() == [0.5, 0.5, 2.0, 1.0, 0.5, 2.0, 2.0, 0.5, 1.0]
    assert step_weights(store, np.array([1]), 2.0, 0.5)[:4].tolist() == [1.0] * 4
    store = EpisodeStore.open(record(tmp_path / "demonstrations.zarr", False))
    assert set(step_weights(store, np.arange(2), 2.0, 0.5)) == {1.0}


def test_the_windows_of_a_mixture_hand_out_weights_that_are_one_on_average(tmp_path):
    paths = [record(tmp_path / "a.zarr", False), record(tmp_path / "b.zarr", True)]
    recordings = Recordings(paths, held_out=0.0, intervention_weight=1.0, policy_weight=0.0)
    policy = build_policy(POLICY, recordings.contract, recordings.statistics())
    windows = recordings.windows(policy, 14, pin_memory=False)
    (batch,) = [next(iter(windows))]
    # Seven of the fourteen steps are demonstrations and three were corrected: those share the whole weight.
    assert batch["weight"].mean() == pytest.approx(1.0)
    found = {}
    for source, episode, step, weight in zip(
        *(batch[name].tolist() for name in ("source", "episode", "step", "weight")), strict=True
    ):
        found[source, episode, step] = weight
    for (source, episode, step), weight in found.items():
        counts = source == 0 or INTERVENED[episode][step]
        assert weight == pytest.approx(1.4 if counts else 0.0)
    # Of a chunk, too, only what the person did is learnt.
    corrected = (batch["source"] == 1) & (batch["episode"] == 1) & (batch["step"] == 1)
    assert batch["action_valid"][corrected][0].tolist() == [True, True, *[False] * (policy.action_horizon - 2)]


def test_demonstrations_and_corrections_may_differ_in_the_bounds_of_the_robot(tmp_path):
    wide = dataclasses.replace(CONTRACT.action["x"], lower=(-1.0, -1.0), upper=(1.0, 2.0))
    narrow = dataclasses.replace(wide, upper=(0.5, 3.0))
    paths = []
    for name, feature in (("a", wide), ("b", narrow)):
        contract = dataclasses.replace(CONTRACT, name=name, action={"x": feature})
        paths.append(record(tmp_path / f"{name}.zarr", name == "b", contract))
    assert Recordings(paths, held_out=0.0).contract.action["x"].upper == (1.0, 3.0)
    paths[1] = record(tmp_path / "c.zarr", True, dataclasses.replace(CONTRACT, rate_hz=20))
    with pytest.raises(ContractError, match=r"(?s)c\.zarr cannot be trained on together.*rate_hz"):
        Recordings(paths)


def test_weights_that_cannot_be_meant_are_refused(tmp_path):
    demonstrations, corrections = record(tmp_path / "a.zarr", False), record(tmp_path / "b.zarr", True)
    with pytest.raises(RecordingsError, match="nothing to weigh"):
        Recordings([demonstrations], policy_weight=0.0)
    with pytest.raises(RecordingsError, match="at least 0"):
        Recordings([corrections], intervention_weight=-1.0)
    with pytest.raises(RecordingsError, match="no step is left"):
        Recordings([corrections], intervention_weight=0.0, policy_weight=0.0)
