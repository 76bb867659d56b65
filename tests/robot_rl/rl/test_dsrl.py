"""DSRL: what it freezes, what its critics are told, and the policy that it leaves."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from robot_rl.policies import PolicyError, load_policy, save_policy
from robot_rl.policies.prediction import new_generator, predict
from robot_rl.rl.dsrl import DSRL
from robot_rl.rl.off_policy_learner import OffPolicyLearner
from robot_rl.rl.resip import ResiP
from tests.robot_rl.rl.line import Line, line_policy
from tests.robot_rl.rl.test_off_policy import settings

FLOW: dict[str, Any] = {"name": "flow_matching", "steps": 2}
DDIM: dict[str, Any] = {"name": "ddim", "steps": 2, "train_steps": 20}
PLACE = {"place": torch.linspace(-1, 1, 5)[:, None, None]}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def total(context: torch.Tensor, chunk: torch.Tensor) -> torch.Tensor:
    """Two critics of whom the first is the least: what is executed, added up."""
    return torch.stack([chunk.sum(dim=1), chunk.sum(dim=1) + 1])


def moved(method: DSRL) -> DSRL:
    """As after a training: its noise is not 0."""
    with torch.no_grad():
        for value in method.steering.parameters():
            value.add_(0.1)
    return method


@pytest.mark.parametrize("process", [FLOW, {"name": "shortcut", "steps": 2}, DDIM])
def test_acts_as_the_frozen_policy_does_from_its_noise(process: dict[str, Any]) -> None:
    policy = line_policy(process, horizon=4)
    method = moved(DSRL(policy, 3, width=16, executed_temperature=0))
    steered, context = method.policy, policy.encode(PLACE)
    noise = method.steering(context)
    assert 0.01 < noise.abs().max() < 1.5
    expected = policy.sample(context, noise=noise[:, None])
    torch.testing.assert_close(steered.sample(context), expected, rtol=0, atol=0)
    many = steered.sample(context, n=3, generator=seeded())
    torch.testing.assert_close(many, expected.expand(-1, 3, -1, -1))
    begun = steered.decode(method.begin(context, seeded()))
    torch.testing.assert_close(begun, policy.sample(context, generator=seeded())[:, 0])
    drawn, _ = method.steering.draw(context, seeded())
    chunk = steered.decode(method.act(context, seeded()))
    torch.testing.assert_close(chunk, policy.sample(context, noise=drawn[:, None])[:, 0])


@pytest.mark.parametrize("process", [FLOW, {"name": "shortcut", "steps": 2}, DDIM])
def test_executes_draws_of_its_noise_as_it_tries_them(process: dict[str, Any]) -> None:
    policy = line_policy(process, horizon=4)
    context = policy.encode(PLACE)
    method = moved(DSRL(policy, 3, width=16))
    drawn, _ = method.steering.draw(context, seeded())
    chunks = method.policy.sample(context, generator=seeded())
    torch.testing.assert_close(chunks, policy.sample(context, noise=drawn[:, None]))
    many = method.policy.sample(context, n=3, generator=seeded())
    assert not torch.equal(many[:, 0], many[:, 1])
    torch.testing.assert_close(many, method.policy.sample(context, n=3, generator=seeded()), rtol=0, atol=0)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_what_is_executed_deviates_from_the_mean_by_the_temperature(temperature: float) -> None:
    method = DSRL(line_policy(FLOW), 1, width=16, executed_temperature=temperature)
    context = torch.zeros(20_000, 1, 1)
    with torch.no_grad():
        normal = torch.randn(20_000, 1, 1, generator=seeded())
        u = torch.atanh(method.steering(context, normal) / 1.5)
        mean = torch.atanh(method.steering(context[:1]) / 1.5)
        deviation = method.steering.process.deviation(context[:1])
    assert u.mean().item() == pytest.approx(mean.item(), abs=0.03)
    assert u.std().item() == pytest.approx(temperature * deviation.item(), rel=0.02, abs=1e-5)


def test_noises_are_bounded_and_their_density_is_that_of_the_bounded_noise() -> None:
    """A density over (-b, b): its integral, by the mean of 1 / p over draws of p, is the length 2b."""
    method = DSRL(line_policy(FLOW), 1, bound=0.7, width=16)
    noise, density = method.steering.draw(torch.zeros(40_000, 1, 1), seeded())
    assert noise.abs().max() <= 0.7
    inside = noise.abs() < 0.6
    assert (torch.exp(-density.detach()) * inside).mean().item() == pytest.approx(1.2, rel=0.03)


def test_a_state_is_worth_the_least_critic_of_what_the_frozen_policy_makes_of_the_noise() -> None:
    method = moved(DSRL(line_policy(FLOW, horizon=4), 3, width=16))
    context = torch.linspace(-1, 1, 6)[:, None]
    with torch.no_grad():
        value = method.value(context, total, 2, seeded())
        chunk = method.act(context[:, None], seeded()).clamp(-1, 1)
    torch.testing.assert_close(value, chunk[:, :3].sum(dim=(1, 2)))


def test_the_loss_trains_actor_and_distilled_critics_and_neither_through_the_other() -> None:
    method = DSRL(line_policy(FLOW), 1, width=16)
    trained = {id(value) for value in method.trained()}
    own = [*method.steering.parameters(), *method.noise_critics.parameters(), method.log_temperature]
    assert trained == {id(value) for value in own}
    context = torch.linspace(-1, 1, 32)[:, None]
    loss, logged = method.loss(context, total, seeded())
    gradients = dict(zip(map(id, method.trained()), torch.autograd.grad(loss, method.trained()), strict=True))
    noise, _ = method.steering.draw(context[:, None], seeded())
    generator = seeded()
    method.steering.draw(context[:, None], generator)
    alone = method._distillation(context, noise.detach(), total, generator)
    assert logged["distillation_loss"] == alone.detach()
    critics = list(method.noise_critics.parameters())
    for value, gradient in zip(critics, torch.autograd.grad(alone, critics), strict=True):
        torch.testing.assert_close(gradients[id(value)], gradient)
    assert all(gradients[id(value)].abs().sum() > 0 for value in method.steering.parameters())


def test_the_distilled_critics_learn_what_the_actions_of_a_noise_are_worth() -> None:
    policy = line_policy(FLOW)
    method = DSRL(policy, 1, width=32)
    optimizer = torch.optim.Adam(method.trained(), lr=3e-3)
    generator = seeded()
    for _ in range(200):
        context = 2 * torch.rand(64, 1, generator=generator) - 1
        optimizer.zero_grad()
        method.loss(context, total, generator)[0].backward()
        optimizer.step()
    context = torch.linspace(-1, 1, 64)[:, None]
    noise = 3 * torch.rand(64, 1, 1, generator=generator) - 1.5
    with torch.no_grad():
        worth = total(context, method._made(context, noise))[0]
        learned = method.noise_critics(context, noise.flatten(1))
    assert worth.std() > 0.3
    assert (learned - worth).abs().mean() < 0.1


@pytest.mark.slow
def test_a_training_leaves_the_frozen_policy_as_it_is_and_goes_on_bit_by_bit(tmp_path: Path) -> None:
    policy = line_policy(FLOW, horizon=4)
    before = {name: value.clone() for name, value in policy.state_dict().items()}

    def learner(name: str) -> OffPolicyLearner:
        torch.manual_seed(0)
        return OffPolicyLearner(
            DSRL(policy, 3, width=16), Line(2), settings(execute=3), tmp_path / name, seed=0, first_seed=100
        )

    with learner("a.zarr") as whole:
        first = whole.policy.state_dict()["steering.mean.layers.0.weight"].clone()
        for _ in range(6):
            expected = whole.iterate()
    after = whole.policy.state_dict()
    assert whole.updates > 0
    assert not torch.equal(after["steering.mean.layers.0.weight"], first)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in before.items())
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


def test_is_saved_with_its_base_and_can_be_corrected_but_not_steered_again(tmp_path: Path) -> None:
    method = moved(DSRL(line_policy(FLOW, horizon=4), 3, steps=1, width=16))
    again = load_policy(save_policy(method.policy, tmp_path))
    assert again.config["process"]["steps"] == 1
    assert again.config["steering"] == {"bound": 1.5, "width": 16, "depth": 2, "temperature": 1.0}
    seen = {name: value.numpy() for name, value in PLACE.items()}
    chunks = [predict(each, seen, [new_generator(each, 0)]) for each in (method.policy, again)]
    np.testing.assert_array_equal(*chunks)
    whole = ResiP(again, width=16).result
    np.testing.assert_array_equal(predict(whole, seen, [new_generator(whole, 0)]), chunks[0])
    with pytest.raises(PolicyError, match="has a steering already"):
        DSRL(again, 3)
    with pytest.raises(PolicyError, match="a steered policy has no chain"):
        again.chain(again.encode(PLACE))


def test_other_policies_and_wrong_values_are_refused() -> None:
    for process in ({"name": "ddpm", "steps": 2, "train_steps": 20}, {"name": "gaussian"}, {**DDIM, "eta": 0.5}):
        with pytest.raises(PolicyError, match="steers policies whose noise decides the chunk"):
            DSRL(line_policy(process), 1)
    with pytest.raises(PolicyError, match="temperature above 0"):
        DSRL(line_policy(FLOW), 1, temperature=0)
    for wrong in ({"bound": 0}, {"bound": float("inf")}, {"executed_temperature": -1}):
        with pytest.raises(ValueError, match=r"expected a finite bound above 0 and temperature at least 0"):
            DSRL(line_policy(FLOW), 1, **wrong)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("process", [FLOW, {"name": "shortcut", "steps": 2}])
def test_the_exported_policy_steers_alike(process: dict[str, Any], temperature: float, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from robot_rl.policies import OnnxPolicy, export_policy
    from robot_rl.policies.onnx_policy import STEERING

    policy = moved(DSRL(line_policy(process, horizon=4), 3, width=16, executed_temperature=temperature)).policy
    exported = OnnxPolicy(export_policy(policy, tmp_path))
    normal = torch.randn(5, 1, 4, 1, generator=seeded())

    class Given:
        def standard_normal(self, shape: tuple[int, ...], _: Any) -> np.ndarray:
            return normal.numpy().reshape(shape)

    theirs = exported.sample(exported.encode({"place": PLACE["place"].numpy()}), generator=cast(Any, Given()))
    context = policy.encode(PLACE)
    with torch.no_grad():
        noise = policy.steering(context, *([normal[:, 0]] if temperature else []))[:, None]
    ours = policy.sample(context, noise=noise).numpy()
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert (np.abs(np.diff(theirs, axis=0)).min() > 1e-4) or not temperature
    (tmp_path / STEERING).unlink()
    with pytest.raises(PolicyError, match=r"lacks steering.onnx"):
        OnnxPolicy(tmp_path)
