import asyncio
import json
import math
import struct
from types import SimpleNamespace

import aiohttp
import numpy as np
import pytest

from robot_rl.hardware.cockpit import wire
from robot_rl.hardware.cockpit.access import AccessError
from robot_rl.hardware.cockpit.device import WebDevice
from robot_rl.hardware.cockpit.pilot import Pilot
from robot_rl.hardware.cockpit.server import AHEAD, CockpitServer, Poses
from robot_rl.hardware.teleop.device import DeviceError

REST = {"type": "input", "sent": 1.0, "deflection": [0] * 6, "target": None, "buttons": []}
FORWARD = {**REST, "sent": 1.001, "deflection": [1, 0, 0, 0, 0, 0]}


class FakeView:
    """Something new at every look."""

    def __init__(self):
        self.looks = 0

    def hello(self):
        return {"robot": "fake"}

    def status(self):
        return {"supervisor": {"state": "ready"}}

    def geometry(self):
        return 1, b"geometry"

    def poses(self):
        self.looks += 1
        return Poses(self.looks, 0.5, np.zeros((2, 7), np.float32))

    def cameras(self):
        return ["front", "wrist"]

    def picture(self, camera):
        self.looks += 1
        return SimpleNamespace(sequence=self.looks, stamp=0.5, jpeg=lambda: camera.encode())


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(**settings):
        stops = []
        pilot = Pilot(lambda: stops.append(True))
        server = CockpitServer(FakeView(), pilot, port=0, certificates=tmp_path / "keys", **settings)
        servers.append(server)
        server.open()
        return SimpleNamespace(server=server, pilot=pilot, stops=stops, url=server.url)

    yield start
    for server in servers:
        server.close()


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def origin(url):
    return url.split("/?")[0].rstrip("/")


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def test_the_page_and_its_files_are_served_and_nothing_else(serve):
    url = serve().url

    async def visit():
        async with aiohttp.ClientSession() as session:
            async with session.get(url) as answer:
                assert "<title>Cockpit" in await answer.text()
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            async with session.get(url + "app.js") as answer:
                assert answer.content_type == "text/javascript"
            for path in ("server.py", "..%2fserver.py", "%2e%2e/server.py", "%2fetc%2fpasswd", "page", "none.js"):
                async with session.get(url + path) as answer:
                    assert answer.status == 404

    run(visit())


def test_a_page_gets_everything_and_drives(serve):
    setup = serve()
    device = WebDevice(setup.pilot)

    async def visit():
        async with aiohttp.ClientSession(headers={"Origin": origin(setup.url)}) as session:
            async with session.ws_connect(setup.url + "socket") as socket:
                assert (await socket.receive_json()) == {"type": "hello", "robot": "fake"}
                kinds = set()
                await socket.send_json({"type": "watch", "cameras": ["wrist"]})
                while len(kinds) < 4:
                    message = await socket.receive()
                    if message.type == aiohttp.WSMsgType.BINARY:
                        kind, stream = message.data[:2]
                        kinds.add(kind)
                        if kind == wire.PICTURE:
                            assert (stream, message.data[16:]) == (1, b"wrist")
                        if kind == wire.POSES:
                            assert len(message.data) == 16 + 2 * 7 * 4
                    else:
                        status = json.loads(message.data)
                        kinds.add(status["type"])
                        assert status["cameras"] == ["front", "wrist"]
                await socket.send_json(REST)
                await socket.send_json(FORWARD)
                await until(lambda: device.read(0.0).twist[0] == 0.25)
                await socket.send_json({"type": "word", "word": "stop", "sent": 1.002})
                await until(lambda: setup.stops == [True])
            await until(lambda: device.read(0.0) is None)

    run(visit())


