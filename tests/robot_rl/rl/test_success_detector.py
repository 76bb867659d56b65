"""Persistence as a function, and environments that end where a detector says so."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl import sim
from robot_rl.datasets import EpisodeStore
from robot_rl.recordings import Recordings
from robot_rl.rl.intervention import PatientExpert
from robot_rl.rl.off_policy_learner import OffPolicyLearner
from robot_rl.rl.replay import Replay
from robot_rl.rl.sac import SAC
from robot_rl.rl.success_detector import DetectedSuccess, KeyPress, Rewarded, goes_on, persisted
from tests.robot_rl.rl.line import Line
from tests.robot_rl.rl.stored import squashed_policy, store_episodes
from tests.robot_rl.rl.test_off_policy import settings


class RestartableLine(Line):
    def restart(self, indices: Sequence[int]) -> tuple[dict[str, np.ndarray], dict[int, dict[str, Any]]]:
        for env in indices:
            self._begin(env)
        return self.observe(), {env: {"seed": int(self.seeds[env])} for env in indices}


def right(observation: dict[str, np.ndarray]) -> np.ndarray:
    """Sees success to the right of the origin."""
    return observation["place"][:, 0] > 0


@pytest.mark.parametrize("persistence", [1, 2, 5])
def test_only_so_many_steps_in_succession_are_enough(persistence: int) -> None:
    shown = np.random.default_rng(persistence).random((200, 4)) < 0.7
    count = np.zeros(4, np.int64)
    for step in range(200):
        count, held = persisted(count, shown[step], persistence)
        window = shown[max(0, step + 1 - persistence) : step + 1]
        np.testing.assert_array_equal(held, (len(window) == persistence) & window.all(axis=0))
        np.testing.assert_array_equal(count == 0, ~shown[step])


def test_more_persistence_never_ends_earlier_and_one_step_is_the_detector_itself() -> None:
    shown = np.random.default_rng(0).random((50, 8)) < 0.6
    firsts = []
    for persistence in range(1, 6):
        count, held = np.zeros(8, np.int64), []
        for row in shown:
            count, now = persisted(count, row, persistence)
            held.append(now)
        if persistence == 1:
            np.testing.assert_array_equal(held, shown)
        firsts.append([next((step for step, now in enumerate(column) if now), 99) for column in np.array(held).T])
    assert (np.diff(firsts, axis=0) >= 0).all()


def test_the_episode_ends_when_the_detector_has_held_on_and_the_next_one_begins() -> None:
    line = RestartableLine(2)
    detected = DetectedSuccess(line, right, 3)
    detected.reset(seed=5)
    line.x[:] = [-0.9, -3.5]
    pushes = [
        [1, 1],
        [-1, 1],
        [1, 1],
        [0.5, 1],
        [0.5, 1],
    ]  # the first: seen, dip, then three times; the second: from 4 on
    ends = []
    for step, push in enumerate(pushes):
        before = line.x.copy()
        observation, reward, terminated, truncated, info = detected.step(np.array(push, np.float32)[:, None])
        ends.append((terminated.tolist(), truncated.tolist(), reward.tolist(), info["success"].tolist()))
        if step == 4:
            np.testing.assert_allclose(info["final_obs"][0]["place"], before[:1] + 0.5, atol=1e-6)
            assert info["reset_info"][0]["seed"] == 7
            assert info["facts"][0] == {"task_success": True}  # within 0.1 m of the origin in the first step
            np.testing.assert_array_equal(observation["place"][0], np.float32(line.x[:1]))
            assert (line.steps[0], line.steps[1]) == (0, 5)
    nothing = ([False, False], [False, False], [0, 0], [False, False])
    assert ends == [nothing] * 4 + [([True, False], [False, False], [1, 0], [True, False])]
    assert detected.take_log() == {"task_success_rate": 1.0, "false_success_rate": 0.0, "missed_success_rate": 0.0}
    assert detected.take_log() == {}


def test_a_success_in_the_last_step_terminates_and_other_ends_stay_what_they_are() -> None:
    line = RestartableLine(3, horizon=1)
    detected = DetectedSuccess(line, right, 1)
    detected.reset(seed=0)
    line.x[:] = [1.0, -1.0, -3.9]  # to the right; cut off; beyond the edge
    _, reward, terminated, truncated, info = detected.step(np.array([[0], [0], [-0.5]], np.float32))
    assert terminated.tolist() == [True, False, True]
    assert truncated.tolist() == [False, True, False]
    assert reward.tolist() == [1, 0, 0]
    assert [end["place"].tolist() for end in info["final_obs"]] == [[1.0], [-1.0], [pytest.approx(-4.4)]]
    assert detected.take_log() == {"task_success_rate": 0.0, "false_success_rate": 1.0}


def test_what_is_seen_of_a_simulation_that_came_apart_is_no_success() -> None:
    class Breaking(RestartableLine):
        def step(self, actions: np.ndarray) -> Any:
            *step, info = super().step(actions)
            return (*step, {**info, "final_info": np.array([{"diverged": True}, {}], object)})

    line = Breaking(2, horizon=1)
    detected = DetectedSuccess(line, right, 1)
    detected.reset(seed=0)
    line.x[:] = [1.0, 1.0]
    _, reward, terminated, truncated, info = detected.step(np.zeros((2, 1), np.float32))
    assert (reward.tolist(), info["success"].tolist()) == ([0, 1], [False, True])
    assert (terminated.tolist(), truncated.tolist()) == ([False, True], [True, False])


def test_where_the_task_knows_no_success_nothing_is_said_of_it() -> None:
    line = RestartableLine(1, horizon=1)
    detected = DetectedSuccess(line, right, 1, knows=False)
    detected.reset(seed=0)
    assert detected.step(np.zeros((1, 1), np.float32))[4]["facts"][0] == {}
    assert detected.take_log() == {}


def learner(path: Path, recorded: Recordings | None = None) -> OffPolicyLearner:
    torch.manual_seed(0)
    chosen = settings(demonstration_share=0.0 if recorded is None else 0.5, start_steps=140)
    detected = DetectedSuccess(RestartableLine(2), right, 3)
    return OffPolicyLearner(
        SAC(squashed_policy(), 1), detected, chosen, path, seed=0, first_seed=100, demonstrations=recorded
    )


def test_what_is_stored_and_learned_from_is_the_detectors(tmp_path: Path) -> None:
    with learner(tmp_path / "own.zarr") as training:
        for _ in range(8):
            training.iterate()
        assert training._own is not None
        batch = training._own.at(torch.arange(len(training._own)))
        store = EpisodeStore.open(tmp_path / "own.zarr")
    ended = 0
    for episode in store:
        place = episode.observation["place"][1:, 0]
        count, steps = 0, []
        for x in place:
            count = count + 1 if x > 0 else 0
            steps.append(count >= 3)
        assert not any(steps[:-1])
        assert episode.terminated.tolist() == [*steps[:-1], steps[-1] or abs(place[-1]) > 4]
        np.testing.assert_array_equal(episode.reward, np.float32(steps))
        assert episode.success == steps[-1]
        assert episode.facts["task_success"] == bool((np.abs(place) < 0.1).any())
        ended += steps[-1]
    assert 0 < ended < len(store)
    # The value of what follows counts nothing behind the end, and all that is earned is one.
    assert int((batch.reward == 1).sum()) == ended
    assert (batch.discount[batch.reward == 1] == 0).all()


def test_counting_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with learner(tmp_path / "whole.zarr") as whole:
        for _ in range(8):
            expected = whole.iterate()
    with learner(tmp_path / "parts.zarr") as first:
        while not first.explorer.environments._count.any():  # in the middle of counting
            first.iterate()
        made = first.iterations
        first.save(tmp_path / "saved", {})
    assert made < 8
    with learner(tmp_path / "parts.zarr") as second:
        second.load(tmp_path / "saved")
        assert second.explorer.environments._count.any()
        for _ in range(8 - made):
            row = second.iterate()
    assert row == expected
    ours, theirs = (EpisodeStore.open(tmp_path / name) for name in ("whole.zarr", "parts.zarr"))
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.action, b.action)
        assert a.facts == b.facts


def test_demonstrations_earn_what_the_detector_gives(tmp_path: Path) -> None:
    """Recorded rewards are drawn at random here; of a success the last step counts, whatever they were."""
    store = store_episodes(tmp_path / "demo.zarr", [4, 5], [True, False])
    EpisodeStore.open(store.path).annotate([1], success=True)
    store = EpisodeStore.open(store.path)
    assert [Rewarded(episode).reward.tolist() for episode in store] == [[0, 0, 0, 1], [0, 0, 0, 0, 1]]
    recorded = Recordings([store.path], held_out=0.0)
    with learner(tmp_path / "own.zarr", recorded) as training:
        while training._demonstrations is None:
            training.iterate()
        shown: Replay = training._demonstrations
        batch = shown.at(torch.arange(len(shown)))
    assert batch.reward.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert (batch.discount == 0).tolist() == [False] * 3 + [True] + [False] * 4 + [True]


def test_a_key_counts_once_and_steps_are_paced() -> None:
    keys, slept, now = ["", "xs", "", "ss", ""], [], [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    press = KeyPress(lambda: keys.pop(0), "s", 10.0, lambda: now[0], sleep)
    seen = []
    for late in (0.0, 0.0, 0.45, 0.0, 0.0):
        now[0] += late
        seen.append(bool(press({})[0]))
    assert seen == [False, True, False, True, False]
    # Not before the first step; after one that came late the next is a period later again.
    assert slept == pytest.approx([0.1, 0.1, 0.1])


def test_a_key_that_is_held_or_pressed_while_nothing_is_acted_on_does_not_count() -> None:
    keys, now = ["s", "", "s", *"ssssssss", "", "s"], [0.0]
    press = KeyPress(
        lambda: keys.pop(0), "s", 10.0, lambda: now[0], lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    now[0] = 20.0  # of an evaluation
    seen = [bool(press({})[0]) for _ in range(11)]
    assert seen == [False] * 2 + [False] * 9  # so soon after the one in the pause
    press({})
    now[0] += 1.0
    assert press({})[0]


def test_lean_episodes_go_on_after_success_until_the_detector_ends_them() -> None:
    from robot_rl.sim.expert.world_expert import start

    spec = goes_on({"task": "peg"})
    with sim.make_vector(spec, 2) as environments:
        detected = DetectedSuccess(environments, lambda seen: seen["peg_in_hole"][:, 2] < -0.02, 4)
        detected.reset(seed=0)
        PatientExpert(detected, 40, 10)  # finds the world behind the detector
        expert, deep = start(environments.world), []
        for _ in range(90):
            _, reward, terminated, truncated, info = detected.step(expert())
            deep.append(environments.world.see_peg_in_hole()[:, 2] < -0.02)
            if terminated.any():
                break
        assert not truncated.any()
        (env,) = np.flatnonzero(terminated)
        assert [bool(row[env]) for row in deep[-5:]] == [False, True, True, True, False]  # the last one is of the next
        assert reward[env] == 1
        assert info["facts"][env] == {"task_success": True}
        assert (environments.world.steps[env], environments.world.steps[1 - env]) == (0, len(deep))
        assert info["reset_info"][env]["seed"] == 2


def test_drones_end_as_they_do() -> None:
    with pytest.raises(ValueError, match="end as the task says"):
        goes_on({"task": "drone/hover"})
    assert goes_on({"task": "gym/Hopper-v5"}) == {"task": "gym/Hopper-v5"}
