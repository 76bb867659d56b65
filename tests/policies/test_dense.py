import copy

import pytest
import torch
from torch import nn

from robot_rl.policies.dense import ACTIVATIONS, Dense


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_the_gradient_written_out_is_that_of_the_layers(activation: str) -> None:
    torch.manual_seed(0)
    dense = Dense([5, 16, 8, 3], activation)
    x, weights = torch.randn(7, 5, requires_grad=True), torch.randn(7, 3)
    y, expected = dense(x), nn.Sequential.forward(dense, x)
    torch.testing.assert_close(y, expected)
    every = [x, *dense.parameters()]
    wanted = torch.autograd.grad((expected * weights).sum(), every)
    for found in (
        torch.autograd.grad((y * weights).sum(), every),
        [wanted[0], *dense.pull(dense.trace(x), weights).values()],
    ):
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b)


def test_what_needs_no_gradient_gets_none() -> None:
    dense, x = Dense([2, 4, 1]), torch.randn(3, 2, requires_grad=True)
    frozen = copy.deepcopy(dense).requires_grad_(False)
    frozen(x).sum().backward()
    assert x.grad is not None
    dense(x.detach()).sum().backward()
    assert all(value.grad is not None for value in dense.parameters())
    torch.testing.assert_close(frozen(x), dense(x))


def test_mixed_precision_sees_ordinary_layers() -> None:
    dense, x = Dense([2, 4, 1]), torch.randn(3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        y = dense(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert dense.linear[0].weight.grad is not None