def test_frames_wait_until_the_last_ones_are_shown(serve):
    setup = serve()

    async def visit():
        headers = {"Origin": origin(setup.url)}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.ws_connect(setup.url + "socket") as socket,
        ):
            await socket.send_json({"type": "watch", "cameras": ["front"]})
            seen = []

            async def listen(seconds):
                seen.clear()
                try:
                    async with asyncio.timeout(seconds):
                        async for message in socket:
                            if message.type == aiohttp.WSMsgType.BINARY:
                                seen.append(struct.unpack("<BBHId", message.data[:16]))
                except TimeoutError:
                    pass

            await listen(0.6)
            assert [frame[0] for frame in seen].count(wire.POSES) == AHEAD
            assert [frame[0] for frame in seen].count(wire.PICTURE) == 1
            last = max(frame[3] for frame in seen)
            await socket.send_json({"type": "shown", "stream": "front"})
            await socket.send_json({"type": "shown", "stream": "scene"})
            await listen(0.6)
            assert sorted(frame[0] for frame in seen) == [wire.POSES, wire.PICTURE]
            assert min(frame[3] for frame in seen) > last + 1  # the newest, not the next

    run(visit())


def test_a_malformed_message_ends_the_connection(serve):
    setup = serve()

    async def visit():
        async with aiohttp.ClientSession(headers={"Origin": origin(setup.url)}) as session:
            for text in (
                '{"type": "input", "sent": 1}',
                "nonsense",
                '{"type": "fly"}',
                '{"type": "word", "word": "fly"}',
            ):
                async with session.ws_connect(setup.url + "socket") as socket:
                    await socket.send_str(text)
                    while (await socket.receive()).type != aiohttp.WSMsgType.CLOSE:
                        pass
                    assert socket.close_code == 1008
            await until(lambda: setup.pilot.silence() == math.inf)

    run(visit())


@pytest.mark.parametrize("header", [{}, {"Origin": "http://evil.example"}, {"Origin": "null"}])
def test_other_sites_get_no_socket(serve, header):
    url = serve().url

    async def visit():
        async with aiohttp.ClientSession(headers=header) as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect(url + "socket")
            assert caught.value.status == 403
            async with session.get(url, headers={"Host": "evil.example"}) as answer:
                assert answer.status == 403

    run(visit())


def test_beyond_this_computer_there_are_a_token_and_https(serve):
    setup = serve(host="0.0.0.0")
    assert setup.url.startswith("https://")
    assert setup.server.fingerprint.count(":") == 31
    port = origin(setup.url).rsplit(":", 1)[1]
    base, token = f"https://127.0.0.1:{port}/", setup.url.split("token=")[1]

    async def visit():
        jar = aiohttp.CookieJar(unsafe=True)  # of a host that is an address
        connector = aiohttp.TCPConnector(ssl=False)
        async with aiohttp.ClientSession(cookie_jar=jar, connector=connector) as session:
            for path in ("", "app.js", "socket", "?token=wrong", "?token="):
                async with session.get(base + path) as answer:
                    assert answer.status == 401
                    assert "script" not in await answer.text()
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect(base + "socket", headers={"Origin": origin(base)})
            assert caught.value.status == 401
            async with session.get(f"{base}?token={token}") as answer:
                assert answer.status == 200
                assert "token" not in str(answer.url)
                assert "<title>Cockpit" in await answer.text()
            (cookie,) = list(jar)
            assert cookie["httponly"]
            assert cookie["secure"]
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect(base + "socket", headers={"Origin": "https://evil.example"})
            assert caught.value.status == 403
            async with session.ws_connect(base + "socket", headers={"Origin": origin(base)}) as socket:
                assert (await socket.receive_json())["type"] == "hello"

    run(visit())


def test_a_taken_port_is_an_error_that_says_what_to_do(serve):
    port = int(origin(serve().url).rsplit(":", 1)[1])
    second = CockpitServer(FakeView(), Pilot(lambda: None), port=port)
    with pytest.raises(AccessError, match=r"choose another web\.port"):
        second.open()
    with pytest.raises(DeviceError, match=f":{port}"):
        WebDevice(Pilot(lambda: None), second).open()
    second.close()
    second.close()
