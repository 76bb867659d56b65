"""Export and its runtime, against torch."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_rl.datasets import Contract, Feature
from robot_rl.datasets.statistics import Statistics
from robot_rl.policies import OnnxPolicy, PolicyError, Prefix, build_policy, export_policy

from .conftest import statistics_of

PROCESSES: dict[str, Any] = {
    "flow": {"name": "flow_matching"},
    "ddim": {"name": "ddim"},
    "ddim_mean": {"name": "ddim", "prediction": "epsilon", "clip_sample": False},
    "ddim_sample": {"name": "ddim", "prediction": "sample", "clip_sample": False},
    "gaussian": {"name": "gaussian", "temperature": 0.5},
}
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def compare(policy: Any, batch: dict[str, Any], folder: Path) -> OnnxPolicy:
    """Context, chunk and chunk with a prefix of torch and onnxruntime, at other batch sizes than the export's."""
    policy.eval()
    runtime = OnnxPolicy(export_policy(policy, folder))
    for size in (1, 5):
        observation = {name: value[:size] for name, value in batch["observation"].items()}
        context = policy.encode(observation)
        ours = runtime.encode({name: value.numpy() for name, value in observation.items()})
        np.testing.assert_allclose(ours, context.detach().numpy(), **TOLERANCE)
        noise = torch.randn(size, 2, 8, 4, generator=torch.Generator().manual_seed(size))
        given = Prefix(
            batch["action"][:size].numpy(), np.full((size, 8), 0.3, np.float32), np.minimum(np.arange(size), 4)
        )
        for prefix in (None, given):
            chunk = policy.sample(context, 2, noise, prefix).numpy()
            sampled = runtime.sample(ours, 2, noise.numpy(), prefix)
            assert sampled.dtype == np.float32
            spread = policy.action_normalizer.spread.numpy()
            np.testing.assert_allclose(sampled / spread, chunk / spread, **TOLERANCE)
    for row, length in enumerate(given.length):
        assert (sampled[row, :, :length] == given.actions[row, :length]).all()
    return runtime


@pytest.mark.parametrize("encoder", ["low_dim", "cnn", "grid_cnn", pytest.param("resnet18", marks=pytest.mark.slow)])
@pytest.mark.parametrize("denoiser", ["mlp", "unet1d", "transformer"])
def test_every_network_and_encoder(
    denoiser: str, encoder: str, make_policy: Any, make_batch: Any, tmp_path: Path
) -> None:
    policy = make_policy("flow_matching", denoiser, encoder, augmentation={"crop": 40})
    compare(policy, make_batch(policy), tmp_path)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("process", PROCESSES)
def test_every_process(process: str, trained: bool, make_policy: Any, make_batch: Any, tmp_path: Path) -> None:
    prefix = {"prefix": {"probability": 0.5, "max_length": 4}} if trained else {}
    policy = make_policy(PROCESSES[process], **prefix)
    compare(policy, make_batch(policy), tmp_path)


def test_a_squashed_gaussian_without_residual_blocks(make_policy: Any, make_batch: Any, tmp_path: Path) -> None:
    policy = make_policy("tanh_gaussian", "perceptron")
    compare(policy, make_batch(policy), tmp_path / "mean")
    policy = make_policy({"name": "tanh_gaussian", "temperature": 0.7}, "perceptron")
    compare(policy, make_batch(policy), tmp_path / "drawn")
    (tmp_path / "drawn" / "deviation.onnx").unlink()
    with pytest.raises(PolicyError, match=r"lacks deviation\.onnx"):
        OnnxPolicy(tmp_path / "drawn")


def test_scalars_are_observed_beside_vectors(
    contract: Contract, statistics: dict[str, Statistics], make_batch: Any, tmp_path: Path
) -> None:
    observed = {"width": Feature("width", ()), "joint_position": contract.observation["joint_position"]}
    known = {**statistics, "width": statistics_of(np.linspace(0.0, 4.0, 20))}
    config = {"process": {"name": "flow_matching"}, "denoiser": {"name": "mlp", "width": 32}, "action_horizon": 8}
    policy = build_policy(config, replace(contract, observation=observed), known)
    batch = make_batch(policy)
    assert policy.loss(batch, generator=torch.Generator().manual_seed(0)).isfinite().all()
    width = batch["observation"]["width"]
    torch.testing.assert_close(policy.eval().encode(batch["observation"])[..., 0], width / 2 - 1)
    compare(policy, batch, tmp_path)


