import copy

import pytest
import torch
from torch import nn

from robot_rl.rl.flat_adam import FlatAdam


def networks(seed: int = 0) -> nn.ModuleList:
    torch.manual_seed(seed)
    return nn.ModuleList([nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)) for _ in range(2)])


@pytest.mark.parametrize("clip", [None, 0.05])
def test_it_moves_as_torch_does(clip: float | None) -> None:
    flat, plain = networks(), networks()
    ours = FlatAdam([(list(part.parameters()), 0.01 * (1 + number)) for number, part in enumerate(flat)], eps=1e-5)
    theirs = [
        torch.optim.AdamW(part.parameters(), lr=0.01 * (1 + number), weight_decay=0.0, eps=1e-5)
        for number, part in enumerate(plain)
    ]
    x = torch.randn(16, 3)
    for groups in ([0, 1], [1], [1], [0], [0, 1]):
        for group in groups:
            own = ours.parameters[group]
            ours.move(group, torch.autograd.grad((flat[group](x) - 1).square().mean(), own), clip)
        for part in plain:
            part.zero_grad()
        sum((part(x) - 1).square().mean() for part in plain).backward()
        for group in groups:
            if clip is not None:
                nn.utils.clip_grad_norm_(plain[group].parameters(), clip)
            theirs[group].step()
    for a, b in zip(flat.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
        assert a.grad is None


def test_copies_stand_alone_and_loaded_weights_stay_views() -> None:
    part = networks()[0]
    optimizer = FlatAdam([(list(part.parameters()), 0.1)])
    kept = copy.deepcopy(part)
    before = [value.clone() for value in kept.parameters()]
    part.load_state_dict({name: value + 1 for name, value in part.state_dict().items()})
    moved = [value.clone() for value in part.parameters()]
    for found in optimizer.gradients[0].values():
        found.fill_(1.0)
    optimizer.descend(0)
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), before, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(part.parameters(), moved, strict=True))
