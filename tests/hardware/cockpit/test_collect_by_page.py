"""The whole way: somebody at the page drives the twin by keyboard, lifts the cube and records; the store has it."""

import asyncio
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("cyclonedds")

from robot_rl.datasets import EpisodeStore
from robot_rl.hardware.robot_file import FOLDER
from robot_rl.hardware.ros2.graph import open_graph
from tests.hardware.cockpit.chromium import PROGRAM, Chromium

pytestmark = [
    pytest.mark.browser, pytest.mark.timeout(600), pytest.mark.skipif(PROGRAM is None, reason="needs chromium"),
]  # fmt: skip

CAMERAS = "{agentview: [84, 84], robot0_eye_in_hand: [84, 84]}"
PRESSES = 12
NEAR = 0.006  # m
SHOTS = os.environ.get("COCKPIT_SCREENSHOTS")


@pytest.fixture
def robot(tmp_path):
    """The Panda with patience: on a busy machine nobody is fast enough for its own time-outs."""
    plain = yaml.safe_load((FOLDER / "panda.yaml").read_text())
    plain["watchdog"] |= {"observation": 2.0, "action": 2.0, "lease": 2.0}
    for feature in plain["observation"].values():
        if "stream" in feature:
            feature["stream"]["max_age"] = 2.0
    for feature in plain["task_features"].values():
        feature["stream"]["max_age"] = 2.0
    path = tmp_path / "panda.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.fixture
