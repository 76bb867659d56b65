"""Shortcut models: the target against sums written out, and jumps to two modes that a flow's one step cannot make."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robot_rl.policies import PolicyError, load_policy, save_policy
from robot_rl.policies.denoiser import Denoiser, Shapes
from robot_rl.policies.flow_matching import TIME_UNIT, FlowMatching
from robot_rl.policies.mlp import MLP
from robot_rl.policies.shortcut import Shortcut
from robot_rl.rl.learner import Learner
from robot_rl.rl.reinflow import ReinFlow
from tests.robot_rl.rl.line import Line, line_policy
from tests.robot_rl.rl.test_on_policy import settings

SHAPES = Shapes(horizon=2, action_dim=1, obs_horizon=1, context_dim=2 + 4)
"""Of a context of two numbers and the four sizes of steps of finest=8."""


class Stated(Denoiser):
    """Velocity 3 x + 2 t + 10 k, k being the level that it is told; keeps what it is asked."""

    def __init__(self) -> None:
        super().__init__(SHAPES)
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x: Tensor, time: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
        assert (context[:, :, 2:].sum(-1) == 1).all()
        t, level = time / TIME_UNIT, context[:, 0, 2:].argmax(-1)
        self.asked.append((x.clone(), t, level))
        return 3 * x + (2 * t + 10 * level)[:, None, None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_target_of_a_jump_is_the_mean_of_its_two_halves() -> None:
    """d = 1/4 (level 2) at x = 1, t = 0.5: v1 = 3 + 1 + 20 = 24, x' = 7; v2 = 21 + 1.5 + 20 = 42.5; mean 33.25."""
    process = Shortcut(SHAPES, finest=8)
    x, t, level = torch.ones(1, 2, 1), torch.tensor([0.5]), torch.tensor([2])
    target = process.two_steps(Stated(), x, t, level, torch.zeros(1, 1, 2))
    torch.testing.assert_close(target, torch.full((1, 2, 1), 33.25))


def test_a_known_step_stays_clean_in_the_second_half() -> None:
    process, network = Shortcut(SHAPES, finest=8), Stated()
    known = torch.tensor([[1.0, 0.0]])
    process.two_steps(network, torch.ones(1, 2, 1), torch.tensor([0.5]), torch.tensor([2]), torch.zeros(1, 1, 2), known)
    assert network.asked[1][0].flatten().tolist() == [1.0, 7.0]


def test_a_quarter_of_the_batch_agrees_and_the_rest_flows() -> None:
    process, network = Shortcut(SHAPES, finest=8), Stated()
    actions, context = torch.zeros(4000, 2, 1), torch.zeros(4000, 1, 2)
    loss = process.loss(network, actions, context, None, seeded())
    (_, _, halves), _, (x, t, level) = network.asked
    assert len(halves) / 4000 == pytest.approx(0.25, abs=0.03)
    flows = level == 3  # of steps of 1/8
    assert int((~flows).sum()) == len(halves)
    torch.testing.assert_close(halves, level[~flows] + 1)
    assert sorted(set(level.tolist())) == [0, 1, 2, 3]
    for k in range(3):  # these begin on the grid of their own steps
        assert set(t[level == k].tolist()) == {i / 2**k for i in range(2**k)}
    # Of the others x = (1 - t) noise, and the target is the velocity of the flow, 0 - noise.
    noise = x / (1 - t)[:, None, None]
    velocity = 3 * x + (2 * t + 30)[:, None, None]
    torch.testing.assert_close(loss[flows], (velocity + noise).square()[flows], rtol=1e-3, atol=1e-3)


def test_no_gradient_reaches_the_target() -> None:
    class Scaled(Stated):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, time: Tensor, context: Tensor, known: Tensor | None = None) -> Tensor:
            return self.factor * x

    network, process = Scaled(), Shortcut(SHAPES, finest=8, share=1.0)
    loss = process.loss(network, torch.zeros(64, 2, 1), torch.zeros(64, 1, 2), None, seeded()).mean()
    loss.backward()
    # d/df of (f x - target)² with the target held: 2 (f x - target) x, at f = 1.
    again = Stated()
    process.loss(again, torch.zeros(64, 2, 1), torch.zeros(64, 1, 2), None, seeded())
    x, _, level = again.asked[-1]
    half = 0.5 ** (level + 1)[:, None, None]
    target = (x + (x + half * x)) / 2
    torch.testing.assert_close(network.factor.grad, (2 * (x - target) * x).mean())


