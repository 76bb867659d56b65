import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.datasets import Contract, ContractError
from robot_rl.datasets.statistics import Statistics
from robot_rl.policies import Policy, PolicyError, build_policy
from robot_rl.policies.policy import resolve_config

PROCESSES = ["flow_matching", "ddpm", "ddim", "gaussian"]
DENOISERS = ["mlp", "unet1d", "transformer"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=PROCESSES)
def policy(request: pytest.FixtureRequest, make_policy: Callable[..., Policy]) -> Policy:
    return make_policy(request.param).eval()


class TestInterface:
    @pytest.mark.parametrize("process", PROCESSES)
    @pytest.mark.parametrize("denoiser", DENOISERS)
    def test_every_combination(self, process: str, denoiser: str, make_policy: Any, make_batch: Any) -> None:
        policy = make_policy(process, denoiser)
        batch = make_batch(policy)
        loss = policy.loss(batch, generator=seeded())
        loss.backward()
        assert loss.shape == ()
        assert all(value.grad is not None and value.grad.abs().max() > 0 for value in policy.parameters())
        policy.eval()
        context = policy.encode(batch["observation"])
        assert context.shape == (5, 2, 3 + 9)
        chunk = policy.sample(context, n=3, generator=seeded(), steps=2)
        assert chunk.shape == (5, 3, 8, 4)
        assert chunk.dtype == torch.float32
        assert not chunk.requires_grad
        chain = policy.chain(context, generator=seeded(), steps=2)
        assert policy.decode(chain.states[:, -1]).shape == (5, 8, 4)

    @pytest.mark.parametrize("encoder", ["cnn", "resnet18"])
    def test_images(self, encoder: str, make_policy: Any, make_batch: Any) -> None:
        policy = make_policy(encoder=encoder, augmentation={"crop": 40, "brightness": 0.2})
        assert list(policy.contract.observation) == ["joint_position", "cube_pose", "front", "wrist.left"]
        batch = make_batch(policy)
        first, again = (policy.loss(batch, generator=seeded()) for _ in range(2))
        assert first.equal(again)
        assert not first.equal(policy.loss(batch, generator=seeded(1)))
        first.backward()
        assert all(value.grad is not None and value.grad.abs().max() > 0 for value in policy.parameters())
        changed = copy.deepcopy(batch)
        changed["observation"]["wrist.left"] = 255 - changed["observation"]["wrist.left"]
        policy.eval()
        assert not policy.encode(changed["observation"]).equal(policy.encode(batch["observation"]))
        assert policy.encode(batch["observation"]).equal(policy.encode(batch["observation"], seeded(3)))

    def test_numpy_observations(self, policy: Policy, make_batch: Any) -> None:
        observation = make_batch(policy)["observation"]
        arrays = {name: value.numpy().astype(np.float64) for name, value in observation.items()}
        torch.testing.assert_close(policy.encode(arrays), policy.encode(observation))

    def test_the_sample_follows_noise_and_generator(self, policy: Policy, make_batch: Any) -> None:
        context = policy.encode(make_batch(policy)["observation"])
        noise = torch.randn(5, 2, 8, 4, generator=seeded(1))
        assert policy.sample(context, 2, noise, generator=seeded()).equal(
            policy.sample(context, 2, noise, generator=seeded())
        )
        if policy.process.deterministic:
            assert policy.sample(context, 2, noise).equal(policy.sample(context, 2, noise, generator=seeded(5)))
        one = policy.sample(context[:1], 2, noise[:1], generator=seeded())
        if policy.process.deterministic:
            torch.testing.assert_close(one, policy.sample(context, 2, noise)[:1], atol=1e-5, rtol=1e-5)

    def test_n_samples_share_one_encoding(self, policy: Policy, make_batch: Any) -> None:
        calls = []
        policy.encoder.register_forward_hook(lambda *_: calls.append(1))
        context = policy.encode(make_batch(policy)["observation"])
        noise = torch.randn(5, 4, 8, 4, generator=seeded(1))
        chunk = policy.sample(context, 4, noise, generator=seeded())
        assert calls == [1]
        if policy.process.deterministic:
            alone = policy.sample(context, 1, noise[:, 2:3])
            torch.testing.assert_close(chunk[:, 2:3], alone, atol=1e-5, rtol=1e-5)

    def test_actions_are_clipped_to_finite_bounds(self, make_policy: Any, make_batch: Any) -> None:
        noise = 20 * torch.randn(5, 1, 8, 4, generator=seeded())
        chunks = []
        for clip in (True, False):
            policy = make_policy(clip_actions=clip).eval()
            chunks.append(policy.sample(policy.encode(make_batch(policy)["observation"]), noise=noise))
        clipped, free = chunks
        assert clipped[..., 3].min() == 0
        assert clipped[..., 3].max() == torch.tensor(0.08)
        assert clipped.equal(torch.cat([free[..., :3], free[..., 3:].clamp(0, 0.08)], dim=-1))
        assert free[..., 3].max() > 0.08


