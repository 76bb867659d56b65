"""Gymnasium's MuJoCo tasks (`gym/Hopper-v5`, ...) with the contract and the interface of all other environments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gymnasium
import mujoco
import numpy as np

from robot_rl.datasets.contract import Contract, Feature
from robot_rl.sim.spaces import ActionError, action_space, observation_space
from robot_rl.sim.spec import SpecError, decided, resolve

if TYPE_CHECKING:
    from robot_rl.sim.render import Renderer

PREFIX = "gym/"
DEFAULTS: dict[str, Any] = {"horizon": None, "arguments": {}, "cameras": {}, "render_quality": "fast"}
"""What `resolve` fills in. A horizon of None is the task's own; `arguments` go to the task."""

AGENTVIEW = "agentview"
"""Also names the first camera of a model, as in other tasks the one that sees everything."""
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


def resolve_gym(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults and check every key, as `robot_rl.sim.spec.resolve` does for arms.

    Raises:
        SpecError: a key or a value is unknown, or there is no such task of MuJoCo in Gymnasium.
    """
    task, arguments = given["task"], dict(given.get("arguments") or {})
    env = _probe(task, json.dumps(arguments, sort_keys=True))
    fixed = {"robot": None, "controller": None, "randomization": None, "observation": None}
    spec = decided(given, DEFAULTS, {**fixed, "rate_hz": round(1.0 / env.dt, 6)})
    if spec["horizon"] is None:
        spec["horizon"] = gymnasium.spec(task.removeprefix(PREFIX)).max_episode_steps
    if not (isinstance(spec["horizon"], int) and spec["horizon"] > 0):
        raise SpecError(f"horizon: expected a positive number of steps, got {spec['horizon']!r}")
    return spec


class GymEnv(gymnasium.Env):
    """One of Gymnasium's MuJoCo tasks. Observation and reward are its own, numbers are float32.

    These tasks know no success, `info["success"]` is always False; the last info of an episode has the `return` among
    its `metrics`. `terminated`: as the task says; `truncated`: the horizon, or a simulation that diverged
    (`info["diverged"]`, without a reward).

    Args:
        spec: task name (`gym/Hopper-v5`) or mapping, see `robot_rl.sim.spec.resolve`.

    Attributes:
        specification: resolved, plain JSON types.
        contract: of observation and action.
        inner: Gymnasium's environment, without wrappers.
        model, data: of MuJoCo.
        looking: whether `step` takes new pictures; while it is False, their place is held by earlier ones.

    Raises:
        SpecError: a key or a name is unknown.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, spec: str | Mapping[str, Any]) -> None:
        self.specification: dict[str, Any] = resolve(spec)
        name = self.specification["task"].removeprefix(PREFIX)
        self.task = {"name": self.specification["task"]}
        self.inner: Any = _gymnasium(name, self.specification["arguments"])
        self.model, self.data = self.inner.model, self.inner.data
        self.looking = True
        self._renderer: Renderer | None = None
        self._images: dict[str, np.ndarray] = {}
        self._cameras = {camera: (int(size[0]), int(size[1])) for camera, size in self.specification["cameras"].items()}
        actions = self.inner.action_space
        joints = tuple(self.model.actuator(index).name for index in range(self.model.nu))
        lower, upper = (tuple(each.tolist() if np.isfinite(each).all() else ()) for each in (actions.low, actions.high))
        action = Feature(
            "control", actions.shape, kind="action", names=joints if all(joints) else (), lower=lower, upper=upper
        )
        seen = [Feature("observation", self.inner.observation_space.shape)]
        seen += [
            Feature(camera, (*size, 3), "uint8", kind="image")
            for camera, size in self._cameras.items()
            if self._camera_id(camera) >= 0
        ]
        rate = float(self.specification["rate_hz"])
        self.contract = Contract(name, rate, {each.name: each for each in seen}, {action.name: action}, f"gym_{name}")
        self.observation_space = observation_space(self.contract)
        self.action_space = action_space(self.contract)
        self._low, self._high = self.contract.action_bounds
        self._seen = np.zeros(seen[0].shape, np.float32)
        self._steps, self._return = 0, 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin the episode of a seed (default: one that follows from the last seed given). `info["seed"]` names it."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        seen, _ = self.inner.reset(seed=seed)
        self._seen = seen.astype(np.float32)
        self._steps, self._return = 0, 0.0
        return self.observe(), {"seed": seed, "success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Execute an action [A], clipped to its bounds, for one control period.

        Raises:
            ActionError: the action has the wrong shape or is not finite.
        """
        action = np.asarray(action, np.float32)
        if action.shape != self._low.shape or not np.isfinite(action).all():
            raise ActionError(f"expected {len(self._low)} finite numbers (control), got {action.tolist()}")
        before = self.data.time
        seen, reward, terminated, _, _ = self.inner.step(np.minimum(np.maximum(action, self._low), self._high))
        self._seen = seen.astype(np.float32)
        self._steps += 1
        info: dict[str, Any] = {"success": False}
        # MuJoCo resets a state that is no longer finite, and with it the time.
        if self.data.time < before + self.inner.dt - 0.5 * self.model.opt.timestep:
            return self._observed(self.looking), 0.0, False, True, {**info, "diverged": True}
        self._return += float(reward)
        truncated = self._steps >= self.specification["horizon"] and not terminated
        if terminated or truncated:
            info["metrics"] = {"return": self._return}
        return self._observed(self.looking), float(reward), bool(terminated), bool(truncated), info

    @property
    def time(self) -> float:
        """Simulated time since the reset [s]."""
        return float(self._steps * self.inner.dt)

    def observe(self) -> dict[str, np.ndarray]:
        """The observation of the present state."""
        return self._observed(look=True)

    def _observed(self, look: bool) -> dict[str, np.ndarray]:
        if look:
            self._images = {camera: self.image(camera, *size) for camera, size in self._cameras.items()}
        return {"observation": self._seen.copy(), **self._images}

    def rest_action(self) -> np.ndarray:
        """No control [A]."""
        action: np.ndarray = np.clip(np.zeros_like(self._low), self._low, self._high)
        return action

    def image(self, camera: str, height: int, width: int) -> np.ndarray:
        """Picture of a camera of the model, uint8 [height, width, 3] RGB.

        Raises:
            SpecError: there is no such camera.
            RenderError: nothing can be rendered here.
        """
        index = self._camera_id(camera)
        if self._renderer is None:
            from robot_rl.sim.render import Renderer

            self._renderer = Renderer(self.model, self.specification["render_quality"], geom_groups=(0, 1, 2))
        return self._renderer.render(self.data, index, np.empty((height, width, 3), np.uint8))

    def render(self) -> np.ndarray:
        """The view of `agentview`, uint8 [480, 640, 3]."""
        return self.image(AGENTVIEW, 480, 640)

    def get_state(self) -> np.ndarray:
        """Everything that decides the future, float64 [S]; `set_state` continues from it bit by bit.

        Gymnasium reads body positions and contact forces of the last physics step, which lag by one: they are kept.
        """
        physics = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, physics, _STATE)
        lagging = [self.data.xpos.ravel(), self.data.cfrc_ext.ravel()]
        return np.concatenate([[self._steps, self._return], self._seen, *lagging, physics])

    def set_state(self, state: np.ndarray) -> None:
        """Return to a state of `get_state` of an environment with the same specification.

        Raises:
            ValueError: the state belongs to another specification.
        """
        sizes = [2, len(self._seen), self.data.xpos.size, self.data.cfrc_ext.size]
        total = sum(sizes) + mujoco.mj_stateSize(self.model, _STATE)
        if np.shape(state) != (total,):
            raise ValueError(f"expected a state of {total} numbers for {self.contract.name}, got {np.shape(state)}")
        counts, seen, xpos, forces, physics = np.split(np.asarray(state, float), np.cumsum(sizes))
        mujoco.mj_setState(self.model, self.data, physics, _STATE)
        mujoco.mj_forward(self.model, self.data)
        mujoco.mj_setState(self.model, self.data, physics, _STATE)
        self.data.xpos.flat, self.data.cfrc_ext.flat = xpos, forces
        self._steps, self._return = int(counts[0]), float(counts[1])
        self._seen = seen.astype(np.float32)

    def close(self) -> None:
        """Free what Gymnasium holds."""
        self.inner.close()

    def _camera_id(self, camera: str) -> int:
        known = [self.model.camera(index).name for index in range(self.model.ncam)]
        if camera == AGENTVIEW and known:
            return 0
        if camera not in known:
            raise SpecError(f"no camera {camera!r} in {self.specification['task']}; there are: {', '.join(known)}")
        return known.index(camera)


def _gymnasium(name: str, arguments: Mapping[str, Any]) -> Any:
    return gymnasium.make(name, disable_env_checker=True, **arguments).unwrapped


@lru_cache(maxsize=32)
def _probe(task: str, arguments: str) -> Any:
    """An environment to ask for what its task decides."""
    name = task.removeprefix(PREFIX)
    try:
        env = _gymnasium(name, json.loads(arguments))
    except (gymnasium.error.Error, TypeError) as error:
        raise SpecError(f"task {task!r}: Gymnasium cannot make it: {error}") from error
    boxes = isinstance(env.observation_space, gymnasium.spaces.Box), isinstance(env.action_space, gymnasium.spaces.Box)
    if not (all(boxes) and isinstance(getattr(env, "model", None), mujoco.MjModel)):
        raise SpecError(f"task {task!r}: expected one of MuJoCo with box spaces, such as gym/Hopper-v5")
    return env
