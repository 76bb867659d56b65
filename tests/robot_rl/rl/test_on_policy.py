"""The core: ratios, clips, losses, and a task whose best policy is known."""

from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.rl.collector import Collector
from robot_rl.rl.dppo import DPPO
from robot_rl.rl.learner import Learner
from robot_rl.rl.method import Method
from robot_rl.rl.on_policy import (
    ActorCritic,
    FinetuneError,
    Settings,
    Update,
    build_optimizer,
    estimate,
    surrogate,
    value_loss,
)
from robot_rl.rl.ppo import PPO
from robot_rl.rl.reinflow import ReinFlow
from tests.robot_rl.rl.line import Line, line_policy

SETTINGS: dict[str, Any] = {
    "steps": 1000, "num_envs": 4, "rollout_steps": 8, "execute": None, "discount": 0.9, "gae_decay": 0.95,
    "reward_scale": False, "epochs": 2, "minibatch": 16, "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3, "final_learning_rate": 1.0, "critic_warmup": 0, "clip": 0.2, "value_clip": None,
    "entropy": 0.0, "target_kl": None, "gradient_clip": 1.0, "critic_width": 32, "critic_depth": 1, "save_every": 1,
    "evaluate_every": 1, "evaluate_episodes": 1,
}  # fmt: skip


def settings(**changes: Any) -> Settings:
    return Settings.read({**SETTINGS, **changes})


def method(name: str, horizon: int = 4, clone: float | None = None, **options: Any) -> Method:
    kind: type
    process, kind = {
        "ppo": ({"name": "gaussian"}, PPO),
        "reinflow": ({"name": "flow_matching"}, ReinFlow),
        "dppo": ({"name": "ddpm", "steps": 10, "train_steps": 20}, DPPO),
    }[name]  # fmt: skip
    return kind(line_policy(process, horizon, clone=clone), **options)


METHODS = [
    ("ppo", {}), ("reinflow", {"steps": 1}), ("reinflow", {"steps": 4}), ("dppo", {"tuned_steps": 1}),
    ("dppo", {"tuned_steps": 4}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), METHODS)
def test_the_first_ratio_is_1(name: str, options: dict[str, Any]) -> None:
    learner = Learner(method(name, **options), Line(16), settings(num_envs=16), seed=0)
    row = learner.iterate()
    assert row["first_ratio_error"] <= 1e-5
    assert row["kl"] > 0  # and later it is not: the update has moved the policy


