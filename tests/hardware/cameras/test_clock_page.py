"""The page with the clock: what it serves, and in a real browser whether its picture tells the time."""

import asyncio
import json
import runpy
import time
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import pytest

from robot_rl.hardware.cameras.camera import CameraError
from robot_rl.hardware.cameras.clock_page import ClockPage
from robot_rl.hardware.cameras.display_clock import BITS, HEIGHT, TICK, WIDTH, read, shown

CHROMIUM = Path(__file__).parents[1] / "cockpit" / "chromium.py"


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def test_it_serves_the_page_the_layout_and_the_time_on_localhost():
    with ClockPage() as page:
        assert page.url.startswith("http://127.0.0.1:")
        assert b"clock.js" in fetch(page.url)
        assert b"requestAnimationFrame" in fetch(page.url + "clock.js")
        before = time.time()
        assert before <= json.loads(fetch(page.url + "time")) <= time.time()
        layout = json.loads(fetch(page.url + "layout"))
        assert (layout["width"], layout["height"], len(layout["cells"])) == (WIDTH, HEIGHT, 2 * BITS)
        with pytest.raises(urllib.error.HTTPError):
            fetch(page.url + "../../camera.py")
        with pytest.raises(CameraError, match="choose another --port"):
            ClockPage(int(page.url.split(":")[2].strip("/")))


@pytest.mark.browser
def test_a_screenshot_of_the_browser_tells_when_it_was_taken(tmp_path):
    pytest.importorskip("aiohttp")
    chromium = runpy.run_path(str(CHROMIUM))
    if chromium["PROGRAM"] is None:
        pytest.skip("no chromium")

    async def take(url):
        found = []
        async with chromium["Chromium"](tmp_path / "profile") as browser:
            await browser.open(url)
            await browser.until("typeof painted === 'number' && painted >= 0")
            for number in range(5):
                path = tmp_path / f"{number}.png"
                before = time.time()
                await browser.screenshot(path)
                found.append((before, path, time.time()))
            assert browser.errors == []
        return found

    (tmp_path / "profile").mkdir()
    with ClockPage() as page:
        shots = asyncio.run(take(page.url))
    for before, path, after in shots:
        tick = read(cv2.imread(str(path)))
        assert tick is not None
        # Shown from the begin of the tick until the next refresh after its end; a slow browser paints late.
        assert before - TICK - 1.0 < shown(tick, before) < after + TICK
