"""The page in a real browser, before a robot that is only a scene: what a person's hands do becomes readings."""

import asyncio
import time

import numpy as np
import pytest

from robot_rl.hardware.cockpit import dead_man
from robot_rl.hardware.cockpit.device import WebDevice
from robot_rl.hardware.cockpit.pilot import Pilot
from robot_rl.hardware.cockpit.scene import Scene
from robot_rl.hardware.cockpit.server import CockpitServer, Poses
from robot_rl.hardware.robot_file import RobotFile
from tests.hardware.cockpit.chromium import PROGRAM, Chromium

pytestmark = [pytest.mark.browser, pytest.mark.skipif(PROGRAM is None, reason="needs chromium")]

PATIENCE = 4.0  # s
ROBOT = RobotFile.load("so101")
SESSION = {"phase": "idle", "counted": "0", "episodes": "5", "kept": "0", "cue": "ready", "cue_number": "0", "level": 0}


class RobotView:
    """An SO-101 at home."""

    def __init__(self):
        self.scene = Scene(ROBOT)
        self.scene.know(["tag"])
        self.sequence = 0
        self.session = dict(SESSION)
        self.supervisor = {"state": "ready", "message": "home", "accepted": "0", "limited": "0", "level": 0}

    def hello(self):
        limits = ROBOT.limits
        lower, upper = limits.lower.tolist(), limits.upper.tolist()
        return {"robot": "so101", "joints": list(ROBOT.joints), "lower": lower, "upper": upper}

    def status(self):
        return {
            "supervisor": self.supervisor, "session": self.session, "recorder": None, "success": None, "problem": "",
            "silent": "", "transitions": [[1.0, "ready: at home"]], "position": list(ROBOT.home),
        }  # fmt: skip

    def geometry(self):
        return 1, self.scene.geometry()

    def poses(self):
        self.sequence += 1
        place = {"tag": np.array([0.25, 0.1, 0.05, 1, 0, 0, 0])}
        return Poses(self.sequence, 0.0, self.scene.poses(np.array(ROBOT.home), 0.05, place))

    def cameras(self):
        return []

    def picture(self, camera):
        return None


class Person:
    """Somebody at the page, and what the node reads."""

    def __init__(self, browser, view, pilot, stops):
        self.browser, self.view, self.device, self.stops = browser, view, WebDevice(pilot), stops

    def reading(self):
        return self.device.read(time.monotonic())

    async def until(self, condition, timeout=20):
        deadline = time.monotonic() + timeout
        while not condition(reading := self.reading()):
            assert time.monotonic() < deadline, (reading, await self.notice())
            await asyncio.sleep(0.01)

    async def hold(self, key, condition):
        """Hold a key until it moves the robot; when that was late on a busy machine, it has to be pressed anew."""
        for _ in range(10):
            await self.browser.key(key, True)
            end = time.monotonic() + 3.0
            while time.monotonic() < end:
                if condition(self.reading()):
                    return
                await asyncio.sleep(0.01)
            await self.browser.key(key, False)
            await asyncio.sleep(0.5)
        raise AssertionError(f"{self.reading()}: {await self.notice()}")

    async def notice(self):
        return await self.browser.run("document.getElementById('notice').textContent")

    async def rests(self):
        async with asyncio.timeout(20):
            while (reading := self.reading()) is not None and (reading.twist is None or reading.twist.any()):
                await asyncio.sleep(0.01)


@pytest.fixture
def visit(tmp_path, monkeypatch):
    """Runs a coroutine with a person at the page; a browser on a busy machine is given time."""
    monkeypatch.setattr(dead_man, "SILENCE", PATIENCE)
    monkeypatch.setattr(dead_man, "DELAY", PATIENCE)

    def run(story, width=1100, height=760, mobile=False):
        async def whole():
            stops, view = [], RobotView()
            pilot = Pilot(lambda: stops.append(True))
            server = CockpitServer(view, pilot, port=0)
            server.open()
            try:
                async with Chromium(tmp_path, width, height, mobile) as browser:
                    await browser.open(server.url)
                    await browser.until("cockpit.link.connected && cockpit.scene.frames > 1")
                    person = Person(browser, view, pilot, stops)
                    await person.until(lambda reading: reading is not None)
                    await asyncio.sleep(0.3)
                    await story(person)
                    assert browser.errors == []
            finally:
                server.close()

        asyncio.run(whole())

    return run


def test_a_key_moves_while_it_is_held(visit):
    async def story(person):
        browser = person.browser
        await person.hold("w", lambda reading: reading.twist[0] > 0.1)
        await browser.key("w", False)
        await person.hold("a", lambda reading: reading.twist[1] > 0.1)
        await browser.key("Shift", True)
        await person.until(lambda reading: reading.buttons == {"slow"})
        for key in ("Shift", "a"):
            await browser.key(key, False)
        await person.rests()

    visit(story)


