import pytest

from robot_rl.policies.denoiser import Shapes
from robot_rl.policies.mlp import MLP


def test_conditioning_must_be_known() -> None:
    with pytest.raises(ValueError, match="expected concat or film, got 'add'"):
        MLP(Shapes(4, 2, 1, 3), conditioning="add")  # type: ignore[arg-type]


def test_depth_adds_blocks_of_two_layers() -> None:
    sizes = [
        sum(value.numel() for value in MLP(Shapes(4, 2, 1, 3), width=16, depth=depth).parameters()) for depth in (1, 2)
    ]
    assert sizes[1] - sizes[0] == 2 * (16 * 16 + 16) + 2 * 16
