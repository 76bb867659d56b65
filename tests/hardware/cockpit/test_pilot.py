import numpy as np

from robot_rl.hardware.cockpit.dead_man import SILENCE, Input
from robot_rl.hardware.cockpit.device import WebDevice
from robot_rl.hardware.cockpit.pilot import Pilot

FORWARD = np.array([0.1, 0, 0, 0, 0, 0])
REST = np.zeros(6)


class Setup:
    def __init__(self):
        self.time, self.stops = 10.0, 0
        self.pilot = Pilot(self.stop, lambda: self.time)
        self.device = WebDevice(self.pilot)

    def stop(self):
        self.stops += 1

    def hold(self, twist=REST, **more):
        self.pilot.take(1, Input(self.time, twist, **more))


def test_readings_come_with_their_age():
    setup = Setup()
    assert setup.device.read(500.0) is None
    setup.pilot.connect(1)
    np.testing.assert_array_equal(setup.device.read(500.0).twist, REST)
    setup.hold()
    setup.hold(FORWARD)
    setup.time += 0.125
    reading = setup.device.read(500.125)
    assert reading.stamp == 500.0
    np.testing.assert_array_equal(reading.twist, FORWARD)
    setup.time += SILENCE
    assert setup.device.read(500.5) is None  # cut off


def test_a_target_comes_without_twist():
    setup = Setup()
    setup.pilot.connect(1)
    setup.hold()
    setup.hold(target=np.array([0.5, 0, 0.2, 1, 0, 0, 0.0]))
    reading = setup.device.read(500.0)
    assert reading.twist is None
    np.testing.assert_array_equal(reading.target, [0.5, 0, 0.2, 1, 0, 0, 0])


def test_a_press_between_two_readings_counts_once():
    setup = Setup()
    setup.pilot.connect(1)
    setup.hold()
    setup.hold(buttons=frozenset({"gripper"}))
    setup.hold()
    assert setup.device.read(500.0).buttons == {"gripper"}
    assert setup.device.read(500.0).buttons == frozenset()


def test_words_come_once_and_in_order():
    setup = Setup()
    setup.pilot.connect(1)
    assert setup.pilot.word(1, "record", setup.time) == ""
    assert setup.pilot.word(1, "success", setup.time) == ""
    assert setup.device.events() == ["record", "success"]
    assert setup.device.events() == []


def test_late_words_are_refused_but_a_stop_never_is():
    setup = Setup()
    setup.pilot.connect(1)
    setup.hold()
    sent = setup.time
    setup.time += 2.0
    assert "too late" in setup.pilot.word(1, "home", sent)
    assert setup.device.events() == []
    assert setup.pilot.word(1, "stop", sent) == ""
    assert setup.stops == 1
    assert setup.device.events() == ["stop"]


def test_who_has_pressed_the_stop_clears_it():
    setup = Setup()
    for page in (1, 2):
        setup.pilot.connect(page)
    assert setup.pilot.word(2, "clear", setup.time) == ""  # it came from elsewhere
    setup.pilot.word(1, "stop", setup.time)
    assert "another page has pressed the stop" in setup.pilot.word(2, "clear", setup.time)
    assert setup.device.events() == ["clear", "stop"]
    assert setup.pilot.word(1, "clear", setup.time) == ""
    setup.pilot.word(1, "stop", setup.time)
    setup.pilot.disconnect(1)
    assert setup.pilot.word(2, "clear", setup.time) == ""  # nobody else is there


def test_a_vehicle_is_without_a_pilot_when_no_page_speaks_any_more():
    setup = Setup()
    device = WebDevice(setup.pilot, patience=1.0)
    assert device.read(500.0) is None
    setup.pilot.connect(1)
    setup.pilot.connect(2)
    for _ in range(20):  # one page is hidden, the other speaks though nothing is held
        setup.time += 0.25
        setup.hold()
        np.testing.assert_array_equal(device.read(500.0).twist, REST)
    setup.time += 0.9
    assert device.read(500.0) is not None
    setup.time += 0.2
    assert device.read(500.0) is None  # cut off, and not known to be
    setup.hold()
    assert device.read(500.0) is not None
    setup.pilot.disconnect(1)
    assert device.read(500.0) is None


def test_an_arms_driver_who_is_cut_off_is_a_lost_device_and_has_not_let_go():
    setup = Setup()
    setup.pilot.connect(2)  # watches all the time
    setup.pilot.connect(1)

    def lost():
        setup.pilot.take(2, Input(setup.time, REST))
        return setup.device.read(500.0) is None

    setup.hold()
    setup.hold(FORWARD)
    setup.hold()
    assert not lost()  # let go
    setup.hold(FORWARD)
    setup.time += SILENCE + 0.1
    assert lost()
    setup.hold(FORWARD)
    assert lost()
    setup.hold()
    assert not lost()
    setup.hold(FORWARD)
    setup.pilot.disconnect(1)
    assert lost()
    setup.time += 1.0
    setup.pilot.connect(1)  # comes back
    assert lost()
    setup.hold()
    assert not lost()
    setup.hold(FORWARD)
    setup.pilot.disconnect(1)
    setup.pilot.take(2, Input(setup.time, FORWARD))  # another one takes over
    assert not lost()
