"""Taking over while a policy explores: who acts, what is kept of it and where, and what a kill leaves of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from robot_rl import sim
from robot_rl.cli import compose
from robot_rl.datasets import EpisodeStore
from robot_rl.policies import PolicyError
from robot_rl.recordings import Recordings
from robot_rl.rl.environments import Environments
from robot_rl.rl.intervention import Intervener, PatientExpert, UnderWay
from robot_rl.rl.methods import build_off_policy, fresh_policy
from robot_rl.rl.off_policy_learner import OffPolicyLearner
from robot_rl.rl.replay import Replay, symmetric
from robot_rl.rl.sac import SAC
from tests.robot_rl.rl.line import Line
from tests.robot_rl.rl.stored import squashed_policy, store_episodes
from tests.robot_rl.rl.test_off_policy import settings

STEADY = 0.25
"""What the one who takes over on the line does; the policy's own actions are never so."""


class Teacher:
    """Takes over steps 4 to 6 of each episode in the second environment."""

    def __call__(self, proposed: np.ndarray, episodes: Sequence[UnderWay]) -> tuple[np.ndarray, np.ndarray]:
        self.proposed = proposed
        steps = np.array([len(each.intervened) for each in episodes])
        return (np.arange(len(episodes)) == 1) & (steps >= 4) & (steps < 7), np.full_like(proposed, STEADY)


class Taught(SAC):
    def intervener(self, environments: Environments) -> Intervener:
        return Teacher()


def learner(folder: Path, name: str = "own.zarr", horizon: int = 1, start_steps: int = 30) -> OffPolicyLearner:
    torch.manual_seed(0)
    if not (folder / "demo.zarr").exists():
        store_episodes(folder / "demo.zarr", [5, 6], [True, True])
    chosen = settings(execute=horizon, demonstration_share=0.5, start_steps=start_steps, batch=8)
    method = Taught(squashed_policy(horizon), horizon, temperature=0.1)
    recorded = Recordings([folder / "demo.zarr"], held_out=0.0)
    return OffPolicyLearner(method, Line(2), chosen, folder / name, 0, 100, recorded, new=True)


def contents(replay: Replay | None) -> dict[str, torch.Tensor]:
    assert replay is not None
    return vars(replay.at(torch.arange(len(replay))))


@dataclass
class SoFar:
    intervened: list[bool] = field(default_factory=list)
    success: bool = False


def test_the_expert_waits_takes_over_and_gives_back() -> None:
    with sim.make_vector("peg", 2) as environments:
        environments.reset(seed=0)
        expert = PatientExpert(environments, patience=3, stretch=2)
        stuck, done = SoFar(), SoFar(success=True)
        proposed = np.zeros((2, 4), np.float32)
        for _ in range(10):
            taken, action = expert(proposed, [stuck, done])
            assert not taken[1]
            if taken[0]:
                np.testing.assert_array_equal(action, environments.world.expert())
            stuck.intervened.append(bool(taken[0]))
    assert "".join("PE"[flag] for flag in stuck.intervened) == "PPPEEPPPEE"


def test_nobody_takes_over_where_there_is_no_expert_and_impossible_numbers_are_refused() -> None:
    with pytest.raises(PolicyError, match="hil: nobody can take over in line"):
        PatientExpert(Line(2), 3, 2)
    for numbers, name in (((0, 2), "patience"), ((3, 0), "stretch")):
        with pytest.raises(PolicyError, match=rf"algorithm\.{name}: expected at least 1 control step, got 0"):
            PatientExpert(Line(2), *numbers)


def test_what_was_executed_is_stored_beside_what_the_policy_wished(tmp_path: Path) -> None:
    with learner(tmp_path, start_steps=1000) as training:
        rows = [training.iterate() for _ in range(4)]
        line = training._environments
        counted = training.explorer.interventions
    assert isinstance(line, Line)
    episodes = [each for each in EpisodeStore.open(tmp_path / "own.zarr") if each.intervened.any()]
    assert len(episodes) > 1
    assert (np.concatenate(line.log) == STEADY).sum() == counted
    for episode in episodes:
        assert np.flatnonzero(episode.intervened).tolist() == [4, 5, 6][: episode.length - 4]
        assert (episode.action[episode.intervened] == STEADY).all()
        assert (episode.policy_action[episode.intervened] != STEADY).all()
        own = ~episode.intervened
        np.testing.assert_array_equal(episode.action[own], episode.policy_action[own])  # handed back
        places = episode.observation["place"][:, 0]
        np.testing.assert_allclose(np.diff(places), episode.action[:, 0], atol=1e-5)
    assert sum(row["intervention_rate"] for row in rows) * 20 == pytest.approx(counted)
    assert 0 < counted < 40


