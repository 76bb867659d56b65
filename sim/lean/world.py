"""What all lean tasks share: episodes, time, states and pictures of N copies. A task says how it begins and ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import mujoco
import numpy as np

from robot_rl.datasets.contract import Contract, Feature
from robot_rl.sim.camera_feature import camera_feature
from robot_rl.sim.lean.physics import Physics
from robot_rl.sim.spec import SpecError
from robot_rl.sim.world_env import pictures

if TYPE_CHECKING:
    from robot_rl.sim.render import Renderer


class LeanWorld(ABC):
    """N copies of a task, a `robot_rl.sim.world_env.World`. Rows of arrays are copies.

    Its scene is `<module>.xml` beside the subclass, which and fills in the abstract methods. Nothing but the arrays of
    `physics`, `memory` and `steps` may decide the future: they are the state.

    Args:
        spec: resolved, see `robot_rl.sim.lean.spec.resolve`.
        num: N.

    Attributes:
        physics: of all copies.
        memory: what a task remembers of an episode, float64 [N, MEMORY], zero at its beginning.
        contract, task, period, horizon, steps, last_action, diverged: see `World`.
    """

    RATE_HZ: ClassVar[int] = 20
    HORIZON: ClassVar[int] = 100
    MEMORY: ClassVar[int] = 0
    CONTROLLER: ClassVar[str]
    """What executes the action, see `Contract`."""
    ACTION: ClassVar[tuple[Feature, ...]]
    OBSERVATION: ClassVar[tuple[Feature, ...]]
    """Each is computed by the method `see_<name>`, [N, ...]."""

    def __init__(self, spec: Mapping[str, Any], num: int) -> None:
        name = str(spec["task"])
        self.num = num
        self.task: dict[str, Any] = {"name": name}
        scene = type(self).__module__.rsplit(".", 1)[-1]
        model = mujoco.MjModel.from_xml_path(str(Path(__file__).parent / f"{scene}.xml"))
        self.physics = Physics(model, num)
        self.period, self.horizon = 1.0 / self.RATE_HZ, int(spec["horizon"])
        self._ends_at_success = bool(spec["ends_at_success"])
        self._substeps = round(self.period / model.opt.timestep)
        self.steps, self.memory = np.zeros(num, np.int64), np.zeros((num, self.MEMORY))
        self._cameras = {camera: (int(size[0]), int(size[1])) for camera, size in spec["cameras"].items()}
        self._quality = spec["render_quality"]
        self._renderer: Renderer | None = None
        known = {feature.name: feature for feature in self.OBSERVATION}
        if missing := sorted(set(spec["observation"] or ()) - set(known)):
            raise SpecError(f"no such observation: {', '.join(missing)}; there are: {', '.join(known)}")
        chosen = known if spec["observation"] is None else {n: f for n, f in known.items() if n in spec["observation"]}
        seen = {camera: self._camera_feature(camera, *size) for camera, size in self._cameras.items()}
        actions = {feature.name: feature for feature in self.ACTION}
        self.contract = Contract(name, float(self.RATE_HZ), chosen | seen, actions, self.CONTROLLER)
        self._bounds = self.contract.action_bounds
        self.last_action = np.zeros((num, self.contract.action_dim), np.float32)
        self.diverged, self.active = np.zeros(num, bool), np.ones(num, bool)

    @abstractmethod
    def place(self, rows: np.ndarray, generators: Sequence[np.random.Generator]) -> None:
        """Draw how the episodes of some copies begin, and write it into `physics`; everything is at rest already."""

    @abstractmethod
    def command(self, actions: np.ndarray) -> np.ndarray:
        """Controls [N, nu] of the next control period, from actions [N, A] within their bounds."""

    @abstractmethod
    def judge(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reward, whether the episode is over, and success of the present state, [N] each."""

    @abstractmethod
    def expert(self) -> np.ndarray:
        """Actions [N, A] that solve the task, from what is observed alone."""

    @abstractmethod
    def metrics(self, row: int) -> dict[str, Any]:
        """What is measured of an episode so far besides success."""

    def begin(
        self, rows: Sequence[int], seeds: Sequence[int], records: Sequence[Mapping[str, Any] | None] | None = None
    ) -> list[dict[str, Any]]:
        """Begin episodes; their infos."""
        chosen, physics = np.asarray(rows), self.physics
        physics.qpos[chosen] = physics.model.qpos0
        for array in (physics.qvel, physics.warmstart, self.memory, self.steps, self.last_action):
            array[chosen] = 0
        self.place(chosen, [np.random.default_rng([int(seed), 0]) for seed in seeds])
        return [{"seed": int(seed), "success": False} for seed in seeds]

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Move on by one step under actions [N, A]: reward, terminated, truncated and success [N]."""
        low, high = self._bounds
        self.last_action[:] = np.clip(actions, low, high)
        self.physics.ctrl[:] = self.command(self.last_action)
        self.physics.step(self._substeps)
        self.steps += 1
        reward, over, success = self.judge()
        self.diverged = diverged = np.logical_not(np.isfinite(self.physics.qvel).all(1))
        over, success = over & ~diverged, success & ~diverged
        if not self._ends_at_success:
            over = over & ~success
        return np.where(diverged, 0.0, reward), over, ((self.steps >= self.horizon) & ~over) | diverged, success

    def observe(self, rows: np.ndarray, look: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Observations of the contract, {name: [n, ...]}, of the copies that a mask [N] tells.

        Pictures are of those that a second mask tells; by default of the same.
        """
        found = {}
        for name in self.contract.observation:
            if name in self._cameras:
                found[name] = pictures(self, name, self._cameras[name], rows if look is None else look)
            else:
                found[name] = getattr(self, f"see_{name}")()[rows].astype(np.float32)
        return found

    def rest_action(self, row: int) -> np.ndarray:
        """The action [A] that keeps everything where it is: none, unless a task's actions are absolute."""
        return np.zeros(self.contract.action_dim, np.float32)

    def image(self, row: int, camera: str, height: int, width: int) -> np.ndarray:
        """Picture of a copy, uint8 [height, width, 3] RGB.

        Raises:
            SpecError: there is no such camera.
            RenderError: nothing can be rendered here.
        """
        self._camera_id(camera)
        if self._renderer is None:
            from robot_rl.sim.render import Renderer

            self._renderer = Renderer(self.physics.model, self._quality)
        return self._renderer.render(self.physics.show(row), camera, np.empty((height, width, 3), np.uint8))

    def get_states(self) -> np.ndarray:
        """All that decides the future, float64 [N, S]: also what was drawn for the episode."""
        own = [self.steps[:, None].astype(float), self.last_action.astype(float), self.memory]
        return np.concatenate([*own, self.physics.get_states()], axis=1)

    def set_states(self, states: np.ndarray, rows: np.ndarray) -> None:
        """Continue from `get_states`, [n, S], of any episode of this task.

        Raises:
            ValueError: the states are of another task.
        """
        states = np.asarray(states, float)
        size = 1 + self.last_action.shape[1] + self.MEMORY + self.physics.state_size
        if states.shape != (len(rows), size):
            raise ValueError(
                f"expected states of shape {[len(rows), size]} for {self.task['name']}, got {list(states.shape)}"
            )
        first = 1 + self.last_action.shape[1]
        self.steps[rows], self.last_action[rows] = states[:, 0], states[:, 1:first]
        self.memory[rows] = states[:, first : first + self.MEMORY]
        self.physics.set_states(states[:, first + self.MEMORY :], rows)

    def _camera_feature(self, camera: str, height: int, width: int) -> Feature:
        return camera_feature(camera, height, width, self.physics.model.cam_fovy[self._camera_id(camera)])

    def _camera_id(self, camera: str) -> int:
        model = self.physics.model
        known = [model.camera(index).name for index in range(model.ncam)]
        if camera not in known:
            raise SpecError(f"no camera {camera!r} in the task {self.task['name']}; there are: {', '.join(known)}")
        return known.index(camera)
