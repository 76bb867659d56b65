"""`robot-rl cameras`: the cameras that there are, what they deliver, and how late."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robot_rl.hardware.cameras.camera import Camera, Frame
    from robot_rl.hardware.cameras.display_clock import LatencyMeter

SECONDS = 5.0
"""How long cameras are watched."""

AIMING = 120.0
"""How long somebody may need to point the camera at the screen [s]."""

LISTEN = 2.0
"""How long a ROS graph is looked at [s]."""

ENOUGH = 20
"""Pictures of the clock from which on a latency is told."""

CAMERA = """a device (/dev/video0, 0), a video file or URL, a ROS topic (/wrist/image_raw), or KIND:DEVICE with one of
opencv, realsense, topic, synthetic"""


def main(arguments: list[str]) -> int:
    """Run one tool; returns the exit status, 1 when a camera does not deliver."""
    parser = argparse.ArgumentParser(prog="robot-rl cameras", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", metavar="list | check", required=True)

    every = verbs.add_parser("list", help="cameras of this computer with their formats, and topics of the ROS graph")
    every.add_argument("--topics", action="store_true", help="join the ROS graph, and list its topics of pictures")
    every.set_defaults(run=_list)

    check = verbs.add_parser("check", help="watch cameras: rate, jitter, losses, age, and what they see; or latency")
    check.add_argument("camera", nargs="+", help=CAMERA)
    check.add_argument("--size", type=_size, help="HEIGHTxWIDTH; default 480x640")
    check.add_argument("--rate", type=float, help="pictures per second; default 30")
    check.add_argument("--exposure", type=float, help="[s]; default: automatic")
    check.add_argument("--fourcc", help="pixel format, such as MJPG or YUYV; default: chosen")
    check.add_argument("--depth", action="store_true", default=None, help="of a RealSense")
    check.add_argument("--seconds", type=float, default=SECONDS, help=f"how long to watch (default {SECONDS:g})")
    check.add_argument("--output", type=Path, default=Path("runs/cameras"), help="folder for pictures")
    check.add_argument("--latency", action="store_true", help="measure it: the camera films a clock on a screen")
    check.add_argument("--port", type=int, default=0, help="of the page with the clock, on localhost; default: any")
    check.set_defaults(run=_check)

    options = parser.parse_args(arguments)
    return int(options.run(options))


def settings(word: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a camera that is named on the command line.

    Args:
        options: of all cameras; those that are None are left at their defaults.
    """
    from robot_rl.hardware.cameras.kinds import KINDS

    kind, separator, device = word.partition(":")
    if word in KINDS:
        kind, device = word, ""
    elif not separator or kind not in KINDS:
        is_topic = word.startswith("/") and not word.startswith("/dev/") and not Path(word).exists()
        kind, device = "topic" if is_topic else "opencv", word
    found = {"kind": kind, **{key: value for key, value in options.items() if value is not None}}
    return found | ({"device": device} if device else {})


def _list(options: argparse.Namespace) -> int:
    from robot_rl.hardware.cameras import realsense, v4l2
    from robot_rl.hardware.cameras.camera import CameraError

    found = 0
    for path, name in v4l2.devices():
        try:
            offered = v4l2.formats(path)
        except CameraError as error:
            print(f"{path}  {name}\n  {error}")
            found += 1
            continue
        if offered:
            found += 1
            print(f"{path}  {name}\n{v4l2.describe(offered)}")
    try:
        for serial, name in realsense.cameras():
            found += 1
            print(f"realsense:{serial}  {name}")
    except CameraError as error:
        print(f"({error})")
    if options.topics:
        found += _list_topics()
    if not found:
        print("No camera. Plug one in; in a container, pass it on: --device /dev/video0")
    return 0


def _list_topics() -> int:
    from robot_rl.hardware.cameras.topic import pictures
    from robot_rl.hardware.ros2.graph import open_graph

    with open_graph("robot_rl_cameras") as graph:
        graph.spin(timeout=LISTEN)
        topics = pictures(graph)
    for topic in topics:
        print(f"topic:{topic}")
    if not topics:
        print("(no topic of pictures on the ROS graph; `robot-rl doctor` shows its domain)")
    return len(topics)


def _check(options: argparse.Namespace) -> int:
    from robot_rl.hardware.cameras.camera import Camera
    from robot_rl.hardware.cameras.kinds import make_source

    chosen = {key: getattr(options, key) for key in ("size", "rate", "exposure", "fourcc", "depth")}
    sources = [make_source(settings(word, chosen)) for word in options.camera]
    seen = [_Seen() for _ in sources]
    with ExitStack() as stack:
        # All at once, as in use: cameras on one USB bus share what it can carry.
        pairs = zip(sources, seen, strict=True)
        cameras = [
            stack.enter_context(Camera(source, None if options.latency else each.take)) for source, each in pairs
        ]
        if options.latency:
            return _measure_latency(cameras, options)
        time.sleep(options.seconds)
    return max(_report(camera, each.frames, options.output) for camera, each in zip(cameras, seen, strict=True))


