"""Every committed episode of an actor comes to lie in the learner's store exactly once, whatever dies when."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_rl.datasets import EpisodeStore
from robot_rl.datasets.disk import Disk
from robot_rl.rl.apart.messages import MessageError, Recorded, decode, encode
from robot_rl.rl.apart.outbox import Outbox, open_store
from robot_rl.rl.apart.reception import Reception, packed
from tests.robot_rl.conftest import reach_contract
from tests.robot_rl.rl.line import CONTRACT


class Killed(BaseException):
    """The process ends here."""


ALIVE = 10**9


class MortalDisk(Disk):
    """Ends the process before a file operation of this number, from 0."""

    def __init__(self, dies: int) -> None:
        super().__init__()
        self.dies, self.done = dies, 0

    def _count(self) -> None:
        if self.done >= self.dies:
            raise Killed
        self.done += 1

    def write(self, path: Path, offset: int, data: bytes | memoryview) -> None:
        self._count()
        super().write(path, offset, data)

    def append(self, path: Path, data: bytes) -> None:
        self._count()
        super().append(path, data)

    def install(self, path: Path) -> None:
        self._count()
        super().install(path)

    def _sync(self, descriptor: int, path: Path) -> None:
        return  # what was written is there: processes die here, machines do not


def record(path: Path, place: float, steps: int = 3, **facts: Any) -> None:
    """An episode from this place on, committed to an actor's store."""
    writing = EpisodeStore.append(path, disk=MortalDisk(ALIVE))
    with writing as writer, writer.episode(task="line", source="policy", seed=int(place)) as episode:
        for step in range(steps):
            episode.add(
                {"place": np.array([place + step], np.float32)}, [0.5], reward=-1.0, truncated=step == steps - 1,
                policy_action=[0.25], intervened=step == 1,
            )  # fmt: skip
        episode.finish({"place": np.array([place + steps], np.float32)}, success=False, **facts)


def actor_store(folder: Path) -> Path:
    return open_store(folder, "run", CONTRACT, {})


def learner_store(folder: Path) -> Path:
    EpisodeStore.create(folder / "replay.zarr", CONTRACT)
    return folder / "replay.zarr"


def deliver(outbox: Outbox, reception: Reception) -> None:
    """All that waits, without faults."""
    outbox.acknowledge(reception.received.get(outbox.actor, 0))
    while (recorded := outbox.next(0)) is not None:
        reception.take(outbox.actor, decode(encode(recorded), Recorded))
        outbox.acknowledge(reception.received[outbox.actor])


