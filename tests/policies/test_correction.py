"""The correction of executed actions, against its network in torch and through the runner."""

import json

import numpy as np
import torch

from robot_rl.policies import Policy
from robot_rl.policies.chunk_runner import ChunkRunner
from robot_rl.policies.correction import BASE_ACTION, Correction
from robot_rl.policies.prediction import predict
from tests.robot_rl.rl.line import line_policy

RESIDUAL = {
    "obs_horizon": 1, "action_horizon": 1, "clip_actions": False, "process": {"name": "gaussian"},
    "denoiser": {"name": "perceptron", "width": 16, "depth": 2}, "normalizer": {"rotation": "keep"},
}  # fmt: skip


def corrected_policy() -> Policy:
    base = line_policy({"name": "flow_matching", "steps": 2}, horizon=4)
    policy = Policy({**base.config, "residual": {"scale": 0.5, "policy": RESIDUAL}}, base.contract).eval()
    policy.load_state_dict(base.state_dict(), strict=False)
    assert policy.residual is not None
    policy.residual.encoder.normalizer.center[:1] = 0.3
    policy.residual.encoder.normalizer.spread[:1] = 2.0
    return policy


def test_adds_what_the_network_says() -> None:
    policy = corrected_policy()
    correction, residual = policy.correction, policy.residual
    assert correction is not None
    assert residual is not None
    place, action = np.array([[0.5], [-1.0]], np.float32), np.array([[0.1], [0.7]], np.float32)
    normalised = policy.action_normalizer.normalize(torch.from_numpy(action))
    seen = {"place": torch.from_numpy(place)[:, None], BASE_ACTION: normalised[:, None]}
    added = residual.sample(residual.encode(seen))[:, 0, 0]
    expected = policy.action_normalizer.unnormalize(normalised + 0.5 * added).numpy()
    assert np.abs(expected - action).max() > 1e-3
    np.testing.assert_allclose(correction({"place": place}, action), expected, atol=1e-6)


def test_comes_back_from_plain_json() -> None:
    correction = corrected_policy().correction
    assert correction is not None
    plain = {
        name: value.tolist() if hasattr(value, "tolist") else value for name, value in correction.to_dict().items()
    }
    plain |= {name: [part.tolist() for part in plain[name]] for name in ("weights", "biases")}
    again = Correction.from_dict(json.loads(json.dumps(plain)))
    place, action = {"place": np.ones((3, 1), np.float32)}, np.zeros((3, 1), np.float32)
    np.testing.assert_array_equal(again(place, action), correction(place, action))


def test_every_action_of_a_chunk_is_corrected_by_the_newest_observation() -> None:
    policy = corrected_policy()
    assert policy.correction is not None
    runner = ChunkRunner(policy, 2, execute=3)
    chunk = np.zeros((2, 4, 1), np.float32)
    for step in range(3):
        place = np.array([[0.1 * step], [-0.5]], np.float32)
        runner.observe({"place": place})
        if (request := runner.request()) is not None:
            chunk = predict(policy, request.observation, [torch.Generator().manual_seed(0)])
            runner.deliver(request.id, chunk)
        mask = np.array([True, step != 1])
        got = runner.next_action(mask)
        planned = chunk[:, min(step, 3)]
        np.testing.assert_allclose(got[0], policy.correction({"place": place}, planned)[0], atol=1e-6)
        assert bool(np.isnan(got[1]).all()) == (step == 1)


def test_the_runner_executes_as_many_actions_as_the_policy_was_made_for() -> None:
    policy = line_policy({"name": "flow_matching"}, horizon=4)
    assert ChunkRunner(policy, 1).execute == 2
    policy.config = {**policy.config, "execute": 4}
    assert ChunkRunner(policy, 1).execute == 4
    assert ChunkRunner(policy, 1, execute=1).execute == 1
    assert ChunkRunner(policy, 1, mode="temporal_ensembling").execute == 1
    assert ChunkRunner(policy, 1, mode="asynchronous", delay=2).execute == 2