class TestChain:
    @pytest.mark.parametrize("denoiser", DENOISERS)
    @pytest.mark.parametrize("process", [*PROCESSES, {"name": "flow_matching", "learned_noise": True}])
    def test_the_ratio_is_one_before_the_first_update(
        self, process: Any, denoiser: str, make_policy: Any, make_batch: Any
    ) -> None:
        policy = make_policy(process, denoiser).eval()
        context = policy.encode(make_batch(policy)["observation"]).detach()
        steps = 1 if process == "gaussian" else 4
        chain = policy.chain(context, generator=seeded(), steps=steps)
        assert chain.log_prob.shape == (5, 1 if process == "gaussian" else 5)
        ratio = (policy.log_prob(chain, context) - chain.log_prob).exp()
        assert (ratio - 1).abs().max() < 1e-5
        # Also when the minibatch is cut otherwise than the rollout was, for the mean over the chunk that PPO clips.
        part = policy.log_density(type(chain)(chain.states[1:3], chain.log_density[1:3]), context[1:3])
        ratio = (part.mean(dim=(-2, -1)) - chain.log_density[1:3].mean(dim=(-2, -1))).exp()
        assert (ratio - 1).abs().max() < 1e-5

    def test_an_update_moves_the_ratio(self, policy: Policy, make_batch: Any) -> None:
        context = policy.encode(make_batch(policy)["observation"]).detach()
        chain = policy.chain(context, generator=seeded(), steps=1)
        optimizer = torch.optim.SGD([*policy.denoiser.parameters(), *policy.process.parameters()], lr=1e-7)
        before = policy.log_prob(chain, context).sum()
        (-before).backward()
        optimizer.step()
        assert policy.log_prob(chain, context).sum() > before

    def test_states_are_stored_unclipped(self, make_policy: Any, make_batch: Any) -> None:
        policy = make_policy().eval()
        context = policy.encode(make_batch(policy)["observation"])
        chain = policy.chain(context, noise=30 * torch.randn(5, 8, 4, generator=seeded()), generator=seeded())
        raw = policy.action_normalizer.unnormalize(chain.states[:, -1])[..., 3]
        assert raw.max() > 0.08
        assert policy.decode(chain.states[:, -1])[..., 3].max() <= 0.08


