"""The DDS adapter is tested in a ROS domain of each test's own."""

import pytest


@pytest.fixture
def domain(ros_domain):
    """The domain's id."""
    return ros_domain
