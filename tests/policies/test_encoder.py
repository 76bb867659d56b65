from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from robot_rl.policies import build_policy
from robot_rl.policies.cnn import CNN
from robot_rl.policies.configuration import PolicyError
from robot_rl.policies.grid_cnn import GridCNN
from robot_rl.policies.resnet import ResNet18


def test_states_are_normalised_and_concatenated_in_order(make_policy: Any, make_batch: Any, statistics: Any) -> None:
    policy = make_policy().eval()
    observation = make_batch(policy)["observation"]
    context = policy.encode(observation)
    low, high = statistics["joint_position"].min, statistics["joint_position"].max
    joints = 2 * (observation["joint_position"].numpy() - low) / (high - low) - 1
    low, high = statistics["cube_pose"].min[:3], statistics["cube_pose"].max[:3]
    position = 2 * (observation["cube_pose"].numpy()[..., :3] - low) / (high - low) - 1
    quaternion = observation["cube_pose"].numpy()[..., [4, 5, 6, 3]].reshape(-1, 4)
    matrix = Rotation.from_quat(quaternion).as_matrix().reshape(5, 2, 3, 3)
    expected = np.concatenate([joints, position, matrix[..., 0], matrix[..., 1]], axis=-1)
    assert np.allclose(context.numpy(), expected, atol=1e-5)


def test_frames_reach_the_backbone_as_floats_channels_last(make_policy: Any, make_batch: Any) -> None:
    policy = make_policy(encoder="cnn", augmentation={"crop": 40})
    batch = make_batch(policy)
    seen: list[torch.Tensor] = []
    policy.encoder.backbones["front"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    policy.eval().encode(batch["observation"])
    expected = batch["observation"]["front"].flatten(0, 1)[:, 4:44, 4:44].permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(seen[0], expected)
    policy.train().encode(batch["observation"], torch.Generator().manual_seed(0))
    assert seen[1].is_contiguous(memory_format=torch.channels_last)
    weight = policy.encoder.backbones["front"].convolutions[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_each_time_step_is_encoded_alone(make_policy: Any, make_batch: Any) -> None:
    policy = make_policy(encoder="resnet18").eval()
    observation = make_batch(policy)["observation"]
    context = policy.encode(observation)
    swapped = policy.encode({name: value.flip(1) for name, value in observation.items()})
    torch.testing.assert_close(swapped, context.flip(1), atol=1e-5, rtol=1e-4)


def test_earlier_observations_share_the_first_picture_that_is_seen(make_policy: Any, make_batch: Any) -> None:
    policy = make_policy(encoder="grid_cnn", obs_horizon=4, frames=2).eval()
    observation = make_batch(policy)["observation"]
    context, states = policy.encode(observation), policy.encoder.features - 2 * 8
    pictures = context[..., states:]
    torch.testing.assert_close(pictures[:, 0], pictures[:, 2])
    torch.testing.assert_close(pictures[:, 1], pictures[:, 2])
    assert not torch.allclose(pictures[:, 2], pictures[:, 3])
    for camera in policy.encoder.cameras:
        observation[camera][:, :2] = 0
    torch.testing.assert_close(policy.encode(observation), context)
    assert len({tuple(row) for row in context[0, :, :states].tolist()}) == 4
    with pytest.raises(PolicyError, match="frames: expected 1 to 2, the obs_horizon; got 3"):
        make_policy(encoder="grid_cnn", frames=3)


def test_published_sizes() -> None:
    """A ResNet-18 without its classifier has 11.18 M parameters (11 689 512 with it)."""
    network = ResNet18(3)
    trunk = [*network.stem.parameters(), *network.stages.parameters()]
    assert sum(value.numel() for value in trunk) == 11_689_512 - (512 * 1000 + 1000)
    assert ResNet18(1, features=7, width=16)(torch.rand(2, 1, 64, 64)).shape == (2, 7)
    assert CNN(3, channels=(8,), features=5)(torch.rand(2, 3, 20, 24)).shape == (2, 5)


def test_a_grid_that_does_not_fit_the_picture() -> None:
    network = GridCNN(3, channels=(8, 8), grid=(3, 4), features=5)
    assert network(torch.rand(2, 3, 48, 64)).shape == (2, 5)
    with pytest.raises(PolicyError, match=r"grid: \[3, 4\] does not divide the \[5, 5\]"):
        network(torch.rand(2, 3, 40, 40))


def test_depth_is_read_in_metres(statistics: Any) -> None:
    from robot_rl.datasets import Contract, Feature

    depth = Feature("depth", (40, 40, 1), dtype="uint16", kind="depth")
    action = Feature("move", (4,), kind="action")
    contract = Contract("arm", 20.0, {"depth": depth}, {"move": action})
    config = {"encoder": {"name": "cnn", "channels": [8]}, "action_horizon": 2, "augmentation": {"crop": 38}}
    policy = build_policy(config, contract, statistics).eval()
    seen: list[torch.Tensor] = []
    policy.encoder.backbones["depth"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frames = np.full((1, 2, 40, 40, 1), 40_500, np.uint16)
    policy.encode({"depth": frames})
    policy.train().encode({"depth": frames})
    for images in seen:
        torch.testing.assert_close(images, torch.full((2, 1, 38, 38), 40.5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: CNN(3, channels=(8, 16), keypoints=8, features=2),
        lambda: GridCNN(3, channels=(8, 16), grid=(4, 4), features=2),
    ],
    ids=["cnn", "grid_cnn"],
)
def test_it_learns_where_something_is(make: Callable[[], torch.nn.Module]) -> None:
    torch.manual_seed(0)
    network = make()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)

    def scene(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        place = torch.rand(size, 2, generator=generator) * 1.4 - 0.7
        grid = torch.linspace(-1, 1, 32)
        near = (grid[None, None] - place[:, 0, None, None]).abs() + (
            grid[None, :, None] - place[:, 1, None, None]
        ).abs()
        return (near < 0.25).float().unsqueeze(1).expand(-1, 3, -1, -1), place

    for _ in range(120):
        images, place = scene(64)
        optimizer.zero_grad()
        (network(images) - place).square().mean().backward()
        optimizer.step()
    images, place = scene(200)
    assert (network(images) - place).abs().mean() < 0.1