class TestLoss:
    @pytest.mark.parametrize("denoiser", DENOISERS)
    @pytest.mark.parametrize("process", PROCESSES)
    def test_padded_actions_do_not_matter(self, process: str, denoiser: str, make_policy: Any, make_batch: Any) -> None:
        policy = make_policy(process, denoiser, prefix={"probability": 0.5, "max_length": 3})
        batch = make_batch(policy)
        batch["action_valid"][0, 3:] = False
        batch["action_valid"][1, :2] = False
        batch["action_valid"][2] = False
        changed = copy.deepcopy(batch)
        changed["action"][~batch["action_valid"]] = 1e6
        assert policy.loss(batch, generator=seeded()).equal(policy.loss(changed, generator=seeded()))
        changed["action"][batch["action_valid"]] += 0.1
        assert not policy.loss(batch, generator=seeded()).equal(policy.loss(changed, generator=seeded()))

    def test_the_mask_leaves_out_exactly_its_elements(self, policy: Policy, make_batch: Any) -> None:
        batch = make_batch(policy)
        batch["action_valid"][:, 5:] = False
        batch["action"][:, 5:] = batch["action"][:, 4:5]
        context = policy.encode(batch["observation"])
        normalised = policy.action_normalizer.normalize(batch["action"])
        element = policy.process.loss(policy.denoiser, normalised, context, None, seeded())
        torch.testing.assert_close(policy.loss(batch, generator=seeded()), element[:, :5].sum() / element.numel())

    def test_weights_scale_each_sample(self, policy: Policy, make_batch: Any) -> None:
        batch = make_batch(policy)
        losses = []
        for index in range(5):
            weights = torch.zeros(5)
            weights[index] = 1
            losses.append(policy.loss(batch, weights=weights, generator=seeded()))
        torch.testing.assert_close(sum(losses), policy.loss(batch, generator=seeded()))
        weights = torch.rand(5, generator=seeded(1))
        expected = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
        torch.testing.assert_close(policy.loss(batch, weights=weights, generator=seeded()), expected)
        torch.testing.assert_close(policy.loss({**batch, "weight": weights}, generator=seeded()), expected)
        assert policy(batch, weights, seeded()).equal(policy.loss(batch, weights, seeded()))

    @pytest.mark.parametrize("process", ["flow_matching", "ddim"])
    def test_both_modes_of_a_toy_are_learned(self, process: str, make_policy: Any, statistics: Any) -> None:
        """Left or right with equal chance: a Gaussian would go straight ahead, which never occurs."""
        policy = make_policy(process, action_horizon=2, clip_actions=False, normalizer={"action": "none"})
        observation = {"joint_position": torch.zeros(256, 2, 3), "cube_pose": torch.zeros(256, 2, 7)}
        optimizer = torch.optim.AdamW(policy.parameters(), lr=4e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
        generator = seeded()
        for _ in range(300):
            side = torch.randint(2, (256, 1, 1), generator=generator).float() * 1.6 - 0.8
            optimizer.zero_grad()
            policy.loss({"observation": observation, "action": side.expand(256, 2, 4)}, generator=generator).backward()
            optimizer.step()
            schedule.step()
        policy.eval()
        chunk = policy.sample(
            policy.encode({name: value[:1] for name, value in observation.items()}), 400, generator=generator
        )
        means = chunk.mean(dim=(2, 3)).flatten()
        assert 0.3 < float((means > 0).float().mean()) < 0.7
        assert float(((means.abs() - 0.8).abs() < 0.25).float().mean()) > 0.85

    def test_autocast(self, policy: Policy, make_batch: Any) -> None:
        batch = make_batch(policy)
        exact = policy.loss(batch, generator=seeded())
        with torch.autocast("cpu", torch.bfloat16):
            loss = policy.loss(batch, generator=seeded())
            chunk = policy.sample(policy.encode(batch["observation"]), generator=seeded(), steps=1)
        assert loss.dtype == chunk.dtype == torch.float32
        torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.02)

    @pytest.mark.slow
    @pytest.mark.parametrize("denoiser", DENOISERS)
    def test_networks_compile_as_one_graph(self, denoiser: str, make_policy: Any, make_batch: Any) -> None:
        policy = make_policy("flow_matching", denoiser)
        batch = make_batch(policy)
        expected, names = policy.loss(batch, generator=seeded()), list(policy.state_dict())
        policy.compile_networks(fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(policy.loss(batch, generator=seeded()), expected)
        assert list(policy.state_dict()) == names

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_cuda_draws_and_computes_the_same(self, policy: Policy, make_batch: Any) -> None:
        batch = make_batch(policy)
        expected = policy.loss(batch, generator=seeded())
        on_gpu = copy.deepcopy(policy).cuda()
        torch.testing.assert_close(on_gpu.loss(batch, generator=seeded()).cpu(), expected, rtol=1e-3, atol=1e-4)
        assert on_gpu.sample(on_gpu.encode(batch["observation"]), generator=torch.Generator("cuda")).is_cuda


class TestErrors:
    def test_observation_lacks_or_adds_a_feature(self, policy: Policy, make_batch: Any) -> None:
        observation = make_batch(policy)["observation"]
        renamed = {"joint_position": observation["joint_position"], "cube": observation["cube_pose"]}
        with pytest.raises(PolicyError, match=r"lacks \['cube_pose'\], it adds \['cube'\].*takes .*given"):
            policy.encode(renamed)
        with pytest.raises(PolicyError, match=r"lacks \[\], it adds \['extra'\]"):
            policy.encode({**observation, "extra": observation["joint_position"]})

    def test_shapes(self, policy: Policy, make_batch: Any) -> None:
        batch = make_batch(policy)
        observation = batch["observation"]
        wrong = {**observation, "cube_pose": observation["cube_pose"][:, :1]}
        with pytest.raises(
            PolicyError, match=r"'cube_pose': expected shape \[B, To, ...\] = \[5, 2, 7\], got \[5, 1, 7\]"
        ):
            policy.encode(wrong)
        with pytest.raises(PolicyError, match=r"action: expected shape \[5, 8, 4\], got \[5, 7, 4\]"):
            policy.loss({**batch, "action": batch["action"][:, 1:]})
        with pytest.raises(PolicyError, match=r"noise: expected shape \[5, 2, 8, 4\]"):
            policy.sample(policy.encode(observation), n=2, noise=torch.zeros(5, 1, 8, 4))

    def test_missing_statistics(self, contract: Contract, statistics: dict[str, Statistics]) -> None:
        del statistics["cube_pose"]
        with pytest.raises(
            PolicyError, match=r"no statistics for cube_pose: the policy needs .*the data offer joint_position, action"
        ):
            build_policy({}, contract, statistics)
        statistics["action"] = statistics["joint_position"]
        with pytest.raises(PolicyError, match=r"'action': expected 4 elements .*got 3"):
            build_policy({"observation": ["joint_position"]}, contract, statistics)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"horizon": 3}, "policy: no such key 'horizon'; known are obs_horizon"),
            (
                {"process": {"name": "fl"}},
                "process.name: expected one of flow_matching, shortcut, ddpm, ddim, .*; got 'fl'",
            ),
            ({"denoiser": {"name": "mlp", "layers": 3}}, r"denoiser \(mlp\): no such key 'layers'"),
            ({"denoiser": {"name": "unet1d"}, "action_horizon": 15}, "multiple of 4, got 15"),
            ({"normalizer": {"action": "minmax"}}, "normalizer.action: expected one of min_max"),
            ({"normalizer": {"rotation": "euler"}}, "normalizer.rotation: expected keep or rotation_6d"),
            ({"augmentation": {"zoom": 1}}, "augmentation: no such key 'zoom'"),
            ({"augmentation": {"crop": 49}, "encoder": {"name": "cnn"}}, "crop: 49 is larger than 'front'"),
            ({"augmentation": {"crop": -1}}, "augmentation .*positive crop"),
            ({"prefix": {"probability": 0.5}}, "prefix.max_length: expected 1 to 15, got 0"),
            ({"prefix": {"probability": 1.5, "max_length": 2}}, "prefix.probability: expected 0 to 1"),
            ({"observation": ["front"]}, r"low_dim cannot read \['front'\]; choose cnn, grid_cnn or resnet18"),
            (
                {"observation": ["joint_position"], "encoder": {"name": "cnn"}},
                "cnn reads cameras and the observation has none",
            ),
            ({"obs_horizon": 0}, "at least 1"),
            ({"denoiser": {"name": "mlp", "time_features": 63}}, "time_features: expected an even number .* got 63"),
            (
                {"process": {"name": "ddpm"}, "normalizer": {"action": "mean_std"}},
                r"clip_sample: clips to \[-1, 1\], where normalizer.action=mean_std",
            ),
        ],
    )
    def test_configuration(self, config: Any, message: str, contract: Contract, statistics: Any) -> None:
        with pytest.raises(PolicyError, match=message):
            build_policy(config, contract, statistics)

    def test_unknown_observation(self, contract: Contract, statistics: Any) -> None:
        with pytest.raises(ContractError, match="cube_velocity"):
            build_policy({"observation": ["cube_velocity"]}, contract, statistics)


