"""What a log-probability of a chunk is, for each method: chunks of several actions of several elements."""

from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.datasets import Contract, Feature
from robot_rl.policies import PolicyError
from robot_rl.rl.dppo import DPPO
from robot_rl.rl.methods import build_method, build_off_policy, fresh_policy
from robot_rl.rl.ppo import PPO
from robot_rl.rl.reinflow import ReinFlow
from tests.robot_rl.rl.line import line_policy

COUNTED = torch.arange(4) < torch.tensor([4, 1, 3, 2, 4])[:, None]
"""Of chunks of four actions, those that were executed."""


def density(steps: int) -> torch.Tensor:
    """[B, D, H, A], of three elements an action."""
    return torch.randn(5, steps, 4, 3, generator=torch.Generator().manual_seed(0))


def each_step(log_density: torch.Tensor, of: Any) -> np.ndarray:
    """[B, D]: `of` the elements of the executed actions, one decision after the other."""
    return np.array([
        [of(step[counted].numpy()) for step in decision] for decision, counted in zip(log_density, COUNTED, strict=True)
    ])  # fmt: skip


def test_reinflow_takes_the_mean_over_elements_and_steps() -> None:
    log_density, method = density(3), ReinFlow(line_policy({"name": "flow_matching"}, horizon=4), steps=2)
    expected = each_step(log_density, np.mean).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(method.condense(log_density, COUNTED).numpy(), expected, rtol=1e-5)


def test_dppo_takes_the_mean_over_elements_for_each_step() -> None:
    diffusion = {"name": "ddpm", "steps": 10, "train_steps": 20}
    log_density, method = density(3), DPPO(line_policy(diffusion, horizon=4), tuned_steps=3)
    expected = each_step(log_density, np.mean)
    np.testing.assert_allclose(method.condense(log_density, COUNTED).numpy(), expected, rtol=1e-5)


def test_gaussian_methods_take_the_sum_over_elements() -> None:
    log_density, method = density(1), PPO(line_policy({"name": "gaussian"}, horizon=4))
    expected = each_step(log_density, np.sum)
    np.testing.assert_allclose(method.condense(log_density, COUNTED).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("denoiser", ["perceptron", "mlp"])
def test_the_log_probability_of_a_gaussian_is_that_of_its_distribution(denoiser: str) -> None:
    """With the gradient written out, and by automatic differentiation."""
    torch.manual_seed(0)
    contract = Contract(
        "plane", 10.0, {"place": Feature("place", (2,))}, {"push": Feature("push", (3,), kind="action")}
    )  # fmt: skip
    config: dict[str, Any] = {
        "obs_horizon": 1, "action_horizon": 4, "process": {"name": "gaussian"},
        "denoiser": {"name": denoiser, "width": 8, "depth": 1},
    }  # fmt: skip
    method = PPO(fresh_policy(config, contract), std=0.4)
    context = torch.randn(5, 1, method.policy.encoder.features)
    states = method.draw(context, torch.Generator().manual_seed(0)).states
    with torch.no_grad():
        mean, std = method.policy.process.gaussians(method.policy.denoiser, states, context)
    elements = torch.distributions.Normal(mean, std).log_prob(states)[:, 0]
    expected = [chunk[counted].sum() for chunk, counted in zip(elements, COUNTED, strict=True)]
    torch.testing.assert_close(method.log_prob(states, context, COUNTED).value[:, 0], torch.stack(expected))


@pytest.mark.parametrize("asked", ["ppo", "reinflow", "dppo"])
@pytest.mark.parametrize(
    ("process", "named"),
    [("gaussian", "ppo"), ("shortcut", "reinflow"), ("ddim", "dppo"), ("tanh_gaussian", "sac")],
)
def test_who_asks_for_the_wrong_algorithm_is_told_one_that_trains_the_policy(
    asked: str, process: str, named: str
) -> None:  # fmt: skip
    policy = line_policy({"name": process})
    if asked != named:
        with pytest.raises(PolicyError, match=f"this one is {process}; use algorithm={named}$"):
            build_method(asked, {}, policy)
    if named == "sac":
        build_off_policy(named, {}, policy, 1)
    else:
        build_method(named, {"tuned_steps": 1} if named == "dppo" else {}, policy)
