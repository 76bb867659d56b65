"""Offline errors against plain loops over the episodes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from robot_rl.datasets import Contract, ContractError, EpisodeStore, Feature
from robot_rl.offline import OfflineError, action_errors, trace, unseen_episodes

CONTRACT = Contract(
    "arm", 10.0, {"x": Feature("x", (2,), unit="rad"), "extra": Feature("extra", (1,))},
    {"arm": Feature("arm", (2,), kind="action", unit="rad"), "grip": Feature("grip", (1,), kind="action", unit="m")},
    "servo",
)  # fmt: skip


def record(path, lengths, success=None):
    store = EpisodeStore.open(path) if path.exists() else EpisodeStore.create(path, CONTRACT)
    random = np.random.default_rng(0)
    with EpisodeStore.append(path) as writer:
        for number, length in enumerate(lengths):
            with writer.episode(seed=number) as episode:
                x = random.normal(size=(length + 1, 2)).cumsum(axis=0).astype(np.float32)
                for t in range(length):
                    action = np.array([*x[t], 0.04], np.float32)
                    episode.add({"x": x[t], "extra": np.zeros(1, np.float32)}, action)
                final = {"x": x[length], "extra": np.zeros(1, np.float32)}
                episode.finish(final, success=True if success is None else success[number])
    store.refresh()
    return store


class Linear:
    """Predicts (x_now + 0.1·j, 0.04 + 0.01·j) for step j after the last observation; needs both observations."""

    contract, obs_horizon = CONTRACT.select(["x"]), 2

    def __init__(self, action_horizon=4, action_offset=0):
        self.action_horizon, self.action_offset = action_horizon, action_offset

    def encode(self, observation):
        assert set(observation) == {"x"}
        assert observation["x"].shape[1:] == (2, 2)
        return observation["x"]

    def sample(self, context, prefix=None, generator=None, guidance=None):
        j = torch.arange(self.action_horizon) + self.action_offset
        chunk = torch.zeros(len(context), 1, self.action_horizon, 3)
        chunk[..., :2] = context[:, -1, None, None] + 0.1 * j[:, None]
        chunk[..., 2] = 0.04 + 0.01 * j
        return chunk


@pytest.mark.parametrize("offset", [0, -1, -2])
def test_errors_are_those_of_a_plain_loop(tmp_path, offset):
    store = record(tmp_path / "a.zarr", [7, 3, 12])
    policy = Linear(action_horizon=5, action_offset=offset)
    found = action_errors(policy, store, [0, 2], batch_size=3)
    steps = 5 + offset
    errors = {(who, j): [] for who in ("policy", "hold") for j in range(steps)}
    for index in (0, 2):
        actions, x = store[index].action, store[index].observation["x"]
        for t in range(1, len(actions)):
            for j in range(min(steps, len(actions) - t)):
                predicted = np.array([*(x[t] + 0.1 * j), 0.04 + 0.01 * j])
                errors["policy", j].append(np.abs(predicted - actions[t + j]))
                errors["hold", j].append(np.abs(actions[t - 1] - actions[t + j]))
    for j in range(steps):
        np.testing.assert_allclose(found.policy[j], np.mean(errors["policy", j], axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.hold[j], np.mean(errors["hold", j], axis=0), rtol=1e-5, atol=1e-6)
        assert found.count[j] == len(errors["hold", j])
    actions = np.concatenate([store[0].action, store[2].action])
    scale = np.array([*actions.std(axis=0)[:2], 1.0])
    np.testing.assert_allclose(found.scale, scale, rtol=1e-5)
    everything = np.concatenate([errors["policy", j] for j in range(steps)])
    assert found.overall(found.policy) == pytest.approx((everything.mean(axis=0) / scale).mean(), rel=1e-5)
    plain = found.to_dict(CONTRACT)
    assert plain["elements"]["arm[0]"]["unit"] == "rad"
    assert plain["elements"]["grip"]["hold"] == pytest.approx(0, abs=1e-9)
    assert plain["windows"] == 6 + 11


def test_many_windows_are_sampled(tmp_path):
    store = record(tmp_path / "a.zarr", [40, 40])
    found = action_errors(Linear(), store, [0, 1], batch_size=8, limit=16)
    assert 12 <= found.count[0] <= 16


def test_an_episode_of_one_step_has_no_last_action(tmp_path):
    store = record(tmp_path / "a.zarr", [1, 1])
    with pytest.raises(OfflineError, match="more than one step"):
        action_errors(Linear(), store, [0])


def test_a_store_that_lacks_a_feature_is_refused(tmp_path):
    store = record(tmp_path / "a.zarr", [5])
    policy = Linear()
    policy.contract = Contract("other", 10.0, {"y": Feature("y", (2,))}, CONTRACT.action, "servo")
    with pytest.raises(ContractError, match=r"observation\.y"):
        action_errors(policy, store, [0])


@pytest.mark.parametrize("offset", [0, -1])
def test_a_trace_has_a_chunk_at_every_nth_step(tmp_path, offset):
    store = record(tmp_path / "a.zarr", [100, 70])
    found = trace(Linear(action_offset=offset), store, 1, every=3)
    assert found.steps.tolist() == list(range(0, 70, 3))
    assert found.chunks.shape == (24, 4 + offset, 3)
    np.testing.assert_array_equal(found.recorded, store[1].action)
    np.testing.assert_allclose(found.chunks[:, 0, :2], store[1].observation["x"][found.steps])


def described(store, held_out, seed, episodes=None):
    training, held = store.split(held_out, seed=seed, episodes=episodes)
    part = {
        "path": str(store.path), "training_episodes": len(training), "held_out_episodes": len(held),
        "training_rows": int(store.statistics(training)["action"].count),
        "split": hashlib.sha256(np.asarray(training, np.int64).tobytes()).hexdigest()[:16],
    }  # fmt: skip
    return {"seed": seed, "recordings": [part]}, held


def test_of_the_training_data_the_held_out_episodes_are_taken(tmp_path):
    store = record(tmp_path / "a.zarr", [5, 6, 7, 8, 9, 10, 11, 12], success=[True, False] * 4)
    for episodes in (None, np.arange(8)):
        provenance, held = described(store, 0.3, seed=5, episodes=episodes)
        found, words = unseen_episodes(store, provenance)
        assert found.tolist() == held.tolist()
        assert "held out" in words
    moved = tmp_path / "moved.zarr"
    (tmp_path / "a.zarr").rename(moved)
    assert unseen_episodes(EpisodeStore.open(moved), provenance)[0].tolist() == held.tolist()


def test_of_other_data_the_successful_episodes_are_taken(tmp_path):
    provenance, _ = described(record(tmp_path / "a.zarr", [5, 6, 7, 8]), 0.5, seed=0)
    other = record(tmp_path / "b.zarr", [5, 6, 7, 9], success=[True, False, True, True])
    assert unseen_episodes(other, provenance)[0].tolist() == [0, 2, 3]
    failures = record(tmp_path / "c.zarr", [5, 6], success=[False, False])
    assert unseen_episodes(failures, {})[0].tolist() == [0, 1]


def test_training_data_without_held_out_episodes_are_refused(tmp_path):
    store = record(tmp_path / "a.zarr", [5, 6, 7, 8])
    with pytest.raises(OfflineError, match="no episode was held out"):
        unseen_episodes(store, described(store, 0.0, seed=0)[0])
    provenance, _ = described(store, 0.5, seed=0)
    store = record(store.path, [9])
    by_another_name = EpisodeStore.open(tmp_path / ".." / tmp_path.name / "a.zarr")
    for same in (store, by_another_name):
        with pytest.raises(OfflineError, match="has changed"):
            unseen_episodes(same, provenance)
