"""A policy's observation survives its message bit by bit."""

import numpy as np
import pytest

from robot_rl.datasets import Contract
from robot_rl.datasets.contract import Feature
from robot_rl.hardware.observed_row import decode_row, encode_row
from robot_rl.hardware.ros2 import messages

CONTRACT = Contract(
    "test",
    30,
    {
        "joint_position": Feature("joint_position", (2,), names=("a", "b")),
        "rotation": Feature("rotation", (3, 2), dtype="float64"),
        "wrist": Feature("wrist", (4, 4, 3), dtype="uint8", kind="image"),
    },
    {"joint_position": Feature("joint_position", (2,), kind="action")},
)


def test_every_bit_arrives() -> None:
    rng = np.random.default_rng(0)
    for tick in (1, 7, 51_234_567_891):
        observation = {
            "joint_position": rng.normal(size=2).astype(np.float32),
            "rotation": rng.normal(size=(3, 2)),
            "wrist": np.zeros((4, 4, 3), np.uint8),
        }
        stamps = {"joint_position": tick / 30 - 0.00123, "rotation": tick / 30, "wrist": tick / 30 - 1 / 3}
        message = encode_row(CONTRACT, tick / 30, observation, stamps)
        again = messages.decode(messages.encode(message), "sensor_msgs/msg/JointState")
        time, found, found_stamps = decode_row(CONTRACT, again)
        assert time == tick / 30
        assert found_stamps == stamps
        assert set(found) == {"joint_position", "rotation"}
        for name, value in found.items():
            assert value.dtype == observation[name].dtype
            np.testing.assert_array_equal(value, observation[name])
    assert message.name[:2] == ["joint_position.a", "joint_position.b"]


def test_another_contract_is_refused() -> None:
    message = messages.make("sensor_msgs/msg/JointState", name=["joint_position.a"], position=[0.0])
    with pytest.raises(ValueError, match=r"\['joint_position.b'\] are missing"):
        decode_row(CONTRACT, message)