def test_a_complete_configuration_stays_as_it_is(contract: Contract, statistics: Any) -> None:
    policy = build_policy({"process": {"name": "ddim", "steps": 5}}, contract, statistics)
    assert resolve_config(policy.config) == policy.config
    assert policy.config["process"]["train_steps"] == 100
    assert (policy.obs_horizon, policy.action_horizon) == (2, 16)


def test_the_observations_that_are_not_needed_are_dropped(contract: Contract, statistics: Any) -> None:
    assert list(build_policy({}, contract, statistics).contract.observation) == ["joint_position", "cube_pose"]
    chosen = build_policy({"observation": ["joint_position"]}, contract, statistics)
    assert list(chosen.contract.observation) == ["joint_position"]


def test_quaternions_of_either_sign_are_the_same_pose(make_policy: Any, make_batch: Any) -> None:
    for rotation, same in (("rotation_6d", True), ("keep", False)):
        policy = make_policy(normalizer={"rotation": rotation}).eval()
        observation = make_batch(policy)["observation"]
        flipped = {**observation, "cube_pose": observation["cube_pose"].clone()}
        flipped["cube_pose"][..., 3:] *= -1
        assert torch.allclose(policy.encode(observation), policy.encode(flipped), atol=1e-6) == same


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"denoiser": {"name": "mlp", "width": 0}}, r"denoiser \(mlp\).width: expected at least 1, got 0"),
        ({"denoiser": {"name": "mlp", "depth": -1}}, r"denoiser \(mlp\).depth: expected at least 1, got -1"),
        ({"denoiser": {"name": "mlp", "width": 2.5}}, r"denoiser \(mlp\).width: expected a whole number, got 2.5"),
        ({"denoiser": {"name": "transformer", "layers": 0}}, r"layers: expected at least 1"),
        ({"denoiser": {"name": "unet1d", "widths": [8, 0]}}, r"widths: expected at least 1, got \[8, 0\]"),
        ({"denoiser": {"name": "unet1d", "widths": [8], "kernel": 4}}, "kernel: expected an odd number"),
        ({"process": {"name": "flow_matching", "alpha": -1.0}}, "alpha: expected a number above 0"),
        ({"clip_actions": "yes"}, "policy.clip_actions: expected true or false, got 'yes'"),
        ({"action_offset": 3}, "action_offset: expected -7 to 0.*got 3"),
        ({"action_offset": -8}, "action_offset: expected -7 to 0.*got -8"),
        ({"obs_horizon": None}, "policy.obs_horizon: expected a whole number, got None"),
    ],
)
def test_values_that_nothing_can_be_built_of_are_refused(
    changes: dict[str, Any], expected: str, contract: Contract, statistics: dict[str, Statistics]
) -> None:
    with pytest.raises(PolicyError, match=expected):
        build_policy({"action_horizon": 8, **changes}, contract, statistics)
