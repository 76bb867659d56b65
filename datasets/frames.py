"""Encoding of camera frames: one frame, one independent piece of bytes, decoded straight into its place in a batch.

| encoding | frames | loss | bytes |
|---|---|---|---|
| `jpeg` | images | quality 95, 4:4:4 (44.9 dB on robosuite frames) | a JFIF file |
| `png` | images, depth | none | a PNG file, 8-bit RGB or 16-bit grey |
| `lz4` | images, depth | none | one LZ4 block of the raw bytes, without frame header |
| `raw` | images, depth | none | the array, C order, little-endian |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import imagecodecs
import numpy as np

from robot_rl.datasets.chunks import ChunkedArray
from robot_rl.datasets.contract import Contract, Feature
from robot_rl.datasets.errors import StoreDamaged, StoreError

JPEG_QUALITY = 95
LZ4_LEVEL = 2  # a fifth smaller and read faster than what the quickest compressor makes, in twice its time
PNG_LEVEL = 1  # higher levels cost up to three times the time for a few per cent

ENCODINGS: dict[str, tuple[str, ...]] = {
    "jpeg": ("image",),
    "png": ("image", "depth"),
    "lz4": ("image", "depth"),
    "raw": ("image", "depth"),
}
"""Which kinds of feature an encoding can hold."""


def encode(encoding: str, frame: np.ndarray) -> bytes:
    """Encode one frame.

    Args:
        frame: image uint8 [H, W, 3] RGB, or depth uint16 [H, W, 1] millimetres.
    """
    frame = np.ascontiguousarray(frame)
    if encoding == "jpeg":
        return bytes(imagecodecs.jpeg8_encode(frame, level=JPEG_QUALITY, subsampling="444"))
    if encoding == "png":
        return bytes(imagecodecs.png_encode(_grey(frame), level=PNG_LEVEL))
    if encoding == "lz4":
        return bytes(imagecodecs.lz4_encode(frame.tobytes(), level=LZ4_LEVEL, hc=True, header=False))
    if encoding == "raw":
        return frame.tobytes()
    raise _unknown(encoding)


def decode(encoding: str, data: bytes, out: np.ndarray) -> None:
    """Decode one frame into `out`, contiguous, of the feature's shape and dtype (one slot of a batch).

    Raises:
        StoreError: the bytes are no frame of this encoding and shape.
    """
    if encoding not in ENCODINGS:
        raise _unknown(encoding)
    try:
        _DECODERS[encoding](data, out)
    except _UNDECODABLE as error:
        raise StoreError(_problem(encoding, data, out, error)) from error


def _decode_jpeg(data: bytes, out: np.ndarray) -> None:
    imagecodecs.jpeg8_decode(data, out=out)


def _decode_png(data: bytes, out: np.ndarray) -> None:
    imagecodecs.png_decode(data, out=_grey(out))


def _decode_lz4(data: bytes, out: np.ndarray) -> None:
    size = len(imagecodecs.lz4_decode(data, out=out.data.cast("B")))
    if size != out.nbytes:
        raise ValueError(f"{size} bytes decoded, {out.nbytes} expected")


def _decode_raw(data: bytes, out: np.ndarray) -> None:
    out.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)


_DECODERS = {"jpeg": _decode_jpeg, "png": _decode_png, "lz4": _decode_lz4, "raw": _decode_raw}
_UNDECODABLE = (ValueError, RuntimeError)


def _problem(encoding: str, data: bytes, out: np.ndarray, error: Exception) -> str:
    return f"these {len(data)} bytes are no {encoding} frame of {out.dtype} {list(out.shape)}: {error}"


class FrameReader:
    """The frames of one camera of a store, by row.

    Attributes:
        feature: name, shape and dtype of a frame.
        encoding: how they are stored.
        packed: the bytes of all frames.
        offset, size, checksum: where each row's frame lies in `packed`, and the CRC-32 of its bytes.
    """

    def __init__(
        self, feature: Feature, encoding: str, packed: ChunkedArray, offset: ChunkedArray, size: ChunkedArray,
        checksum: ChunkedArray,
    ) -> None:  # fmt: skip
        self.feature = feature
        self.encoding = encoding
        self.packed = packed
        self.offset = offset
        self.size = size
        self.checksum = checksum

    def read(self, rows: np.ndarray) -> list[bytes]:
        """The encoded frames of rows [n]."""
        return list(self.packed.pieces(self.offset.gather(rows), self.size.gather(rows)))

    def decode(self, rows: np.ndarray, out: Sequence[np.ndarray] | np.ndarray) -> None:
        """Decode the frames of rows [n] into `out`: [n, H, W, C], or n arrays [H, W, C] anywhere in a batch."""
        self.decode_at(rows, self.offset.gather(rows), self.size.gather(rows), out)

    def decode_at(
        self, rows: np.ndarray, offsets: np.ndarray, sizes: np.ndarray, out: Sequence[np.ndarray] | np.ndarray
    ) -> None:
        """The same, where offset and size [n] of each row are known already."""
        for _ in self.decode_each(rows, offsets, sizes, out):
            pass

    def decode_each(
        self, rows: np.ndarray, offsets: np.ndarray, sizes: np.ndarray, out: Iterable[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """The same, one after the other: each array of `out` as soon as its frame is in it, and in the cache."""
        decode = _DECODERS[self.encoding]
        for row, data, frame in zip(np.asarray(rows).tolist(), self.packed.pieces(offsets, sizes), out, strict=True):
            try:
                decode(data, frame)
            except _UNDECODABLE as error:
                raise StoreDamaged(
                    f"{self.packed.folder}: row {row}: {_problem(self.encoding, data, frame, error)}. "
                    "Run `robot-rl data check`, which names its episode."
                ) from error
            yield frame


def resolve(encoding: str | Mapping[str, str], contract: Contract) -> dict[str, str]:
    """The encoding of every camera.

    Args:
        encoding: one for all images (depth, which JPEG cannot hold, is then PNG), or by camera; cameras that are not
            named get JPEG, depth PNG.

    Raises:
        StoreError: an unknown encoding or camera, or one that does not fit; all problems are listed.
    """
    chosen = dict(encoding) if isinstance(encoding, Mapping) else dict.fromkeys(contract.cameras, encoding)
    problems = [f"{name}: no such camera" for name in chosen if name not in contract.cameras]
    if isinstance(encoding, str) and not contract.cameras and encoding not in ENCODINGS:
        problems.append(f"{encoding!r} is none of {', '.join(ENCODINGS)}")
    resolved = {}
    for name, feature in contract.cameras.items():
        resolved[name] = _fitting(
            chosen.get(name, "jpeg"), feature, explicit=isinstance(encoding, Mapping) and name in chosen
        )
        if resolved[name] not in ENCODINGS:
            problems.append(f"{name}: {resolved[name]!r} is none of {', '.join(ENCODINGS)}")
        elif feature.kind not in ENCODINGS[resolved[name]]:
            fitting = [key for key, kinds in ENCODINGS.items() if feature.kind in kinds]
            problems.append(f"{name}: {resolved[name]} cannot hold {feature.kind}; choose one of {', '.join(fitting)}")
    if problems:
        cameras = ", ".join(contract.cameras) or "none"
        raise StoreError("\n".join(["encoding:", *(f"  - {line}" for line in problems), f"Cameras: {cameras}."]))
    return resolved


def _fitting(encoding: str, feature: Feature, explicit: bool) -> str:
    return "png" if encoding == "jpeg" and feature.kind == "depth" and not explicit else encoding


def _grey(frame: np.ndarray) -> np.ndarray:
    return frame[..., 0] if frame.shape[-1] == 1 else frame


def _unknown(encoding: str) -> StoreError:
    return StoreError(f"unknown encoding {encoding!r}; known are {', '.join(ENCODINGS)}")
