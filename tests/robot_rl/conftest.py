"""A task without a simulator: a point in the unit square that walks straight to a goal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from robot_rl.datasets import Contract, EpisodeStore, Feature

MakeStore = Callable[..., Path]


def reach_contract(cameras: tuple[str, ...] = ()) -> Contract:
    """Position and goal [m] in, absolute target position out; optionally cameras of 12 x 12 pixels."""
    observation = {name: Feature(name, (2,), unit="m") for name in ("position", "goal")}
    observation |= {name: Feature(name, (12, 12, 3), dtype="uint8", kind="image") for name in cameras}
    action = {"target": Feature("target", (2,), kind="action", unit="m")}
    return Contract("reach", 10.0, observation, action, controller="point")


@pytest.fixture
def reach_store(tmp_path: Path) -> MakeStore:
    """`reach_store(name, episodes, …)` writes a store of straight walks and returns its path.

    `off` is by how much the actions miss what was intended.
    """

    def make(
        name: str = "reach", episodes: int = 12, failures: int = 0, cameras: tuple[str, ...] = (), seed: int = 0,
        off: float = 0.0,
    ) -> Path:  # fmt: skip
        path = tmp_path / f"{name}.zarr"
        generator = np.random.default_rng(seed)
        EpisodeStore.create(path, reach_contract(cameras), {}, encoding="raw")
        with EpisodeStore.append(path) as writer:
            for number in range(episodes + failures):
                start, goal = generator.uniform(size=(2, 2))
                steps = int(generator.integers(5, 9))
                walk = np.linspace(start, goal, steps + 1).astype(np.float32)
                with writer.episode(task="reach", source="expert", seed=number) as episode:
                    for row in range(steps):
                        seen, intended = _observation(walk[row], goal, cameras), walk[row + 1]
                        episode.add(seen, intended + (-1) ** row * np.float32(off), policy_action=intended)
                    episode.finish(_observation(walk[steps], goal, cameras), success=number < episodes)
        return path

    return make


class ReachEnv(gymnasium.Env):
    """The point goes half of the way to its target; success within 5 cm of the goal, never from seeds that end in 7."""

    horizon = 30

    def __init__(self, spec: Any = None) -> None:
        self.specification = spec
        self.contract = reach_contract()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.position, self.goal = np.random.default_rng(seed).uniform(size=(2, 2))
        self.stuck, self.steps = seed is not None and seed % 10 == 7, 0
        return _observation(self.position.astype(np.float32), self.goal, ()), {"seed": seed}

    def step(self, action: np.ndarray) -> Any:
        if not self.stuck:
            self.position = (self.position + np.asarray(action, float)) / 2
        self.steps += 1
        success = bool(np.abs(self.position - self.goal).max() < 0.05)
        observation = _observation(self.position.astype(np.float32), self.goal, ())
        return observation, -1.0, success, self.steps >= self.horizon, {"success": success}

    def rest_action(self) -> np.ndarray:
        return self.position.astype(np.float32)

    def observe(self) -> dict[str, np.ndarray]:
        return _observation(self.position.astype(np.float32), self.goal, ())

    def get_state(self) -> np.ndarray:
        return np.array([*self.position, self.steps], float)

    def set_state(self, state: np.ndarray) -> None:
        self.position, self.steps = np.array(state[:2]), int(state[2])

    def image(self, camera: str, height: int, width: int) -> np.ndarray:
        picture = np.full((height, width, 3), 40, np.uint8)
        for point, colour in ((self.goal, (240, 190, 60)), (self.position, (90, 160, 250))):
            y, x = (int(share * (length - 1)) for share, length in zip(point.clip(0, 1), (height, width), strict=True))
            picture[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4] = colour
        return picture


@pytest.fixture
def reach_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """`robot_rl.sim` makes `ReachEnv`, whatever is asked for, in this process."""
    from robot_rl.sim.vector import VectorEnv

    factory = f"{__name__}:ReachEnv"
    monkeypatch.setattr("robot_rl.sim.make", ReachEnv)
    monkeypatch.setattr("robot_rl.sim.make_vector", lambda spec, n, processes: VectorEnv(spec, n, 0, factory))
    monkeypatch.setattr("robot_rl.sim.spec.resolve", lambda spec: {"horizon": 30, "rate_hz": 10, **spec})


def _observation(position: np.ndarray, goal: np.ndarray, cameras: tuple[str, ...]) -> dict[str, np.ndarray]:
    observation = {"position": position, "goal": goal.astype(np.float32)}
    for camera in cameras:
        image = np.zeros((12, 12, 3), np.uint8)
        for channel, point in enumerate((position, goal)):
            row, column = np.clip((np.asarray(point) * 12).astype(int), 0, 11)
            image[row, column, channel] = 255
        observation[camera] = image
    return observation
