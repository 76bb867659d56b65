"""The MP4 files of a LeRobot data set: many episodes one after the other, each frame found by its time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from robot_rl.datasets.formats.trajectory import BadEpisode

GROUP = 2
"""Frames from one key frame to the next: what LeRobot writes, for random access."""


class VideoReader:
    """Decodes a file forwards; frame k is the one shown at k / fps seconds."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        try:
            self._container: Any = av.open(str(path))
        except (OSError, av.FFmpegError) as error:
            raise BadEpisode(f"{path.name} is not readable as video: {error}") from error
        self._stream: Any = self._container.streams.video[0]
        self._reformatter = VideoReformatter()
        self._frames = self._decoded()
        self._held: tuple[int, Any] | None = None

    def frames(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames start to stop - 1, uint8 [H, W, 3] RGB.

        Raises:
            BadEpisode: one is missing, or does not decode.
        """
        if self._held is None or self._held[0] > start or self._held[0] + 10 * self._fps < start:
            self._seek(start)
        for wanted in range(start, stop):
            while self._held is None or self._held[0] < wanted:
                self._held = self._next(wanted)
            number, frame = self._held
            if number != wanted:
                raise BadEpisode(f"{self._path.name} has no frame at {wanted / self._fps:.3f} s")
            # One reformatter for all frames: each would make its own conversion tables.
            yield self._reformatter.reformat(frame, format="rgb24").to_ndarray()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _seek(self, start: int) -> None:
        # Half a frame earlier, so that rounding does not lead to the key frame behind.
        time = max(0.0, (start - 0.5) / self._fps)
        self._container.seek(int(time / self._stream.time_base), stream=self._stream)
        self._frames, self._held = self._decoded(), None

    def _next(self, wanted: int) -> tuple[int, Any]:
        try:
            return next(self._frames)
        except StopIteration:
            raise BadEpisode(f"{self._path.name} ends before {wanted / self._fps:.3f} s") from None
        except (OSError, av.FFmpegError) as error:
            raise BadEpisode(f"{self._path.name} does not decode at {wanted / self._fps:.3f} s: {error}") from error

    def _decoded(self) -> Iterator[tuple[int, Any]]:
        base = float(self._stream.time_base)
        for frame in self._container.decode(self._stream):
            yield round(frame.pts * base * self._fps), frame


class VideoWriter:
    """Encodes episodes into files of limited size.

    Args:
        path: of the file with a number, and where that is: the keys of LeRobot's episodes.
        size: height and width [pixel].
        codec: `libsvtav1` or `libx264`.
        limit: bytes after which a new file is begun.
    """

    def __init__(
        self,
        path: Callable[[int], tuple[Path, dict[str, int]]],
        size: tuple[int, int],
        fps: int,
        codec: str,
        limit: int,
    ) -> None:
        self._path, self._size, self._fps, self._codec, self._limit = path, size, fps, codec, limit
        self._number, self._count, self._bytes = -1, 0, 0
        self._container: Any = None
        self._stream: Any = None
        self._place: dict[str, int] = {}

    @property
    def info(self) -> dict[str, Any]:
        """What LeRobot's metadata say of a video."""
        height, width = self._size
        codec = {"libsvtav1": "av1", "libx264": "h264"}.get(self._codec, self._codec)
        return {
            "video.height": height, "video.width": width, "video.codec": codec, "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False, "video.fps": self._fps, "video.channels": 3, "has_audio": False,
        }  # fmt: skip

    def add(self, pictures: np.ndarray) -> dict[str, Any]:
        """Encode an episode [T, H, W, 3]; where it is, by LeRobot's keys."""
        if self._container is None or self._bytes > self._limit:
            self._open()
        start = self._count
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = self._count, Fraction(1, self._fps)
            self._mux(frame)
            self._count += 1
        times = {"from_timestamp": start / self._fps, "to_timestamp": self._count / self._fps}
        return {**self._place, **times}

    def close(self) -> None:
        """Finish the file."""
        if self._container is not None:
            self._mux(None)
            self._container.close()
            self._container = None

    def _open(self) -> None:
        self.close()
        self._number, self._count, self._bytes = self._number + 1, 0, 0
        path, self._place = self._path(self._number)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w")
        # SVT-AV1 describes its settings on standard error unless told not to.
        os.environ.setdefault("SVT_LOG", "1")
        quality = {"crf": "30", "preset": "8"} if self._codec == "libsvtav1" else {"crf": "18"}
        try:
            self._stream = self._container.add_stream(self._codec, rate=self._fps, options={"g": str(GROUP), **quality})
        except (ValueError, av.FFmpegError) as error:
            raise ValueError(f"this build of PyAV cannot encode {self._codec}: {error}; try libx264") from error
        self._stream.height, self._stream.width = self._size
        self._stream.pix_fmt, self._stream.gop_size = "yuv420p", GROUP
        with ordinary_scheduling():
            self._stream.codec_context.open()

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._bytes += packet.size
            self._container.mux(packet)


@contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """Leave the scheduling of the process's threads as it was, and give new ones that of this thread.

    Where it may, as root, SVT-AV1 makes its threads and the one that opens it real-time ones of the highest priority,
    which keep everything else on the computer from running.
    """
    before = {thread: _scheduling(thread) for thread in _threads()}
    own = _scheduling(0)
    try:
        yield
    finally:
        for thread in _threads():
            with suppress(ProcessLookupError):  # it has ended meanwhile
                if _scheduling(thread) != (right := before.get(thread, own)):
                    os.sched_setscheduler(thread, right[0], os.sched_param(right[1]))


def _threads() -> list[int]:
    return [int(entry.name) for entry in Path("/proc/self/task").iterdir()]


def _scheduling(thread: int) -> tuple[int, int]:
    return os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority
