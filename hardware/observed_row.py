"""What a policy observed at a control tick, as a message on `policy/observation`: the record that imports go by.

A `sensor_msgs/msg/JointState`, so that every ROS tool can show it: its header's stamp is the tick, its names and
positions are the elements of the low-dimensional features (`joint_position.joint1`) and, as `<feature>/stamp`, the time
[s] of the sample that was used of each feature. Pictures stand there by their stamp alone; they are in the bag already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_rl.datasets import Contract
from robot_rl.datasets.contract import element_names
from robot_rl.hardware.ros2 import messages

TOPIC = "policy/observation"
TYPE = "sensor_msgs/msg/JointState"

_STAMP = "/stamp"


def encode_row(
    contract: Contract, time: float, observation: Mapping[str, np.ndarray], stamps: Mapping[str, float]
) -> Any:
    """The message of one row.

    Args:
        contract: of the policy.
        time: of the tick [s].
        observation: by feature, in the contract's shapes and dtypes.
        stamps: by feature [s].
    """
    names, values = [], list[np.ndarray]()
    for name, feature in contract.observation.items():
        if not feature.is_frame:
            names += element_names(feature)
            values.append(np.asarray(observation[name], float).reshape(-1))
    names += [name + _STAMP for name in stamps]
    values.append(np.array(list(stamps.values()), float))
    header = messages.make("std_msgs/msg/Header", stamp=messages.stamp(time))
    return messages.make(TYPE, header=header, name=names, position=np.concatenate(values))


def decode_row(contract: Contract, message: Any) -> tuple[float, dict[str, np.ndarray], dict[str, float]]:
    """Time of the tick [s], the low-dimensional features exactly as they were observed, and the stamps of all features.

    Raises:
        ValueError: the message does not hold a feature of the contract.
    """
    found = dict(zip(message.name, np.asarray(message.position, float).tolist(), strict=True))
    stamps = {name.removesuffix(_STAMP): value for name, value in found.items() if name.endswith(_STAMP)}
    observation = {}
    for name, feature in contract.observation.items():
        if feature.is_frame:
            continue
        missing = [element for element in element_names(feature) if element not in found]
        if missing:
            raise ValueError(f"{TOPIC}: expected {name} of contract {contract.name!r}, but {missing} are missing")
        row = [found[element] for element in element_names(feature)]
        observation[name] = np.array(row, feature.dtype).reshape(feature.shape)
    # A time in nanoseconds is not the float that it was made of: ticks are multiples of the period.
    time = round(messages.seconds(message.header.stamp) * contract.rate_hz) / contract.rate_hz
    return time, observation, stamps
