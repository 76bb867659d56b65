"""EXPO: what is chosen, what the critics are told, what is trained by whom, and the policy that it leaves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.policies import Policy, PolicyError, Prefix, load_policy, save_policy
from robot_rl.policies.critic_ensemble import CriticEnsemble
from robot_rl.policies.prediction import new_generator, predict
from robot_rl.rl.dsrl import DSRL
from robot_rl.rl.expo import EXPO
from robot_rl.rl.off_policy import Critics, Updater
from robot_rl.rl.off_policy_learner import OffPolicyLearner
from robot_rl.rl.replay import Batch, Replay
from tests.robot_rl.rl.line import Line, line_policy
from tests.robot_rl.rl.stored import store_episodes
from tests.robot_rl.rl.test_off_policy import settings

FLOW: dict[str, Any] = {"name": "flow_matching", "steps": 2}
SHORTCUT: dict[str, Any] = {"name": "shortcut", "steps": 1}
DDIM: dict[str, Any] = {"name": "ddim", "steps": 2, "train_steps": 20}
DDPM: dict[str, Any] = {"name": "ddpm", "steps": 2, "train_steps": 20}
SIZES: dict[str, Any] = {"width": 16, "critic_width": 16, "critic_depth": 1}
PLACE = {"place": torch.linspace(-1, 1, 5)[:, None, None]}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(policy: Policy | None = None, execute: int = 3, **options: Any) -> EXPO:
    """As after some training: its edits and critics are not those that it began with."""
    method = EXPO(policy or line_policy(FLOW, horizon=execute), execute, **SIZES, **options)
    with torch.no_grad():
        torch.manual_seed(1)
        for value in method.edit.parameters():
            value.add_(0.3 * torch.randn_like(value))
    return method


def apart(context: torch.Tensor, chunk: torch.Tensor) -> torch.Tensor:
    """Three critics that disagree about which chunk is the best: their mean grows with the sum, two of them do not."""
    total = chunk.sum(dim=1)
    return torch.stack([-total, 5 * total, 1 - total])


@pytest.mark.parametrize("process", [FLOW, SHORTCUT, DDIM, DDPM])
def test_acts_by_the_best_of_base_chunks_and_their_edits(process: dict[str, Any]) -> None:
    method = made(line_policy(process, horizon=3), bound=0.3)
    context = method.policy.encode(PLACE)
    candidates = method.candidates(context, seeded())
    assert candidates.shape == (5, 8, 3, 1)
    assert not torch.equal(candidates[:, :4], candidates[:, 4:])
    values = method.edit.critics(
        context.flatten(1).repeat_interleave(8, dim=0), candidates.flatten(2).flatten(0, 1)
    ).mean(dim=0)  # fmt: skip
    best = values.view(5, 8).argmax(dim=1)
    chosen = method.act(context, seeded())
    assert torch.equal(chosen, candidates[torch.arange(5), best])


def test_an_unedited_chunk_is_chosen_where_edits_make_it_worse_and_an_edited_one_where_they_help() -> None:
    method = made(bound=0.3, layer_norm=False)
    with torch.no_grad():
        method.edit.process.spread[-1].weight.zero_()
        method.edit.process.spread[-1].bias.fill_(-9)  # next to no deviation
        for value in method.edit.critics.parameters():
            value.zero_()
        critics = method.edit.critics
        critics.weights[0][:, -3:, 0] = 1.0
        critics.biases[0][:, :, 0] = 9.0
        critics.weights[-1][:, 0] = 1.0  # the value is 9 and the sum of the chunk
        context = method.policy.encode(PLACE)
        for sign, edited in ((1.0, True), (-1.0, False)):
            method.edit.mean.layers[-1].weight.zero_()
            method.edit.mean.layers[-1].bias.fill_(sign)
            base = method._base(context, 4, seeded())
            chunks = (base + 0.3 * np.tanh(1.0)).clamp(-1, 1) if edited else base
            expected = chunks[torch.arange(5), chunks.sum(dim=(2, 3)).argmax(dim=1)]
            torch.testing.assert_close(method.act(context, seeded()), expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize("bound", [0.0, 0.3])
def test_a_state_is_worth_the_least_critic_of_what_their_mean_chooses_among_all(bound: float) -> None:
    method, context = made(bound=bound), torch.linspace(-1, 1, 6)[:, None]
    with torch.no_grad():
        value = method.value(context, apart, 3, seeded())
        total = method.candidates(context[:, None], seeded()).sum(dim=(2, 3))
    assert total.shape == (6, 4 if bound == 0 else 8)
    greatest = total.amax(dim=1)
    assert (greatest - total.mean(dim=1)).min() > 0.01
    torch.testing.assert_close(value, torch.stack([-greatest, 5 * greatest, 1 - greatest]).amin(dim=0))


def test_a_sarsa_backup_asks_for_one_edited_chunk() -> None:
    context = torch.linspace(-1, 1, 6)[:, None]
    for bound in (0.3, 0.0):
        method = made(bound=bound, backup="sarsa")
        with torch.no_grad():
            value = method.value(context, lambda c, a: a.sum(dim=1)[None], 1, seeded())
            generator = seeded()
            base = method._base(context[:, None], 1, generator)
            if bound:
                base = (base + method.edit.draw(context[:, None], base, generator)[0]).clamp(-1, 1)
        torch.testing.assert_close(value, base.sum(dim=(1, 2, 3)))


def test_no_edit_goes_beyond_its_bound() -> None:
    method = made(bound=0.2)
    with torch.no_grad():
        for value in method.edit.mean.parameters():
            value.mul_(100)
    context = method.policy.encode(PLACE)
    base = method._base(context, 50, seeded())
    edits, density = method.edit.draw(context, base, seeded())
    assert edits.shape == density.shape == base.shape
    assert 0.19 < edits.abs().max() <= 0.2
    chosen = method.edit(context, base, torch.ones_like(base))
    nearest = (chosen[:, None] - base).abs().amax(dim=(2, 3)).amin(dim=1)
    assert nearest.max() <= 0.2 + 1e-6
    kept = method.edit(context, base, torch.zeros_like(base))  # nothing is free
    assert (kept[:, None] - base).abs().amax(dim=(2, 3)).amin(dim=1).max() == 0


def test_critics_move_the_edits_alone_and_imitation_the_base_alone() -> None:
    method = made()
    base, edits = list(method.policy.denoiser.parameters()), [
        *method.edit.mean.parameters(), *method.edit.process.parameters(), method.log_temperature,
    ]  # fmt: skip
    assert {id(value) for value in method.trained()} == {id(value) for value in (*base, *edits)}
    context, chunk = torch.linspace(-1, 1, 16)[:, None], 2 * torch.rand(16, 3, generator=seeded()) - 1
    loss, _ = method.loss(context, apart, seeded())
    gradients = torch.autograd.grad(loss, [*base, *edits], allow_unused=True)
    assert all(each is None for each in gradients[: len(base)])
    assert all(each is not None and each.abs().sum() > 0 for each in gradients[len(base) :])
    imitated = method.imitation(context, chunk, seeded())
    gradients = torch.autograd.grad(imitated, [*base, *edits], allow_unused=True)
    assert all(each is not None for each in gradients[: len(base)])
    assert all(each is None for each in gradients[len(base) :])


def test_imitation_is_the_loss_of_a_clone() -> None:
    method = made()
    place, action = torch.linspace(-1, 1, 8)[:, None, None], torch.rand(8, 3, 1, generator=seeded()) - 0.5
    policy = method.policy
    expected = policy.loss({"observation": {"place": place}, "action": action}, generator=seeded())
    chunk = policy.action_normalizer.normalize(action).flatten(1)
    torch.testing.assert_close(method.imitation(policy.encode({"place": place}).flatten(1), chunk, seeded()), expected)


def test_imitation_of_what_lies_behind_the_end_of_an_episode_has_no_part_in_the_loss(tmp_path: Path) -> None:
    """As of the windows that a clone is trained on: chunks of three at the five steps of an episode."""
    method, length = made(bound=0.0), 5
    store = store_episodes(tmp_path / "e.zarr", [length], [True])
    replay = Replay(method.policy, 3, 3, 0.9)
    replay.add(store[0])
    batch = replay.at(torch.arange(length))
    ahead = np.arange(length)[:, None] + np.arange(3)
    action = torch.from_numpy(store[0].action[np.minimum(ahead, length - 1)])
    place = torch.from_numpy(store[0].observation["place"][:length, None])
    windows = {"observation": {"place": place}, "action": action, "action_valid": torch.from_numpy(ahead < length)}
    expected = method.policy.loss(windows, generator=seeded())
    imitated = method.imitation(batch.context, batch.chunk, seeded(), batch.valid)
    torch.testing.assert_close(imitated, expected)
    assert abs(method.imitation(batch.context, batch.chunk, seeded()) - expected) > 0.1 * expected
    updater = Updater(Critics(method, settings(execute=3)), settings(execute=3))
    updater.update_actor(batch, seeded())  # without edits, it draws for imitation alone
    assert updater.take_log()["imitation_loss"] == pytest.approx(expected.item())


def test_the_edits_climb_the_mean_of_the_critics_within_their_bound() -> None:
    method = EXPO(line_policy(FLOW, horizon=1), 1, bound=0.2, temperature=1e-3, **SIZES)
    optimizer, generator = torch.optim.Adam(method.trained(), lr=1e-2), seeded()
    for _ in range(100):
        optimizer.zero_grad()
        method.loss(2 * torch.rand(32, 1, generator=generator) - 1, apart, generator)[0].backward()
        optimizer.step()
    context = method.policy.encode(PLACE)
    with torch.no_grad():
        base = method._base(context, 1, generator)
        edits = method.edit.draw(context, base, generator)[0]
    inside = base + 0.2 < 1
    assert inside.any()
    assert edits[inside].min() > 0.05


def test_the_policy_carries_the_critics_by_which_it_chooses() -> None:
    method = EXPO(line_policy(FLOW, horizon=1), 1, **SIZES)
    critics = Critics(method, settings())
    updater = Updater(critics, settings())
    batch = Batch(torch.randn(8, 1), torch.rand(8, 1), torch.randn(8), torch.full((8,), 0.9), torch.randn(8, 1))
    updater.update_critics(batch, seeded())
    updater.update_actor(batch, seeded())
    ours, live = method.policy.state_dict(), critics.live.state_dict()
    assert all(torch.equal(value, ours[f"edit.critics.{name}"]) for name, value in live.items())
    assert not any(value.requires_grad for value in method.edit.critics.parameters())
    with pytest.raises(RuntimeError, match="size mismatch"):
        method.follow(CriticEnsemble(2, 2, width=8, depth=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "options"), [(FLOW, {}), (FLOW, {"bound": 0.0, "backup": "sarsa"}), (SHORTCUT, {})]
)
def test_a_training_moves_base_and_edits_and_goes_on_bit_by_bit(
    process: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    policy = line_policy(process, horizon=3)
    before = {name: value.clone() for name, value in policy.state_dict().items()}

    def learner(name: str) -> OffPolicyLearner:
        torch.manual_seed(0)
        method = EXPO(policy, 3, **SIZES, **options)
        return OffPolicyLearner(method, Line(2), settings(execute=3), tmp_path / name, seed=0, first_seed=100)

    with learner("a.zarr") as whole:
        for _ in range(6):
            expected = whole.iterate()
    after = whole.policy.state_dict()
    assert whole.updates > 0
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in before.items())
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {name for name in before if name.startswith("denoiser.") and "frequencies" not in name}
    (tmp_path / "saved").mkdir()
    with learner("b.zarr") as stopped:
        for _ in range(3):
            stopped.iterate()
        stopped.save(tmp_path / "saved", {})
    with learner("b.zarr") as resumed:
        resumed.load(tmp_path / "saved")
        for _ in range(3):
            row = resumed.iterate()
    assert row == expected
    assert all(torch.equal(value, resumed.policy.state_dict()[name]) for name, value in after.items())


def test_is_saved_with_edits_and_critics_and_deploys_the_best_of_chunks_and_mean_edits(tmp_path: Path) -> None:
    method = made(bound=0.3)
    again = load_policy(save_policy(method.policy, tmp_path))
    seen = {name: value.numpy() for name, value in PLACE.items()}
    chunks = [predict(each, seen, [new_generator(each, 0)]) for each in (method.policy, again)]
    np.testing.assert_array_equal(*chunks)
    context, noise = again.encode(PLACE), torch.randn(5, 8, 3, 1, generator=seeded())
    flat, edit = context.flatten(1), method.edit
    with torch.no_grad():
        sampled = again.sample(context, n=2, noise=noise)
        for number in range(2):
            base = [
                again.process.sample(again.denoiser, context, each, again.process.steps, None, None)
                for each in noise[:, 4 * number : 4 * number + 4].unbind(1)
            ]
            moves = [0.3 * torch.tanh(edit.mean(flat, flat, edit.seen(context, each[:, None]))) for each in base]
            whole = [each.clamp(-1, 1) for each in (*base, *(a + b for a, b in zip(base, moves, strict=True)))]
            values = torch.stack([edit.critics(flat, each.flatten(1)).mean(dim=0) for each in whole])
            expected = torch.stack(whole)[values.argmax(dim=0), torch.arange(5)]
            torch.testing.assert_close(sampled[:, number], again.decode(expected))
    with pytest.raises(PolicyError, match="an edited policy has no chain"):
        again.chain(context)
    for other in (EXPO, DSRL):
        with pytest.raises(PolicyError, match=r"has an edit already|edit: expected none"):
            other(again, 3)


def held(policy: Policy) -> Prefix:
    """The first action committed, the second half free."""
    actions = np.full((5, policy.action_horizon, 1), 0.25, np.float32)
    weights = np.tile(np.array([1.0, 0.5, 0.0], np.float32), (5, 1))
    return Prefix(actions, weights, np.ones(5, np.int64))


def test_committed_actions_are_not_edited() -> None:
    policy = made(bound=0.3).policy
    chunk = policy.sample(policy.encode(PLACE), n=2, prefix=held(policy), generator=seeded())
    assert chunk.shape == (5, 2, 3, 1)
    assert (chunk[:, :, 0] == 0.25).all()
    assert chunk[:, :, 2].std() > 0.01


def test_other_policies_and_wrong_values_are_refused() -> None:
    with pytest.raises(PolicyError, match="edits policies that denoise, this one is gaussian"):
        EXPO(line_policy({"name": "gaussian"}), 1)
    with pytest.raises(PolicyError, match=r"whole chunks: expected training.execute=4, got 2"):
        EXPO(line_policy(FLOW, horizon=4), 2)
    scaled = {**line_policy(FLOW).config, "normalizer": {"observation": "min_max", "action": "mean_std"}}
    with pytest.raises(PolicyError, match="action=mean_std puts actions outside"):
        EXPO(Policy(scaled, line_policy(FLOW).contract), 1)
    with pytest.raises(PolicyError, match="expected backup best or sarsa"):
        EXPO(line_policy(FLOW), 1, backup="max")  # type: ignore[arg-type]
    for bound in (-0.1, float("inf")):
        with pytest.raises(ValueError, match="a finite bound of at least 0"):
            EXPO(line_policy(FLOW), 1, bound=bound)


@pytest.mark.slow
@pytest.mark.parametrize(("process", "bound"), [(FLOW, 0.3), (SHORTCUT, 0.3), (DDIM, 0.0)])
def test_the_exported_policy_chooses_alike(process: dict[str, Any], bound: float, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from robot_rl.policies import OnnxPolicy, export_policy
    from robot_rl.policies.onnx_policy import EDIT

    policy = made(line_policy(process, horizon=3), bound=bound).policy
    exported = OnnxPolicy(export_policy(policy, tmp_path))
    noise = torch.randn(5, 8, 3, 1, generator=seeded())
    for prefix in (None, held(policy)):
        ours = policy.sample(policy.encode(PLACE), n=2, noise=noise, prefix=prefix)
        seen = {name: value.numpy() for name, value in PLACE.items()}
        theirs = exported.sample(exported.encode(seen), n=2, noise=noise.numpy(), prefix=prefix)
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert predict(exported, seen, [new_generator(exported, 0)]).shape == (5, 3, 1)
    (tmp_path / EDIT).unlink()
    with pytest.raises(PolicyError, match=r"lacks edit.onnx"):
        OnnxPolicy(tmp_path)


@pytest.mark.slow
def test_goes_from_a_poor_clone_to_the_best_policy_of_the_line(tmp_path: Path) -> None:
    """Linear feedback by the Riccati equation, as for SAC: the clone's is half as strong."""
    gamma, weight = 0.9, 1.0
    for _ in range(100):
        weight = 1 + gamma * weight / (1 + gamma * weight)
    gain = gamma * weight / (1 + gamma * weight)
    place = torch.linspace(-1.2, 1.2, 25)[:, None]
    chosen = settings(
        num_envs=4, batch=64, critic_width=32, critic_depth=2, start_steps=200, steps=600, update_ratio=3, polyak=0.02,
        learning_rate=3e-3, critic_learning_rate=3e-3,
    )  # fmt: skip
    base = line_policy(FLOW, clone=0.3)
    torch.manual_seed(0)
    method = EXPO(base, 1, bound=0.5, width=32, critic_width=32, critic_depth=2)

    def error(policy: Policy) -> float:
        pushes = policy.sample(policy.encode({"place": place[:, None]}), n=16, generator=seeded())[..., 0, 0]
        return (pushes.mean(dim=1) + gain * place[:, 0]).abs().mean().item()

    before = error(base)
    with OffPolicyLearner(method, Line(4), chosen, tmp_path / "own.zarr", seed=0, first_seed=100) as training:
        while not training.finished:
            training.iterate()
    assert before > 0.15
    assert error(training.policy) < 0.1
