"""Cameras of the twin beside its command loop: a thread of low priority takes the newest state and renders it.

Rendering in software costs some 10 ms a picture. MuJoCo gives the interpreter lock away meanwhile, so physics and
commands go on; a camera that cannot keep its rate skips pictures.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future

import mujoco
import numpy as np

from robot_rl.hardware.twin.twin import Twin
from robot_rl.sim.render import Renderer, RenderError

_NICENESS = 10


class CameraThread:
    """Renders the cameras of a twin.

    Args:
        twin: hold `lock` for whatever changes its model (a reset).
        deliver: called from the thread with camera, time of the state and picture uint8 [height, width, 3].

    Attributes:
        skipped: pictures that were asked for again before the thread came to them.

    Raises:
        RenderError: this machine cannot render.
    """

    def __init__(self, twin: Twin, deliver: Callable[[str, float, np.ndarray], None]) -> None:
        self.skipped = 0
        self.lock = threading.Lock()
        self._twin, self._deliver = twin, deliver
        self._changed = threading.Condition()
        self._wanted: dict[str, tuple[float, np.ndarray]] = {}
        self._closing = False
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="twin cameras", daemon=True)
        self._thread.start()
        self._ready.result()

    def request(self, camera: str, time: float) -> None:
        """Ask for a picture of the present state, which is of a time [s]; never waits for one."""
        positions = self._twin.env.data.qpos.copy()
        with self._changed:
            self.skipped += camera in self._wanted
            self._wanted[camera] = (time, positions)
            self._changed.notify()

    def close(self) -> None:
        """End the thread after the picture that it is busy with."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        if hasattr(os, "setpriority"):
            # On Linux of this thread alone, and of those of the software renderer, which it starts.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        env = self._twin.env
        data = mujoco.MjData(env.model)
        try:
            renderer = Renderer(env.model, env.specification["render_quality"])
        except RenderError as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        with renderer:
            while (wanted := self._next()) is not None:
                camera, time, positions = wanted
                picture = np.empty(env.contract.observation[camera].shape, np.uint8)
                with self.lock:
                    data.qpos[:] = positions
                    mujoco.mj_kinematics(env.model, data)
                    mujoco.mj_comPos(env.model, data)
                    mujoco.mj_camlight(env.model, data)
                    renderer.render(data, camera, picture)
                self._deliver(camera, time, picture)

    def _next(self) -> tuple[str, float, np.ndarray] | None:
        """The camera whose turn it is: that which has been asked for longest."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._closing)
            if self._closing:
                return None
            camera = next(iter(self._wanted))
            return (camera, *self._wanted.pop(camera))
