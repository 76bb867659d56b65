"""Videos that any browser plays: H.264 in MP4, 4:2:0, with the index at the front."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np


class VideoError(ValueError):
    """Frames that cannot become a video."""


def write_video(path: str | Path, frames: Iterable[np.ndarray], rate_hz: float, quality: int = 23) -> Path:
    """Encode frames, one at a time.

    Args:
        frames: uint8 [height, width, 3] RGB, all of one size. An odd last row or column is repeated, as 4:2:0 needs
            even sizes.
        rate_hz: frames per second.
        quality: constant rate factor of x264; lower is better and larger, 18 is visually lossless.

    Raises:
        VideoError: no frame, or frames of another type or of differing sizes.
    """
    import av

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    rate = Fraction(rate_hz).limit_denominator(1000)
    shape: tuple[int, ...] | None = None
    try:
        with av.open(str(beside), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = None
            for frame in frames:
                if (
                    frame.dtype != np.uint8
                    or frame.ndim != 3
                    or frame.shape[2] != 3
                    or shape not in (None, frame.shape)
                ):
                    wanted = "[height, width, 3]" if shape is None else str(list(shape))
                    raise VideoError(
                        f"{path.name}: expected frames uint8 {wanted}, got {frame.dtype} {list(frame.shape)}"
                    )
                shape = frame.shape
                even = np.pad(frame, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
                if stream is None:
                    # BT.709 must be both applied and declared, or browsers show the colours of another matrix.
                    stream = container.add_stream("libx264", rate=rate, options={"crf": str(quality), "preset": "fast"})
                    stream.height, stream.width, stream.pix_fmt = even.shape[0], even.shape[1], "yuv420p"
                    stream.codec_context.colorspace = stream.codec_context.color_primaries = 1
                    stream.codec_context.color_trc = stream.codec_context.color_range = 1
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
                container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace="ITU709")))
            if stream is None:
                raise VideoError(f"{path.name}: no frames")
            container.mux(stream.encode(None))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path
