"""Leases: who gets one, how it ends."""

import pytest

from robot_rl.hardware.safety.lease import LeaseDesk, LeaseRefused


def test_a_lease_lives_as_long_as_its_heartbeat():
    desk = LeaseDesk(0.3)
    lease = desk.acquire("flow", "policy", 0.0)
    desk.heartbeat(lease.id, 0.25)
    assert desk.valid(lease.id, 0.5)
    assert not desk.valid(lease.id, 0.6)
    with pytest.raises(LeaseRefused, match="expired"):
        desk.heartbeat(lease.id, 0.6)
    assert desk.acquire("other", "policy", 0.6).id != lease.id


@pytest.mark.parametrize("kind", ["policy", "script", "replay"])
def test_only_a_person_takes_over(kind):
    desk = LeaseDesk(0.3)
    first = desk.acquire("flow", "policy", 0.0)
    with pytest.raises(LeaseRefused, match="'flow' \\(policy\\) holds"):
        desk.acquire("second", kind, 0.1)
    desk.acquire("mouse", "device", 0.1)
    assert not desk.valid(first.id, 0.1)
    with pytest.raises(LeaseRefused, match="'mouse'"):
        desk.acquire("second mouse", "device", 0.2)


def test_unknown_kinds_and_durations_are_refused():
    with pytest.raises(LeaseRefused, match="kind"):
        LeaseDesk(0.3).acquire("x", "robot", 0.0)
    with pytest.raises(ValueError, match="positive"):
        LeaseDesk(0.0)
