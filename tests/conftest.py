"""For all tests: a ROS domain of its own for each that talks, and properties that are tried without a stop watch.

Domains are free also beside other runs of the tests on the same machine. Hypothesis draws the same examples each time
and leaves no database behind.
"""

import itertools
import os
import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

settings.register_profile("robot_rl", deadline=None, derandomize=True, database=None)
settings.load_profile("robot_rl")

LARGEST = 100  # the ports of higher domains lie where Linux takes those of any program's connections
_next = itertools.count(os.getpid() * 13)


@pytest.fixture(scope="module")
def new_ros_domain() -> Iterator[Callable[[], int]]:
    """Takes a domain that no other test uses until those of this file end."""
    held = []

    def take() -> int:
        for _ in range(LARGEST):
            number = 1 + next(_next) % LARGEST
            lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                lock.bind(f"\0robot_rl-test-domain-{number}")
            except OSError:
                lock.close()
                continue
            held.append(lock)
            return number
        raise RuntimeError(f"all {LARGEST} ROS domains are in use by tests")

    yield take
    for lock in held:
        lock.close()


@pytest.fixture
def ros_domain(new_ros_domain: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> int:
    """The domain of this test and of the processes that it starts, over DDS on this machine alone."""
    number = new_ros_domain()
    set_domain(monkeypatch, number)
    return number


@pytest.fixture(scope="module")
def module_domain(new_ros_domain: Callable[[], int]) -> Iterator[int]:
    """As `ros_domain`, of all tests of a file that share processes; others of the file take domains of their own."""
    number = new_ros_domain()
    with pytest.MonkeyPatch.context() as patch:
        set_domain(patch, number)
        yield number


def set_domain(patch: pytest.MonkeyPatch, number: int) -> None:
    """Talk within a domain, over DDS on this machine alone."""
    for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "CYCLONEDDS_URI"):
        patch.delenv(name, raising=False)
    for name, value in {"ROS_DOMAIN_ID": str(number), "ROBOT_RL_ROS": "dds", "OMP_NUM_THREADS": "1"}.items():
        patch.setenv(name, value)
