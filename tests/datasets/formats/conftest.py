"""A store that uses everything the format has, and a comparison of stores episode by episode."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robot_rl.datasets import Contract, EpisodeStore, Feature

SIZE = 16
LENGTHS = (5, 9, 3)


def watermark(episode: int, step: int) -> np.ndarray:
    """A picture whose 8 x 8 blocks spell its episode and step, so that they survive a lossy codec."""
    bits = [(episode >> bit) & 1 for bit in range(4)] + [(step >> bit) & 1 for bit in range(12)]
    grid = np.array(bits, np.uint8).reshape(4, 4) * 200 + 25
    return np.repeat(np.repeat(grid, SIZE // 4, 0), SIZE // 4, 1)[..., None].repeat(3, 2)


def identity(picture: np.ndarray) -> tuple[int, int]:
    """Episode and step that a picture spells."""
    grid = picture.reshape(4, SIZE // 4, 4, SIZE // 4, 3).mean(axis=(1, 3, 4))
    bits = (grid.reshape(-1) > 125).astype(int)
    return sum(int(b) << i for i, b in enumerate(bits[:4])), sum(int(b) << i for i, b in enumerate(bits[4:]))


@pytest.fixture
def contract() -> Contract:
    return Contract(
        "tiny",
        20.0,
        {
            "joint_position": Feature("joint_position", (2,), unit="rad", names=("a", "b")),
            "opening": Feature("opening", (1,), unit="m"),
            "contact": Feature("contact", (), dtype="bool"),
            "counter": Feature("counter", (1,), dtype="int64", role="diagnostic"),
            "top": Feature("top", (SIZE, SIZE, 3), dtype="uint8", kind="image"),
        },
        {
            "joint_position": Feature("joint_position", (2,), kind="action"),
            "gripper": Feature("gripper", (1,), kind="action"),
        },
        controller="servo_joint_position",
    )


@pytest.fixture
def store(tmp_path: Path, contract: Contract) -> EpisodeStore:
    store = EpisodeStore.create(
        tmp_path / "tiny.zarr", contract, encoding="png", sim_state_size=3, streams=("joint_states",)
    )
    with EpisodeStore.append(store.path) as writer:
        for number, steps in enumerate(LENGTHS):
            draw = np.random.default_rng(number)
            with writer.episode(task=f"task {number % 2}", source="expert", seed=number, text="lift it") as episode:
                for step in range(steps + 1):
                    observation = {
                        "joint_position": draw.normal(size=2).astype(np.float32),
                        "opening": draw.uniform(0, 0.08, 1).astype(np.float32),
                        "contact": np.bool_(step % 2),
                        "counter": np.array([2**40 + step]),
                        "top": watermark(number, step),
                    }
                    extra = {
                        "sim_state": draw.normal(size=3),
                        "stamps": {"control": 0.05 * step + 1e-4 * draw.random(), "joint_states": 7.0 + step / 3},
                    }
                    if step == steps:
                        episode.finish(observation, success=number != 1, tags=["x"], **extra)
                    else:
                        episode.add(
                            observation, draw.normal(size=3), reward=float(step == steps - 1),
                            terminated=step == steps - 1 and number == 0, truncated=step == steps - 1 and number == 1,
                            policy_action=draw.normal(size=3) if step % 3 else None, intervened=step % 3 == 1, **extra,
                        )  # fmt: skip
    store.refresh()
    return store


@pytest.fixture
def same() -> Callable[..., None]:
    def same(ours: EpisodeStore, theirs: EpisodeStore, but: tuple[str, ...] = ()) -> None:
        assert ours.contract.to_dict() == theirs.contract.to_dict()
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            for name in theirs.contract.observation:
                if name not in but:
                    np.testing.assert_array_equal(one.observation[name], other.observation[name], name)
            for name in other.timestamp:
                np.testing.assert_array_equal(one.timestamp[name], other.timestamp[name], name)
            for name in ("action", "policy_action", "intervened", "reward", "terminated", "truncated", "sim_state"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
            assert one.facts == other.facts

    return same
