"""A log that cannot be written neither ends nor holds up the node that writes it."""

import errno
import io
import logging
import os
import sys
import time
from typing import Any

import pytest

from robot_rl.hardware.ros2 import graph_log
from robot_rl.hardware.ros2.graph_log import WAITING, GraphLog


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelno": logging.WARNING})


def test_a_full_disk_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[Any] = []
    monkeypatch.setattr(sys, "stderr", Full())
    log = GraphLog("px4", True, published.append)
    log.handle(record("lands"))
    log.close()
    assert [each.msg for each in published] == ["lands"]


def test_nobody_waits_for_a_reader_and_what_was_said_comes_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_log, "PATIENCE", 0.1)
    published: list[Any] = []
    reads, writes = os.pipe()
    said = [f"line {number} {'x' * 200}" for number in range(2 * WAITING)]  # more than a pipe holds
    with open(writes, "w") as stream:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", stream)
        log = GraphLog("px4", True, published.append)
        began = time.monotonic()
        for line in said:
            log.handle(record(line))
        log.close()
        assert time.monotonic() - began < 60  # it would wait for ever
        assert [each.msg for each in published] == said
        with open(reads) as reader:  # noqa: PTH123
            heard = [reader.readline().partition("]: ")[2].rstrip() for _ in range(WAITING)]
            monkeypatch.setattr(graph_log, "PATIENCE", 60.0)
            log.close()  # now the pipe holds the rest; or its thread would write that to the next test's terminal
        assert heard == said[:WAITING]


def test_all_is_written_before_it_is_closed(capfd: pytest.CaptureFixture[str]) -> None:
    log = GraphLog("px4", True, None)
    for number in range(100):
        log.handle(record(f"line {number}"))
    log.close()
    lines = capfd.readouterr().err.splitlines()
    assert [line.rpartition("]: ")[2] for line in lines] == [f"line {number}" for number in range(100)]
