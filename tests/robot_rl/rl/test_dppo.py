"""DPPO: what it freezes, how it shares credit, and the policy that it leaves."""

import math
from pathlib import Path

import pytest
import torch

from robot_rl.policies import PolicyError, load_policy, save_policy
from robot_rl.policies.transition import leading_timesteps
from robot_rl.rl.dppo import DPPO
from robot_rl.rl.dsrl import DSRL
from robot_rl.rl.expo import EXPO
from robot_rl.rl.method import Method
from robot_rl.rl.off_policy_method import OffPolicyMethod
from robot_rl.rl.reinflow import ReinFlow
from tests.robot_rl.rl.line import line_policy

DDPM = {"name": "ddpm", "steps": 10, "train_steps": 20}
DDIM: dict[str, object] = {"name": "ddim", "steps": 10, "train_steps": 20}
FLOW: dict[str, object] = {"name": "flow_matching", "steps": 2}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_begins_as_the_policy_it_was_given() -> None:
    policy = line_policy(DDPM, horizon=4)
    tuned = DPPO(policy, tuned_steps=3).policy
    place = {"place": torch.linspace(-1, 1, 8)[:, None, None]}
    expected = policy.sample(policy.encode(place), generator=seeded())
    torch.testing.assert_close(tuned.sample(tuned.encode(place), generator=seeded()), expected, rtol=0, atol=0)


def test_only_the_last_steps_are_trained() -> None:
    """With other weights in `last`, a chain is the same until the last three steps, and differs from there on."""
    method = DPPO(line_policy(DDPM, horizon=4), tuned_steps=3)
    context = method.policy.encode({"place": torch.ones(2, 1, 1)})
    before = method.policy.chain(context, seeded()).states
    with torch.no_grad():
        for value in method.trained():
            value.add_(0.1)
    after = method.policy.chain(context, seeded()).states
    assert torch.equal(before[:, :8], after[:, :8])
    assert all(not torch.equal(before[:, k], after[:, k]) for k in (8, 9, 10))
    assert {id(value) for value in method.trained()} == {id(v) for v in method.policy.denoiser.last.parameters()}  # type: ignore[union-attr,operator]


def test_keeps_and_evaluates_the_last_transitions() -> None:
    method = DPPO(line_policy(DDPM, horizon=4), tuned_steps=3)
    context = method.policy.encode({"place": torch.ones(2, 1, 1)})
    drawn, chain = method.draw(context, seeded()), method.policy.chain(context, seeded())
    torch.testing.assert_close(drawn.states, chain.states[:, -4:])
    density, std = method.density(drawn.states, context)
    torch.testing.assert_close(density, method.policy.log_density(chain, context)[:, -3:])
    assert std.shape == density.shape == (2, 3, 4, 1)
    assert method.timesteps == leading_timesteps(20, 10)[-3:] == [(4, 2), (2, 0), (0, -1)]


def test_clips_rise_to_the_configured_one_and_advantages_to_the_whole() -> None:
    method = DPPO(line_policy(DDPM), tuned_steps=5, first_clip=0.001, clip_rate=3.0, discount=0.9)
    clips = method.clip(0.01)
    expected = [0.001 + 0.009 * (math.exp(3 * k / 4) - 1) / (math.exp(3) - 1) for k in range(5)]
    assert clips.tolist() == pytest.approx(expected, rel=1e-5)
    shares = method.share(torch.tensor([2.0]))
    assert shares[0].tolist() == pytest.approx([2 * 0.9 ** (4 - k) for k in range(5)])


def test_no_deviation_of_a_tuned_step_is_below_the_least_one() -> None:
    method = DPPO(line_policy(DDPM, horizon=4), tuned_steps=5, std_min=0.3)
    context = method.policy.encode({"place": torch.ones(2, 1, 1)})
    _, std = method.density(method.draw(context, seeded()).states, context)
    assert std.min().item() == pytest.approx(0.3)


def test_one_tuned_step_has_the_configured_clip() -> None:
    assert DPPO(line_policy(DDPM), tuned_steps=1).clip(0.01).tolist() == pytest.approx([0.01])


def test_is_saved_and_tuned_again(tmp_path: Path) -> None:
    method = DPPO(line_policy(DDPM), tuned_steps=3)
    with torch.no_grad():
        for value in method.trained():
            value.add_(0.1)
    again = load_policy(save_policy(method.policy, tmp_path))
    assert all(torch.equal(value, method.policy.state_dict()[name]) for name, value in again.state_dict().items())
    other = DPPO(again, tuned_steps=3)
    assert all(
        torch.equal(value, method.policy.state_dict()[name]) for name, value in other.policy.state_dict().items()
    )
    with pytest.raises(PolicyError, match="below diffusion step 5; go on with the same"):
        DPPO(again, tuned_steps=4)


def test_names_the_method_for_another_policy() -> None:
    with pytest.raises(PolicyError, match="use algorithm=reinflow"):
        DPPO(line_policy({"name": "flow_matching"}))
    with pytest.raises(PolicyError, match="use algorithm=dppo"):
        ReinFlow(line_policy(DDPM))
    with pytest.raises(PolicyError, match="tuned_steps: expected 1 to 10"):
        DPPO(line_policy(DDPM), tuned_steps=11)


@pytest.mark.slow
def test_the_exported_policy_takes_the_same_steps(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from robot_rl.policies import OnnxPolicy, export_policy

    method = DPPO(line_policy({"name": "ddim", "steps": 10, "train_steps": 20}), tuned_steps=3)
    with torch.no_grad():
        for value in method.trained():
            value.add_(0.1)
    exported = OnnxPolicy(export_policy(method.policy, tmp_path))
    place, noise = {"place": torch.linspace(-1, 1, 8)[:, None, None]}, torch.randn(8, 1, 1, 1, generator=seeded())
    expected = method.policy.sample(method.policy.encode(place), noise=noise)
    got = exported.sample(exported.encode({"place": place["place"].numpy()}), noise=noise.numpy())
    torch.testing.assert_close(torch.as_tensor(got), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("added", "name"), [(DSRL, "a steering"), (EXPO, "an edit")])
@pytest.mark.parametrize(("tuned", "process"), [(ReinFlow, FLOW), (DPPO, DDIM)])
def test_a_policy_that_chooses_among_noises_or_chunks_has_no_chain_to_tune(
    tuned: type[Method], process: dict[str, object], added: type[OffPolicyMethod], name: str
) -> None:
    policy = added(line_policy(process, horizon=2), 2).policy
    with pytest.raises(PolicyError, match=rf"{tuned.__name__.lower()}: .* has {name}, .*; give the policy that"):
        tuned(policy)
