"""The web server of the cockpit: files of the page, and one web socket for each page that is open.

It runs on a thread of its own. Poses, status and pictures are pulled from a `View` at the pace of each page: a frame is
sent when the page has shown the last one, and always the newest. Pictures are encoded beside the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from aiohttp import WSMsgType, web

from robot_rl.hardware.cockpit import access, wire
from robot_rl.hardware.cockpit.pilot import Pilot

SCENE_RATE = 30.0
"""Poses per second."""

STATUS_PERIOD = 0.1
"""Between two reports to a page [s], when something has changed."""

AHEAD = 2
"""Poses that may be on their way to a page before it has shown the first."""

PAGES = 8
"""Pages that may be open at once."""

_PAGE = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_KEEP_ALIVE = 5.0  # s
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Poses(NamedTuple):
    """Newest poses of the scene's bodies, [bodies + 1, 7] float32, at a time [s]."""

    sequence: int
    stamp: float
    values: np.ndarray


class Picture(Protocol):
    """A picture of a camera."""

    sequence: int
    stamp: float

    def jpeg(self) -> bytes:
        """Encoded; takes its time the first time. Empty when it cannot be read."""
        ...


class View(Protocol):
    """What there is to see; called by the thread of the server."""

    def hello(self) -> dict[str, Any]: ...
    def status(self) -> dict[str, Any]: ...
    def geometry(self) -> tuple[int, bytes] | None:
        """Its version, and what `Scene.geometry` gives."""
        ...

    def poses(self) -> Poses | None: ...
    def cameras(self) -> list[str]: ...
    def picture(self, camera: str) -> Picture | None: ...


class _Page:
    def __init__(self, number: int, socket: web.WebSocketResponse) -> None:
        self.number, self.socket = number, socket
        self.watched: frozenset[str] = frozenset()
        self.scene_ahead = 0
        self.camera_ahead: dict[str, int] = {}
        self.shown = asyncio.Event()