@pytest.mark.parametrize("steps", [2, 4])
def test_another_time_grid_in_the_update_than_in_the_draw_ends_the_training(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draw looks at times from 0 to 1 - 1/K, and the update at those from 0 to 1."""
    tuned = method("reinflow", steps=steps, clone=0.3)
    process: Any = tuned.policy.process
    velocity, gaussians = process._velocity, process.gaussians

    def shifted(*arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            late = steps / (steps - 1)
            patch.setattr(process, "_velocity", lambda net, x, t, *rest: velocity(net, x, late * t, *rest))
            return gaussians(*arguments)

    monkeypatch.setattr(process, "gaussians", shifted)
    learner = Learner(tuned, Line(16), settings(num_envs=16), seed=0)
    with pytest.raises(FinetuneError, match="the first ratios differ from 1 by up to"):
        learner.iterate()


def test_clipped_ratios_have_no_gradient() -> None:
    ratio = torch.tensor([[1.5], [0.5], [1.1], [1.5]])
    advantage = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    loss, gradient = surrogate(ratio.log(), advantage, torch.tensor([0.2]))
    torch.testing.assert_close(loss[:, 0], torch.tensor([-1.2, 0.8, -1.1, 1.5]))
    # Better than usual within the clip: more of it. Worse than usual: less of it, however far it has come.
    torch.testing.assert_close(gradient[:, 0], torch.tensor([0.0, 0.0, -1.1, 1.5]) / 4)


def test_the_gradients_written_out_are_those_of_the_losses() -> None:
    torch.manual_seed(0)
    log_ratio, advantage = (0.3 * torch.randn(50, 3)).requires_grad_(), torch.randn(50, 3)
    new, old, returns = torch.randn(3, 50).unbind()
    new.requires_grad_()
    loss, gradient = surrogate(log_ratio, advantage, torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(torch.autograd.grad(loss.mean(), log_ratio)[0], gradient)
    for clip in (None, 0.3):
        loss, gradient = value_loss(new, old, returns, clip)
        torch.testing.assert_close(torch.autograd.grad(loss.mean(), new)[0], gradient)


def test_values_are_clipped_around_the_old_ones() -> None:
    loss, gradient = value_loss(torch.tensor([0.5, -0.5]), torch.zeros(2), torch.ones(2), clip=0.2)
    torch.testing.assert_close(loss, torch.tensor([0.5 * 0.8**2, 0.5 * 1.5**2]))
    torch.testing.assert_close(gradient, torch.tensor([0.0, -0.75]))


def test_values_bootstrap_at_cut_offs_and_not_at_ends() -> None:
    """With a critic that says 5 everywhere: following is 5, except where nothing follows."""
    trained = method("ppo", horizon=2)
    environments = Line(6, horizon=3)
    sampler = Collector(trained, environments, 2, 0.9, first_seed=0)
    environments.x[:2] = 3.99
    rollout = sampler.collect(6, torch.Generator().manual_seed(3))

    class Five(torch.nn.Module):
        def forward(self, context: torch.Tensor) -> torch.Tensor:
            return torch.full((len(context),), 5.0)

    _, value, advantage = estimate(trained, Five(), rollout, settings(gae_decay=0.0), 1.0)  # type: ignore[arg-type]
    assert (value == 5).all()
    reward, discount = (table[rollout.row, rollout.env] for table in (rollout.reward, rollout.discount))
    assert (discount == 0).any()
    assert rollout.final
    np.testing.assert_allclose(advantage.numpy(), reward + discount * 5 - 5, rtol=1e-5)


def test_the_scale_of_the_reward_is_that_of_the_advantage_too() -> None:
    trained, given = method("ppo", horizon=2), settings(gae_decay=0.0)
    rollout = Collector(trained, Line(2), 2, 0.9, first_seed=0).collect(6, torch.Generator().manual_seed(3))
    critic = ActorCritic(trained, given).critic
    (_, _, plain), (_, _, scaled) = (estimate(trained, critic, rollout, given, scale) for scale in (1.0, 3.0))
    reward = rollout.reward[rollout.row, rollout.env]
    np.testing.assert_allclose((scaled - plain).numpy(), 2 * reward, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), METHODS)
def test_actions_of_a_chunk_that_nobody_executed_count_for_nothing(name: str, options: dict[str, Any]) -> None:
    """They are moved in the kept chunks alone: the first ratios stay 1, and the update is the same."""
    given, made = settings(epochs=1, minibatch=1000), []
    for shift in (0.0, 2.0):
        trained = method(name, **options)
        torch.manual_seed(0)
        model = ActorCritic(trained, given)
        # Of four actions three are executed, two before an end after five steps, and one of the last chunk.
        environments = Line(4, horizon=5)
        rollout = Collector(trained, environments, 3, 0.9, first_seed=0).collect(6, torch.Generator().manual_seed(3))
        dropped = torch.arange(4) >= torch.from_numpy(rollout.executed)[:, None]
        assert {1, 2, 3} <= set(rollout.executed.tolist())
        rollout.states[:, -1][dropped] += shift
        update = Update(trained, model, build_optimizer(model, trained, given), given)
        estimated = estimate(trained, model.critic, rollout, given, 1.0)
        row = update.run(rollout, *estimated, torch.Generator().manual_seed(4))
        assert row["first_ratio_error"] <= 1e-5
        made.append([value.clone() for value in model.parameters()])
    for plain, moved in zip(*made, strict=True):
        torch.testing.assert_close(moved, plain, rtol=0, atol=1e-7)


def test_the_rollout_that_fits_a_new_policys_normaliser_is_counted() -> None:
    environments = Line(4)
    learner = Learner(method("ppo"), environments, settings(), seed=0, scale_observations=True)
    for rollouts in (2, 3):
        learner.iterate()
        assert learner.steps == 4 * len(environments.log) == rollouts * 4 * 8


def test_the_deviation_to_begin_with_is_the_one_that_was_asked_for() -> None:
    process = method("ppo", std=0.3).policy.process
    torch.testing.assert_close(process.std, torch.full((4, 1), 0.3), check_device=False)


def test_stops_the_epochs_when_the_policy_has_moved_far() -> None:
    far = Learner(method("ppo"), Line(4), settings(epochs=50, learning_rate=0.05, target_kl=0.01), seed=0).iterate()
    assert far["epochs"] < 50
    assert far["kl"] > 0.01


def test_the_critic_warms_up_alone() -> None:
    learner = Learner(method("ppo"), Line(4), settings(critic_warmup=1), seed=0)
    actor, critic = (
        [value.clone() for value in part.parameters()] for part in (learner.model.policy, learner.model.critic)
    )
    learner.iterate()
    assert all(torch.equal(a, b) for a, b in zip(actor, learner.model.policy.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(critic, learner.model.critic.parameters(), strict=True))
    learner.iterate()
    assert not all(torch.equal(a, b) for a, b in zip(actor, learner.model.policy.parameters(), strict=True))


def test_all_problems_of_the_settings_are_named_at_once() -> None:
    with pytest.raises(
        FinetuneError, match=r"(?s)speed: no such key.*clip: missing.*epochs: expected at least 1.*disc"
    ):
        Settings.read({**SETTINGS, "speed": 1, "clip": None, "epochs": 0, "discount": 1.5})


def test_the_optimizer_holds_every_parameter_once() -> None:
    trained = method("reinflow")
    model = ActorCritic(trained, settings())
    held = [id(value) for group in build_optimizer(model, trained, settings()).parameters for value in group]
    assert sorted(held) == sorted(id(value) for value in model.parameters())


def best_gain(discount: float) -> float:
    """k of the best action a = -k x: Riccati's equation, iterated to its fixed point."""
    worth = 0.0  # of x², in costs to come
    for _ in range(200):
        gain = discount * worth / (1 + discount * worth)
        worth = 1 + gain**2 + discount * worth * (1 - gain) ** 2
    return discount * worth / (1 + discount * worth)


@pytest.mark.parametrize(
    ("name", "options", "clip", "steps"),
    [
        ("ppo", {}, 0.2, 20_000),
        pytest.param("reinflow", {"steps": 2}, 0.05, 50_000, marks=pytest.mark.slow),
        pytest.param(
            "dppo", {"tuned_steps": 5, "first_clip": 0.1, "std_min": 0.2}, 0.2, 20_000, marks=pytest.mark.slow
        ),
    ],
)
def test_finds_the_best_policy_of_a_linear_task(name: str, options: dict[str, Any], clip: float, steps: int) -> None:
    """x' = x + a with the cost x² + a². A clone that moves 0.2 of the way has to learn to move 0.59 of it."""
    given = settings(
        num_envs=32, steps=steps, rollout_steps=24, epochs=5, minibatch=128, learning_rate=3e-3,
        critic_learning_rate=3e-3, clip=clip, reward_scale=True, final_learning_rate=0.1,
    )  # fmt: skip
    trained = method(name, horizon=1, clone=0.2, **options)
    assert mean_action(trained, 1.0) == pytest.approx(-0.2, abs=0.1)
    learner = Learner(trained, Line(32), given, seed=0)
    while not learner.finished:
        learner.iterate()
    gain = best_gain(0.9)
    assert gain == pytest.approx(0.588, abs=1e-3)
    for place in (-1.0, -0.5, 0.5, 1.0):
        assert mean_action(learner.method, place) == pytest.approx(-gain * place, abs=0.15)


def mean_action(trained: Method, place: float) -> float:
    policy = trained.policy
    context = policy.encode({"place": torch.full((1, 1, 1), place)})
    return float(policy.sample(context, n=64, generator=torch.Generator().manual_seed(0)).mean())
