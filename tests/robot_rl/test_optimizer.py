import pytest
import torch
from torch import nn

from robot_rl.optimizer import build_optimizer, set_learning_rate, warmup_cosine


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
        self.embedding = nn.Embedding(5, 4)
        self.place = nn.Parameter(torch.zeros(1, 5, 4))
        self.attention = nn.MultiheadAttention(4, 2)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def test_only_matrices_decay() -> None:
    network = Network()
    optimizer = build_optimizer(network, 1e-3, weight_decay=0.1)
    names = {value: name for name, value in network.named_parameters()}
    decaying = {names[value] for group in optimizer.param_groups if group["weight_decay"] for value in group["params"]}
    assert decaying == {"encoder.0.weight", "attention.in_proj_weight", "attention.out_proj.weight"}
    trained = {names[value] for group in optimizer.param_groups for value in group["params"]}
    assert trained == {name for name in names.values() if not name.startswith("frozen")}


def test_decay_is_decoupled_from_the_gradient() -> None:
    # Without a gradient AdamW multiplies by 1 - rate * decay (Loshchilov and Hutter 2019, algorithm 2).
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    optimizer = build_optimizer(layer, 0.1, weight_decay=0.5)
    for value in layer.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.1 * 0.5))


def test_encoder_has_its_own_learning_rate() -> None:
    network = Network()
    optimizer = build_optimizer(network, 1e-3, encoder_learning_rate=1e-4)
    set_learning_rate(optimizer, 0.5)
    rates = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
    assert rates[id(network.encoder[0].weight)] == pytest.approx(5e-5)
    assert rates[id(network.embedding.weight)] == pytest.approx(5e-4)


def test_all_frozen_is_an_error() -> None:
    with pytest.raises(ValueError, match="frozen"):
        build_optimizer(nn.Linear(1, 1).requires_grad_(False), 1e-3)


def test_schedule_agrees_with_torch_after_the_warm_up() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    peer = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90, eta_min=0.1)
    for step in range(10, 100):
        assert warmup_cosine(step, 100, 10, 0.1) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        peer.step()
    assert [warmup_cosine(step, 100, 10) for step in range(10)] == pytest.approx([
        0.1 * (step + 1) for step in range(10)
    ])
