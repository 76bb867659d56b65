from __future__ import annotations

import gc
import os
import threading
import time

import pytest

from robot_rl.datasets.prefetch import BATCHES_AHEAD, Prefetch


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_items_come_in_order_whatever_they_cost(workers):
    def read(position: int) -> int:
        time.sleep(0.01 if position % 4 == 0 else 0)
        return position

    ahead = Prefetch(read, 2, workers)
    assert [ahead.take(position) for position in range(0, 40, 2)] == list(range(0, 40, 2))
    assert [ahead.take(position) for position in (6, 8, 100)] == [6, 8, 100]
    ahead.close()


def test_the_queue_is_bounded():
    started: list[int] = []
    ahead = Prefetch(lambda position: started.append(position), 1, 2)
    ahead.take(0)
    time.sleep(0.1)
    assert len(started) <= 2 * BATCHES_AHEAD
    ahead.close()


def test_an_error_arrives_with_its_cause_and_the_next_position_works():
    def read(position: int) -> int:
        if position == 3:
            raise OSError("drive is gone")
        return position

    ahead = Prefetch(read, 1, 2)
    assert [ahead.take(position) for position in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="drive is gone"):
        ahead.take(3)
    assert ahead.take(4) == 4
    ahead.close()


def test_no_thread_is_left_behind():
    before = set(threading.enumerate())
    ahead = Prefetch(lambda position: position, 1, 3)
    ahead.take(0)
    assert set(threading.enumerate()) - before
    ahead.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()
    dropped = Prefetch(lambda position: position, 1, 3)
    dropped.take(0)
    del dropped
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_goes_on_after_a_fork():
    ahead = Prefetch(lambda position: position, 1, 2)
    assert ahead.take(0) == 0
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if [ahead.take(1), ahead.take(2)] == [1, 2] else 2
            ahead.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ahead.take(1) == 1
    ahead.close()
