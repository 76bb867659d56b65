"""What the cockpit shows of a simulation in this process: shapes and poses of its model, and who acts in it.

    view = WorldView("peg", model, rate_hz)
    view.show(data, who="policy", taken_over=False, steps=7, success=False)    # before each control step

Nothing is rendered here: the page draws. There is no Supervisor; the page's words for its states say who acts.
"""

from __future__ import annotations

import time
from typing import Any

import mujoco
import numpy as np

from robot_rl.hardware.cockpit.scene import pack, parts_of
from robot_rl.hardware.cockpit.server import Picture, Poses


class WorldView:
    """Shows one copy of a simulation.

    Args:
        name: of the task.
        model: whose bodies are shown.
        rate_hz: of the control steps.
    """

    def __init__(self, name: str, model: mujoco.MjModel, rate_hz: float) -> None:
        parts = {body: parts_of(model, body) for body in range(model.nbody)}
        self._bodies = [body for body, found in parts.items() if found]
        shown = [part._replace(body=place) for place, body in enumerate(self._bodies) for part in parts[body]]
        names = [model.body(body).name for body in self._bodies]
        middle, half = np.array(model.stat.center), 0.5 * float(model.stat.extent)
        box = (middle - half).tolist(), (middle + half).tolist()
        self._geometry = 1, pack(name, names, shown, box)
        self._name, self._rate_hz = name, rate_hz
        self._poses: Poses | None = None
        self._said: dict[str, Any] = {}

    def show(self, data: mujoco.MjData, who: str, taken_over: bool, steps: int, success: bool) -> None:
        """Where everything is now, and who acts; by the thread that simulates, the rest by that of the server.

        Args:
            data: with poses up to date.
            who: acts.
            taken_over: whether that is the person.
            steps: so far in this episode.
            success: whether the task has been achieved in it.
        """
        values = np.hstack([data.xpos[self._bodies], data.xquat[self._bodies]]).astype(np.float32)
        sequence = 0 if self._poses is None else self._poses.sequence + 1
        self._said = {
            "supervisor": {
                "state": "intervening" if taken_over else "running", "message": f"step {steps} of the episode",
                "level": 0, "old": False, "holder": who, "kind": "person" if taken_over else "training",
                "accepted": "0", "limited": "0",
            },
            "success": success,
        }  # fmt: skip
        # The last pose is that of a hand that could be dragged; here it lies with the first body.
        self._poses = Poses(sequence, time.time(), np.vstack([values, values[:1]]))

    def hello(self) -> dict[str, Any]:
        """What does not change."""
        return {
            "robot": self._name, "joints": [], "lower": [], "upper": [], "opening": None, "rate_hz": self._rate_hz,
            "drags": False,
        }  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Everything that is said in words and numbers."""
        nobody = dict.fromkeys((
            "supervisor",
            "session",
            "recorder",
            "policy",
            "twin",
            "success",
            "position",
            "opening",
        ))
        return {**nobody, "transitions": [], "problem": "", "silent": "", **self._said}

    def geometry(self) -> tuple[int, bytes]:
        """See `View`."""
        return self._geometry

    def poses(self) -> Poses | None:
        """See `View`."""
        return self._poses

    def cameras(self) -> list[str]:
        """See `View`."""
        return []

    def picture(self, camera: str) -> Picture | None:
        """See `View`."""
        return None
