"""Frame codecs: lossless ones exactly, JPEG by its error, all against another library."""

import io

import numpy as np
import pytest
from PIL import Image

from robot_rl.datasets import Contract, StoreError, frames


@pytest.fixture
def image() -> np.ndarray:
    y, x = np.mgrid[:84, :84]
    smooth = np.stack([128 + 100 * np.sin(x / 9 + y / 15), x * 2, y * 2 + 40 * np.cos(x / 5)], -1)
    return (smooth + np.random.default_rng(0).normal(0, 2, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def depth() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (40, 50, 1), np.uint16)


@pytest.mark.parametrize("encoding", ["png", "lz4", "raw"])
def test_lossless_encodings_restore_every_element(encoding: str, image: np.ndarray, depth: np.ndarray) -> None:
    for frame in (image, depth, image[::2, ::3]):
        out = np.zeros((2, *frame.shape), frame.dtype)
        frames.decode(encoding, frames.encode(encoding, frame), out[1])
        np.testing.assert_array_equal(out[1], frame)
        assert not out[0].any()


def test_jpeg_keeps_colours_at_full_resolution(image: np.ndarray) -> None:
    data = frames.encode("jpeg", image)
    out = np.empty_like(image)
    frames.decode("jpeg", data, out)
    error = np.square(out.astype(float) - image).mean()
    assert 10 * np.log10(255**2 / error) > 38
    assert len(data) < 0.3 * image.nbytes
    theirs = Image.open(io.BytesIO(data))
    assert theirs.layer[0][1:3] == theirs.layer[1][1:3] == (1, 1), "4:4:4: chroma is not subsampled"
    assert np.abs(np.asarray(theirs).astype(int) - out).max() <= 4


def test_png_is_read_by_other_software(image: np.ndarray, depth: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(frames.encode("png", image)))), image)
    theirs = np.asarray(Image.open(io.BytesIO(frames.encode("png", depth))))
    np.testing.assert_array_equal(theirs, depth[..., 0])


@pytest.mark.parametrize("encoding", sorted(frames.ENCODINGS))
def test_bytes_of_another_frame_are_refused(encoding: str, image: np.ndarray) -> None:
    data = frames.encode(encoding, image)
    with pytest.raises(StoreError, match=rf"no {encoding} frame of uint8 \[80, 84, 3\]"):
        frames.decode(encoding, data, np.empty((80, 84, 3), np.uint8))
    with pytest.raises(StoreError, match=rf"these 4 bytes are no {encoding} frame"):
        frames.decode(encoding, b"junk", np.empty_like(image))


def test_unknown_encodings_are_named(image: np.ndarray) -> None:
    with pytest.raises(StoreError, match="unknown encoding 'gif'"):
        frames.encode("gif", image)
    with pytest.raises(StoreError, match="unknown encoding 'gif'"):
        frames.decode("gif", b"", image)


def test_each_camera_gets_an_encoding_that_fits(contract: Contract) -> None:
    assert frames.resolve("jpeg", contract) == {"wrist": "jpeg", "range": "png"}
    assert frames.resolve("lz4", contract) == {"wrist": "lz4", "range": "lz4"}
    assert frames.resolve({"wrist": "png"}, contract) == {"wrist": "png", "range": "png"}


def test_all_wrong_encodings_are_listed(contract: Contract) -> None:
    with pytest.raises(StoreError) as error:
        frames.resolve({"wrist": "gif", "range": "jpeg", "elbow": "png"}, contract)
    for part in ("elbow: no such camera", "wrist: 'gif' is none of", "range: jpeg cannot hold depth"):
        assert part in str(error.value)
