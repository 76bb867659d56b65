import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from robot_rl.datasets import equal
from robot_rl.policies import CheckpointError, load_policy, save_policy
from robot_rl.policies.checkpoint import load_provenance

NAMES = ["contract.json", "model.safetensors", "policy.json", "provenance.json"]


@pytest.mark.parametrize("process", ["flow_matching", "ddpm", "ddim", "gaussian"])
@pytest.mark.parametrize("denoiser", ["mlp", "unet1d", "transformer"])
def test_a_loaded_policy_samples_bit_equal(
    process: str, denoiser: str, make_policy: Any, make_batch: Any, tmp_path: Path
) -> None:
    policy = make_policy(process, denoiser, prefix={"probability": 0.5, "max_length": 2}).eval()
    loaded = load_policy(save_policy(policy, tmp_path / "checkpoint", {"data": "lift"}))
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == NAMES
    assert loaded.config == policy.config
    assert not loaded.training
    equal(loaded.contract, policy.contract)
    observation = make_batch(policy)["observation"]
    samples = [
        item.sample(item.encode(observation), n=2, steps=2, generator=torch.Generator().manual_seed(0))
        for item in (policy, loaded)
    ]
    assert samples[0].equal(samples[1])


@pytest.mark.parametrize("encoder", ["cnn", "grid_cnn", "resnet18"])
def test_image_encoders(encoder: str, make_policy: Any, make_batch: Any, tmp_path: Path) -> None:
    policy = make_policy(encoder=encoder, augmentation={"crop": 40}).eval()
    loaded = load_policy(save_policy(policy, tmp_path))
    observation = make_batch(policy)["observation"]
    assert policy.encode(observation).equal(loaded.encode(observation))


def test_a_run_folder_stands_for_its_best_checkpoint(make_policy: Any, tmp_path: Path) -> None:
    save_policy(make_policy(), tmp_path / "checkpoints" / "best", {"step": 7})
    assert load_policy(tmp_path).action_horizon == 8
    assert load_provenance(tmp_path) == {"step": 7}


def test_saving_again_replaces_and_leaves_other_files(make_policy: Any, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text("{}")
    save_policy(make_policy(), tmp_path)
    save_policy(make_policy(obs_horizon=3), tmp_path)
    assert load_policy(tmp_path).obs_horizon == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*NAMES, "training.json"])


def test_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"no policy at .*expected a folder with policy.json and model.safetensors"
    ):
        load_policy(tmp_path)


@pytest.mark.parametrize("name", ["contract.json", "model.safetensors"])
def test_a_missing_file(name: str, make_policy: Any, tmp_path: Path) -> None:
    save_policy(make_policy(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_policy(tmp_path)


@pytest.mark.parametrize("change", [{"version": 2}, {"version": None}, {"format": "other"}])
def test_another_version(change: dict[str, Any], make_policy: Any, tmp_path: Path) -> None:
    save_policy(make_policy(), tmp_path)
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=r"expected format 'robot_rl policy' version 1 .*another version"):
        load_policy(tmp_path)


def test_files_that_are_no_json_or_no_tensors(make_policy: Any, tmp_path: Path) -> None:
    save_policy(make_policy(), tmp_path)
    model = tmp_path / "model.safetensors"
    whole = model.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"\xff" * 64, b""):
        model.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_policy(tmp_path)
    (tmp_path / "contract.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"contract.json cannot be read"):
        load_policy(tmp_path)


def test_tensors_that_do_not_fit_are_listed(make_policy: Any, tmp_path: Path) -> None:
    save_policy(make_policy(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["extra.weight"] = tensors.pop("denoiser.input.bias")
    tensors["action_normalizer.center"] = torch.zeros(3)
    tensors["action_normalizer.spread"] = tensors["action_normalizer.spread"].double()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_policy(tmp_path)
    for line in (
        "denoiser.input.bias: missing",
        "extra.weight: not a part of this policy",
        "action_normalizer.center: expected torch.float32 [4], got torch.float32 [3]",
        "action_normalizer.spread: expected torch.float32 [4], got torch.float64 [4]",
    ):
        assert line in str(caught.value)


def test_a_failed_write_leaves_the_old_checkpoint(make_policy: Any, tmp_path: Path) -> None:
    save_policy(make_policy(), tmp_path)
    with pytest.raises(TypeError):
        save_policy(make_policy(), tmp_path, {"not json": object()})
    load_policy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES
