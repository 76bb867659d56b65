"""The page that shows the display clock: on this computer's screen, or through a tunnel on another one.

A small web server on localhost gives the page, the pattern's layout and the time. The page sets itself by that time (of
several answers the fastest tells best), so that the clock of the computer with the screen does not matter.
"""

from __future__ import annotations

import json
import threading
import time
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from robot_rl.hardware.cameras import display_clock
from robot_rl.hardware.cameras.camera import CameraError

_PAGE = Path(__file__).parent / "page"
_FILES = {"/": ("clock.html", "text/html"), "/clock.js": ("clock.js", "text/javascript")}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class ClockPage:
    """Serves the page within a `with` block.

    Args:
        port: to listen at on localhost; 0 takes a free one.

    Raises:
        CameraError: the port is taken.
    """

    def __init__(self, port: int = 0) -> None:
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise CameraError(f"cannot listen at port {port}: {error.strerror}; choose another --port") from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="clock page", daemon=True)

    @cached_property
    def url(self) -> str:
        """To open in a browser."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path in _FILES:
            name, kind = _FILES[self.path]
            self._answer((_PAGE / name).read_bytes(), kind)
        elif self.path == "/layout":
            layout = {
                "tick": display_clock.TICK, "ticks": display_clock.TICKS, "width": display_clock.WIDTH,
                "height": display_clock.HEIGHT, "squares": display_clock.squares(),
                "cells": [cell._asdict() for cell in display_clock.cells()],
            }  # fmt: skip
            self._answer(json.dumps(layout).encode(), "application/json")
        elif self.path == "/time":
            self._answer(json.dumps(time.time()).encode(), "application/json")
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the terminal belongs to the measurement."""

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
