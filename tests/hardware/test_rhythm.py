"""What is awaited at a control tick."""

import numpy as np
import pytest

from robot_rl.hardware.rhythm import Rhythm


class Streams:
    """Two streams, each of which has come so far."""

    def __init__(self) -> None:
        self.health = {"fast": None, "slow": None}
        self.came: dict[str, float] = {}

    def newest(self, feature: str) -> tuple[float, np.ndarray] | None:
        return (self.came[feature], np.zeros(1)) if feature in self.came else None


@pytest.fixture
def streams() -> Streams:
    return Streams()


def came(rhythm: Rhythm, streams: Streams, **times: float) -> None:
    streams.came |= times
    rhythm.listen()


def test_a_sample_is_awaited_that_belongs_to_the_tick_by_the_interval_before(streams: Streams) -> None:
    rhythm = Rhythm(streams)
    assert rhythm.awaited(0.0) == []
    came(rhythm, streams, fast=0.0, slow=0.0)
    assert rhythm.awaited(0.05) == []  # one sample has no rhythm
    came(rhythm, streams, fast=0.01, slow=0.1)
    assert rhythm.awaited(0.02) == ["fast"]
    came(rhythm, streams, fast=0.02)
    assert rhythm.awaited(0.02) == []


def test_who_fell_silent_or_whose_clock_went_back_is_not_awaited(streams: Streams) -> None:
    rhythm = Rhythm(streams)
    came(rhythm, streams, fast=0.0)
    came(rhythm, streams, fast=0.01)
    assert rhythm.awaited(0.049) == ["fast"]
    assert rhythm.awaited(0.06) == []
    came(rhythm, streams, fast=0.005)
    assert rhythm.awaited(0.02) == []
