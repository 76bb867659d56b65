import pytest
import torch

from robot_rl.policies import PolicyError
from robot_rl.policies.spatial_softmax import SpatialSoftmax


def test_a_peak_is_found_at_its_coordinates() -> None:
    layer = SpatialSoftmax(1, 1)
    torch.nn.init.constant_(layer.maps.weight, 50.0)
    torch.nn.init.zeros_(layer.maps.bias)
    for row, column in [(0, 0), (2, 6), (4, 3)]:
        features = torch.zeros(1, 1, 5, 7)
        features[0, 0, row, column] = 1
        expected = [[2 * column / 6 - 1, 2 * row / 4 - 1]]
        torch.testing.assert_close(layer(features), torch.tensor(expected), atol=1e-4, rtol=0)


def test_a_flat_map_gives_the_centre() -> None:
    assert SpatialSoftmax(4, 3)(torch.ones(2, 4, 6, 6)).abs().max() < 1e-6


def test_a_map_without_extent_is_refused() -> None:
    with pytest.raises(PolicyError, match="too small for its encoder"):
        SpatialSoftmax(4, 3)(torch.ones(2, 4, 1, 6))
