from __future__ import annotations

import itertools
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robot_rl.datasets import windows
from robot_rl.datasets.contract import Contract, ContractError
from robot_rl.datasets.errors import StoreError
from robot_rl.datasets.frames import FrameReader
from robot_rl.datasets.store import EpisodeStore
from robot_rl.datasets.windows import Mixture

CONTRACT = {
    "name": "toy",
    "rate_hz": 10,
    "observation": {
        "position": {"shape": [3]},
        "counter": {"shape": [1], "dtype": "int64"},
        "front": {"shape": [6, 5, 3], "dtype": "uint8", "kind": "image"},
        "depth": {"shape": [4, 7, 1], "dtype": "uint16", "kind": "depth"},
    },
    "action": {"arm": {"shape": [3]}, "gripper": {"shape": [1]}},
}
LENGTHS = (7, 1, 13, 2, 30, 5, 19)
FAILED = (2,)


def make_store(path: Path, lengths: tuple[int, ...] = LENGTHS, offset: float = 0.0, **changes: Any) -> EpisodeStore:
    contract = Contract.from_dict({**CONTRACT, **changes})
    generator = np.random.default_rng(len(lengths))
    EpisodeStore.create(path, contract, encoding="png")
    with EpisodeStore.append(path) as writer:
        for number, length in enumerate(lengths):

            def observe(number: int = number) -> dict[str, np.ndarray]:
                return {
                    "position": generator.normal(number + offset, 1, 3).astype(np.float32),
                    "counter": np.array([number]),
                    "front": generator.integers(0, 256, (6, 5, 3), dtype=np.uint8),
                    "depth": generator.integers(0, 2**16, (4, 7, 1), dtype=np.uint16),
                }

            with writer.episode() as episode:
                for _ in range(length):
                    episode.add(observe(), generator.normal(offset, 1, 4).astype(np.float32))
                episode.finish(observe(), success=number not in FAILED)
    return EpisodeStore.open(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return make_store(tmp_path_factory.mktemp("windows") / "toy.zarr")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return make_store(tmp_path_factory.mktemp("windows") / "other.zarr", (4, 9, 11), offset=50.0)


def expected(store: EpisodeStore, episode: int, step: int, To: int, H: int, offset: int) -> dict[str, Any]:
    """One window, by loops over what the store says of its episode."""
    whole = store[episode]
    observed = range(step - To + 1, step + 1)
    acted = range(step + offset, step + offset + H)
    return {
        "observation": {
            name: np.stack([whole.observation[name][max(t, 0)] for t in observed])
            for name in ("position", "counter", "front", "depth")
        },
        "observation_valid": [t >= 0 for t in observed],
        "action": np.stack([whole.action[min(max(t, 0), whole.length - 1)] for t in acted]),
        "action_valid": [0 <= t < whole.length for t in acted],
    }


def check(batch: dict[str, Any], stores: list[EpisodeStore], To: int, H: int, offset: int) -> None:
    for row in range(len(batch["action"])):
        source = stores[int(batch["source"][row])]
        wanted = expected(source, int(batch["episode"][row]), int(batch["step"][row]), To, H, offset)
        for name, value in wanted.pop("observation").items():
            np.testing.assert_array_equal(batch["observation"][name][row].numpy(), value, err_msg=name)
        for name, value in wanted.items():
            np.testing.assert_array_equal(batch[name][row].numpy(), value, err_msg=name)


def origins(batch: dict[str, Any]) -> list[tuple[int, int, int]]:
    return list(zip(*(batch[name].tolist() for name in ("source", "episode", "step")), strict=True))


def same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert origins(left) == origins(right)
    for name, value in left["observation"].items():
        assert torch.equal(value, right["observation"][name])
    for name in ("action", "observation_valid", "action_valid", "weight"):
        assert torch.equal(left[name], right[name])


def take(windows: Any, number: int) -> list[dict[str, Any]]:
    return list(itertools.islice(windows, number))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    To=st.integers(1, 5),
    H=st.integers(1, 20),
    offset=st.integers(-6, 6),
    batch_size=st.integers(1, 17),
    workers=st.sampled_from([0, 2]),
    seed=st.integers(0, 1000),
)
def test_equals_loops_over_episodes(store, To, H, offset, batch_size, workers, seed):
    windows = store.windows(To, H, action_offset=offset, batch_size=batch_size, workers=workers, seed=seed)
    for batch in take(windows, 2):
        check(batch, [store], To, H, offset)


