"""The core and its learner: targets, settings, what is kept, and a task whose best policy is known."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.checkpoint import ResumeError
from robot_rl.datasets import EpisodeStore
from robot_rl.policies import Policy, PolicyError
from robot_rl.recordings import Recordings
from robot_rl.rl.dsrl import DSRL
from robot_rl.rl.hil import HIL
from robot_rl.rl.methods import build_off_policy
from robot_rl.rl.off_policy import Critics, OffPolicySettings, Updater, arithmetic
from robot_rl.rl.off_policy_learner import OffPolicyLearner
from robot_rl.rl.off_policy_method import OffPolicyMethod
from robot_rl.rl.on_policy import FinetuneError
from robot_rl.rl.replay import Batch, Replay, symmetric
from robot_rl.rl.sac import SAC
from tests.robot_rl.rl.line import HORIZON, Line, line_policy
from tests.robot_rl.rl.stored import squashed_policy, store_episodes

SIZES = {"expo": {"critic_width": 16, "critic_depth": 1}}

PLAIN: dict[str, Any] = {
    "steps": 400, "num_envs": 2, "rollout_steps": 10, "execute": 1, "discount": 0.9, "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3, "gradient_clip": None, "critic_width": 16, "critic_depth": 1, "save_every": 1,
    "evaluate_every": 1, "evaluate_episodes": 1, "start_steps": 30, "update_ratio": 1, "batch": 16,
    "demonstration_share": 0.0, "return_chunks": 1, "critics": 2, "critic_subset": 2, "layer_norm": True,
    "polyak": 0.005, "precision": "fp32", "scale_observations": False,
}  # fmt: skip


def settings(**changes: Any) -> OffPolicySettings:
    return OffPolicySettings.read({**PLAIN, **changes})


def learner(path: Path, horizon: int = 1, width: int = 32, recorded: Any = None, **changes: Any) -> OffPolicyLearner:
    torch.manual_seed(0)
    chosen = settings(execute=horizon, **changes)
    method = SAC(squashed_policy(horizon, width=width), horizon, temperature=0.1)
    return OffPolicyLearner(
        method, Line(chosen.num_envs), chosen, path, seed=0, first_seed=100, demonstrations=recorded, new=True
    )


def test_returns_bootstrap_by_the_discount_of_each_transition() -> None:
    method = SAC(squashed_policy(), 1, backup_entropy=False)
    updater = Updater(Critics(method, settings()), settings())
    critics = updater.critics.target
    with torch.no_grad():
        for value in critics.parameters():
            value.zero_()
        critics.biases[-1].copy_(torch.tensor([7.0, 9.0])[:, None, None])
    zeros, one = torch.zeros(3, 1), torch.ones(3)
    batch = Batch(zeros, zeros, one, torch.tensor([0.9, 0.0, 0.81]), zeros)
    returns = updater.returns(batch, torch.Generator().manual_seed(0))
    assert returns.tolist() == pytest.approx([1 + 0.9 * 7, 1.0, 1 + 0.81 * 7])


def test_the_entropy_of_what_follows_is_discounted_and_ends_with_the_episode() -> None:
    method = SAC(squashed_policy(), 1, temperature=0.5, backup_entropy=True)
    updater = Updater(Critics(method, settings()), settings())
    critics = updater.critics.target
    with torch.no_grad():
        for value in critics.parameters():
            value.zero_()
        critics.biases[-1].fill_(7.0)
    following, one = torch.tensor([[-1.0], [0.0], [1.0]]), torch.ones(3)
    batch = Batch(torch.zeros(3, 1), torch.zeros(3, 1), one, torch.tensor([0.9, 0.0, 0.81]), following)
    returns = updater.returns(batch, torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, density = method.process.draw(
            method.policy.denoiser, method.history(following), torch.Generator().manual_seed(0)
        )
    worth = 7 - 0.5 * density.sum(dim=(1, 2))
    assert (worth - 7).abs().min() > 0.05
    torch.testing.assert_close(returns, torch.stack([1 + 0.9 * worth[0], one[1], 1 + 0.81 * worth[2]]))


def test_layer_norm_bounds_what_critics_say_of_far_actions_where_it_is_asked_for() -> None:
    grown = {}
    for layer_norm in (True, False):
        torch.manual_seed(0)
        critics = Critics(SAC(squashed_policy(), 1), settings(layer_norm=layer_norm))
        for name, ensemble in (("live", critics.live), ("target", critics.target)):
            with torch.no_grad():
                near, far = (ensemble(torch.zeros(1, 1), torch.tensor([[size]])) for size in (1e2, 1e4))
            grown[name, layer_norm] = (far.abs().max() / near.abs().max()).item()
    assert grown["live", True] == pytest.approx(1, abs=0.1)
    assert grown["target", True] == pytest.approx(1, abs=0.1)
    assert grown["live", False] == pytest.approx(100, rel=0.1)
    assert grown["target", False] == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("name", ["sac", "dsrl", "expo"])
def test_all_of_an_update_is_computed_where_the_policy_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; torch's device without numbers refuses what lies elsewhere as well, but knows no autocast."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    policy = squashed_policy(2) if name == "sac" else line_policy({"name": "flow_matching", "steps": 2}, horizon=2)
    method = build_off_policy(name, SIZES.get(name, {}), policy, 2).to("meta")
    chosen = settings(execute=2, demonstration_share=0.5)
    updater, generator = Updater(Critics(method, chosen), chosen), torch.Generator().manual_seed(0)
    replays = [Replay(method.policy, 2, 2, 0.9) for _ in range(2)]
    for episode in store_episodes(tmp_path / "e.zarr", [5, 3], [True, False]):
        for replay in replays:
            replay.add(episode, episode.terminated | True)
    batch = symmetric(*replays, 0.5, 8, generator)
    updater.update_critics(batch, generator)
    updater.update_actor(batch, generator)
    assert batch.context.device == method.policy.device == torch.device("meta")


@pytest.mark.parametrize("ratio", [1, 4])
def test_the_actor_is_updated_once_on_as_many_updates_of_the_critics_as_asked(
    ratio: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    for part in ("critics", "actor"):
        plain = getattr(Updater, f"update_{part}")

        def noted(self: Updater, *given: Any, part: str = part, plain: Any = plain) -> None:
            made.append(part)
            plain(self, *given)

        monkeypatch.setattr(Updater, f"update_{part}", noted)
    with learner(tmp_path / "own.zarr", update_ratio=ratio) as training:
        for _ in range(3):
            training.iterate()
        assert training.updates == ratio * (training.steps - 30)
    assert made == [*["critics"] * ratio, "actor"] * (training.steps - 30)


def test_an_update_of_the_critics_moves_nothing_else_and_the_targets_by_their_share() -> None:
    torch.manual_seed(0)
    method = SAC(squashed_policy(), 1)
    critics = Critics(method, settings())
    updater = Updater(critics, settings())
    actor = [value.clone() for value in method.parameters()]
    target = [value.clone() for value in critics.target.parameters()]
    batch = Batch(torch.randn(8, 1), torch.rand(8, 1), torch.randn(8), torch.full((8,), 0.9), torch.randn(8, 1))
    updater.update_critics(batch, torch.Generator().manual_seed(0))
    assert all(torch.equal(old, new) for old, new in zip(actor, method.parameters(), strict=True))
    for old, new, live in zip(target, critics.target.parameters(), critics.live.parameters(), strict=True):
        torch.testing.assert_close(new, 0.995 * old + 0.005 * live)
    live = [value.clone() for value in critics.live.parameters()]
    updater.update_actor(batch, torch.Generator().manual_seed(0))
    assert all(torch.equal(old, new) for old, new in zip(live, critics.live.parameters(), strict=True))
    moved = [not torch.equal(old, new) for old, new in zip(actor, method.trained(), strict=False)]
    assert all(moved)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    method = SAC(squashed_policy(), 1)
    updater = Updater(Critics(method, settings()), settings())
    nothing = torch.full((4,), float("nan"))
    updater.update_critics(
        Batch(torch.zeros(4, 1), torch.zeros(4, 1), nothing, nothing, torch.zeros(4, 1)), torch.Generator()
    )
    with pytest.raises(FinetuneError, match="a loss is not finite"):
        updater.take_log()


def test_impossible_settings_are_named_all_at_once() -> None:
    wrong = {
        "critics": 2,
        "critic_subset": 3,
        "polyak": 2,
        "clip": 0.1,
        "batch": None,
        "precision": "x",
        "learning_rate": float("inf"),
    }
    with pytest.raises(FinetuneError) as raised:
        OffPolicySettings.read({**PLAIN, **wrong})
    text = str(raised.value)
    assert all(word in text for word in ("critic_subset: expected no more than critics", "polyak: expected at most 1"))
    assert "learning_rate: expected a finite number above 0" in text
    assert all(word in text for word in ("clip: no such key", "batch: missing", "precision: expected fp32 or bf16"))


def test_demonstrations_have_to_be_there_where_they_are_wanted_and_only_there(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="dataset= is missing"):
        learner(tmp_path / "own.zarr", demonstration_share=0.5)
    store_episodes(tmp_path / "demo.zarr", [4, 5], [True, True])
    recorded = Recordings([tmp_path / "demo.zarr"], held_out=0.0)
    with pytest.raises(FinetuneError, match="leaves nothing to learn from it"):
        learner(tmp_path / "own.zarr", recorded=recorded)
    assert not (tmp_path / "own.zarr").exists()


@pytest.mark.parametrize("scaling", ["mean_std", "quantile", "none"])
@pytest.mark.parametrize(("kind", "process"), [(SAC, "tanh_gaussian"), (HIL, "tanh_gaussian"), (DSRL, "flow_matching")])
def test_a_policy_whose_actions_leave_the_replay_is_refused(
    kind: type[OffPolicyMethod], process: str, scaling: str
) -> None:
    """The replay bounds actions to [-1, 1], which all but `min_max` exceed."""
    plain = line_policy({"name": process})
    scaled = {**plain.config, "normalizer": {"observation": "mean_std", "action": scaling}}
    with pytest.raises(PolicyError, match=rf"action={scaling} puts actions outside \[-1, 1\]"):
        kind(Policy(scaled, plain.contract), 1)


@pytest.mark.parametrize(("bound", "refused"), [(0.5, False), (1.0, False), (1.5, True)])
def test_actions_as_they_are_fit_into_the_replay_where_the_contract_bounds_them_so(bound: float, refused: bool) -> None:
    plain = squashed_policy()
    push = replace(plain.contract.action["push"], lower=(-1.0,), upper=(bound,))
    contract = replace(plain.contract, action={"push": push})
    policy = Policy({**plain.config, "normalizer": {"action": "none"}}, contract)
    with pytest.raises(PolicyError, match="action=none") if refused else nullcontext():
        SAC(policy, 1)


def test_all_that_was_done_lies_in_the_store_and_every_step_is_counted(tmp_path: Path) -> None:
    """Actions, rewards and ends are those of the environment; open episodes make up the difference."""
    with learner(tmp_path / "own.zarr", horizon=3) as training:
        for _ in range(6):
            training.iterate()
        assert training.steps == 6 * 10 * 2
        store = EpisodeStore.open(tmp_path / "own.zarr")
        assert store.num_steps + training.explorer.steps == training.steps
        assert training.updates == training.steps - 30
    for episode in store:
        place, action = episode.observation["place"][:, 0], episode.action[:, 0]
        np.testing.assert_allclose(np.diff(place), action, atol=1e-5)
        np.testing.assert_allclose(episode.reward, -(place[:-1] ** 2 + action**2), rtol=1e-4, atol=1e-5)
        assert episode.terminated[-1] == (abs(place[-1]) > 4)
        assert episode.truncated[-1] == (not episode.terminated[-1])
        assert episode.terminated[-1] or episode.length == HORIZON
        assert np.abs(action).max() <= 1
    assert store.facts(0)["seed"] in (100, 101)


@pytest.mark.parametrize("horizon", [1, 3])
def test_goes_on_bit_by_bit(horizon: int, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with learner(tmp_path / "a.zarr", horizon) as whole:
        for _ in range(8):
            expected = whole.iterate()
    with learner(tmp_path / "b.zarr", horizon) as first:
        for _ in range(4):
            first.iterate()
        first.save(tmp_path / "saved", {"note": 1})
    with learner(tmp_path / "b.zarr", horizon) as second:
        assert second.load(tmp_path / "saved")["note"] == 1
        for _ in range(4):
            row = second.iterate()
    assert row == expected
    for name, value in whole.critics.state_dict().items():
        assert torch.equal(value, second.critics.state_dict()[name]), name
    ours, theirs = (EpisodeStore.open(tmp_path / name) for name in ("a.zarr", "b.zarr"))
    assert len(ours) == len(theirs) > 0
    assert all(np.array_equal(a.action, b.action) for a, b in zip(ours, theirs, strict=True))


def test_what_was_collected_before_a_kill_is_read_back_and_its_updates_are_made_up_for(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with learner(tmp_path / "own.zarr") as killed:
        for _ in range(4):
            killed.iterate()
        killed.save(tmp_path / "saved", {})
        saved, recorded = killed.steps, killed.writer.store.num_steps
        for _ in range(4):
            killed.iterate()
        assert killed._own is not None
        before = killed._own.at(torch.arange(len(killed._own)))
        steps = EpisodeStore.open(tmp_path / "own.zarr").num_steps
    with learner(tmp_path / "own.zarr") as resumed:
        resumed.load(tmp_path / "saved")
        assert resumed.steps == max(saved, steps)
        assert steps > recorded
        assert resumed._own is not None
        after = resumed._own.at(torch.arange(len(resumed._own)))
        for name in ("context", "chunk", "reward", "discount", "following"):
            assert torch.equal(getattr(before, name), getattr(after, name))
        resumed.iterate()
        assert resumed.updates == resumed.steps - 30
        store = resumed.writer.store
        seeds = [store.facts(number)["seed"] for number in range(len(store))]
    assert len(set(seeds)) == len(seeds)


def test_no_control_step_that_was_counted_is_forgotten_by_a_kill(tmp_path: Path) -> None:
    """Neither those of episodes under way when it was saved, nor those of episodes that will never be in the store."""
    (tmp_path / "saved").mkdir()
    with learner(tmp_path / "own.zarr") as killed:
        killed.iterate()
        killed.steps += 5  # of a simulation that diverged
        killed.save(tmp_path / "saved", {})
        saved, under_way = killed.steps, killed.explorer.steps
        assert under_way > 0
        while len(killed.writer.store) < 1 + killed._environments.num_envs:
            killed.iterate()
        made = killed.steps - killed.explorer.steps
    with learner(tmp_path / "own.zarr") as resumed:
        resumed.load(tmp_path / "saved")
        assert resumed.steps == max(saved, made)
        resumed.iterate()
        resumed.save(tmp_path / "saved", {})
        saved = resumed.steps
    with learner(tmp_path / "own.zarr") as again:
        again.load(tmp_path / "saved")
        assert again.steps == saved


def test_a_resume_refuses_a_store_that_lost_episodes(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with learner(tmp_path / "own.zarr") as first:
        for _ in range(4):
            first.iterate()
        first.save(tmp_path / "saved", {})
    with learner(tmp_path / "other.zarr") as other, pytest.raises(ResumeError, match="holds 0 episodes, "):
        other.load(tmp_path / "saved")


def test_a_new_policys_normaliser_is_that_of_the_demonstrations(tmp_path: Path) -> None:
    store_episodes(tmp_path / "demo.zarr", [20, 20], [True, True])
    recorded = Recordings([tmp_path / "demo.zarr"], held_out=0.0)
    changes = {"recorded": recorded, "demonstration_share": 0.5, "scale_observations": True}
    with learner(tmp_path / "own.zarr", **changes) as training:
        for _ in range(3):
            training.iterate()
        statistics = recorded.statistics()["place"]
        normalizer = training.policy.encoder.normalizer
        middle, half = (statistics.max + statistics.min) / 2, (statistics.max - statistics.min) / 2
        assert normalizer.center.tolist() == pytest.approx(middle.tolist(), abs=1e-5)
        assert normalizer.spread.tolist() == pytest.approx(half.tolist(), abs=1e-5)
        assert training._demonstrations is not None
        assert training._demonstrations.at(torch.arange(40)).context.abs().max() <= 1 + 1e-5


@pytest.mark.slow
def test_finds_the_best_policy_of_the_line(tmp_path: Path) -> None:
    """Linear feedback by the Riccati equation; doing nothing and going straight to 0 both miss it by far."""
    gamma, weight = 0.9, 1.0
    for _ in range(100):
        weight = 1 + gamma * weight / (1 + gamma * weight)
    gain = gamma * weight / (1 + gamma * weight)
    place = torch.linspace(-1.2, 1.2, 25)[:, None]
    best = -gain * place
    changes = {"num_envs": 4, "batch": 64, "critic_width": 32, "critic_depth": 2, "start_steps": 100, "steps": 900}
    rates = {"learning_rate": 3e-3, "critic_learning_rate": 3e-3}
    with learner(tmp_path / "own.zarr", **changes, **rates) as training:
        before = _pushes(training, place)
        while not training.finished:
            training.iterate()
        after = _pushes(training, place)
    error = (after - best).abs().mean().item()
    assert (before - best).abs().mean().item() > 0.25
    assert (-place - best).abs().mean().item() > 0.2
    assert error < 0.15


def _pushes(training: OffPolicyLearner, place: torch.Tensor) -> torch.Tensor:
    policy = training.policy
    return policy.sample(policy.encode({"place": place[:, None]}))[:, 0, 0]


def test_products_in_bfloat16_are_near_and_leave_others_alone() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 256, 256).unbind()
    plain = a @ b
    with arithmetic("bf16"):
        rounded = a @ b
    torch.testing.assert_close(rounded, plain, atol=0.5, rtol=0.05)
    with arithmetic("fp32"):
        assert torch.equal(a @ b, plain)
    assert torch.equal(a @ b, plain)


def test_what_is_too_small_for_a_normal_number_counts_as_zero_in_updates_alone() -> None:
    small = torch.full((64,), 1e-39)
    with arithmetic("fp32"):
        assert not (small * 0.5).any()
    assert (small * 0.5).all()
