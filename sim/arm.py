"""Arm tasks as a Gymnasium environment that carries a contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np

from robot_rl.datasets.contract import Contract
from robot_rl.sim.arm_model import PHYSICS_PERIOD, load_arm_model
from robot_rl.sim.arm_observation import ArmObservation
from robot_rl.sim.controllers import make_controller, substeps
from robot_rl.sim.disturbance import Disturbance
from robot_rl.sim.domain_randomization import Randomizer
from robot_rl.sim.rotation import quaternion_to_6d
from robot_rl.sim.spaces import ActionError, action_space, observation_space
from robot_rl.sim.spec import SpecError, load, resolve
from robot_rl.sim.stepper import physics_of, refresh

_STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS | mujoco.mjtState.mjSTATE_CTRL | mujoco.mjtState.mjSTATE_WARMSTART


class ArmEnv(gymnasium.Env):
    """One robosuite task with its robots, observed and commanded under a contract.

    Every episode is decided by the seed given to `reset` alone.
    `terminated` is success, unless `ends_at_success` is false. `truncated` is the end of the horizon, or a simulation
    that diverged (`info["diverged"]`).

    Args:
        spec: task name or mapping, see `robot_rl.sim.spec.resolve`.

    Attributes:
        specification: resolved, plain JSON types.
        contract: of observation and action.
        model, data: MuJoCo's; whoever changes them calls `refresh` afterwards.
        looking: whether `step` takes new pictures; while it is False, their place is held by earlier ones.

    Raises:
        SpecError: task, robot, controller, camera or observation is unknown; the message lists what exists.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, spec: str | Mapping[str, Any]) -> None:
        self.specification: dict[str, Any] = resolve(spec)
        rate_hz = float(self.specification["rate_hz"])
        substeps(rate_hz)
        self.task = load("task", self.specification["task"])
        config = load("controller", self.specification["controller"])
        self.arm_model = load_arm_model(self.task, self.specification["robot"], rate_hz)
        self.model, self.data = self.arm_model.model, self.arm_model.data
        self.controller = make_controller(self.arm_model, config, rate_hz, self.specification["stepper"])
        self._physics = physics_of(self.model, self.data)
        self._observation = ArmObservation(
            self.arm_model, self.specification["cameras"], self.specification["render_quality"]
        )
        robots = "_".join(dict.fromkeys(arm.robot for arm in self.arm_model.arms))
        contract = Contract(
            f"{self.task['name']}_{robots}_{config['name']}", rate_hz, self._observation.features,
            {feature.name: feature for feature in self.controller.features}, config["id"],
        )  # fmt: skip
        if self.specification["observation"] is not None:
            wanted = [*self.specification["observation"], *self.specification["cameras"]]
            if missing := sorted(set(wanted) - set(contract.observation)):
                raise SpecError(
                    f"no such observation: {', '.join(missing)}; there are: {', '.join(contract.observation)}"
                )
            contract = contract.select(wanted)
        self.contract = contract
        self._observation.select(contract.observation)
        self._action_dim = contract.action_dim
        self._period = 1.0 / rate_hz
        self._horizon = int(self.specification["horizon"])
        self.looking = True
        self._steps = 0
        self._randomizer: Randomizer | None = None
        if self.specification["randomization"] is not None:
            variation = load("randomization", self.specification["randomization"])
            bases = [arm.base for arm in self.arm_model.arms]
            objects = self.arm_model.object_bodies
            self._randomizer = Randomizer(self.data, variation, objects, bases, self.controller)
            self._disturbance = Disturbance(variation, contract)
        self.observation_space = observation_space(contract)
        self.action_space = action_space(contract)
        self.reset(seed=0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin the episode of a seed (default: one that follows from the last seed given). `info["seed"]` names it.

        With randomisation, `info["randomization"]` holds the numbers drawn; given again as `options["randomization"]`,
        they are used instead of drawing.
        """
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self._steps = 0
        info: dict[str, Any] = {"seed": seed, "success": False}
        if self._randomizer is None:
            self.arm_model.reset(seed)
            refresh(self._physics)
            self.controller.reset()
            return self._observation.read(), info
        record = (options or {}).get("randomization")
        if record is None:
            generator = np.random.default_rng([seed, 1])
            record = {**self._randomizer.draw(generator), **self._disturbance.draw(generator)}
        self._randomizer.apply(record)
        self._observation.show_textures(self._randomizer.textures)
        self.arm_model.reset(seed)
        self._randomizer.place(record)
        refresh(self._physics)
        self.controller.reset()
        observation = self._observation.read()
        self._disturbance.begin(record, self.rest_action(), observation)
        return self._disturbance.observe(observation), {**info, "randomization": record}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Execute an action [A] for one control period. The reward is 1 on success, else 0.

        Raises:
            ActionError: the action has the wrong shape or is not finite.
        """
        action = np.asarray(action, float)
        if action.shape != (self._action_dim,) or not np.isfinite(action).all():
            names = ", ".join(f"{name} {list(feature.shape)}" for name, feature in self.contract.action.items())
            raise ActionError(f"expected {self._action_dim} finite numbers ({names}), got {action.tolist()}")
        if self._randomizer is not None:
            action = self._disturbance.act(action)
        before = self.data.time
        self.controller.step(action)
        self._steps += 1
        success = self.arm_model.success()
        # MuJoCo resets a state that is no longer finite, and with it the time.
        diverged = self.data.time < before + self._period - 0.5 * PHYSICS_PERIOD
        info: dict[str, Any] = {"success": success}
        if diverged:
            info["diverged"] = True
        late = self._randomizer is not None and self._disturbance.delays_pictures
        observation = self._observation.read(self.looking or late)
        if self._randomizer is not None:
            observation = self._disturbance.advance(observation)
        terminated = success and self.specification["ends_at_success"]
        return observation, float(success), terminated, diverged or self._steps >= self._horizon, info

    @property
    def success(self) -> bool:
        """Whether the task is done in the present state."""
        return self.arm_model.success()

    @property
    def time(self) -> float:
        """Simulated time since the reset [s]."""
        return float(self.data.time)

    def observe(self) -> dict[str, np.ndarray]:
        """The observation of the present state, with the delay and noise of the episode."""
        observation = self._observation.read()
        return observation if self._randomizer is None else self._disturbance.observe(observation)

    def state(self) -> dict[str, np.ndarray]:
        """All low-dimensional features of the present state, in the contract or not, float64 and undisturbed."""
        return self._observation.state()

    def rest_action(self) -> np.ndarray:
        """The action [A] that keeps the robots where they are now."""
        state = self._observation.state()
        parts = {}
        for name, feature in self.contract.action.items():
            if name not in state:
                parts[name] = np.zeros(feature.shape)
            elif feature.representation == "position_rotation_6d":
                parts[name] = np.concatenate([state[name][:3], quaternion_to_6d(state[name][3:])])
            else:
                parts[name] = state[name]
        return self.contract.join_action(parts)

    def object_poses(self) -> dict[str, np.ndarray]:
        """Pose [7] of each object and landmark, x y z m and quaternion wxyz, in the (first) base frame; float64."""
        return self._observation.object_poses()

    def image(self, camera: str, height: int, width: int) -> np.ndarray:
        """Picture of any camera of the scene, uint8 [height, width, 3] RGB.

        Raises:
            SpecError: there is no such camera.
        """
        return self._observation.image(camera, height, width)

    def set_camera_pose(self, camera: str, pose: np.ndarray) -> None:
        """Move a camera for all pictures to come; a randomised pose is drawn around this one from the next reset on.

        Args:
            pose: [7], x y z m and quaternion wxyz of a camera that looks along its -z axis with y up; in the base frame
                for a camera that stands in the scene, in the frame of the link that carries it for any other.
        """
        index = self._observation.set_camera_pose(camera, np.asarray(pose, float))
        if self._randomizer is not None:
            self._randomizer.settle("camera_pose", index)
        self.refresh()

    def refresh(self) -> None:
        """Bring poses and contacts up to date after a change of `model` or `data` from outside."""
        refresh(self._physics)

    def get_state(self) -> np.ndarray:
        """Everything that decides the future, float64 [S]; `set_state` continues from it bit by bit."""
        physics = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, physics, _STATE)
        moved = self.arm_model.moved_bodies
        fixtures = (self.model.body_pos[moved].ravel(), self.model.body_quat[moved].ravel())
        disturbance = [] if self._randomizer is None else [self._disturbance.get_state()]
        return np.concatenate([[self._steps], physics, *fixtures, self.controller.get_state(), *disturbance])

    def set_state(self, state: np.ndarray) -> None:
        """Return to a state of `get_state` of an environment with the same specification.

        What was randomised at the reset is not part of the state: reset with the numbers of its episode first.

        Raises:
            ValueError: the state belongs to another specification.
        """
        state = np.array(state, float)
        expected = self.get_state().shape
        if state.shape != expected:
            raise ValueError(
                f"expected a state of shape {list(expected)} for {self.contract.name}, got {list(state.shape)}"
            )
        moved = self.arm_model.moved_bodies
        size, count = mujoco.mj_stateSize(self.model, _STATE), len(moved)
        parts = np.cumsum([1, size, 3 * count, 4 * count, len(self.controller.get_state())])
        steps, physics, positions, quaternions, controller, disturbance = np.split(state, parts)
        self._steps = int(steps[0])
        self.model.body_pos[moved] = positions.reshape(count, 3)
        self.model.body_quat[moved] = quaternions.reshape(count, 4)
        mujoco.mj_setState(self.model, self.data, physics, _STATE)
        refresh(self._physics)
        self.controller.set_state(controller)
        if self._randomizer is not None:
            self._disturbance.set_state(disturbance, self._observation.read())

    def set_scene(self, state: np.ndarray) -> None:
        """Put robots and objects where they are in a state of an environment that may differ in its randomisation.

        Delays and noise stay those of this environment's episode, unless the state has as many numbers as its own.

        Raises:
            ValueError: the state belongs to another task, robot or controller.
        """
        own = self.get_state()
        shared = len(own) if self._randomizer is None else len(own) - len(self._disturbance.get_state())
        same = len(state) == len(own)
        self.set_state(state if same else np.concatenate([state[:shared], own[min(shared, len(state)) :]]))

    def set_joints(self, positions: np.ndarray) -> None:
        """Put the joints [dof] of the only arm somewhere [rad], at rest; objects stay where they are.

        Raises:
            ValueError: there are several arms, or they have another number of joints.
        """
        arms = self.arm_model.arms
        if len(arms) != 1 or len(positions) != len(arms[0].joints):
            raise ValueError(f"expected joints of one arm, got {len(positions)} for {self.contract.name}")
        self.data.qpos[self.model.jnt_qposadr[arms[0].joints]] = positions
        self.data.qvel[self.model.jnt_dofadr[arms[0].joints]] = 0.0
        refresh(self._physics)
        self.controller.reset()

    def positions(self, state: np.ndarray) -> np.ndarray:
        """Positions [nq] of all joints in a state of `get_state`: rad, m and quaternions."""
        # Behind the number of steps and the time.
        return np.asarray(state[2 : 2 + self.model.nq])

    def render(self) -> np.ndarray:
        """The view of `agentview`, uint8 [480, 640, 3]."""
        return self.image("agentview", 480, 640)

    def close(self) -> None:
        """Free rendering resources."""
        self._observation.close()