def test_interventions_are_in_both_buffers_and_batches_keep_their_shares(tmp_path: Path) -> None:
    with learner(tmp_path) as training:
        for _ in range(4):
            training.iterate()
        own, demonstrations = contents(training._own), contents(training._demonstrations)
        store = training.writer.store
        assert training._own is not None
        assert len(training._own) == store.num_steps
        intervened = torch.from_numpy(np.concatenate([each.intervened for each in store]))
        assert 0 < intervened.sum() == len(demonstrations["reward"]) - 11
        for name, values in demonstrations.items():
            assert torch.equal(values[11:], own[name][intervened]), name
        # Actions, all of them different but the teacher's, tell whose they are.
        batch = symmetric(training._own, training._demonstrations, 0.25, 80, torch.Generator().manual_seed(0))
        taught = demonstrations["chunk"][:, 0].unique()
    assert len(batch.reward) == 80
    assert torch.isin(batch.chunk[:20, 0], taught).all()
    assert (batch.chunk[:20, 0] == STEADY).any()
    assert not torch.isin(batch.chunk[20:, 0], taught).all()


def test_demonstrations_gained_by_interventions_survive_a_kill(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with learner(tmp_path) as killed:
        for _ in range(3):
            killed.iterate()
        killed.save(tmp_path / "saved", {})
        known = len(contents(killed._demonstrations)["reward"])
        for _ in range(2):
            killed.iterate()
        before = contents(killed._demonstrations)
    assert len(before["reward"]) > known > 11
    with learner(tmp_path) as resumed:
        resumed.load(tmp_path / "saved")
        after = contents(resumed._demonstrations)
        for name in before:
            assert torch.equal(before[name], after[name]), name


def test_a_training_stopped_during_an_intervention_goes_on_bit_by_bit(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with learner(tmp_path, "whole.zarr", 2) as whole:
        for _ in range(5):
            expected = whole.iterate()
    with learner(tmp_path, "parts.zarr", 2) as first:
        for _ in range(3):
            first.iterate()
        assert first.explorer._open[1].intervened[-1]
        first.save(tmp_path / "saved", {})
    with learner(tmp_path, "parts.zarr", 2) as second:
        second.load(tmp_path / "saved")
        for _ in range(2):
            row = second.iterate()
    assert row == expected
    ours, theirs = (EpisodeStore.open(tmp_path / name) for name in ("whole.zarr", "parts.zarr"))
    for a, b in zip(ours, theirs, strict=True):
        for name in ("action", "policy_action", "intervened"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_the_policy_is_asked_anew_while_somebody_else_acts(tmp_path: Path) -> None:
    """With chunks of three, what was planned before an intervention is never executed after it."""
    asked = []
    with learner(tmp_path, horizon=3) as training:

        def act(context: torch.Tensor) -> torch.Tensor:
            asked.append((step, len(context)))
            return torch.zeros(len(context), 3, 1)

        for step in range(10):  # noqa: B007
            training.explorer.step(act)
        assert len(training.explorer._open[1].intervened) == 10
    # The second one acts in steps 4 to 6, and has asked at 3.
    assert asked == [(0, 2), (3, 2), (5, 1), (6, 2), (7, 1), (9, 1)]


def test_the_preset_takes_over_on_the_peg() -> None:
    import omegaconf

    plain = omegaconf.OmegaConf.to_container(compose("finetune", ["algorithm=hil", "task=peg"]), resolve=True)
    assert isinstance(plain, dict)
    with sim.make_vector("peg", 1) as environments:
        policy = fresh_policy(plain["network"], environments.contract)
        method = build_off_policy("hil", plain["algorithm"], policy, 1)
        intervener = method.intervener(environments)
    assert isinstance(intervener, PatientExpert)
    assert (intervener.patience, intervener.stretch) == (40, 10)


@pytest.mark.slow
def test_a_new_policy_is_trained_with_interventions(tmp_path: Path) -> None:
    from robot_rl import collect, finetune

    demonstrations = tmp_path / "peg.zarr"
    collect.main(compose("collect", ["task=peg", "episodes=3", f"output={demonstrations}", "workers=1"]))
    options = [
        "algorithm=hil", "task=peg", f"dataset={demonstrations}", f"output={tmp_path / 'run'}", "training.steps=300",
        "training.rollout_steps=150", "training.batch=16", "training.critic_width=16", "network.denoiser.width=16",
        "training.update_ratio=1", "training.evaluate_episodes=2", "training.evaluate_every=2", "episodes=2",
    ]  # fmt: skip
    assert finetune.main(compose("finetune", options)) == 0
    store = EpisodeStore.open(tmp_path / "run" / "replay.zarr")
    shares = [episode.intervened.mean() for episode in store]
    assert max(shares) > 0.1
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = header.split(",").index("intervention_rate")
    assert all(0 < float(row.split(",")[column]) < 0.5 for row in rows[1:])
