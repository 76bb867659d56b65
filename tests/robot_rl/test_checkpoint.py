from pathlib import Path

import pytest
import torch
from torch import nn

from robot_rl.checkpoint import ResumeError, load_training, save_training
from robot_rl.ema import Ema
from robot_rl.optimizer import build_optimizer


def _train(network: nn.Module, optimizer: torch.optim.Optimizer, average: Ema, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        network(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update()


def _parts(width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer, Ema]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1))
    return network, build_optimizer(network, 1e-2), Ema(network)


def test_going_on_from_a_checkpoint_is_bit_equal(tmp_path: Path) -> None:
    network, optimizer, average = _parts()
    _train(network, optimizer, average, 5)
    save_training(tmp_path, network, average, optimizer, {"steps": 5})
    _train(network, optimizer, average, 5, first=5)

    other, other_optimizer, other_average = _parts()
    assert load_training(tmp_path, other, other_average, other_optimizer)["steps"] == 5
    _train(other, other_optimizer, other_average, 5, first=5)
    for left, right in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)
    for name, value in average.state_dict().items():
        assert torch.equal(value, other_average.state_dict()[name])


def test_another_network_is_refused_with_all_differences(tmp_path: Path) -> None:
    network, optimizer, average = _parts()
    save_training(tmp_path, network, average, optimizer, {})
    with pytest.raises(ResumeError, match=r"0.weight: shape \[4, 3\] in the checkpoint, \[5, 3\] configured"):
        load_training(tmp_path, *_in_order(_parts(5)))


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    parts = _in_order(_parts())
    with pytest.raises(ResumeError, match="cannot be resumed"):
        load_training(tmp_path, *parts)
    (tmp_path / "training.safetensors").write_bytes(b"\x10")
    with pytest.raises(ResumeError, match="cannot be resumed"):
        load_training(tmp_path, *parts)


def _in_order(parts: tuple[nn.Module, torch.optim.Optimizer, Ema]) -> tuple[nn.Module, Ema, torch.optim.Optimizer]:
    network, optimizer, average = parts
    return network, average, optimizer