class CockpitServer:
    """Serves the page.

    Args:
        host, port: to listen at; port 0 takes a free one.
        token: to ask for; empty: none on this computer alone, else a random one.
        certificates: folder of the self-signed certificate.

    Attributes:
        url: to open, token included; known after `open`.
        fingerprint: of the certificate, where there is one.

    Raises:
        AccessError: the token is too short.
    """

    def __init__(
        self, view: View, pilot: Pilot, host: str = "127.0.0.1", port: int = 8765, token: str = "",
        certificates: Path | None = None,
    ) -> None:  # fmt: skip
        self._view, self._pilot, self._host, self._port = view, pilot, host, port
        self._local = access.is_local(host)
        self._token = access.choose_token(host, token)
        self._certificates = certificates or Path.home() / ".config" / "robot_rl" / "cockpit"
        self._numbers = itertools.count(1)
        self._pages: set[_Page] = set()
        self._encoder = ThreadPoolExecutor(1, "cockpit pictures")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.url = self.fingerprint = ""

    def open(self) -> None:
        """Begin to serve. Raises `AccessError` when that is not possible, as when the port is taken."""
        if self._thread is not None:
            return
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="cockpit", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except OSError as error:
            self._thread.join()
            self._thread = None
            raise access.AccessError(
                f"web: cannot listen at {self._host}:{self._port}: {error.strerror or error}; choose another web.port"
            ) from None

    def close(self) -> None:
        """End all connections and the thread."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._ending.set)
            thread.join()
        self._encoder.shutdown(wait=False, cancel_futures=True)

    def _run(self, ready: Future[None]) -> None:
        asyncio.run(self._serve(ready))

    async def _serve(self, ready: Future[None]) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[self._guard], client_max_size=1024)
        app.router.add_get("/socket", self._socket)
        app.router.add_get("/", self._file)
        app.router.add_get("/{name}", self._file)
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
        try:
            await runner.setup()
            site = web.TCPSite(runner, self._host, self._port, ssl_context=self._ssl())
            await site.start()
            port = runner.addresses[0][1]
            shown = self._host if self._host not in ("0.0.0.0", "::") else next(iter(access.addresses()), "localhost")
            host = f"[{shown}]" if ":" in shown else shown
            scheme = "http" if self._local else "https"
            self.url = f"{scheme}://{host}:{port}/" + (f"?token={self._token}" if self._token else "")
            self._cookie = f"{access.COOKIE}_{port}"
        except BaseException as error:
            await runner.cleanup()
            ready.set_exception(error)
            return
        ready.set_result(None)
        await self._ending.wait()
        for page in list(self._pages):
            with suppress(Exception):
                await asyncio.wait_for(page.socket.close(code=1001, message=b"the cockpit has ended"), 1.0)
        await runner.cleanup()

    def _ssl(self) -> ssl.SSLContext | None:
        if self._local:
            return None
        hosts = [self._host] if self._host not in ("0.0.0.0", "::") else access.addresses()
        context, self.fingerprint = access.certificate(self._certificates, hosts)
        return context

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not access.knows_host(self._local, request.host):
            return _refuse(403, "This cockpit is served to its own computer alone.")
        given = request.query.get("token")
        if self._token and given is not None and access.admits(self._token, given):
            # The token leaves the address bar, and the history, for a cookie that no script can read.
            response = web.Response(status=303, headers={"Location": "/"})
            response.set_cookie(self._cookie, given, httponly=True, samesite="Lax", secure=not self._local)
            return response
        if not access.admits(self._token, request.cookies.get(self._cookie)):
            return _refuse(401, "Open the address that the terminal shows: it holds the token.")
        return await handler(request)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        file = _PAGE / (request.match_info.get("name") or "index.html")
        if file.parent != _PAGE or not file.is_file() or file.suffix not in _TYPES:
            return _refuse(404, "There is no such page.")
        response = web.FileResponse(file, headers=_HEADERS)
        response.content_type = _TYPES[file.suffix]
        response.charset = "utf-8"
        return response

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if not access.same_origin(request.headers.get("Origin"), request.scheme, request.host):
            return _refuse(403, "A web socket is opened by the cockpit's own page only.")
        if len(self._pages) >= PAGES:
            return _refuse(503, f"{PAGES} pages are open already.")
        socket = web.WebSocketResponse(heartbeat=_KEEP_ALIVE, max_msg_size=wire.LARGEST, compress=False)
        await socket.prepare(request)
        page = _Page(next(self._numbers), socket)
        self._pages.add(page)
        self._pilot.connect(page.number)
        senders: list[asyncio.Task[None]] = []
        try:
            # First of all: how the scene is shown depends on the robot.
            await socket.send_str(json.dumps({"type": "hello", **self._view.hello()}))
            senders += [asyncio.create_task(send(page)) for send in (self._send_scene, self._send_pictures)]
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    await self._hear(page, message.data)
        except (ConnectionError, RuntimeError):
            pass  # the page is gone
        finally:
            self._pilot.disconnect(page.number)
            self._pages.discard(page)
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
        return socket

    async def _hear(self, page: _Page, text: str) -> None:
        try:
            message = wire.read(text)
            kind = message["type"]
            if kind == "input":
                self._pilot.take(page.number, wire.read_input(message))
            elif kind == "word":
                refused = self._pilot.word(page.number, wire.read_word(message), wire.number(message, "sent"))
                if refused:
                    await page.socket.send_str(json.dumps({"type": "notice", "text": refused}))
            elif kind == "shown":
                stream = message.get("stream")
                if stream == "scene":
                    page.scene_ahead = max(0, page.scene_ahead - 1)
                elif isinstance(stream, str) and page.camera_ahead.get(stream):
                    page.camera_ahead[stream] = 0
                    page.shown.set()
            elif kind == "watch":
                names = message.get("cameras")
                page.watched = frozenset(str(name) for name in names) if isinstance(names, list) else frozenset()
            elif kind == "ping":
                await page.socket.send_str(json.dumps({"type": "pong", "sent": wire.number(message, "sent")}))
            else:
                raise wire.WireError(f"unknown type {kind[:40]!r}")
        except wire.WireError as error:
            # Something that is not our page, or is broken: it must not drive a robot.
            await page.socket.close(code=1008, message=str(error).encode()[:120])

    async def _send_scene(self, page: _Page) -> None:
        loop = asyncio.get_running_loop()
        version = sequence = -1
        told, telling = "", 0.0
        due = loop.time()
        while not page.socket.closed:
            geometry = self._view.geometry()
            if geometry is not None and geometry[0] != version:
                version, sequence = geometry[0], -1
                await page.socket.send_bytes(wire.frame(wire.GEOMETRY, geometry[1], sequence=version))
            poses = self._view.poses() if page.scene_ahead < AHEAD else None
            if poses is not None and poses.sequence != sequence and version >= 0:
                sequence = poses.sequence
                page.scene_ahead += 1
                payload = poses.values.astype("<f4").tobytes()
                await page.socket.send_bytes(wire.frame(wire.POSES, payload, 0, sequence, poses.stamp))
            if loop.time() >= telling:
                telling = loop.time() + STATUS_PERIOD
                status = {**self._view.status(), **self._pilot.state(page.number), "cameras": self._view.cameras()}
                text = json.dumps({"type": "status", **status})
                if text != told:
                    told = text
                    await page.socket.send_str(text)
            due = max(due + 1.0 / SCENE_RATE, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _send_pictures(self, page: _Page) -> None:
        loop = asyncio.get_running_loop()
        sent: dict[str, int] = {}
        while not page.socket.closed:
            page.shown.clear()
            for index, camera in enumerate(self._view.cameras()):
                picture = self._view.picture(camera)
                if (
                    camera not in page.watched or page.camera_ahead.get(camera) or picture is None
                    or picture.sequence == sent.get(camera)
                ):  # fmt: skip
                    continue
                sent[camera] = picture.sequence
                jpeg = await loop.run_in_executor(self._encoder, picture.jpeg)
                if jpeg:
                    page.camera_ahead[camera] = 1
                    await page.socket.send_bytes(wire.frame(wire.PICTURE, jpeg, index, picture.sequence, picture.stamp))
            with suppress(TimeoutError):
                await asyncio.wait_for(page.shown.wait(), 0.02)


def _refuse(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n", headers=_HEADERS)
