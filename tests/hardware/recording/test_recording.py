"""Recording beside a loop: nothing blocks, and a full disk costs nothing as long as memory lasts."""

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from robot_rl.hardware.recording.bag import Bag
from robot_rl.hardware.recording.black_box import BlackBox, Topic
from robot_rl.hardware.recording.recording import Recording
from robot_rl.hardware.ros2 import messages

STRING = "std_msgs/msg/String"
TOPIC = Topic(
    "/said", STRING, messages.typestore().generate_msgdef(STRING, ros_version=2)[0], messages.type_hash(STRING)
)
CDR = messages.encode(messages.make(STRING, data="x" * 1000))


class Disk:
    """One that may be full or slow."""

    def __init__(self) -> None:
        self.full, self.delay = False, 0.0

    def __call__(self, fd: int, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        time.sleep(self.delay)
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.pwritev(fd, parts, offset)


def until(condition: object) -> None:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.02)
    assert condition()  # type: ignore[operator]


def numbers(folder: Path) -> list[int]:
    return [recorded.received for recorded in Bag(folder).read()]


def test_what_comes_while_the_disk_is_full_is_written_when_it_is_not(tmp_path: Path) -> None:
    disk = Disk()
    recording = Recording(BlackBox(tmp_path / "bag", pwritev=disk), memory=10_000_000)
    for number in range(10):
        recording.put(TOPIC, number, CDR)
    until(lambda: len(numbers(tmp_path / "bag")) == 10)
    disk.full = True
    for number in range(10, 2000):
        recording.put(TOPIC, number, CDR)
    until(lambda: "free some space" in recording.problem)
    assert numbers(tmp_path / "bag") == list(range(10))
    disk.full = False
    until(lambda: not recording.problem)
    recording.close()
    assert numbers(tmp_path / "bag") == list(range(2000))
    assert recording.dropped == 0


def test_putting_never_waits_and_counts_what_memory_cannot_hold(tmp_path: Path) -> None:
    disk = Disk()
    recording = Recording(BlackBox(tmp_path / "bag", pwritev=disk), memory=100 * len(CDR))
    disk.delay = 0.5
    began = time.perf_counter()
    for number in range(1000):
        recording.put(TOPIC, number, CDR)
    assert time.perf_counter() - began < 0.4
    assert 0 < recording.dropped < 1000
    disk.delay = 0.0
    recording.close()
    found = numbers(tmp_path / "bag")
    assert len(found) == recording.messages == 1000 - recording.dropped
    assert found == sorted(found)


def test_a_disk_that_stays_full_is_said_at_the_end(tmp_path: Path) -> None:
    from robot_rl.hardware.recording.black_box import BlackBoxError, recover

    disk = Disk()
    recording = Recording(BlackBox(tmp_path / "bag", pwritev=disk), memory=1_000_000)
    recording.put(TOPIC, 1, CDR)
    recording.sync()
    until(lambda: len(numbers(tmp_path / "bag")) == 1)
    disk.full = True
    with pytest.raises(BlackBoxError, match="free some space"):
        recording.close()
    assert recover(tmp_path / "bag")
    assert numbers(tmp_path / "bag") == [1]
