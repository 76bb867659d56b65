"""An offscreen OpenGL context without a display: EGL where the machine has it, else OSMesa.

Both are called directly through their C libraries, so that neither a window system nor PyOpenGL takes part. The
environment variable `MUJOCO_GL` (`egl`, `osmesa`, `disabled`) narrows the choice, `MUJOCO_EGL_DEVICE_ID` names the GPU.

References: EGL_EXT_device_enumeration, EGL_EXT_platform_device, EGL_KHR_surfaceless_context; Mesa's `GL/osmesa.h`.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_void_p
from typing import Any, Protocol

_NONE = 0x3038
_COLOR_BUFFER = (0x3024, 8, 0x3023, 8, 0x3022, 8, 0x3021, 8, 0x3025, 24)  # red, green, blue, alpha, depth bits
_RENDERABLE_OPENGL = (0x3040, 0x0008)
_PLATFORM_DEVICE, _OPENGL_API, _SURFACE_PBUFFER = 0x313F, 0x30A2, (0x3033, 0x0001)
_OSMESA_RGBA, _UNSIGNED_BYTE = 0x1908, 0x1401
_DISABLED = ("disable", "disabled", "off", "false", "0")


class RenderError(RuntimeError):
    """Nothing can be rendered here; the message says what is missing and how to get it."""


class _Context(Protocol):
    name: str

    def current(self) -> Any: ...

    def make_current(self, previous: Any = None) -> None: ...


class _EGL:
    """A surfaceless EGL context on the first device that takes one. Lives as long as the process."""

    name = "egl"

    def __init__(self) -> None:
        # libEGL only dispatches; MuJoCo looks the drawing functions up in libGL, which is a package of its own.
        _library("libGL.so.1", "libOpenGL.so.0")
        self._egl = egl = _library("libEGL.so.1")
        egl.eglGetProcAddress.restype, egl.eglGetProcAddress.argtypes = c_void_p, [c_char_p]
        egl.eglInitialize.argtypes = [c_void_p, c_void_p, c_void_p]
        egl.eglChooseConfig.argtypes = [c_void_p, c_void_p, c_void_p, c_int, c_void_p]
        egl.eglCreateContext.restype, egl.eglCreateContext.argtypes = c_void_p, [c_void_p] * 4
        egl.eglMakeCurrent.argtypes = [c_void_p] * 4
        for query in (egl.eglGetCurrentContext, egl.eglGetCurrentDisplay):
            query.restype = c_void_p
        egl.eglGetCurrentSurface.restype = c_void_p
        failures = []
        for index, device in self._devices():
            failure = self._open(device)
            if not failure:
                return
            failures.append(f"device {index}: {failure}")
        raise RenderError("; ".join(failures) or "no EGL device")

    def current(self) -> Any:
        draw, read = 0x3059, 0x305A
        egl = self._egl
        return (
            egl.eglGetCurrentDisplay(), egl.eglGetCurrentSurface(draw), egl.eglGetCurrentSurface(read),
            egl.eglGetCurrentContext(),
        )  # fmt: skip

    def make_current(self, previous: Any = None) -> None:
        # To release a context, EGL wants the display on which it is current.
        display, draw, read, context = previous or (self._display, None, None, self._context)
        if not self._egl.eglMakeCurrent(display or self._display, draw, read, context):
            raise RenderError(f"EGL refused to make the context current (error {self._egl.eglGetError():#x})")

    def _devices(self) -> list[tuple[int, int]]:
        query = self._extension(b"eglQueryDevicesEXT", c_uint, c_int, POINTER(c_void_p), POINTER(c_int))
        devices, count = (c_void_p * 32)(), c_int()
        if not query(32, devices, byref(count)):
            raise RenderError("EGL cannot list its devices")
        found = [(index, devices[index] or 0) for index in range(count.value)]
        wanted = os.environ.get("MUJOCO_EGL_DEVICE_ID")
        if wanted is None:
            return found
        if not wanted.isdigit() or int(wanted) >= len(found):
            raise RenderError(f"MUJOCO_EGL_DEVICE_ID: expected 0 to {len(found) - 1}, got {wanted!r}")
        return [found[int(wanted)]]

    def _open(self, device: int) -> str:
        egl = self._egl
        display_of = self._extension(b"eglGetPlatformDisplayEXT", c_void_p, c_uint, c_void_p, c_void_p)
        self._display = display_of(_PLATFORM_DEVICE, device, None)
        if not self._display or not egl.eglInitialize(self._display, None, None):
            return f"cannot be initialised (error {egl.eglGetError():#x})"
        attributes = (*_COLOR_BUFFER, *_SURFACE_PBUFFER, *_RENDERABLE_OPENGL, _NONE)
        config, count = c_void_p(), c_int()
        array = (c_int * len(attributes))(*attributes)
        if not egl.eglChooseConfig(self._display, array, byref(config), 1, byref(count)) or not count.value:
            return "offers no OpenGL framebuffer"
        egl.eglBindAPI(_OPENGL_API)
        self._context = egl.eglCreateContext(self._display, config, None, None)
        return "" if self._context else f"cannot create an OpenGL context (error {egl.eglGetError():#x})"

    def _extension(self, name: bytes, result: Any, *arguments: Any) -> Any:
        address = self._egl.eglGetProcAddress(name)
        if not address:
            raise RenderError(f"EGL lacks {name.decode()}")
        return ctypes.CFUNCTYPE(result, *arguments)(address)


class _OSMesa:
    """Mesa's software renderer drawing into memory. Lives as long as the process."""

    name = "osmesa"

    def __init__(self) -> None:
        self._mesa = mesa = _library("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")
        mesa.OSMesaCreateContextExt.restype = c_void_p
        mesa.OSMesaCreateContextExt.argtypes = [c_uint, c_int, c_int, c_int, c_void_p]
        mesa.OSMesaMakeCurrent.argtypes = [c_void_p, c_void_p, c_uint, c_int, c_int]
        mesa.OSMesaGetCurrentContext.restype = c_void_p
        self._context = mesa.OSMesaCreateContextExt(_OSMESA_RGBA, 24, 8, 0, None)
        if not self._context:
            raise RenderError("OSMesa cannot create a context")
        # MuJoCo draws into framebuffer objects of its own; the context only has to have some buffer.
        self._buffer = (ctypes.c_ubyte * (4 * 16 * 16))()

    def current(self) -> Any:
        return self._mesa.OSMesaGetCurrentContext()

    def make_current(self, previous: Any = None) -> None:
        if not self._mesa.OSMesaMakeCurrent(self._context, self._buffer, _UNSIGNED_BYTE, 16, 16):
            raise RenderError("OSMesa refused to make the context current")


