"""A headless Chromium, driven over the DevTools protocol: just what the tests of the page need."""

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new", "--remote-debugging-port=0", "--no-first-run", "--no-default-browser-check",
    "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
    "--enable-unsafe-swiftshader", "--ignore-certificate-errors", "--hide-scrollbars",
)  # fmt: skip
NAMES = {" ": "Space", "Enter": "Enter", "Shift": "ShiftLeft"}


class Chromium:
    """One browser with one page.

    Args:
        folder: for its profile.
    """

    def __init__(self, folder, width=1280, height=800, mobile=False):
        self._folder, self._size = folder, (width, height, mobile)
        self._answers, self._number = {}, 0
        self.errors = []

    async def __aenter__(self):
        flags = [*FLAGS, f"--user-data-dir={self._folder}", f"--window-size={self._size[0]},{self._size[1]}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        # What it would leave in the system's folders; a socket lies in it, whose path must be short.
        self._left = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [PROGRAM, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, "HOME": self._left.name, "TMPDIR": self._left.name},
        )  # fmt: skip
        try:
            self._session = aiohttp.ClientSession()
            file = self._folder / "DevToolsActivePort"
            async with asyncio.timeout(60):
                while not file.is_file() or not file.read_text().strip():
                    assert self._process.poll() is None, "chromium has ended"
                    await asyncio.sleep(0.1)
                port = file.read_text().split()[0]
                pages = []
                while not pages:
                    async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                        pages = [page for page in await answer.json() if page["type"] == "page"]
            url = pages[0]["webSocketDebuggerUrl"]
            self._socket = await self._session.ws_connect(url, max_msg_size=0)
            self._listening = asyncio.create_task(self._listen())
            for domain in ("Page", "Runtime", "Log"):
                await self.send(f"{domain}.enable")
            width, height, mobile = self._size
            await self.send("Emulation.setFocusEmulationEnabled", enabled=True)
            await self.resize(width, height, mobile)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_):
        self._listening.cancel()
        await self._socket.close()
        await self._end()

    async def send(self, method, **parameters):
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(60):
            await self._socket.send_str(json.dumps({"id": self._number, "method": method, "params": parameters}))
            return await answer

    async def resize(self, width, height, mobile=False):
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )
        await self.send("Emulation.setTouchEmulationEnabled", enabled=mobile)

    async def theme(self, scheme):
        await self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def open(self, url):
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def run(self, expression):
        """The value of an expression of JavaScript, awaited if it is a promise."""
        answer = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression, timeout=60):
        end = time.monotonic() + timeout
        while not await self.run(f"!!({expression})"):
            assert time.monotonic() < end, f"not within {timeout} s: {expression}"
            await asyncio.sleep(0.1)

    async def key(self, key, down, repeat=False):
        code = NAMES.get(key, f"Key{key.upper()}")
        text = {"text": "\r"} if key == "Enter" and down else {}
        number = {" ": 32, "Enter": 13}.get(key, ord(key[0].upper()))
        await self.send(
            "Input.dispatchKeyEvent", type="keyDown" if down else "keyUp", key=key, code=code,
            windowsVirtualKeyCode=number, autoRepeat=repeat, **text,
        )  # fmt: skip

    async def press(self, key):
        await self.key(key, True)
        await self.key(key, False)

    async def press_again_if_late(self, key):
        """As a person does whom the page tells that a word came too late, which happens on a busy machine."""
        late = await self.run(
            "(() => { const notice = document.getElementById('notice'); "
            "const late = /too late/.test(notice.textContent); "
            "if (late) notice.textContent = ''; return late; })()"
        )
        if late:
            await self.press(key)

    async def mouse(self, kind, x, y, **more):
        await self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    async def screenshot(self, path):
        data = await self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(data["data"]))

    async def _listen(self):
        async for message in self._socket:
            content = json.loads(message.data)
            if "id" in content:
                answer = self._answers.pop(content["id"])
                if answer.done():
                    continue
                if "error" in content:
                    answer.set_exception(RuntimeError(str(content["error"])))
                else:
                    answer.set_result(content["result"])
            elif content["method"] == "Runtime.exceptionThrown":
                self.errors.append(content["params"]["exceptionDetails"])
            elif content["method"] == "Log.entryAdded" and content["params"]["entry"]["level"] == "error":
                self.errors.append(content["params"]["entry"])

    async def _end(self):
        await self._session.close()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                await asyncio.to_thread(self._process.wait, 10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._left.cleanup()
