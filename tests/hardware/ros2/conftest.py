"""A ROS domain of its own for each test, on loopback."""

import itertools
import os

import pytest

_used = itertools.count()


@pytest.fixture
def domain(monkeypatch):
    """The domain's id: another one for each test and worker, so that tests run side by side."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    number = 20 + (os.getpid() * 7 + worker * 61 + next(_used) * 3) % 200
    for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "CYCLONEDDS_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    return number
