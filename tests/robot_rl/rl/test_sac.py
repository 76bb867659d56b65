from functools import partial

import pytest
import torch

from robot_rl.policies import PolicyError
from robot_rl.policies.critic_ensemble import CriticEnsemble
from robot_rl.rl.off_policy_method import OffPolicyMethod
from robot_rl.rl.replay import Batch
from robot_rl.rl.sac import SAC
from tests.robot_rl.rl.line import line_policy
from tests.robot_rl.rl.stored import squashed_policy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(context: torch.Tensor, chunk: torch.Tensor) -> torch.Tensor:
    """Two critics that find everything equally good, but not to the same degree."""
    return torch.stack([chunk.sum(dim=1) * 0 + 3.0, chunk.sum(dim=1) * 0 + 5.0])


@pytest.mark.parametrize(("target", "rises"), [(5.0, True), (-50.0, False)])
def test_the_temperature_rises_while_the_policy_is_too_certain(target: float, rises: bool) -> None:
    method = SAC(squashed_policy(), 1, target_entropy=target)
    loss, logged = method.loss(torch.zeros(64, 1), flat, seeded())
    (slope,) = torch.autograd.grad(loss, [method.log_temperature])
    assert (logged["entropy"] < target) == rises
    assert (slope < 0) == rises  # descent raises what has a negative slope


def test_the_target_entropy_counts_the_elements_of_the_executed_chunk() -> None:
    assert SAC(squashed_policy(horizon=4), 3, target_entropy=-0.5).target_entropy == -1.5


def test_a_state_is_worth_the_least_critic_with_and_without_the_entropy() -> None:
    context = torch.linspace(-1, 1, 16)[:, None]
    with_entropy = SAC(squashed_policy(), 1, temperature=0.5)
    without = SAC(with_entropy.policy, 1, temperature=0.5, backup_entropy=False)
    with torch.no_grad():
        torch.testing.assert_close(without.value(context, flat, 2, seeded()), torch.full((16,), 3.0))
        _, log_prob = with_entropy._draw(context, seeded())
        value = with_entropy.value(context, flat, 2, seeded())
    torch.testing.assert_close(value, 3.0 - 0.5 * log_prob)


def test_the_actor_climbs_the_least_critic_or_the_mean() -> None:
    def critics(context: torch.Tensor, chunk: torch.Tensor) -> torch.Tensor:
        return torch.stack([chunk.sum(dim=1), -3 * chunk.sum(dim=1) - 100])

    slopes, policy = {}, squashed_policy()
    for pessimistic in (True, False):
        method = SAC(policy, 1, pessimistic=pessimistic, temperature=1e-6)
        loss, _ = method.loss(torch.zeros(256, 1), critics, seeded())
        bias = method.policy.denoiser.layers[-1].bias  # type: ignore[union-attr,operator]
        (slopes[pessimistic],) = torch.autograd.grad(loss, [bias])
    assert slopes[True].item() == pytest.approx(3 * slopes[False].item(), rel=1e-3)


def test_the_actors_loss_leaves_critics_and_encoder_alone() -> None:
    method, critics = SAC(squashed_policy(), 1), CriticEnsemble(2, 2, width=8)
    loss, _ = method.loss(torch.zeros(4, 1), critics, seeded())
    trained = method.trained()
    assert not {id(value) for value in trained} & {id(value) for value in critics.parameters()}
    assert not {id(value) for value in trained} & {id(value) for value in method.policy.encoder.parameters()}
    assert all(gradient is not None for gradient in torch.autograd.grad(loss, trained))


@pytest.mark.parametrize("pessimistic", [True, False])
@pytest.mark.parametrize("execute", [1, 3])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_gradients_written_out_are_those_of_the_loss(pessimistic: bool, execute: int, layer_norm: bool) -> None:
    torch.manual_seed(0)
    method = SAC(squashed_policy(horizon=3), execute, temperature=0.3, pessimistic=pessimistic)
    critics = CriticEnsemble(1 + execute, 2, width=8, layer_norm=layer_norm)
    context, nothing = torch.randn(16, 1), torch.zeros(16)
    batch = Batch(context, torch.zeros(16, execute), nothing, nothing, context)
    found = []
    for pull in (method.pull, partial(OffPolicyMethod.pull, method)):
        into = {value: torch.empty_like(value) for value in method.trained()}
        logged = pull(batch, critics, into, seeded())
        found.append((tuple(into.values()), logged))
    torch.testing.assert_close(*found)


def test_other_policies_and_wrong_values_are_refused() -> None:
    with pytest.raises(PolicyError, match="train tanh_gaussian policies, this one is gaussian"):
        SAC(line_policy({"name": "gaussian"}), 1)
    with pytest.raises(PolicyError, match="execute: a chunk of 2 actions, got 3"):
        SAC(squashed_policy(horizon=2), 3)
    with pytest.raises(ValueError, match="temperature above 0"):
        SAC(squashed_policy(), 1, temperature=0.0)