def teleop(robot, tmp_path, ros_domain):
    """`robot-rl teleop device=web`, and the address of its page."""
    settings = "{web.port: 0}"
    command = [
        sys.executable, "-u", "-m", "robot_rl.cli", "teleop", "device=web", "twin=true", f"robot={robot}",
        f"output={tmp_path / 'run'}", f"cameras={CAMERAS}", "countdown=1", "timeout=2", f"settings={settings}",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    lines, found = [], threading.Event()

    def read():
        for line in process.stdout:
            lines.append(line)
            if "http://" in line:
                found.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert found.wait(120), "".join(lines)
        process.url = re.search(r"http://\S+", "".join(lines))[0]
        process.lines = lines
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Commands:
    """Listens to what the Supervisor commands: when the last point of a trajectory changed."""

    def __init__(self):
        self.changes = []
        self._last = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        self._thread.join()

    def _run(self):
        topic, kind = "/joint_trajectory_controller/joint_trajectory", "trajectory_msgs/msg/JointTrajectory"
        with open_graph("listener") as graph:
            graph.subscribe(topic, kind, self._take)
            while not self._ending.is_set():
                graph.spin(timeout=0.2)

    def _take(self, received):
        last = np.array(received.message.points[-1].positions)
        if self._last is not None and np.abs(last - self._last).max() > 1e-7:
            self.changes.append(time.time())
        self._last = last


class Person:
    """Looks at the page and presses keys."""

    def __init__(self, browser):
        self.browser, self.down = browser, set()

    async def see(self):
        # What the page has not heard of yet is null here, and missing otherwise.
        return await self.browser.run(
            "(() => { const {scene} = cockpit, cube = scene.robot.getObjectByName('cube_main'); const seen = {"
            "hand: scene.hand.position.toArray(), cube: cube?.position.toArray(), state: last.supervisor?.state, "
            "why: last.supervisor?.message, "
            "phase: last.session?.phase, busy: last.session?.busy, success: last.success, stopped: last.stopped, "
            "counted: last.session?.counted, opening: last.opening}; "
            "for (const name in seen) seen[name] ??= null; return seen; })()"
        )

    async def keys(self, wanted):
        """Hold exactly these keys."""
        for key in self.down - wanted:
            await self.browser.key(key, False)
        for key in sorted(wanted - self.down, key=len, reverse=True):  # Shift first
            await self.browser.key(key, True)
        self.down = set(wanted)

    async def until(self, condition, timeout=90, key=None):
        end = time.monotonic() + timeout
        while not condition(seen := await self.see()):
            assert time.monotonic() < end, f"not within {timeout} s; seen: {seen}"
            if key is not None:
                await self.browser.press_again_if_late(key)
            await asyncio.sleep(0.05)
        return seen

    async def ready(self, timeout=120):
        """Wait for the robot at home, and ask for it again where the Supervisor held it."""
        end = time.monotonic() + timeout
        while (seen := await self.see())["state"] != "ready" or seen["busy"] != "False":
            assert time.monotonic() < end, f"not within {timeout} s; seen: {seen}"
            if seen["state"] == "held" and seen["busy"] == "False":
                await self.browser.press("h")
            await asyncio.sleep(0.5)

    async def go(self, place, axes="xyz", timeout=90):
        """Bring the hand over `place(seen)` [3] by holding keys, slowly when it is near, down only when it is above."""
        names = (("w", "s"), ("a", "d"), ("q", "e"))
        end = time.monotonic() + timeout
        while True:
            seen = await self.see()
            error = np.array([axis in axes for axis in "xyz"]) * (np.array(place(seen)) - seen["hand"])
            assert time.monotonic() < end, f"not within {timeout} s; {error} m away; seen: {seen}"
            if seen["stopped"]:  # a late input, on a busy machine
                await self.keys(set())
                await asyncio.sleep(0.2)
                continue
            if np.abs(error).max() < NEAR:
                await self.keys(set())
                await asyncio.sleep(0.3)
                seen = await self.see()
                rest = np.array(place(seen)) - seen["hand"]
                if np.abs(rest)[["xyz".index(axis) for axis in axes]].max() < 2 * NEAR:
                    return
                continue
            if np.abs(error[:2]).max() > NEAR:
                error[2] = max(error[2], 0.0)
            wanted = {names[axis][int(error[axis] < 0)] for axis in range(3) if abs(error[axis]) > NEAR / 2}
            if np.abs(error).max() < 0.05:
                wanted.add("Shift")
            await self.keys(wanted)
            await asyncio.sleep(0.02)

    async def gripper(self, is_there, timeout=90):
        """Press the key of the gripper until its opening [m] is right."""
        end = time.monotonic() + timeout
        while not is_there((seen := await self.see())["opening"]):
            assert time.monotonic() < end, f"not within {timeout} s; seen: {seen}"
            await self.browser.press("g")
            await asyncio.sleep(1.5)

    async def word(self, key, condition, timeout=90):
        await self.browser.press(key)
        return await self.until(condition, timeout, key)

    async def shot(self, name):
        if SHOTS:
            await self.browser.screenshot(Path(SHOTS) / f"{name}.png")


async def rates(person, seconds=5.0):
    """Frames per second of the scene and of the slowest camera."""
    count = "[cockpit.scene.frames, ...Object.values(cockpit.cameras.frames), performance.now()]"
    before = np.array(await person.browser.run(count))
    await asyncio.sleep(seconds)
    scene, *cameras, elapsed = np.array(await person.browser.run(count)) - before
    return 1e3 * scene / elapsed, 1e3 * min(cameras) / elapsed


async def latencies(person, commands):
    """From key presses to the first command that differs [s]."""
    measured = []
    for number in range(PRESSES):
        await asyncio.sleep(0.9 + 0.013 * number)  # at any phase of the control period; the arm is at rest again
        pressed = time.time()
        await person.keys({"w" if number % 2 else "s"})
        await asyncio.sleep(0.25)
        await person.keys(set())
        after = [change for change in commands.changes if change > pressed]
        if after and not [change for change in commands.changes if pressed - 0.2 < change < pressed]:
            measured.append(after[0] - pressed)
    return measured


async def collect(url, folder):
    async with Chromium(folder) as browser:
        person = Person(browser)
        await browser.open(url)
        await browser.run("cockpit.link.addEventListener('status', event => globalThis.last = event.detail); 1")
        await browser.until("globalThis.last && last.position && cockpit.scene.robot.getObjectByName('cube_main')", 120)
        await person.ready()
        await person.shot("ready")

        with Commands() as commands:
            measured = await latencies(person, commands)
        await person.keys({"a"})
        scene, camera = await rates(person)
        await person.keys(set())

        await person.word("Enter", lambda seen: seen["phase"] == "countdown")
        await person.shot("countdown")
        await person.until(lambda seen: seen["phase"] == "recording")
        await person.gripper(lambda opening: opening > 0.07)  # a scene begins with it just as wide as the cube
        await person.go(lambda seen: seen["cube"], "xy")
        await person.shot("driving")
        await person.go(lambda seen: seen["cube"])
        await person.gripper(lambda opening: opening < 0.06)
        await asyncio.sleep(0.8)
        await person.shot("grasped")
        start = (await person.see())["hand"]
        await person.go(lambda seen: [*start[:2], start[2] + 0.09], "z")
        await person.until(lambda seen: seen["success"], 20)
        await person.shot("success")
        await person.word("y", lambda seen: seen["counted"] == "1")

        await person.until(lambda seen: seen["phase"] == "idle" and seen["busy"] == "False")
        await person.word("Enter", lambda seen: seen["phase"] == "recording")
        await person.keys({"d"})
        await asyncio.sleep(1.0)
        await person.keys(set())
        await person.shot("recording")
        await person.word("x", lambda seen: seen["phase"] != "recording")
        await person.until(lambda seen: seen["phase"] == "idle" and seen["busy"] == "False")
        await person.word(" ", lambda seen: seen["state"] == "stopped")
        await person.shot("stopped")
        await person.word("c", lambda seen: seen["state"] == "idle")
        await person.shot("idle")
        assert browser.errors == []
        return scene, camera, measured


def test_a_person_records_two_episodes_and_discards_one(teleop, tmp_path):
    scene, camera, measured = asyncio.run(collect(teleop.url, tmp_path / "browser"))
    assert measured, "no key press was followed by a command"
    print(
        f"\nscene {scene:.1f}/s, cameras {camera:.1f}/s, key press to command: median "
        f"{1e3 * statistics.median(measured):.0f} ms, largest {1e3 * max(measured):.0f} ms of {len(measured)}"
    )
    teleop.send_signal(signal.SIGINT)
    assert teleop.wait(90) == 0, "".join(teleop.lines)
    store = EpisodeStore.open(tmp_path / "run" / "episodes.zarr")
    kept = [episode for episode in range(len(store)) if not store.facts(episode).get("discarded")]
    assert len(kept) == 1
    facts = store.facts(kept[0])
    assert facts["success"] is True
    assert facts["task"] == "lift"
    episode = store[kept[0]]
    cube = np.asarray(episode.observation["cube_pose"])
    assert cube[-1, 2] - cube[0, 2] > 0.04
    assert {"agentview", "robot0_eye_in_hand"} <= set(store.contract.observation)
