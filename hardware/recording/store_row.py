"""A row of an episode store as a message on `store/row`: what a bag made of a store is restored from, exactly.

The streams' own messages beside it are what robots publish; their stamps are whole nanoseconds, and there is none for
rewards, simulator states or what a policy wished. So each row stands here once more, as a `sensor_msgs/msg/JointState`
that every ROS tool can show: names, and as positions every number of the row. The header's stamp is the row's time in
the bag. Pictures are named by the stamps of their own messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from robot_rl.datasets.contract import element_names
from robot_rl.datasets.layout import CONTROL, Layout
from robot_rl.hardware.ros2 import messages

TOPIC = "/store/row"
TYPE = "sensor_msgs/msg/JointState"


class StoreRow:
    """Names and order of the numbers in the rows of one store.

    Args:
        layout: of the store.

    Attributes:
        names: of the message.
        slices: where each array of the row stands: observation features, `stamp/<stream>`, `picture/<camera>` (seconds
            and nanoseconds in the header of its message), `action`, `policy_action`, `sim_state`, and the scalars `row`
            (in its episode), `reward`, `terminated`, `truncated`, `intervened`.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.names: list[str] = []
        self.slices: dict[str, slice] = {}
        for key, names in self._parts():
            self.slices[key] = slice(len(self.names), len(self.names) + len(names))
            self.names += names

    def encode(self, time: Any, row: Mapping[str, Any]) -> Any:
        """The message of a row.

        Args:
            time: of the header.
            row: one entry for each of `slices`.
        """
        values = np.empty(len(self.names))
        for key, where in self.slices.items():
            values[where] = np.reshape(row[key], -1)
        header = messages.make("std_msgs/msg/Header", stamp=time)
        return messages.make(TYPE, header=header, name=self.names, position=values)

    def decode(self, message: Any) -> np.ndarray:
        """The numbers of a row, float64 [n], in the order of `names`.

        Raises:
            ValueError: it is the row of another store.
        """
        if list(message.name) != self.names:
            raise ValueError(f"{TOPIC}: expected {len(self.names)} numbers of {self.layout.contract.name!r}, "
                             f"got {len(message.name)} others")  # fmt: skip
        return np.asarray(message.position, float)

    def _parts(self) -> Iterator[tuple[str, list[str]]]:
        contract = self.layout.contract
        for scalar in ("row", "reward", "terminated", "truncated", "intervened"):
            yield scalar, [scalar]
        for name in self.layout.lowdim:
            yield name, element_names(contract.observation[name])
        for name in (CONTROL, *self.layout.streams, *contract.cameras):
            yield f"stamp/{name}", [f"stamp/{name}"]
        for name in contract.cameras:
            yield f"picture/{name}", [f"picture/{name}/sec", f"picture/{name}/nanosec"]
        for name in ("action", "policy_action"):
            yield name, [f"{name}/{element}" for element in contract.action_names]
        yield "sim_state", [f"sim_state/{number}" for number in range(self.layout.sim_state_size)]
