"""LeRobotDataset v3.0: `read` makes a store of one, `write` one of a store."""

from robot_rl.datasets.formats.lerobot_reader import read
from robot_rl.datasets.formats.lerobot_writer import write

__all__ = ["read", "write"]
