"""Screening: the first reason against a proposal, and that a rejected one leaves no trace in the order."""

import numpy as np

from robot_rl.hardware.safety.lease import LeaseDesk
from robot_rl.hardware.safety.proposal import Proposal, Screening


def test_order_is_kept_per_lease_and_only_by_those_that_pass():
    desk, screening = LeaseDesk(10.0), Screening(3, 0.1, 0.005)
    lease = desk.acquire("flow", "policy", 0.0).id
    assert screening.rejection(Proposal(lease, 9, 1.0, np.full(3, np.nan)), desk, 1.0) == "non_finite"
    assert screening.rejection(Proposal(lease, 2, 1.0, np.zeros(3)), desk, 1.0) is None
    assert screening.rejection(Proposal(lease, 2, 1.01, np.zeros(3)), desk, 1.01) == "out_of_order"
    assert screening.rejection(Proposal(lease, 3, 0.99, np.zeros(3)), desk, 1.01) == "out_of_order"
    person = desk.acquire("mouse", "device", 1.0).id
    assert screening.rejection(Proposal(lease, 4, 1.02, np.zeros(3)), desk, 1.02) == "no_lease"
    assert screening.rejection(Proposal(person, 0, 1.02, np.zeros(3)), desk, 1.02) is None