@pytest.mark.parametrize("end", [
    "dispatchEvent(new Event('blur'))",
    "Object.defineProperty(document, 'hidden', {value: true, configurable: true}), "
    "document.dispatchEvent(new Event('visibilitychange'))",
    "cockpit.link.socket.close()",
    "(until => { while (Date.now() < until); })(Date.now() + 7000)",
])  # fmt: skip
def test_a_lost_page_stops_the_arm_until_the_key_is_pressed_anew(visit, end):
    async def story(person):
        await person.hold("w", lambda reading: reading.twist[0] > 0.1)
        ending = asyncio.create_task(person.browser.run(f"{end}; 1"))
        began = time.monotonic()
        await person.rests()
        assert time.monotonic() - began < PATIENCE + 5.0
        await ending
        # The key is still held, and repeats: that alone moves nothing.
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            await person.browser.key("w", True, repeat=True)
            reading = person.reading()
            assert reading is None or not reading.twist.any()
            await asyncio.sleep(0.05)

    visit(story)


def test_words_and_the_emergency_stop(visit):
    async def story(person):
        browser = person.browser
        for key, word in (("Enter", "record"), ("h", "home"), ("t", "reset")):
            await browser.press(key)
            words = []
            while not words:
                words = person.device.events()
                await browser.press_again_if_late(key)
                await asyncio.sleep(0.01)
            assert words == [word]
        await browser.press("y")  # nothing is recorded: it means nothing
        await browser.press(" ")
        await browser.run("document.getElementById('stop').click()")
        words = []
        while len(words) < 2:
            words += person.device.events()
            await asyncio.sleep(0.01)
        assert words == ["stop", "stop"]
        assert len(person.stops) == 2
        await browser.press("g")
        seen = []
        while "gripper" not in seen:
            seen += person.reading().buttons
            await asyncio.sleep(0.01)

    visit(story)


def test_a_gamepad_moves_while_its_stick_is_deflected(visit):
    async def story(person):
        browser = person.browser
        await browser.run(
            "globalThis.pad = {connected: true, mapping: 'standard', id: 'test', axes: [0, 0, 0, 0], "
            "buttons: Array.from({length: 17}, () => ({pressed: false, value: 0}))}; "
            "navigator.getGamepads = () => [pad]; document.hasFocus = () => true; 1"
        )
        await browser.run("pad.axes = [0, -1, 0, 0.05]; 1")
        await person.until(lambda reading: reading.twist[0] > 0.1 and reading.twist[2] == 0)
        await browser.run("pad.axes = [0, 0, 1, 0]; 1")
        await person.until(lambda reading: reading.twist[5] < -0.1 and reading.twist[0] == 0)
        await browser.run("pad.axes = [0, 0, 0, 0]; 1")
        await person.rests()
        await browser.run("pad.buttons[8].pressed = true; 1")
        while not person.stops:
            await asyncio.sleep(0.01)

    visit(story)


def test_thumbs_on_a_phone_move_while_they_are_down(visit):
    async def story(person):
        browser = person.browser
        box = await browser.run(
            "(({x, y, width, height}) => [x + width / 2, y + height / 2, width])"
            "(document.getElementById('pad-plane').getBoundingClientRect())"
        )
        x, y, width = box
        point = {"x": x, "y": y, "id": 1}
        await browser.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=[point])
        moved = {**point, "y": y - 0.3 * width}
        await browser.send("Input.dispatchTouchEvent", type="touchMove", touchPoints=[moved])
        await person.until(lambda reading: reading.twist[0] > 0.05)
        await browser.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        await person.rests()

    visit(story, 390, 844, True)


def test_the_hand_follows_the_dragged_target_only_while_it_is_dragged(visit):
    async def story(person):
        browser = person.browser
        # Where the arrow that points up is on the screen.
        x, y = await browser.run(
            "(() => { const {camera, canvas, hand} = cockpit.scene, v = hand.position.clone(); "
            "const size = v.distanceTo(camera.position) * 1.9 * Math.tan(Math.PI * camera.fov / 360) * 0.9 / 4; "
            "v.z += 0.4 * size; v.project(camera); const box = canvas.getBoundingClientRect(); "
            "return [box.x + (v.x + 1) / 2 * box.width, box.y + (1 - v.y) / 2 * box.height]; })()"
        )
        start = await browser.run("cockpit.scene.hand.position.toArray()")
        await browser.mouse("mouseMoved", x, y)
        await browser.mouse("mousePressed", x, y, button="left", clickCount=1)
        for step in range(6):
            await browser.mouse("mouseMoved", x, y - 10 * step, button="left", buttons=1)
        await person.until(lambda reading: reading.target is not None)
        target = person.reading().target
        assert target[2] > start[2] + 0.01
        np.testing.assert_allclose(target[:2], start[:2], atol=1e-3)
        await browser.mouse("mouseReleased", x, y - 50, button="left", clickCount=1)
        await person.rests()

    visit(story)