_lock = threading.RLock()
_opened: _Context | None = None
_opened_in = 0


def backend() -> str:
    """Open the process's context if need be; `egl` or `osmesa`. Raises `RenderError` where there is neither."""
    with _lock:
        return _open().name


@contextmanager
def current_context() -> Iterator[None]:
    """Hold the process's one context: current inside the block, and whatever was current before is so again after it.

    Threads take turns. Raises `RenderError` where there is no OpenGL.
    """
    with _lock:
        context = _open()
        before = context.current()
        context.make_current()
        try:
            yield
        finally:
            context.make_current(before)


def _open() -> _Context:
    global _opened, _opened_in
    if _opened is not None:
        if _opened_in != os.getpid():
            raise RenderError(
                "this process was forked from one that had already rendered, and OpenGL does not survive a fork: "
                "start worker processes with `spawn`, or render only in them"
            )
        return _opened
    asked = os.environ.get("MUJOCO_GL", "").lower().strip()
    if asked in _DISABLED:
        raise RenderError(f"rendering is switched off by MUJOCO_GL={asked}: unset it, or ask for no cameras")
    failures = []
    for kind in (_EGL, _OSMesa):
        if asked in ("egl", "osmesa") and kind.name != asked:
            continue
        try:
            _opened, _opened_in = kind(), os.getpid()
        except RenderError as error:
            failures.append(f"{kind.name}: {error}")
        else:
            return _opened
    raise RenderError(
        "cannot render, no OpenGL without a display ("
        + "; ".join(failures)
        + "). On Debian or Ubuntu: `apt install libegl1 libgl1` (EGL), or `apt install libosmesa6` (software only). "
        "Everything but camera images works without."
    )


def _library(*names: str) -> ctypes.CDLL:
    for name in names:
        try:
            return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    raise RenderError(f"{names[0]} is missing")