def test_samples_on_its_grid_with_the_size_told() -> None:
    process, network = Shortcut(SHAPES, finest=8), Stated()
    process.sample(network, torch.zeros(3, 1, 2), torch.zeros(3, 2, 1), 4, None, None)
    assert [(t[0].item(), level[0].item()) for _, t, level in network.asked] == [(k / 4, 2) for k in range(4)]
    with pytest.raises(PolicyError, match="a power of 2 from 1 to 8, got 3"):
        process.sample(network, torch.zeros(3, 1, 2), torch.zeros(3, 2, 1), 3, None, None)


def test_its_chain_has_the_density_that_it_was_drawn_with() -> None:
    policy = line_policy({"name": "shortcut", "steps": 4, "finest": 8, "learned_noise": True}, horizon=3)
    context = policy.encode({"place": torch.linspace(-1, 1, 5)[:, None, None]})
    chain = policy.chain(context, seeded())
    torch.testing.assert_close(policy.log_density(chain, context), chain.log_density)


def test_is_tuned_as_a_flow_is() -> None:
    method = ReinFlow(line_policy({"name": "shortcut", "finest": 8}, horizon=4), steps=2)
    assert method.policy.config["process"]["name"] == "shortcut"
    assert Learner(method, Line(8), settings(num_envs=8), seed=0).iterate()["first_ratio_error"] <= 1e-5


def test_impossible_options_are_named() -> None:
    for options, message in (
        ({"finest": 12}, "finest: expected a power of 2 from 2 on, got 12"),
        ({"steps": 3}, "steps: expected a power of 2 from 1 to 128, got 3"),
        ({"share": 1.5}, "share: expected 0 to 1"),
    ):
        with pytest.raises(PolicyError, match=message):
            line_policy({"name": "shortcut", **options})


def test_is_saved_and_loaded(tmp_path) -> None:
    policy = line_policy({"name": "shortcut", "finest": 8}, horizon=3)
    again = load_policy(save_policy(policy, tmp_path))
    place = {"place": torch.ones(2, 1, 1)}
    torch.testing.assert_close(
        again.sample(again.encode(place), generator=seeded()), policy.sample(policy.encode(place), generator=seeded())
    )


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 4])
def test_the_exported_policy_takes_the_same_steps(tmp_path, steps) -> None:
    pytest.importorskip("onnx")
    from robot_rl.policies import OnnxPolicy, export_policy

    policy = line_policy({"name": "shortcut", "steps": steps, "finest": 8}, horizon=3)
    exported = OnnxPolicy(export_policy(policy, tmp_path))
    place, noise = torch.linspace(-1, 1, 8)[:, None, None], torch.randn(8, 1, 3, 1, generator=seeded())
    expected = policy.sample(policy.encode({"place": place}), noise=noise)
    got = exported.sample(exported.encode({"place": place.numpy()}), noise=noise.numpy())
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_one_step_reaches_two_modes() -> None:
    """Actions are -1 or 1. One step of a flow goes to their mean; one of a shortcut model to one of them."""

    def one_step(process: FlowMatching, features: int) -> Tensor:
        torch.manual_seed(0)
        network = MLP(Shapes(1, 1, 1, 1 + features), width=64, depth=2)
        optimizer, generator = torch.optim.Adam(network.parameters(), lr=2e-3), seeded()
        for _ in range(1500):
            actions = 2.0 * torch.randint(2, (256, 1, 1), generator=generator) - 1
            optimizer.zero_grad()
            process.loss(network, actions, torch.zeros(256, 1, 1), None, generator).mean().backward()
            optimizer.step()
        with torch.no_grad():
            noise = torch.randn(500, 1, 1, generator=seeded(1))
            return process.sample(network, torch.zeros(500, 1, 1), noise, 1, None, None)

    flow = one_step(FlowMatching(Shapes(1, 1, 1, 1)), 0)
    shortcut = one_step(Shortcut(Shapes(1, 1, 1, 5), finest=16), 5)
    assert float((flow.abs() - 1).abs().mean()) > 0.7
    assert float((shortcut.abs() - 1).abs().mean()) < 0.3
    assert 0.3 < float((shortcut > 0).float().mean()) < 0.7  # to both
