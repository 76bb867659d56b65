"""A learner and an actor in one process, over a real connection. Every wait has an end, and none decides a result."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.datasets import ContractError, EpisodeStore
from robot_rl.rl.apart.actor import Actor, build
from robot_rl.rl.apart.channel import AccessError
from robot_rl.rl.apart.learner import ApartLearner
from robot_rl.rl.apart.link import Link
from robot_rl.rl.apart.messages import MessageError
from robot_rl.rl.apart.outbox import Outbox, open_store
from robot_rl.rl.off_policy_learner import OffPolicyLearner
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.rl.sac import SAC
from robot_rl.rl.success_detector import DetectedSuccess
from tests.robot_rl.rl.line import CONTRACT, HORIZON, Line
from tests.robot_rl.rl.stored import squashed_policy
from tests.robot_rl.rl.test_off_policy import settings
from tests.robot_rl.rl.test_success_detector import RestartableLine

SECRET = b"0123456789abcdef"
LONGEST = 120.0
"""Seconds until a test gives up."""


def said(text: str) -> None:
    """Nobody listens."""


def learner(store: Path, success: str = "task", **changes: Any) -> ApartLearner:
    torch.manual_seed(0)
    policy = squashed_policy()
    made = ApartLearner(
        SAC(policy, 1, temperature=0.1), Line(1), settings(num_envs=1, rollout_steps=30, **changes), store, 0, 100,
        environment={"task": "line"}, new=True, name="sac", algorithm={"temperature": 0.1}, network=policy.config,
        secret=lambda: SECRET, say=said, success={"name": success},
    )  # fmt: skip
    end = time.monotonic() + LONGEST

    def watch() -> None:
        assert time.monotonic() < end, "no episodes have come"

    made.watch = watch
    return made


@contextmanager
def acting(
    folder: Path, port: int, secret: bytes = SECRET, contract: Any = CONTRACT, detector: Any = None
) -> Iterator[tuple[Link, Any]]:
    """An actor in a thread, and whether it heard of the end."""
    link, stop = Link("127.0.0.1", port, secret, said), False

    def act() -> bool:
        welcome = link.meet(lambda: stop)
        if welcome is None:
            return False
        environments: Any = RestartableLine(1)
        environments.contract = contract
        if detector is not None:
            environments = DetectedSuccess(environments, detector, 1)
        store = open_store(folder, welcome.run, contract, welcome.environment)
        with Actor(welcome, build(welcome), environments, store, link) as actor:
            link.join(Outbox(store), contract, "task" if detector is None else "key")
            return actor.act(lambda: stop)

    with ThreadPoolExecutor(1) as threads:
        future: Future[bool] = threads.submit(act)
        try:
            yield link, future
        finally:
            stop = True
            with suppress(Exception):
                future.result(LONGEST)
            link.close()


def test_what_an_actor_does_is_learned_from_as_many_updates_as_steps(tmp_path: Path) -> None:
    rows = []
    with learner(tmp_path / "replay.zarr", steps=90) as training, acting(tmp_path / "a", training.server.port) as (
        _, future,
    ):  # fmt: skip
        while not training.finished:
            rows.append(training.iterate())
            assert training.steps == training.writer.store.num_steps
            assert training.updates == max(0, training.steps - 30)
        training._publish()  # as it is done on leaving
        assert future.result(LONGEST) is True
    store, own = EpisodeStore.open(tmp_path / "replay.zarr"), EpisodeStore.open(next((tmp_path / "a").iterdir()))
    assert [store.facts(number)["number"] for number in range(len(store))] == list(range(len(store)))
    assert len(own) >= len(store) >= 90 // HORIZON
    versions = [store.facts(number)["weights"] for number in range(len(store))]
    assert versions[0] == [0, 0.0, 0]
    assert all(first <= mean <= last for first, mean, last in versions)
    assert versions[-1][2] > 0  # what was published has acted
    assert rows[-1]["staleness"] >= 0
    assert rows[-1]["actors"] == 1
    assert "critic_loss" in rows[-1]


def test_success_is_decided_where_the_actor_is(tmp_path: Path) -> None:
    with learner(tmp_path / "replay.zarr", "classifier") as training:
        port = training.server.port
        with acting(tmp_path / "a", port, detector=lambda seen: seen["place"][:, 0] < 9):
            row = training.iterate()
        with acting(tmp_path / "b", port) as (_, future), pytest.raises(MessageError) as raised:
            future.result(LONGEST)
        assert "expected success=classifier, got success=task: the rewards" in str(raised.value)
    store = EpisodeStore.open(tmp_path / "replay.zarr")
    episodes = [store[number] for number in range(len(store))]
    assert len(episodes) >= 30
    for episode in episodes:
        assert (episode.success, episode.reward.tolist(), episode.terminated.tolist()) == (True, [1.0], [True])
    assert row["train_success_rate"] == 1
    assert row["task_success_rate"] == np.mean([episode.facts["task_success"] for episode in episodes])


@pytest.mark.slow
def test_a_learner_that_dies_is_found_again_and_gets_what_it_missed(tmp_path: Path) -> None:
    replay, saved = tmp_path / "replay.zarr", tmp_path / "saved"
    saved.mkdir()
    first = learner(replay, steps=120)
    with first, acting(tmp_path / "a", first.server.port) as (link, future):
        first.iterate()
        first.save(saved, {})
        first.iterate()
        before = first.steps
        first.__exit__()  # its connections and its store, without a word of farewell
        with learner(replay, steps=120) as second:
            second.load(saved)
            assert second.steps == before
            link._address = "127.0.0.1", second.server.port
            while not second.finished:
                second.iterate()
            assert second.updates == second.steps - 30
            second._publish()
            assert future.result(LONGEST) is True
    store, own = EpisodeStore.open(replay), EpisodeStore.open(next((tmp_path / "a").iterdir()))
    assert [store.facts(number)["number"] for number in range(len(store))] == list(range(len(store)))
    for number in range(len(store)):
        assert store.facts(number)["seed"] == own.facts(number)["seed"]


@pytest.mark.slow
def test_an_actor_that_dies_comes_back_as_the_same_and_with_other_seeds(tmp_path: Path) -> None:
    with learner(tmp_path / "replay.zarr", steps=120) as training:
        for _ in range(2):
            with acting(tmp_path / "a", training.server.port):
                training.iterate()
        while (arrived := training.server.next(0.0)) is not None:
            arrived[2].set_result(None)  # of the dead
        with acting(tmp_path / "a", training.server.port):
            training.iterate()
    (path,) = (tmp_path / "a").iterdir()
    store, own = EpisodeStore.open(tmp_path / "replay.zarr"), EpisodeStore.open(path)
    assert [store.facts(number)["number"] for number in range(len(store))] == list(range(len(store)))
    seeds = [own.facts(number)["seed"] for number in range(len(own))]
    assert len(set(seeds)) == len(seeds)
    assert len({store.facts(number)["actor"] for number in range(len(store))}) == 1


@pytest.mark.slow
def test_a_training_goes_on_without_actors_and_with_them_again(tmp_path: Path) -> None:
    replay, saved = tmp_path / "replay.zarr", tmp_path / "saved"
    saved.mkdir()
    with learner(replay, steps=200) as first, acting(tmp_path / "a", first.server.port):
        assert first.server.answers
        first.iterate()
        first.save(saved, {})
        before = first.steps
    torch.manual_seed(0)
    method = SAC(squashed_policy(), 1, temperature=0.1)
    alone = OffPolicyLearner(method, Line(1), settings(num_envs=1, rollout_steps=30, steps=200), replay, 0, 100)
    with alone as second:
        second.load(saved)
        assert second.steps == before
        second.iterate()
        second.save(saved, {})
        assert second.steps == before + 30
        collected = second.writer.store.num_steps
    with learner(replay, steps=200) as third, acting(tmp_path / "a", third.server.port):
        assert not third.server.answers  # nobody acts by what has learned nothing yet
        third.load(saved)
        assert third.server.answers
        assert not third.server._published.begin
        assert third.steps == before + 30 >= collected  # also of the episode that was under way
        third.iterate()
    store = EpisodeStore.open(replay)
    seeds = [store.facts(number)["seed"] for number in range(len(store))]
    assert len(set(seeds)) == len(seeds)
    numbers = [store.facts(number)["number"] for number in range(len(store)) if "actor" in store.facts(number)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) < len(store)


def test_strangers_are_told_why_they_are_not_wanted(tmp_path: Path) -> None:
    bounded = replace(CONTRACT.observation["place"], lower=(-4.0,), upper=(4.0,))
    other = replace(CONTRACT, observation={"place": bounded})
    with learner(tmp_path / "replay.zarr") as training:
        port = training.server.port
        with (
            acting(tmp_path / "a", port, secret=b"another secret..") as (_, future),
            pytest.raises(AccessError, match="do not share the secret"),
        ):
            future.result(LONGEST)
        with acting(tmp_path / "b", port, contract=other) as (_, future), pytest.raises(MessageError) as raised:
            future.result(LONGEST)
        assert "refuses this actor" in str(raised.value)
        assert "observation.place.upper" in str(raised.value)
        assert "4.0" in str(raised.value)
        assert training.server.next(0.0) is None
        late = replace(CONTRACT, rate_hz=20.0)
        with (
            acting(tmp_path / "c", port, contract=late) as (_, future),
            pytest.raises(ContractError, match=r"rate_hz: 10\.0 against 20\.0"),
        ):
            future.result(LONGEST)
    assert not (tmp_path / "a").exists()


def test_a_link_keeps_to_one_training(tmp_path: Path) -> None:
    with learner(tmp_path / "one.zarr") as training:
        link = Link("127.0.0.1", training.server.port, SECRET, said)
        assert link.meet() is not None
        link.close()
    with learner(tmp_path / "two.zarr") as training:
        link._address = "127.0.0.1", training.server.port
        with pytest.raises(FinetuneError, match="has begun another training"):
            link.meet()
        link.close()


def test_an_actor_waits_while_the_learner_does_not_answer(tmp_path: Path) -> None:
    """An episode is committed and not acknowledged: it makes no second."""
    with learner(tmp_path / "replay.zarr") as training, acting(tmp_path / "a", training.server.port) as (link, future):
        end = time.monotonic() + LONGEST
        while link._waiting < 1 and time.monotonic() < end:
            time.sleep(0.01)
        assert link._waiting == 1
        (path,) = (tmp_path / "a").iterdir()
        assert len(EpisodeStore.open(path)) == 1
        time.sleep(0.3)
        assert len(EpisodeStore.open(path)) == 1
        training.iterate()
    assert future.result(LONGEST) is False


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with learner(tmp_path / "one.zarr") as training:
        second = learner(tmp_path / "two.zarr")
        second._port = training.server.port
        with pytest.raises(FinetuneError, match=r"actors\.host=127\.0\.0\.1 actors\.listen=\d+: .*in use"), second:
            pass
