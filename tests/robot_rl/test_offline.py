"""Offline errors against plain loops over the episodes."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch

from robot_rl.datasets import Contract, ContractError, EpisodeStore, Feature, edit
from robot_rl.datasets.formats import diffusion_policy
from robot_rl.datasets.resample import resample
from robot_rl.offline import OfflineError, action_errors, trace, unseen_episodes
from robot_rl.recordings import Recordings

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


def trained(path, held_out=0.25, **options):
    """The provenance of a policy, and the seeds of the episodes that it did not see, which tell them apart."""
    recordings = Recordings([path], held_out=held_out, **options)
    made = {"seed": 0, "recordings": recordings.describe(), "episodes": recordings.origins}
    held = recordings.parts[0].held_out.tolist()
    return json.loads(json.dumps(made)), {recordings.parts[0].store.facts(number)["seed"] for number in held}


def unseen(store, provenance):
    numbers, words = unseen_episodes(store, provenance)
    return {store.facts(int(number))["seed"] for number in numbers}, words


def merged(path, *parts):
    return edit.assemble(path, [part for store in parts for part in edit.whole(store)])


def test_what_was_trained_on_is_known_again_in_whatever_was_made_of_it(tmp_path):
    store = record(tmp_path / "a.zarr", [5, 6, 7, 8, 9, 10, 11, 12])
    provenance, held = trained(store.path)
    assert len(held) == 2
    other = record(tmp_path / "other/a.zarr", [7, 6, 5])
    other.annotate([0, 1, 2], seed=100)
    made = {
        "merged": merged(tmp_path / "merged.zarr", other, store),
        "resampled": resample(store, tmp_path / "resampled.zarr", rate_hz=5.0),
        "trimmed": edit.assemble(tmp_path / "trimmed.zarr", [edit.Part(store, n, 1) for n in range(8)]),
    }
    made["both"] = merged(tmp_path / "both.zarr", merged(tmp_path / "slow.zarr", made["resampled"]), made["resampled"])
    shutil.rmtree(store.path)
    for name, each in made.items():
        seeds, words = unseen(each, provenance)
        assert seeds == held | ({100} if name == "merged" else set()), name
        assert "held out from training" in words
    assert unseen(other, provenance) == ({100}, "all 3 successful episodes")
    finetuned = {"seed": 1, "base": provenance}
    assert unseen(made["resampled"], finetuned)[0] == held


def test_the_other_part_of_a_split_was_not_trained_on(tmp_path):
    store = record(tmp_path / "a.zarr", [5, 6, 7, 8])
    one, other = (edit.assemble(tmp_path / name, edit.whole(store, n)) for name, n in (("x", [0, 2]), ("y", [1, 3])))
    provenance, _ = trained(one.path, held_out=0.0)
    assert unseen(other, provenance) == ({1, 3}, "all 2 successful episodes")
    assert unseen(store, provenance) == ({1, 3}, "2 episodes held out from training")
    for same in (one, resample(one, tmp_path / "z", rate_hz=5.0)):
        with pytest.raises(OfflineError, match="no episode was held out"):
            unseen(same, provenance)


def test_what_was_recorded_into_a_store_after_the_training_was_not_trained_on(tmp_path):
    store = record(tmp_path / "a.zarr", [5, 6, 7, 8])
    provenance, held = trained(store.path)
    edit.replace(store.path, edit.whole(store, [0, 1]))
    store = record(store.path, [5, 6, 7, 8])
    store.annotate([2, 3, 4, 5], seed=100)
    assert unseen(store, provenance)[0] == (held & {0, 1}) | {100}


def test_failures_that_were_trained_on_count_as_others(tmp_path):
    store = record(tmp_path / "a.zarr", [5, 6, 7, 8, 9, 10], success=[True, False] * 3)
    provenance, held = trained(store.path, held_out=0.5, include_failures=True)
    assert unseen(merged(tmp_path / "b.zarr", store), provenance)[0] == held


def test_of_a_conversion_nobody_knows_which_episodes_were_trained_on(tmp_path):
    store = record(tmp_path / "a.zarr", [5, 6, 7, 8])
    diffusion_policy.write(store, tmp_path / "theirs.zarr")
    converted = diffusion_policy.read(tmp_path / "theirs.zarr", tmp_path / "b.zarr").store
    again = diffusion_policy.read(tmp_path / "theirs.zarr", tmp_path / "c.zarr").store
    for policy_of, others in ((store, (converted, again)), (converted, (store, again))):
        provenance, held = trained(policy_of.path)
        assert unseen(policy_of, provenance)[0] == held
        for each in others:
            with pytest.raises(OfflineError, match="nobody knows which"):
                unseen(each, provenance)


def test_what_earlier_versions_left_is_known_by_name(tmp_path):
    store = record(tmp_path / "a.zarr", [5, 6, 7, 8])
    provenance, _ = described(store, 0.5, seed=0)
    for made in (merged(tmp_path / "b.zarr", store, store), resample(store, tmp_path / "c.zarr", rate_hz=5.0)):
        with pytest.raises(OfflineError, match="nobody knows which"):
            unseen_episodes(made, provenance)
