"""Batches against the episodes that they were drawn from, step by step."""

from pathlib import Path

import numpy as np
import pytest
import torch

from robot_rl.datasets import Contract, EpisodeStore, Feature
from robot_rl.rl.methods import fresh_policy
from robot_rl.rl.replay import Replay, symmetric
from tests.robot_rl.rl.stored import squashed_policy, store_episodes

GAMMA, LENGTHS, TERMINATED = 0.9, [5, 1, 8, 3], [True, True, False, False]


def filled(store: EpisodeStore, execute: int = 1, chunks: int = 1, obs_horizon: int = 1) -> Replay:
    replay = Replay(squashed_policy(max(execute, 1), obs_horizon), execute, chunks * execute, GAMMA)
    for episode in store:
        replay.add(episode)
    return replay


@pytest.mark.parametrize(("execute", "chunks", "obs_horizon"), [(1, 1, 1), (1, 3, 1), (3, 1, 1), (2, 2, 2)])
def test_returns_equal_the_sums_written_out(execute: int, chunks: int, obs_horizon: int, tmp_path: Path) -> None:
    store = store_episodes(tmp_path / "e.zarr", LENGTHS, TERMINATED)
    replay = filled(store, execute, chunks, obs_horizon)
    assert len(replay) == sum(LENGTHS)
    batch, number = replay.at(torch.arange(len(replay))), 0
    for episode in store:
        place, action, reward = episode.observation["place"][:, 0], episode.action[:, 0], episode.reward
        for step in range(episode.length):
            total, steps = 0.0, 0
            while steps < execute * chunks and step + steps < episode.length:
                total += GAMMA**steps * float(reward[step + steps])
                steps += 1
            over = step + steps == episode.length and bool(episode.terminated[-1])
            assert batch.reward[number].item() == pytest.approx(total, abs=1e-5)
            assert batch.discount[number].item() == pytest.approx(0.0 if over else GAMMA**steps, abs=1e-6)
            chunk = [action[min(step + k, episode.length - 1)] for k in range(execute)]
            np.testing.assert_allclose(batch.chunk[number].numpy(), chunk, rtol=1e-5)
            assert batch.valid is not None
            assert batch.valid[number].tolist() == [step + k < episode.length for k in range(execute)]
            for seen, at in ((batch.context, step), (batch.following, step + steps)):
                window = [place[max(0, at - back)] for back in range(obs_horizon - 1, -1, -1)]
                np.testing.assert_allclose(seen[number].numpy(), window, rtol=1e-5)
            number += 1


@pytest.mark.parametrize("frames", [None, 2, 1])
def test_contexts_are_those_that_the_policy_acts_by_also_where_it_sees_few_pictures(
    frames: int | None, tmp_path: Path
) -> None:  # fmt: skip
    seen = {"place": Feature("place", (1,)), "front": Feature("front", (8, 8, 3), dtype="uint8", kind="image")}
    contract = Contract("seen", 10.0, seen, {"push": Feature("push", (1,), kind="action", lower=(-1.0,), upper=(1.0,))})
    policy = fresh_policy(
        {
            "obs_horizon": 3, "action_horizon": 1, "frames": frames, "process": {"name": "tanh_gaussian"},
            "encoder": {"name": "grid_cnn", "channels": [4, 8], "grid": [1, 1], "features": 8},
            "denoiser": {"name": "perceptron", "width": 8},
        },
        contract,
    )  # fmt: skip
    draw = np.random.default_rng(0)
    columns = {"place": draw.normal(size=(6, 1)), "front": draw.integers(0, 256, (6, 8, 8, 3), np.uint8)}
    rows = [{"place": columns["place"][row].astype(np.float32), "front": columns["front"][row]} for row in range(6)]
    EpisodeStore.create(tmp_path / "e.zarr", contract, encoding={"front": "lz4"})
    with EpisodeStore.append(tmp_path / "e.zarr") as writer, writer.episode(task="seen", source="policy") as episode:
        for step in range(5):
            episode.add(rows[step], np.zeros(1, np.float32), truncated=step == 4)
        episode.finish(rows[5], success=False)
    replay = Replay(policy, 1, 1, GAMMA)
    replay.add(EpisodeStore.open(tmp_path / "e.zarr")[0])
    window = np.maximum(np.arange(6)[:, None] + np.arange(-2, 1), 0)
    with torch.no_grad():
        acted = policy.encode({name: np.stack([row[name] for row in rows])[window] for name in seen}).flatten(1)
    batch = replay.at(torch.arange(5))
    torch.testing.assert_close(batch.context, acted[:5])
    torch.testing.assert_close(batch.following, acted[1:])


def test_an_end_is_worth_nothing_more_and_a_cut_off_what_would_have_come(tmp_path: Path) -> None:
    store = store_episodes(tmp_path / "e.zarr", [4, 4], [True, False])
    batch = filled(store).at(torch.tensor([3, 7]))
    assert batch.discount.tolist() == pytest.approx([0.0, GAMMA])
    final = store[1].observation["place"][-1]
    np.testing.assert_allclose(batch.following[1].numpy(), final)


def test_actions_beyond_the_bounds_count_as_executed_at_them(tmp_path: Path) -> None:
    store = store_episodes(tmp_path / "e.zarr", [3], [True])
    replay = Replay(squashed_policy(), 1, 1, GAMMA)
    with torch.no_grad():
        replay.policy.action_normalizer.spread.fill_(0.1)
    replay.add(store[0])
    assert replay.at(torch.arange(3)).chunk.abs().max() <= 1.0


@pytest.mark.parametrize(("share", "recorded"), [(0.5, 32), (0.25, 16), (0.0, 0)])
def test_a_batch_holds_exactly_its_share_of_demonstrations(share: float, recorded: int, tmp_path: Path) -> None:
    own = filled(store_episodes(tmp_path / "own.zarr", LENGTHS, TERMINATED, seed=1))
    demonstrations = filled(store_episodes(tmp_path / "demo.zarr", [9], [True], seed=2))
    batch = symmetric(own, demonstrations if share else None, share, 64, torch.Generator().manual_seed(0))
    known = set(EpisodeStore.open(tmp_path / "demo.zarr")[0].observation["place"][:-1, 0].tolist())
    assert sum(value in known for value in batch.context[:, 0].tolist()) == recorded
    assert len(batch.reward) == 64


def test_every_transition_is_drawn_alike_also_after_it_has_grown(tmp_path: Path) -> None:
    store = store_episodes(tmp_path / "e.zarr", LENGTHS, TERMINATED)
    replay = filled(store)
    size = replay._size
    for _ in range(300):  # 21 rows each: past the first reservation
        for episode in store:
            replay.add(episode)
    assert replay._size > size
    first, last = replay.at(torch.arange(17)), replay.at(torch.arange(300 * 17, 301 * 17))
    torch.testing.assert_close(first.reward, last.reward)
    torch.testing.assert_close(first.following, last.following)
    batch = replay.sample(20_000, torch.Generator().manual_seed(0))
    assert (batch.discount == 0).float().mean().item() == pytest.approx(2 / 17, abs=0.01)
