"""A small robot with two cameras and a depth camera, and episodes whose every value follows from their number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_rl.datasets import Contract, EpisodeStore, Feature, chunks

SIZE = 8


@pytest.fixture
def contract() -> Contract:
    return Contract(
        name="tiny",
        rate_hz=20.0,
        observation={
            "joint_position": Feature("joint_position", (2,), unit="rad"),
            "opening": Feature("opening", (1,), unit="m"),
            "contact": Feature("contact", (), dtype="bool"),
            "wrist": Feature("wrist", (SIZE, SIZE, 3), dtype="uint8", kind="image"),
            "range": Feature("range", (SIZE, SIZE, 1), dtype="uint16", kind="depth"),
        },
        action={
            "joint_position": Feature("joint_position", (2,), kind="action"),
            "gripper": Feature("gripper", (1,), kind="action"),
        },
        controller="servo_joint_position",
    )


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that a few episodes fill many of them."""
    monkeypatch.setattr(chunks, "ROW_CHUNK_BYTES", 64)
    monkeypatch.setattr(chunks, "FRAME_CHUNK_BYTES", 512)


def observation_at(episode: int, step: int) -> dict[str, Any]:
    draw = np.random.default_rng((episode, step))
    return {
        "joint_position": draw.normal(size=2).astype(np.float32),
        "opening": draw.uniform(0.0, 0.08, 1).astype(np.float32),
        "contact": np.bool_(step % 2),
        "wrist": draw.integers(0, 255, (SIZE, SIZE, 3), np.uint8),
        "range": draw.integers(0, 65535, (SIZE, SIZE, 1), np.uint16),
    }


def action_at(episode: int, step: int) -> np.ndarray:
    return np.array([episode, step, 1.0], np.float32)


@pytest.fixture
def record() -> Callable[..., None]:
    def record(writer: Any, number: int, steps: int = 3, success: bool = True, **facts: Any) -> None:
        with writer.episode(task="lift", source="expert", seed=number) as episode:
            for step in range(steps):
                episode.add(observation_at(number, step), action_at(number, step), reward=float(step))
            episode.finish(observation_at(number, steps), success=success, **facts)

    return record


@pytest.fixture
def same() -> Callable[..., None]:
    """Demand that an episode of a lossless store holds what `record` wrote."""

    def same(episode: Any, number: int, steps: int = 3) -> None:
        assert episode.length == steps
        for name in episode.store.contract.observation:
            expected = np.stack([observation_at(number, step)[name] for step in range(steps + 1)])
            np.testing.assert_array_equal(episode.observation[name], expected, err_msg=name)
        np.testing.assert_array_equal(episode.action, [action_at(number, step) for step in range(steps)])
        np.testing.assert_array_equal(episode.reward, np.arange(steps))

    return same


@pytest.fixture
def store(tmp_path: Path, contract: Contract, record: Callable[..., None]) -> EpisodeStore:
    """Three episodes of 3, 4 and 5 steps; the second failed."""
    store = EpisodeStore.create(tmp_path / "tiny.zarr", contract, encoding="png")
    with EpisodeStore.append(store.path, contract) as writer:
        for number in range(3):
            record(writer, number, steps=3 + number, success=number != 1)
    store.refresh()
    return store
