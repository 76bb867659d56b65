"""The classifier's head: its loss against the definition, its probabilities, and that it does not act."""

import pytest
import torch

from robot_rl.datasets import Contract, Feature
from robot_rl.policies import Policy, PolicyError, load_policy, save_policy

CONTRACT = Contract(
    "line", 10.0, {"place": Feature("place", (1,), unit="m")}, {"holds": Feature("holds", (1,), kind="action")}
)
CONFIG = {
    "obs_horizon": 1, "action_horizon": 1, "process": {"name": "bernoulli"},
    "denoiser": {"name": "perceptron", "width": 16}, "normalizer": {"observation": "none", "action": "none"},
}  # fmt: skip


def test_loss_is_the_cross_entropy_of_what_is_sampled(tmp_path) -> None:
    torch.manual_seed(0)
    policy = Policy(CONFIG, CONTRACT).eval()
    place = torch.linspace(-3, 3, 8)[:, None, None]
    labels = (place > 0.5).float()
    probability = policy.sample(policy.encode({"place": place}))[:, 0]
    expected = -(labels * probability.log() + (1 - labels) * (1 - probability).log()).mean()
    torch.testing.assert_close(policy.loss({"observation": {"place": place}, "action": labels}), expected)
    again = load_policy(save_policy(policy, tmp_path / "saved"))
    assert torch.equal(again.sample(again.encode({"place": place}))[:, 0], probability)


def test_it_neither_acts_nor_learns_to() -> None:
    policy = Policy(CONFIG, CONTRACT).eval()
    with pytest.raises(PolicyError, match="labels from 0 to 1"):
        policy.loss({"observation": {"place": torch.zeros(2, 1, 1)}, "action": torch.full((2, 1, 1), -0.2)})
    with pytest.raises(PolicyError, match="does not act"):
        policy.chain(policy.encode({"place": torch.zeros(1, 1, 1)}))
