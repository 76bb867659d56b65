"""Videos decoded again by FFmpeg, and their boxes read by hand."""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest

from robot_rl.video import VideoError, write_video


def gradient(height: int, width: int, count: int) -> list[np.ndarray]:
    y, x = np.mgrid[0:height, 0:width]
    return [np.stack([y * 2 % 256, x * 2 % 256, np.full_like(x, 20 * k)], -1).astype(np.uint8) for k in range(count)]


def boxes(data: bytes) -> list[bytes]:
    names, at = [], 0
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        names.append(name)
        at += size
    return names


@pytest.mark.parametrize("size", [(64, 96), (63, 85)])
def test_frames_come_back(tmp_path, size):
    frames = gradient(*size, 7)
    path = write_video(tmp_path / "deep" / "clip.mp4", iter(frames), rate_hz=20, quality=10)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 20
        decoded = [frame.reformat(format="rgb24").to_ndarray() for frame in container.decode(stream)]
    assert len(decoded) == 7
    for frame, original in zip(decoded, frames, strict=True):
        assert all(length % 2 == 0 for length in frame.shape[:2])
        difference = frame[: size[0], : size[1]].astype(int) - original
        assert abs(difference).mean() < 4
        assert abs(difference.mean(axis=(0, 1))).max() < 2, (
            "a colour matrix that is applied but not declared shifts colours"
        )
    assert list(path.parent.iterdir()) == [path]


def test_the_index_stands_before_the_data(tmp_path):
    path = write_video(tmp_path / "clip.mp4", gradient(32, 32, 3), rate_hz=12.5)
    names = boxes(path.read_bytes())
    assert names.index(b"moov") < names.index(b"mdat")


def test_wrong_frames_are_refused_and_leave_nothing(tmp_path):
    frames = gradient(32, 32, 2)
    with pytest.raises(VideoError, match="no frames"):
        write_video(tmp_path / "a.mp4", [], 20)
    with pytest.raises(VideoError, match=r"uint8 \[32, 32, 3\], got uint8 \[16, 32, 3\]"):
        write_video(tmp_path / "b.mp4", [frames[0], frames[1][::2]], 20)
    with pytest.raises(VideoError, match="float64"):
        write_video(tmp_path / "c.mp4", [frames[0] / 255.0], 20)
    assert not list(tmp_path.iterdir())
