import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from robot_rl.ema import Ema, decay


@given(updates=st.integers(0, 10**7))
def test_decay_rises_from_a_copy_to_its_bound(updates: int) -> None:
    assert decay(0) == 0.0
    assert decay(updates) <= decay(updates + 1) <= 0.9999


def test_average_is_the_recursion_written_out() -> None:
    module = nn.Linear(3, 2)
    average = Ema(module)
    expected = None
    for number in range(5):
        with torch.no_grad():
            module.weight.normal_(generator=torch.Generator().manual_seed(number))
        average.update()
        keep = min(0.9999, 1 - (1 + number) ** -0.75)
        expected = (
            module.weight.detach().clone()
            if expected is None
            else keep * expected + (1 - keep) * module.weight.detach()
        )
    torch.testing.assert_close(average.state_dict()["weight"], expected)


def test_applied_puts_the_average_in_and_takes_it_out_again_also_after_an_error() -> None:
    module = nn.Linear(3, 2)
    average = Ema(module)
    average.update()
    before = copy.deepcopy(module.state_dict())
    with torch.no_grad():
        module.weight.add_(1.0)
    with average.applied():
        assert torch.equal(module.weight, before["weight"])
    with pytest.raises(RuntimeError), average.applied():
        raise RuntimeError
    torch.testing.assert_close(module.weight, before["weight"] + 1.0)


def test_frozen_parameters_and_buffers_stay_the_modules_own() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module[0].bias.requires_grad_(False)
    assert set(Ema(module).state_dict()) == {"0.weight", "1.weight", "1.bias"}


def test_state_is_restored() -> None:
    module = nn.Linear(3, 2)
    first, second = Ema(module), Ema(module)
    for _ in range(3):
        with torch.no_grad():
            module.weight.add_(1.0)
        first.update()
    second.load_state_dict(first.state_dict(), first.updates)
    for average in (first, second):
        average.update()
    assert torch.equal(first.state_dict()["weight"], second.state_dict()["weight"])