def test_depth_is_seen(contract: Contract, statistics: dict[str, Statistics], make_batch: Any, tmp_path: Path) -> None:
    depth = Feature("depth", (40, 40, 1), dtype="uint16", kind="depth")
    config = {"encoder": {"name": "cnn", "channels": [8]}, "action_horizon": 8, "augmentation": {"crop": 38}}
    policy = build_policy(config, replace(contract, observation={"depth": depth}), statistics).eval()
    frames = np.random.default_rng(0).integers(0, 60_000, (3, 2, 40, 40, 1)).astype(np.uint16)
    context = OnnxPolicy(export_policy(policy, tmp_path)).encode({"depth": frames})
    np.testing.assert_allclose(context, policy.encode({"depth": frames}).detach().numpy(), **TOLERANCE)


def test_other_horizons(make_policy: Any, make_batch: Any, tmp_path: Path) -> None:
    policy = make_policy(denoiser="transformer", obs_horizon=3, action_offset=-2)
    compare(policy, make_batch(policy), tmp_path)


def test_ddpm_has_the_moments_of_torch(make_policy: Any, make_batch: Any, tmp_path: Path) -> None:
    """Its noise comes from another generator, so that only the distribution can agree."""
    policy = make_policy({"name": "ddpm", "train_steps": 20, "steps": 20}, clip_actions=False).eval()
    runtime = OnnxPolicy(export_policy(policy, tmp_path))
    observation = {name: value[:1] for name, value in make_batch(policy)["observation"].items()}
    chunk = policy.sample(policy.encode(observation), 3000, generator=torch.Generator().manual_seed(0)).numpy()
    context = runtime.encode({name: value.numpy() for name, value in observation.items()})
    sampled = runtime.sample(context, 3000, generator=np.random.default_rng(0))
    scale = chunk.std(axis=1)
    assert np.abs((sampled.mean(axis=1) - chunk.mean(axis=1)) / scale).max() < 0.15
    assert np.abs(sampled.std(axis=1) / scale - 1).max() < 0.1


def test_the_interface_of_policy(make_policy: Any, make_batch: Any, tmp_path: Path) -> None:
    policy = make_policy()
    runtime = compare(policy, make_batch(policy), tmp_path)
    for name in ("contract", "config", "obs_horizon", "action_horizon", "action_offset"):
        assert getattr(runtime, name) == getattr(policy, name)
    observation = {name: value.numpy() for name, value in make_batch(policy)["observation"].items()}
    context = runtime.encode(observation)
    first, again = (runtime.sample(context, generator=np.random.default_rng(3)) for _ in range(2))
    assert (first == again).all()
    assert (first[..., 3] >= 0).all()
    assert (first[..., 3] <= np.float32(0.08)).all()
    with pytest.raises(PolicyError, match=r"lacks \['cube_pose'\]"):
        runtime.encode({"joint_position": observation["joint_position"]})
    with pytest.raises(PolicyError, match=r"noise: expected shape"):
        runtime.sample(context, noise=np.zeros((1, 1, 8, 4), np.float32))
    with pytest.raises(PolicyError, match=r"prefix.length"):
        runtime.sample(context, prefix=Prefix(np.zeros((5, 8, 4)), np.zeros((5, 8)), np.zeros(4)))


def test_exporting_leaves_the_policy_as_it_was(make_policy: Any, tmp_path: Path) -> None:
    policy = make_policy(denoiser="transformer").train()
    export_policy(policy, tmp_path)
    assert all(module.training for module in policy.modules())


def test_a_folder_without_an_export(make_policy: Any, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"no exported policy at .*it lacks export.json"):
        OnnxPolicy(tmp_path)
    export_policy(make_policy(), tmp_path)
    described = json.loads((tmp_path / "export.json").read_text())
    (tmp_path / "export.json").write_text(json.dumps({**described, "version": 9}))
    with pytest.raises(PolicyError, match="version 9; export the policy again"):
        OnnxPolicy(tmp_path)


def test_the_missing_extra_is_named(make_policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    export_policy(policy, tmp_path)
    for module in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "robot_rl\[export\]"'):
        OnnxPolicy(tmp_path)
    with pytest.raises(ImportError, match=r'pip install "robot_rl\[export\]"'):
        export_policy(policy, tmp_path)
