import pytest
import torch

from robot_rl.policies.denoiser import Shapes
from robot_rl.policies.unet1d import UNet1D


@pytest.mark.parametrize(("horizon", "levels", "multiple"), [(15, 2, 2), (10, 3, 4), (7, 3, 4)])
def test_a_horizon_that_cannot_be_halved_is_refused(horizon: int, levels: int, multiple: int) -> None:
    with pytest.raises(ValueError, match=f"action_horizon must be a multiple of {multiple}, got {horizon}"):
        UNet1D(Shapes(horizon, 2, 1, 3), widths=[8] * levels)


@pytest.mark.parametrize(("horizon", "levels"), [(4, 3), (12, 3), (16, 4), (5, 1)])
def test_horizons_that_can(horizon: int, levels: int) -> None:
    network = UNet1D(Shapes(horizon, 2, 1, 3), widths=[8] * levels, time_features=8)
    assert network(torch.randn(2, horizon, 2), torch.zeros(2), torch.zeros(2, 1, 3)).shape == (2, horizon, 2)


def test_widths_must_hold_whole_groups() -> None:
    with pytest.raises(ValueError, match="multiples of groups = 8"):
        UNet1D(Shapes(8, 2, 1, 3), widths=[8, 12])
