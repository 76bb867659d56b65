import numpy as np
import pytest

from robot_rl.hardware.cockpit.dead_man import DELAY, SILENCE, DeadMan, Input

OFFSET = 1000.0  # of the page's clock, which begins when it is opened


class Page:
    """A page, its network, and a clock that a test moves."""

    def __init__(self, dead_man, number=1, now=50.0):
        self.dead_man, self.number, self.now = dead_man, number, now
        dead_man.connect(number, now)

    def send(self, forward=0.0, delay=0.01, target=None, buttons=()):
        given = Input(self.now - OFFSET, np.array([forward, 0, 0, 0, 0, 0]), target, frozenset(buttons))
        self.dead_man.take(self.number, given, self.now + delay)

    def moves(self):
        held = self.dead_man.held(self.now + 0.02)
        return held is not None and held[1].moves

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def page():
    return Page(DeadMan())


def test_what_is_held_moves_until_it_is_let_go(page):
    page.send()
    assert not page.moves()
    page.send(0.1)
    assert page.moves()
    heard, given = page.dead_man.held(page.now + 0.02)
    assert heard == page.now + 0.01
    assert given.twist[0] == 0.1
    page.wait(0.04)
    page.send()
    assert not page.moves()
    page.send(0.1)
    assert page.moves()


def test_silence_ends_the_motion_and_its_end_does_not_begin_it_again(page):
    page.send()
    page.send(0.1)
    page.wait(SILENCE - 0.02)
    assert page.moves()
    page.wait(0.03)
    assert not page.moves()
    assert "nothing was heard" in page.dead_man.stopped(1)
    for _ in range(5):
        page.wait(0.04)
        page.send(0.1)
        assert not page.moves()
    page.wait(0.04)
    page.send()
    assert page.dead_man.stopped(1) == ""
    page.send(0.1)
    assert page.moves()


def test_a_lost_connection_ends_the_motion(page):
    page.send()
    page.send(0.1)
    page.dead_man.disconnect(1)
    assert not page.moves()
    page.dead_man.connect(2, page.now)
    assert not page.moves()


def test_a_page_that_connects_with_something_held_does_not_drive(page):
    page.send(0.1)
    assert not page.moves()
    assert "release" in page.dead_man.stopped(1)
    page.send()
    page.send(0.1)
    assert page.moves()


def test_inputs_that_were_stuck_in_the_network_do_not_move(page):
    page.send()
    page.wait(1.0)
    page.send(0.1, delay=DELAY + 0.05)
    assert not page.moves()
    assert "late" in page.dead_man.stopped(1)
    # The release that follows them arrives late, too: it stops nothing that moves, and later presses count again.
    page.wait(0.5)
    page.send()
    page.send(0.1)
    assert page.moves()


def test_a_burst_after_a_gap_does_not_replay_old_presses(page):
    page.send()
    page.send(0.1)
    began = page.now
    page.wait(2.0)
    for _ in range(20):
        page.dead_man.take(1, Input(began + 0.1 - OFFSET, np.full(6, 0.1)), page.now)
        assert not page.moves()


@pytest.mark.parametrize("drift", [2e-4, -2e-4])
def test_clocks_that_drift_apart_are_no_delay(page, drift):
    began = page.now
    for _ in range(3600):
        page.wait(1.0)
        sent = (page.now - began) * (1 + drift)
        page.dead_man.take(1, Input(sent, np.zeros(6)), page.now)
    assert not page.dead_man.late(1, sent, page.now)


def test_one_page_drives_at_a_time(page):
    other = Page(page.dead_man, 2)
    for each in (page, other):
        each.send()
    page.send(0.1)
    other.send(-0.1)
    assert page.dead_man.driver == 1
    assert "another page" in page.dead_man.stopped(2)
    assert page.dead_man.held(page.now + 0.02)[1].twist[0] == 0.1
    page.send()
    other.send(-0.1)
    assert page.dead_man.driver == 2


def test_target_and_buttons_count_as_held_but_slow_alone_does_not(page):
    page.send()
    page.send(buttons=["slow"])
    assert not page.moves()
    page.send(buttons=["takeover"])
    assert page.moves()
    page.send()
    page.send(target=np.array([0.5, 0, 0.2, 1, 0, 0, 0]))
    assert page.moves()