def test_shapes_and_dtypes(store):
    batch = next(iter(store.windows(2, 4, batch_size=3)))
    kinds = {name: (tuple(value.shape), value.dtype) for name, value in batch["observation"].items()}
    assert kinds == {
        "position": ((3, 2, 3), torch.float32),
        "counter": ((3, 2, 1), torch.float32),
        "front": ((3, 2, 6, 5, 3), torch.uint8),
        "depth": ((3, 2, 4, 7, 1), torch.uint16),
    }
    assert batch["action"].shape == (3, 4, 4)
    assert batch["action"].dtype == batch["weight"].dtype == torch.float32
    assert batch["observation_valid"].dtype == batch["action_valid"].dtype == torch.bool


@pytest.mark.parametrize("workers", [0, 3])
def test_an_epoch_holds_every_window_once_in_order(store, workers):
    windows = store.windows(2, 3, batch_size=8, workers=workers, seed=5)
    batches = list(windows.epoch())
    wanted = [(0, e, t) for e, length in enumerate(LENGTHS) if e not in FAILED for t in range(length)]
    assert [origin for batch in batches for origin in origins(batch)] == wanted
    assert len(batches) == len(windows) == -(-len(wanted) // 8)
    assert windows.position == 0


def test_every_epoch_of_the_endless_stream_holds_every_window_in_another_order(store):
    windows = store.windows(1, 1, batch_size=4, observation=["position"])
    number = windows.num_windows
    stream = [origin for batch in take(windows, number) for origin in origins(batch)]
    epochs = [stream[start : start + number] for start in range(0, 4 * number, number)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert epochs[0] != sorted(epochs[0])


def test_windows_with_cameras_decode_shared_frames_once_and_say_so_in_their_state(store, monkeypatch):
    decoded: list[int] = []
    whole = FrameReader.decode

    def counted(self: Any, rows: np.ndarray, out: Any) -> None:
        decoded.extend(rows.tolist())
        whole(self, rows, out)

    monkeypatch.setattr(FrameReader, "decode", counted)
    windows = store.windows(2, 3, batch_size=5, observation=["front", "position"], seed=2)
    batches = take(windows, windows.num_windows // 5)
    for batch in batches[:4]:
        assert batch["observation"]["front"].shape[1] == 2
    needed = sum(len({(e, max(t - 1, 0)), (e, t)}) for batch in batches for _, e, t in origins(batch))
    assert len(decoded) < 0.7 * needed
    assert windows.state_dict()["run"] > 1
    assert store.windows(1, 3).state_dict()["run"] == store.windows(2, 3, shuffle=False).state_dict()["run"] == 1


@pytest.mark.parametrize("run", [1, 2, 4])
def test_a_state_goes_on_in_runs_as_long_as_its_own(store, monkeypatch, run):
    monkeypatch.setattr(windows, "RUN", run)
    recorded = store.windows(2, 2, batch_size=3, seed=4)
    take(recorded, 7)
    state = recorded.state_dict()
    assert state["run"] == run
    wanted = [origins(batch) for batch in take(recorded, 40)]
    if run == 1:
        del state["run"]  # as before there were runs
    monkeypatch.undo()
    resumed = store.windows(2, 2, batch_size=3, seed=4)
    assert resumed.state_dict()["run"] > run
    resumed.load_state_dict(state)
    assert [origins(batch) for batch in take(resumed, 40)] == wanted


@pytest.mark.parametrize(("batch_size", "run"), [(2, 8), (5, 3), (16, 1)])
def test_windows_of_a_run_come_at_least_four_batches_apart(store, batch_size, run):
    drawn = store.windows(2, 2, batch_size=batch_size)
    assert drawn.state_dict()["run"] == run
    number = drawn.num_windows
    stream = [origin for batch in take(drawn, -(-number // batch_size)) for origin in origins(batch)][:number]
    places = np.array([stream.index(origin) for origin in sorted(stream)])
    if run > 1:
        follow = np.diff(places)
        assert np.median(follow) >= 4 * batch_size
        assert np.mean(follow >= 4 * batch_size) >= 1 - 1 / run - 2 / number


def test_without_shuffling_the_stream_repeats_the_order_of_the_epoch(store):
    windows = store.windows(1, 1, batch_size=windows_size(store), shuffle=False, observation=["position"])
    first, second = take(windows, 2)
    assert origins(first) == origins(second) == sorted(origins(first))


def windows_size(store: EpisodeStore) -> int:
    return sum(length for episode, length in enumerate(LENGTHS) if episode not in FAILED)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_order_depends_on_the_seed_and_not_on_the_workers(store, workers):
    plain = take(store.windows(2, 3, batch_size=7, seed=3), 30)
    for left, right in zip(plain, take(store.windows(2, 3, batch_size=7, seed=3, workers=workers), 30), strict=True):
        same(left, right)
    assert origins(plain[0]) != origins(next(iter(store.windows(2, 3, batch_size=7, seed=4))))


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("consumed", [0, 1, 9, 40])
def test_a_restored_position_goes_on_with_what_was_not_consumed(store, workers, consumed):
    whole = take(store.windows(2, 3, batch_size=5, seed=1), consumed + 6)
    windows = store.windows(2, 3, batch_size=5, seed=1, workers=workers)
    stream = iter(windows)
    for _ in range(consumed):
        next(stream)
    state = json.loads(json.dumps(windows.state_dict()))
    take(windows, 3)

    fresh = store.windows(2, 3, batch_size=5, seed=1, workers=2)
    fresh.load_state_dict(state)
    windows.load_state_dict(state)
    for wanted, left, right in zip(whole[consumed:], fresh, stream, strict=False):
        same(wanted, left)
        same(wanted, right)


def test_the_stream_goes_on_after_a_break(store):
    windows = store.windows(1, 2, batch_size=6, workers=2)
    parts = []
    for _ in range(3):
        for batch in windows:
            parts.append(batch)
            break
    for left, right in zip(parts, take(store.windows(1, 2, batch_size=6), 3), strict=True):
        same(left, right)


def test_a_state_of_other_windows_is_refused(store):
    state = store.windows(1, 2, seed=1).state_dict()
    with pytest.raises(ValueError, match=r"(?s)windows: .*seed: |seed: .*windows: "):
        store.windows(1, 2, seed=2, episodes=[0, 1]).load_state_dict(state)


def test_shards_are_the_parts_of_the_whole_batch(store):
    whole = take(store.windows(2, 3, batch_size=6, seed=2), 5)
    shards = [take(store.windows(2, 3, batch_size=6, seed=2, shard=(rank, 3)), 5) for rank in range(3)]
    for number, batch in enumerate(whole):
        assert origins(batch) == [origin for shard in shards for origin in origins(shard[number])]
    assert len(next(iter(store.windows(2, 3, batch_size=6, shard=(1, 2))))["action"]) == 3
    passes = [list(store.windows(2, 3, batch_size=10, shard=(rank, 2)).epoch()) for rank in range(2)]
    assert [len(batch["action"]) for batch in passes[0]] == [5, 5, 5, 5, 5, 5, 2]
    assert sum(len(batch["action"]) for part in passes for batch in part) == windows_size(store)


@pytest.mark.parametrize("ahead", [1, 10, 64])
def test_how_many_samples_are_found_at_once_changes_nothing(store, other, monkeypatch, ahead):
    options: dict[str, Any] = {"batch_size": 6, "seed": 5, "shard": (1, 2)}
    mixed = Mixture([(store, 0.3), (other, 0.7)])
    position = {**mixed.windows(2, 3, **options).state_dict(), "position": 31}  # not at the beginning of a batch
    usual = mixed.windows(2, 3, **options)
    monkeypatch.setattr(windows, "AHEAD", ahead)
    changed = mixed.windows(2, 3, **options)
    for stream in (usual, changed):
        stream.load_state_dict(position)
    for left, right in zip(take(usual, 40), take(changed, 40), strict=True):
        same(left, right)


def test_only_successful_episodes_unless_others_are_named(store):
    default = {episode for batch in store.windows(1, 1).epoch() for _, episode, _ in origins(batch)}
    assert default == set(range(len(LENGTHS))) - set(FAILED)
    named = store.windows(1, 1, episodes=[2, 4])
    assert {episode for batch in named.epoch() for _, episode, _ in origins(batch)} == {2, 4}


def test_held_out_episodes_are_in_no_batch_and_in_no_statistics(store):
    train, held_out = store.split(0.3, seed=1)
    assert not set(train) & set(held_out)
    seen = {episode for batch in store.windows(1, 1, episodes=train).epoch() for _, episode, _ in origins(batch)}
    assert seen == set(train)
    statistics = store.statistics(train)
    for name, values in {
        "position": np.concatenate([store[i].observation["position"] for i in train]),
        "action": np.concatenate([store[i].action for i in train]),
    }.items():
        assert statistics[name].count == len(values)
        np.testing.assert_allclose(statistics[name].mean, values.astype(float).mean(0))
        np.testing.assert_allclose(statistics[name].std, values.astype(float).std(0))
        np.testing.assert_array_equal(statistics[name].min, values.min(0))
        np.testing.assert_array_equal(statistics[name].max, values.max(0))


def test_a_subset_of_the_observation(store):
    windows = store.windows(2, 2, observation=["front"])
    assert list(next(iter(windows))["observation"]) == list(windows.contract.observation) == ["front"]
    with pytest.raises(ContractError, match="rear"):
        store.windows(2, 2, observation=["rear"])


def test_weights_by_episode_and_by_row(store):
    by_episode = np.arange(len(store), dtype=np.float32) / 2
    for batch in store.windows(1, 1, weights=by_episode).epoch():
        assert batch["weight"].tolist() == [episode / 2 for _, episode, _ in origins(batch)]
    by_row = np.arange(store.num_rows)
    starts = store.episode_ends - np.array(LENGTHS) - 1
    for batch in store.windows(1, 1, weights=by_row).epoch():
        assert batch["weight"].tolist() == [starts[episode] + step for _, episode, step in origins(batch)]
    assert set(next(iter(store.windows(1, 1)))["weight"].tolist()) == {1.0}
    with pytest.raises(ValueError, match="weights: expected one for each"):
        store.windows(1, 1, weights=np.ones(3))


def test_actions_that_weigh_nothing_are_valid_nowhere(store):
    weights = (np.arange(store.num_rows) % 3 > 0).astype(np.float32)
    starts = store.episode_ends - np.array(LENGTHS) - 1
    windows = zip(store.windows(1, 4).epoch(), store.windows(1, 4, weights=weights).epoch(), strict=True)
    for plain, weighed in windows:
        for place, (_, episode, step) in enumerate(origins(plain)):
            rows = starts[episode] + np.minimum(step + np.arange(4), LENGTHS[episode] - 1)
            expected = plain["action_valid"][place].numpy() & (rows % 3 > 0)
            assert weighed["action_valid"][place].tolist() == expected.tolist()
            assert weighed["weight"][place] == weights[rows[0]]


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=st.floats(0.05, 20), right=st.floats(0.05, 20), third=st.floats(0.05, 20), batch_size=st.integers(1, 40))
def test_any_run_of_samples_holds_the_exact_shares(store, other, left, right, third, batch_size):
    mixture = Mixture([(store, left), (other, right), (store, third)])
    windows = mixture.windows(1, 2, batch_size=batch_size, observation=["position"])
    sources = np.concatenate([batch["source"].numpy() for batch in take(windows, 400 // batch_size + 1)])
    shares = np.array([left, right, third]) / (left + right + third)
    for number in (len(sources) // 3, len(sources)):
        assert np.abs(np.bincount(sources[:number], minlength=3) - shares * number).max() <= 1.5


def test_a_mixture_reads_each_store_in_its_own_epochs(store, other):
    windows = Mixture([(store, 1), (other, 3)]).windows(2, 3, batch_size=8, workers=2, seed=4)
    stream = take(windows, 40)
    for batch in stream[:6]:
        check(batch, [store, other], 2, 3, 0)
    drawn = [origin for batch in stream for origin in origins(batch)]
    for source, size in ((0, windows_size(store)), (1, 4 + 9)):
        mine = [origin for origin in drawn if origin[0] == source][:size]
        assert len(set(mine)) == len(mine)
    restored = Mixture([(store, 1), (other, 3)]).windows(2, 3, batch_size=8, seed=4)
    restored.load_state_dict({**windows.state_dict(), "position": 8 * 17})
    same(next(iter(restored)), stream[17])


def test_a_mixture_of_unlike_contracts_is_refused(store, tmp_path):
    faster = make_store(tmp_path / "faster.zarr", (3,), rate_hz=20)
    with pytest.raises(ContractError, match="rate_hz"):
        Mixture([(store, 1), (faster, 1)])


def test_mixture_statistics_follow_the_shares(store, other):
    mixed = Mixture([(store, 1), (other, 1)]).statistics()["position"]
    parts = [part.statistics()["position"].mean for part in (store, other)]
    np.testing.assert_allclose(mixed.mean, np.mean(parts, axis=0))
    train, held_out = Mixture([(store, 1), (other, 1)]).split(0.5)
    assert [len(part) for part in held_out] == [3, 1]
    assert Mixture([(store, 1), (other, 1)]).statistics(train)["action"].count == sum(
        part.statistics(some)["action"].count for part, some in zip((store, other), train, strict=True)
    )


def test_a_damaged_frame_is_named(tmp_path):
    store = make_store(tmp_path / "toy.zarr")
    chunk = store.array("frames/front/bytes").chunk_path(0)
    with chunk.open("r+b") as file:
        file.write(bytes(2000))
    with pytest.raises(StoreError, match="front"):
        take(EpisodeStore.open(store.path).windows(2, 2, episodes=range(7), workers=2), 40)


def in_child(path: Path, state: dict[str, Any], results: Any) -> None:
    windows = EpisodeStore.open(path).windows(2, 3, batch_size=4, workers=2)
    windows.load_state_dict(state)
    results.put([origins(batch) for batch in take(windows, 3)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_runs_in_a_child_process(store, method):
    windows = store.windows(2, 3, batch_size=4, workers=2)
    take(windows, 2)
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    child = context.Process(target=in_child, args=(store.path, windows.state_dict(), results))
    child.start()
    found = results.get()
    child.join()
    assert found == [origins(batch) for batch in take(windows, 3)]


def test_an_open_stream_survives_a_fork(store):
    windows = store.windows(2, 3, batch_size=4, workers=2)
    stream = iter(windows)
    next(stream)
    wanted = [origins(batch) for batch in take(store.windows(2, 3, batch_size=4), 3)][1:]
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if [origins(next(stream)) for _ in range(2)] == wanted else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [origins(next(stream)) for _ in range(2)] == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"obs_horizon": 0}, "obs_horizon: expected at least 1"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"episodes": []}, "no episode to read"),
        ({"episodes": [7]}, "holds episodes 0..6"),
        ({"batch_size": 4, "shard": (0, 3)}, "count dividing"),
        ({"shard": (2, 2)}, "rank < count"),
    ],
)
def test_wrong_options_say_what_is_expected(store, options, message):
    with pytest.raises((ValueError, IndexError), match=message):
        store.windows(**{"obs_horizon": 1, "action_horizon": 1, **options})


def test_shares_must_be_positive(store):
    with pytest.raises(ValueError, match="positive"):
        Mixture([(store, 0.0)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
@pytest.mark.parametrize("workers", [0, 2])
def test_pinned_batches(store, workers):
    pinned = take(store.windows(2, 3, batch_size=4, workers=workers, pin_memory=True), 3)
    for left, right in zip(pinned, take(store.windows(2, 3, batch_size=4), 3), strict=True):
        assert left["action"].is_pinned()
        assert left["observation"]["front"].is_pinned()
        same(left, right)


def test_intended_labels_are_what_was_proposed_unless_a_person_intervened(tmp_path: Path) -> None:
    contract = Contract.from_dict({
        "name": "toy", "rate_hz": 10, "observation": {"x": {"shape": [1]}}, "action": {"arm": {"shape": [1]}},
    })  # fmt: skip
    store = EpisodeStore.create(tmp_path / "noisy.zarr", contract)
    proposals = [None, [10.0], [20.0], None]
    with EpisodeStore.append(store.path) as writer, writer.episode() as episode:
        for step, proposed in enumerate(proposals):
            episode.add({"x": np.zeros(1)}, [float(step)], policy_action=proposed, intervened=step >= 2)
        episode.finish({"x": np.zeros(1)}, success=True)
    store.refresh()
    wanted = {"executed": [0, 1, 2, 3], "intended": [0, 10, 2, 3]}
    for labels, actions in wanted.items():
        (batch,) = store.windows(1, 2, batch_size=8, labels=labels).epoch()
        following = [*actions[1:], actions[-1]]
        assert batch["action"][..., 0].tolist() == [list(pair) for pair in zip(actions, following, strict=True)]
    with pytest.raises(ValueError, match="expected executed or intended, or a recorded feature of x; got 'best'"):
        store.windows(1, 2, labels="best")