def test_an_episode_arrives_whole(tmp_path: Path) -> None:
    sent = actor_store(tmp_path / "actor")
    record(sent, 5.0, weights=[1, 2.0, 3])
    outbox = Outbox(sent)
    with EpisodeStore.append(learner_store(tmp_path)) as writer:
        deliver(outbox, Reception(writer))
    (before,), (after,) = EpisodeStore.open(sent), EpisodeStore.open(tmp_path / "replay.zarr")
    for name in ("action", "policy_action", "intervened", "reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    np.testing.assert_array_equal(before.observation["place"], after.observation["place"])
    np.testing.assert_array_equal(before.timestamp["control"], after.timestamp["control"])
    assert after.facts == {**before.facts, "actor": outbox.actor, "number": 0}
    assert after.facts["weights"] == [1, 2.0, 3]
    assert after.facts["seed"] == 5


def test_images_are_encoded_with_loss_no_more_than_once(tmp_path: Path) -> None:
    contract = reach_contract(("camera",))
    sent = open_store(tmp_path / "actor", "run", contract, {})
    frame = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    row = {"position": np.zeros(2, np.float32), "goal": np.ones(2, np.float32), "camera": frame}
    for path in (sent, tmp_path / "direct.zarr"):
        if not path.exists():
            EpisodeStore.create(path, contract)
        with EpisodeStore.append(path) as writer, writer.episode() as episode:
            episode.add(row, [0.0, 0.0])
            episode.finish(row, success=True)
    np.testing.assert_array_equal(EpisodeStore.open(sent)[0].observation["camera"], np.stack([frame] * 2))
    EpisodeStore.create(tmp_path / "replay.zarr", contract)
    with EpisodeStore.append(tmp_path / "replay.zarr") as writer:
        deliver(Outbox(sent), Reception(writer))
    direct, replayed = (EpisodeStore.open(tmp_path / f"{name}.zarr")[0] for name in ("direct", "replay"))
    np.testing.assert_array_equal(direct.observation["camera"], replayed.observation["camera"])


@pytest.mark.parametrize("seed", range(3))
def test_exactly_once_whatever_is_lost_and_whoever_dies(seed: int, tmp_path: Path) -> None:
    """Two actors and a learner; before each step of a delivery a message may be lost or a process may die."""
    draw = np.random.default_rng(seed)
    sent = [actor_store(tmp_path / name) for name in ("a", "b")]
    received = learner_store(tmp_path)
    outboxes = [Outbox(path) for path in sent]
    writer = EpisodeStore.append(received, disk=MortalDisk(ALIVE))
    reception = Reception(writer)
    recorded = [0, 0]

    def fault() -> str:
        return str(draw.choice(["none", "line", "actor", "learner"], p=[0.7, 0.1, 0.1, 0.1]))

    for _ in range(40):
        which = int(draw.integers(2))
        if recorded[which] < 5 and draw.random() < 0.4:
            record(sent[which], 10.0 * recorded[which] + which)
            recorded[which] += 1
        for moment in ("before it is sent", "before it is committed", "before the answer", "before it is read"):
            outbox, struck = outboxes[which], fault()
            if struck == "actor":
                outboxes[which] = Outbox(sent[which])
            if struck == "learner":
                writer.close()
                writer = EpisodeStore.append(received, disk=MortalDisk(ALIVE))
                reception = Reception(writer)
            if struck != "none":  # whoever is left joins again
                outboxes[which].acknowledge(reception.received.get(outbox.actor, 0))
                if draw.random() < 0.5:
                    outboxes[which].acknowledged = max(0, outboxes[which].acknowledged - 1)  # an old answer
                break
            if moment == "before it is sent" and (message := outbox.next(0)) is None:
                break
            if moment == "before it is committed":
                assert message is not None
                reception.take(outbox.actor, decode(encode(message), Recorded))
            if moment == "before it is read":
                outbox.acknowledge(reception.received[outbox.actor])
    for outbox in outboxes:
        deliver(outbox, reception)
    writer.close()
    store = EpisodeStore.open(received)
    came = Counter((facts["actor"], facts["number"]) for facts in (store.facts(n) for n in range(len(store))))
    assert came == Counter((outboxes[k].actor, number) for k in range(2) for number in range(recorded[k]))
    for episode in store:
        which = [outbox.actor for outbox in outboxes].index(episode.facts["actor"])
        assert episode.observation["place"][0, 0] == 10.0 * episode.facts["number"] + which


def test_exactly_once_when_the_learner_dies_within_its_commit(tmp_path: Path) -> None:
    """Before each file operation of a commit in turn; it starts again, and the actor sends what is not acknowledged."""
    sent, received = actor_store(tmp_path / "actor"), learner_store(tmp_path)
    record(sent, 0.0)
    outbox, number, deaths, present = Outbox(sent), 0, 0, []
    message = packed(EpisodeStore.open(sent)[0], 0)
    while True:
        now = Recorded(number, {**message.facts, "seed": number}, 0, message.arrays)
        writer = EpisodeStore.append(received, disk=MortalDisk(deaths))
        try:
            Reception(writer).take("a", now)
        except Killed:
            pass
        else:
            break
        finally:
            writer.close()
        with EpisodeStore.append(received, disk=MortalDisk(ALIVE)) as writer:
            reception = Reception(writer)
            present.append(reception.received.get("a", 0) - number)
            assert (reception.take("a", now) is None) == (present[-1] == 1)
        number, deaths = number + 1, deaths + 1
    store = EpisodeStore.open(received)
    assert [store.facts(each)["number"] for each in range(len(store))] == list(range(number + 1))
    assert [store.facts(each)["seed"] for each in range(len(store))] == list(range(number + 1))
    assert deaths > 10
    assert set(present) <= {0, 1}
    assert outbox.waiting == 1


def test_a_gap_is_refused(tmp_path: Path) -> None:
    sent = actor_store(tmp_path / "actor")
    record(sent, 0.0)
    message = packed(EpisodeStore.open(sent)[0], 0)
    with EpisodeStore.append(learner_store(tmp_path)) as writer:
        reception = Reception(writer)
        with pytest.raises(MessageError, match="expected episode 0 of actor a, got 2: those between would be lost"):
            reception.take("a", Recorded(2, message.facts, 0, message.arrays))
        assert reception.take("a", message) == 0
        assert reception.take("a", message) is None
    assert len(EpisodeStore.open(tmp_path / "replay.zarr")) == 1


def test_what_does_not_fit_is_refused_whole(tmp_path: Path) -> None:
    sent = actor_store(tmp_path / "actor")
    record(sent, 0.0)
    good = packed(EpisodeStore.open(sent)[0], 0)
    bad = {
        "reward: missing": {"reward": None}, "action: expected 3 rows": {"action": good.arrays["action"][:2]},
        "extra: no such column": {"extra": np.zeros(3)}, "observation/place: missing": {"observation/place": None},
        "expected finite numbers": {"action": np.full((3, 1), np.nan, np.float32)},
        r"expected shape \[1\], got \[2\]": {"action": np.zeros((3, 2), np.float32)},
        "at least 1 step": {"reward": np.zeros((0,), np.float32)},
        "action: expected 3 rows, got shape": {"action": np.zeros(3, np.float32)},
    }  # fmt: skip
    with EpisodeStore.append(learner_store(tmp_path)) as writer:
        reception = Reception(writer)
        for text, changes in bad.items():
            arrays = {name: value for name, value in {**good.arrays, **changes}.items() if value is not None}
            with pytest.raises(MessageError, match=text):
                reception.take("a", Recorded(0, good.facts, 0, arrays))
        with pytest.raises(MessageError, match="cannot be stored"):
            reception.take("a", Recorded(0, {**good.facts, "stamps": {}}, 0, good.arrays))
        assert reception.received == {}
        assert len(writer.store) == 0


def test_an_actor_that_lost_episodes_is_told(tmp_path: Path) -> None:
    sent = actor_store(tmp_path / "actor")
    with pytest.raises(MessageError, match="holds 0 episodes, the learner 2 of them"):
        Outbox(sent).acknowledge(2)
    assert Outbox(sent).actor == Outbox(open_store(tmp_path / "actor", "run", CONTRACT, {})).actor
    assert Outbox(open_store(tmp_path / "other", "run", CONTRACT, {})).actor != Outbox(sent).actor