class _Seen:
    """The frames of a camera; only the last one keeps its picture."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def take(self, frame: Frame) -> None:
        if self.frames:
            self.frames[-1] = replace(self.frames[-1], picture=self.frames[-1].picture[:0].copy(), depth=None)
        self.frames.append(frame)


def _report(camera: Camera, frames: Sequence[Frame], output: Path) -> int:
    from robot_rl.hardware.cameras.camera_check import delivery

    name, measured = camera.source.name, delivery(frames, camera.counts)
    if measured is None:
        print(f"{name}: {camera.problem or 'too few pictures came'}", file=sys.stderr)
        return 1
    jitter, age = ([f"{1e3 * value:.1f}" for value in pair] for pair in (measured.jitter, measured.age))
    print(f"{name}: {measured.size[0]}x{measured.size[1]}")
    print(f"  rate      {measured.rate:.2f} Hz, by the stamps; {measured.frames} pictures")
    print(f"  jitter    median {jitter[0]} ms, 99 % below {jitter[1]} ms, of the stamps")
    print(f"  dropped   {measured.dropped}; reconnects {measured.reconnects}")
    print(f"  age       median {age[0]} ms, 99 % below {age[1]} ms, from stamp to arrival")
    if measured.steps_back:
        print(f"  stamps    {measured.steps_back} did not rise: mend the driver")
    print(f"  picture   {_save(frames[-1], output, name)}")
    return 0


def _measure_latency(cameras: Sequence[Camera], options: argparse.Namespace) -> int:
    from robot_rl.hardware.cameras.clock_page import ClockPage
    from robot_rl.hardware.cameras.display_clock import LatencyMeter

    status = 0
    with ClockPage(options.port) as page:
        print(f"Open {page.url} on a screen of this computer (from another one: ssh -L), and point the camera at it.")
        for camera in cameras:
            print(f"{camera.source.name}: looking for the clock, for {AIMING:g} s at most …", flush=True)
            meter = LatencyMeter()
            last = _film(camera, meter, AIMING, until_read=True)
            if meter.arrival:
                meter = LatencyMeter()
                last = _film(camera, meter, options.seconds)
            if last is not None:
                print(f"  picture   {_save(last, options.output, camera.source.name)}")
            status |= _report_latency(camera, meter)
    return status


def _film(camera: Camera, meter: LatencyMeter, seconds: float, until_read: bool = False) -> Frame | None:
    """Look for the clock in the camera's pictures; returns the last one."""
    end, frame = time.monotonic() + seconds, camera.newest()
    while (left := end - time.monotonic()) > 0:
        following = camera.wait(frame, min(left, 1.0))
        if following is None:
            continue
        frame = following
        if meter.take(frame) and until_read:
            break
    return frame


def _report_latency(camera: Camera, meter: LatencyMeter) -> int:
    import numpy as np

    read = len(meter.arrival)
    if read < ENOUGH:
        print(
            f"  the clock was read in {read} of {meter.pictures} pictures, {ENOUGH} are needed. It should fill a third "
            "of the picture or more, sharp, all four corners visible, without glare; try a shorter --exposure"
            + (f". The camera says: {camera.problem}" if camera.problem else ""),
            file=sys.stderr,
        )
        return 1
    for name, values in (("arrival", meter.arrival), ("stamp", meter.stamp)):
        median, p95 = np.percentile(values, (50, 95))
        what = "from the screen to this program" if name == "arrival" else "from the screen to the stamp"
        print(f"  {name:9} median {1e3 * median:.0f} ms, 95 % below {1e3 * p95:.0f} ms, {what}")
    print(f"  read      {read} of {meter.pictures} pictures; a single one to 10 ms, the screen's own delay included")
    stamp = max(0.0, float(np.median(meter.stamp)))
    print(f"  for the robot's file, under `stream` of this camera:  latency: {stamp:.3f}")
    return 0


def _save(frame: Frame, output: Path, name: str) -> Path:
    import cv2

    output.mkdir(parents=True, exist_ok=True)
    path = output / (re.sub(r"\W+", "_", name).strip("_") + ".png")
    done, data = cv2.imencode(".png", cv2.cvtColor(frame.picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise RuntimeError(f"{path}: the picture of {list(frame.picture.shape)} cannot be encoded")
    path.write_bytes(data.tobytes())
    return path


def _size(text: str) -> list[int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH such as 480x640, got {text!r}")
    return [int(side) for side in match.groups()]
