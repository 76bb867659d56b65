"""The page of a vehicle in a real browser: what a pilot's hands do becomes readings and words, and is shown."""

import asyncio
import time

import numpy as np
import pytest

from robot_rl.hardware.cockpit import dead_man
from robot_rl.hardware.cockpit.device import ABSENT, WebDevice
from robot_rl.hardware.cockpit.flight_scene import FlightScene
from robot_rl.hardware.cockpit.pilot import Pilot
from robot_rl.hardware.cockpit.server import CockpitServer, Poses
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from tests.hardware.cockpit.chromium import PROGRAM, Chromium

pytestmark = [pytest.mark.browser, pytest.mark.skipif(PROGRAM is None, reason="needs chromium")]

PATIENCE = 60.0  # s; a browser on a busy machine is given time
PX4 = VehicleFile.load("px4")
GAMEPAD = (
    "globalThis.pad = {connected: true, mapping: 'standard', id: 'test', axes: [0, 0, 0, 0], "
    "buttons: Array.from({length: 17}, () => ({pressed: false, value: 0}))}; "
    "navigator.getGamepads = () => [pad]; document.hasFocus = () => true; 1"
)


class FlightView:
    """A vehicle that hovers."""

    def __init__(self):
        self.scene = FlightScene(PX4)
        self.supervisor = {"state": "idle", "phase": "grounded", "message": "", "mode": "hold", "armed": "False"}

    def hello(self):
        return {"robot": "px4", "flies": True, "joints": [], "lower": [], "upper": [], "battery": 0.2, "silence": 8.0}

    def status(self):
        return {
            "supervisor": {"accepted": "0", "limited": "0", "level": 0, "battery": "0.87", **self.supervisor},
            "session": {"phase": "idle", "counted": "0", "episodes": "0", "kept": "0", "cue": "", "cue_number": "0"},
            "recorder": None, "success": None, "problem": "", "silent": "", "transitions": [],
            "flight": {"height": 1.5, "speed": 0.25, "place": [1.0, -2.0], "heading": 90},
        }  # fmt: skip

    def geometry(self):
        return 1, self.scene.geometry()

    def poses(self):
        return Poses(1, 0.0, self.scene.poses(np.array([1.0, -2.0, 1.5]), np.array([1.0, 0, 0, 0])))

    def cameras(self):
        return []

    def picture(self, camera):
        return None


async def fly(browser, view, device, stops):
    words = []

    async def until(condition):
        end = time.monotonic() + PATIENCE
        while not condition(reading := device.read(time.monotonic())):
            words.extend(device.events())
            assert time.monotonic() < end, (reading, words)
            await asyncio.sleep(0.01)

    async def said(word):
        await until(lambda _: word in words)
        words.clear()

    def moves(axis, sign):
        return lambda reading: (
            reading is not None and sign * reading.twist[axis] > 0.05 and np.count_nonzero(reading.twist) == 1
        )

    def rests(reading):
        return reading is not None and not reading.twist.any() and not reading.buttons

    shown = "document.getElementById('{}').checkVisibility()"
    await browser.until("cockpit.link.connected && cockpit.scene.frames > 1")
    await browser.until("document.getElementById('state').textContent === 'on the ground'")
    await browser.until("document.getElementById('battery').textContent === '87 %'")
    await browser.until("document.getElementById('height').textContent === '1.50 m'")
    assert await browser.run(shown.format("hold"))
    assert not await browser.run(shown.format("gripper"))
    await until(rests)

    # On the ground nothing lands; the take-off by key and by button.
    await browser.press("v")
    await browser.press("h")
    await until(lambda _: "home" in words)
    assert words == ["home"]
    words.clear()
    await browser.run("document.querySelector('.of-vehicle [data-word=home]').click()")
    await said("home")
    view.supervisor |= {"state": "intervening", "phase": "following", "mode": "offboard", "armed": "True"}
    await browser.until("document.getElementById('state').textContent === 'you fly'")

    # Keys fly while they are held; hands off hovers. A nose that would go down does nothing.
    for key, axis, sign in (("w", 0, 1), ("d", 1, -1), ("q", 2, 1), ("j", 5, 1)):
        await browser.key(key, True)
        await until(moves(axis, sign))
        await browser.key(key, False)
        await until(rests)
    await browser.key("i", True)
    await browser.key("w", True)
    await until(moves(0, 1))

    # Hold lets go of everything, also of the key that is down still.
    await browser.key("f", True)
    await until(lambda reading: reading.buttons == {"takeover"} and not reading.twist.any())
    await browser.key("f", False)
    await until(rests)
    for key in ("w", "i"):
        await browser.key(key, False)

    # A gamepad in mode 2: the right stick along, the left one up.
    await browser.run(GAMEPAD)
    await browser.run("pad.axes = [0, 0, 0, -1]; 1")
    await until(moves(0, 1))
    await browser.run("pad.axes = [0, -1, 0, 0]; 1")
    await until(moves(2, 1))
    await browser.run("pad.axes = [0, 0, 0, 0]; 1")
    await until(rests)

    await browser.press("v")
    await said("land")
    view.supervisor |= {"state": "held", "phase": "landing"}
    await browser.until("document.getElementById('state').textContent === 'landing'")
    await browser.press(" ")
    await said("stop")
    assert stops
    assert browser.errors == []

    # The page is left: nobody is at the sticks, though the browser may keep its connection for a while.
    await browser.send("Page.navigate", url="about:blank")
    await until(lambda reading: reading is None)
    await asyncio.sleep(0.5)
    assert device.read(time.monotonic()) is None


def test_a_pilot_flies_by_the_page_until_it_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(dead_man, "SILENCE", PATIENCE)
    monkeypatch.setattr(dead_man, "DELAY", PATIENCE)

    async def whole():
        stops, view = [], FlightView()
        pilot = Pilot(lambda: stops.append(True))
        device = WebDevice(pilot, patience=ABSENT)
        server = CockpitServer(view, pilot, port=0)
        server.open()
        try:
            async with Chromium(tmp_path, 1100, 760) as browser:
                await browser.open(server.url)
                await fly(browser, view, device, stops)
        finally:
            server.close()

    asyncio.run(whole())
