"""A log that cannot be written does not end the node that writes it."""

import errno
import io
import logging
import sys
from typing import Any

import pytest

from robot_rl.hardware.ros2.graph_log import GraphLog


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[Any] = []
    monkeypatch.setattr(sys, "stderr", Full())
    GraphLog("px4", True, published.append).handle(logging.makeLogRecord({"msg": "lands", "levelno": logging.WARNING}))
    assert [each.msg for each in published] == ["lands"]
