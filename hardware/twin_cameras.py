"""Cameras of the twin beside its command loop: a thread of low priority takes the newest state and renders it.

Rendering in software costs some 10 ms a picture. MuJoCo gives the interpreter lock away meanwhile, so physics and
commands go on; a camera that cannot keep its rate skips pictures.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, Full, Queue

import mujoco
import numpy as np

from robot_rl.hardware.twin import Twin
from robot_rl.sim.render import Renderer, RenderError

_NICENESS = 10


class CameraThread:
    """Renders cameras of a twin one after the other.

    Args:
        twin: as long as pictures are on their way, hold `lock` for whatever changes its model (a reset).
        deliver: called from the thread with camera, time of the state and picture uint8 [height, width, 3].

    Attributes:
        skipped: pictures that were asked for while the thread was busy.

    Raises:
        RenderError: this machine cannot render.
    """

    def __init__(self, twin: Twin, deliver: Callable[[str, float, np.ndarray], None]) -> None:
        self.skipped = 0
        self.lock = threading.Lock()
        self._twin, self._deliver = twin, deliver
        self._wanted: Queue[tuple[Sequence[str], float, np.ndarray] | None] = Queue(maxsize=1)
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="twin cameras", daemon=True)
        self._thread.start()
        self._ready.result()

    def request(self, cameras: Sequence[str], time: float) -> None:
        """Ask for pictures of the present state, which is of a time [s]; never waits."""
        try:
            self._wanted.put_nowait((cameras, time, self._twin.env.data.qpos.copy()))
        except Full:
            self.skipped += len(cameras)

    def close(self) -> None:
        """End the thread after the picture that it is busy with."""
        with suppress(Empty):
            self._wanted.get_nowait()
        self._wanted.put(None)
        self._thread.join()

    def _run(self) -> None:
        if hasattr(os, "setpriority"):
            # On Linux of this thread alone, and of those of the software renderer, which it starts.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        env = self._twin.env
        data = mujoco.MjData(env.model)
        try:
            renderer = Renderer(env.model, env.spec["render_quality"])
        except RenderError as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        with renderer:
            while (wanted := self._wanted.get()) is not None:
                cameras, time, positions = wanted
                for camera in cameras:
                    picture = np.empty(env.contract.observation[camera].shape, np.uint8)
                    with self.lock:
                        data.qpos[:] = positions
                        mujoco.mj_kinematics(env.model, data)
                        mujoco.mj_comPos(env.model, data)
                        mujoco.mj_camlight(env.model, data)
                        renderer.render(data, camera, picture)
                    self._deliver(camera, time, picture)
