import pytest
import torch

from robot_rl.policies.augmentation import Augmentation

HORIZON = 2


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(256, (6, 3, 12, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def places(image: torch.Tensor, part: torch.Tensor) -> list[tuple[int, int]]:
    """Where `part` stands in `image`."""
    height, width = part.shape[-2:]
    rows, columns = image.shape[-2] - height + 1, image.shape[-1] - width + 1
    return [(y, x) for y in range(rows) for x in range(columns) if image[:, y : y + height, x : x + width].equal(part)]


@pytest.mark.parametrize("options", [{"crop": 8}, {"shift": 3}])
def test_movements_change_the_images_in_training(options: dict[str, int], images: torch.Tensor) -> None:
    moved = Augmentation(**options).train().move(images, HORIZON, seeded())
    assert moved.dtype == torch.uint8
    assert not moved.equal(Augmentation(**options).eval().move(images, HORIZON))
    assert moved.equal(Augmentation(**options).train().move(images, HORIZON, seeded()))
    assert not moved.equal(Augmentation(**options).train().move(images, HORIZON, seeded(1)))


@pytest.mark.parametrize("options", [{"brightness": 0.3}, {"contrast": 0.3}, {"saturation": 0.3}])
def test_colours_change_the_images_in_training_only(options: dict[str, float], images: torch.Tensor) -> None:
    scaled = images / 255
    changed = Augmentation(**options).train().colour(scaled, HORIZON, seeded())
    assert (changed - scaled).abs().flatten(1).amax(1).min() > 1e-3
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert Augmentation(**options).eval().colour(scaled, HORIZON, seeded()).equal(scaled)


def test_everything_off_is_the_identity(images: torch.Tensor) -> None:
    off = Augmentation().train()
    assert off.move(images, HORIZON, seeded()).equal(images)
    assert off.colour(images / 255, HORIZON, seeded()).equal(images / 255)


def test_evaluation_crops_the_centre_and_does_not_shift(images: torch.Tensor) -> None:
    assert Augmentation(crop=8, shift=3).eval().move(images, HORIZON).equal(images[:, :, 2:10, 3:11])
    assert Augmentation(shift=3).eval().move(images, HORIZON).equal(images)


def test_a_crop_is_a_window_of_the_image_the_same_for_all_frames_of_a_sample(images: torch.Tensor) -> None:
    moved = Augmentation(crop=8).train().move(images, HORIZON, seeded())
    found = [places(image, part) for image, part in zip(images, moved, strict=True)]
    assert all(len(place) == 1 for place in found)
    assert found[0::2] == found[1::2]
    assert len({place[0] for place in found}) > 1


def test_every_window_occurs() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3).expand(400, 1, 3, 3)
    corners = Augmentation(crop=2).train().move(image, 1, seeded())[:, 0, 0, 0]
    assert sorted(set(corners.tolist())) == [0, 1, 3, 4]


def test_a_shift_repeats_the_edge() -> None:
    image = torch.arange(5.0).expand(1, 1, 5, 5)
    rows = {tuple(Augmentation(shift=2).train().move(image, 1, seeded(seed))[0, 0, 2].tolist()) for seed in range(60)}
    assert rows == {(0, 0, 0, 1, 2), (0, 0, 1, 2, 3), (0, 1, 2, 3, 4), (1, 2, 3, 4, 4), (2, 3, 4, 4, 4)}


def test_colour_jitter_against_its_definition() -> None:
    image = torch.rand(1, 3, 4, 4, generator=seeded()) * 0.5 + 0.25
    factor = 1 + 0.2 * (2 * torch.rand(1, 3, generator=seeded(3)) - 1)[0, 1]
    weights = torch.tensor([0.299, 0.587, 0.114])
    mean = (image[0] * weights[:, None, None]).sum(0).mean()
    expected = mean + (image - mean) * factor
    torch.testing.assert_close(Augmentation(contrast=0.2).train().colour(image, 1, seeded(3)), expected)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="positive crop"):
        Augmentation(crop=0)
