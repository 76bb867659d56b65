"""A frozen estimator inside of a policy."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.datasets import ContractError
from robot_rl.datasets.windows import estimated
from robot_rl.policies import OnnxPolicy, Policy, PolicyError, build_policy, export_policy, load_policy, save_policy

WINDOW, OWN = 5, 2
SMALL = {"name": "mlp", "width": 16, "depth": 1, "time_features": 4}

MakeEstimator = Callable[..., Policy]


@pytest.fixture
def make_estimator(contract: Any, statistics: Any) -> MakeEstimator:
    """Of the joints, from the cube."""

    def make(**config: Any) -> Policy:
        torch.manual_seed(1)
        known = {**statistics, "action": statistics["joint_position"]}
        parts = {"obs_horizon": WINDOW, "action_horizon": 1, "process": {"name": "gaussian"}, "denoiser": SMALL}
        return build_policy({**parts, **config}, estimated(contract, "joint_position"), known)

    return make


@pytest.fixture
def adaptive(contract: Any, statistics: Any, make_estimator: MakeEstimator) -> Policy:
    torch.manual_seed(0)
    config = {"obs_horizon": OWN, "action_horizon": 8, "denoiser": SMALL, "observation": ["joint_position"]}
    return build_policy(config, contract, statistics, make_estimator()).eval()


def test_the_estimate_of_the_whole_window_stands_beside_the_last_observations(
    adaptive: Policy, make_estimator: MakeEstimator, make_batch: Any
) -> None:
    estimator, observation = make_estimator().eval(), make_batch(adaptive)["observation"]
    assert adaptive.obs_horizon == WINDOW
    assert list(adaptive.contract.observation) == ["joint_position", "cube_pose"]
    context = adaptive.encode(observation)
    joints = adaptive.encoder.normalizer.normalize(observation["joint_position"][:, -OWN:])
    found = estimator.sample(estimator.encode({"cube_pose": observation["cube_pose"]}))[:, 0]
    torch.testing.assert_close(context[..., :3], joints)
    beside = estimator.action_normalizer.normalize(found).expand(-1, OWN, -1)
    torch.testing.assert_close(context[..., 3:], beside, atol=1e-5, rtol=1e-5)
    # Every observation of the window counts, and own features count from the last ones alone.
    for step in range(WINDOW):
        changed = {name: value.clone() for name, value in observation.items()}
        changed["cube_pose"][:, step, :3] += 1.0
        assert not torch.equal(adaptive.encode(changed)[..., 3:], context[..., 3:])
        changed = {name: value.clone() for name, value in observation.items()}
        changed["joint_position"][:, step] += 1.0
        assert torch.equal(adaptive.encode(changed), context) == (step < WINDOW - OWN)


def test_a_shorter_window_than_the_policys_is_taken_from_its_end(
    contract: Any, statistics: Any, make_estimator: MakeEstimator, make_batch: Any
) -> None:
    config = {"obs_horizon": 3, "denoiser": SMALL}
    policy = build_policy(config, contract, statistics, make_estimator(obs_horizon=2)).eval()
    assert policy.obs_horizon == 3
    observation = make_batch(policy)["observation"]
    context = policy.encode(observation)
    observation["cube_pose"][:, 0, :3] += 1.0
    torch.testing.assert_close(policy.encode(observation)[..., -3:], context[..., -3:], rtol=0, atol=0)


def test_it_is_frozen_and_stays_in_evaluation_mode(
    contract: Any, statistics: Any, make_estimator: MakeEstimator, make_batch: Any
) -> None:
    estimator = make_estimator(denoiser={**SMALL, "dropout": 0.5})
    wanted = {name: value.clone() for name, value in estimator.state_dict().items()}
    policy = build_policy({"obs_horizon": OWN, "denoiser": SMALL}, contract, statistics, estimator).train()
    assert policy.encoder.estimator is not None
    assert not any(module.training for module in policy.encoder.estimator.modules())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.1, weight_decay=0.1)
    before = policy.denoiser.output[1].weight.detach().clone()
    batch = make_batch(policy) | {"action": torch.zeros(5, 16, 4), "action_valid": torch.ones(5, 16, dtype=torch.bool)}
    for _ in range(3):
        policy.loss(batch, generator=torch.Generator().manual_seed(0)).backward()
        optimizer.step()
    assert not torch.equal(policy.denoiser.output[1].weight, before)
    found = policy.encoder.estimator.policy.state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_a_checkpoint_holds_it(adaptive: Policy, make_batch: Any, tmp_path: Path) -> None:
    loaded = load_policy(save_policy(adaptive, tmp_path))
    assert loaded.config == adaptive.config
    assert loaded.encoder.estimator is not None
    assert not any(value.requires_grad for value in loaded.encoder.estimator.parameters())
    observation = make_batch(adaptive)["observation"]
    assert torch.equal(loaded.encode(observation), adaptive.encode(observation))


def test_an_export_holds_it(adaptive: Policy, make_batch: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    runtime = OnnxPolicy(export_policy(adaptive, tmp_path))
    assert runtime.obs_horizon == WINDOW
    for size in (1, 4):
        observation = {name: value[:size] for name, value in make_batch(adaptive)["observation"].items()}
        context = adaptive.encode(observation)
        ours = runtime.encode({name: value.numpy() for name, value in observation.items()})
        np.testing.assert_allclose(ours, context.numpy(), atol=1e-5, rtol=1e-5)
        noise = torch.randn(size, 1, 8, 4, generator=torch.Generator().manual_seed(0))
        sampled = runtime.sample(ours, noise=noise.numpy())
        np.testing.assert_allclose(sampled, adaptive.sample(context, noise=noise).numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"process": {"name": "flow_matching"}}, "process: expected gaussian"),
        ({"action_horizon": 4}, "expected 1 and 0, got 4 and 0"),
    ],
)
def test_what_cannot_estimate_is_refused(
    config: dict[str, Any], problem: str, contract: Any, statistics: Any, make_estimator: MakeEstimator
) -> None:
    with pytest.raises(PolicyError, match=problem):
        build_policy({}, contract, statistics, make_estimator(**config))


def test_it_has_to_be_of_the_same_rate(contract: Any, statistics: Any, make_estimator: MakeEstimator) -> None:
    with pytest.raises(ContractError, match=r"rate_hz: 20\.0 against 50"):
        build_policy({}, replace(contract, rate_hz=50.0), statistics, make_estimator())


def test_an_estimator_does_not_rely_on_another_one(adaptive: Policy, contract: Any, statistics: Any) -> None:
    with pytest.raises(PolicyError, match="does not rely on another one"):
        build_policy({}, contract, statistics, adaptive)
